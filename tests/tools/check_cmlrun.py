"""cmlrun predict with pictures, as a user calls it: read, refused by size, resized. Expected values by hand. Speaks TAP."""
import os
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
model = os.path.join(source, 'tests', 'data', 'models', 'picture.mlpackage')  # RGB, 3 high, 7 wide; gives what it gets


def predict(*args):
    return subprocess.run([os.path.join(build, 'tools', 'cmlrun'), 'predict', model, *args], capture_output=True, text=True, timeout=60)


def picture(folder, name, width, height):
    """A ppm whose pixel (x, y) is (10 x + y, 100, 200 - y)."""
    path = os.path.join(folder, name)
    with open(path, 'wb') as f:
        f.write(b'P6 %d %d 255\n' % (width, height) + bytes(v for y in range(height) for x in range(width) for v in (10 * x + y, 100, 200 - y)))
    return 'x=' + path


def deep_png(folder, name, width, height):
    """The same pixels in a PNG of 16 bits."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    rows = b''.join(b'\0' + struct.pack(f'>{3 * width}H', *(257 * v for x in range(width) for v in (10 * x + y, 100, 200 - y))) for y in range(height))
    path = os.path.join(folder, name)
    with open(path, 'wb') as f:
        f.write(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, 2, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))
    return 'x=' + path


def values(run):
    return [float(v) for v in run.stdout.split(':')[-1].replace('...', '').split()] if run.returncode == 0 else run


with tempfile.TemporaryDirectory() as folder:
    r = values(predict('--input', picture(folder, 'a.ppm', 7, 3)))
    check('rows of red come first', r == [0, 10, 20, 30, 40, 50, 60, 1, 11, 21], r)
    r = values(predict('--input', deep_png(folder, 'a.png', 7, 3)))
    check('16 bits are as 8, only finer', r == [0, 10, 20, 30, 40, 50, 60, 1, 11, 21], r)
    r = predict('--input', picture(folder, 'b.ppm', 3, 7))
    check('a picture of another size is refused', r.returncode == 1 and 'height and width [3, 7]' in r.stderr and r.stderr.count('\n') == 1, r)
    # 14 wide to 7: pixel i lies between 2 i and 2 i + 1; 3 high stays
    r = values(predict('--resize', '--input', picture(folder, 'c.ppm', 14, 3)))
    check('--resize halves the width', r == [5, 25, 45, 65, 85, 105, 125, 6, 26, 46], r)
    # 6 high to 3: row i lies between 2 i and 2 i + 1, halves to even or up
    r = values(predict('--resize', '--input', picture(folder, 'd.ppm', 7, 6)))
    check('--resize halves the height', all(abs(a - b) <= 0.5 for a, b in zip(r, [0.5, 10.5, 20.5, 30.5, 40.5, 50.5, 60.5, 2.5, 12.5, 22.5])), r)
    r = predict('--input', 'x=' + os.path.join(folder, 'none.ppm'))
    check('a picture that is not there', r.returncode == 1 and 'none.ppm' in r.stderr, r)
    # what is written: in place of a regular file, through a link, into a pipe; never in place of a link or a pipe
    seven = picture(folder, 'e.ppm', 7, 3)
    target, link, pipe = (os.path.join(folder, n) for n in ('target.npz', 'link.npz', 'pipe'))
    with open(target, 'wb') as f:
        f.write(b'old')
    os.symlink(target, link)
    os.mkfifo(pipe)
    r = predict('--input', seven, '--output', link)
    check('a link stays a link, its file is written', r.returncode == 0 and os.path.islink(link) and zipfile.ZipFile(target).testzip() is None, r)
    reader = subprocess.Popen(['cat', pipe], stdout=subprocess.PIPE)
    r = predict('--input', seven, '--output', pipe)
    piped = reader.communicate(timeout=20)[0]
    with open(target, 'rb') as f:
        check('a pipe stays a pipe and gets the same bytes', r.returncode == 0 and stat.S_ISFIFO(os.stat(pipe).st_mode) and piped == f.read(), r)
    r = predict('--input', seven, '--output', folder)
    check('a folder is no output', r.returncode == 1 and os.path.isdir(folder) and folder in r.stderr, r)
    state = os.path.join(folder, 'none.npz')
    with zipfile.ZipFile(state, 'w') as z:
        z.writestr('other.npy', zipfile.ZipFile(target).read(zipfile.ZipFile(target).namelist()[0]))
    before = os.stat(state).st_mtime_ns
    r = predict('--input', seven, '--state', state)
    check('a file of other arrays is no state and stays', r.returncode == 1 and "'other' is no state" in r.stderr and os.stat(state).st_mtime_ns == before, r)
    r = predict()
    check('no picture', r.returncode == 2 and "input 'x' was not given" in r.stderr, r)
finish()
