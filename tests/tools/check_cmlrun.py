"""cmlrun predict with pictures, as a user calls it: read, refused by size, resized. Expected values by hand. Speaks TAP."""
import os
import subprocess
import sys
import tempfile

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


def values(run):
    return [float(v) for v in run.stdout.split(':')[-1].replace('...', '').split()] if run.returncode == 0 else run


with tempfile.TemporaryDirectory() as folder:
    r = values(predict('--input', picture(folder, 'a.ppm', 7, 3)))
    check('rows of red come first', r == [0, 10, 20, 30, 40, 50, 60, 1, 11, 21], r)
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
    r = predict()
    check('no picture', r.returncode == 2 and "input 'x' was not given" in r.stderr, r)
finish()
