"""Every command takes an archive that holds a thing as it takes the thing: .tar, .tar.gz, .tar.xz, .tar.zst and .zip, the thing at
the top or within folders. What cmlpack lists, cats, extracts and verifies, what cmlrun describes and predicts and what cmlfs
mounts is compared with what the same command does with the bare file or folder. Speaks TAP."""
import filecmp
import math
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish, skip  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
data = os.path.join(source, 'tests', 'data')


def run(program, *args):
    r = subprocess.run([os.path.join(build, 'tools', program), *args], capture_output=True, timeout=100)
    return r.returncode, r.stdout, r.stderr


def same_tree(a, b):
    """Byte for byte, names and kinds included."""
    if os.path.isfile(a):
        return os.path.isfile(b) and filecmp.cmp(a, b, shallow=False)
    return os.path.isdir(b) and sorted(os.listdir(a)) == sorted(os.listdir(b)) and all(
        same_tree(os.path.join(a, n), os.path.join(b, n)) for n in os.listdir(a))


def tar(mode):
    def make(path, things, within):
        with tarfile.open(path, mode) as t:
            for thing in things:
                t.add(thing, os.path.join(within, os.path.basename(thing)))
    return make


def tar_zstd(path, things, within):
    tar('w')(path + '.plain', things, within)
    subprocess.run(['zstd', '-q', path + '.plain', '-o', path], check=True)


def zipped(path, things, within):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for thing in things:
            files = [thing] if os.path.isfile(thing) else [os.path.join(d, f) for d, _, names in os.walk(thing) for f in names]
            for f in files:
                z.write(f, os.path.join(within, os.path.basename(thing), os.path.relpath(f, thing)) if f != thing
                        else os.path.join(within, os.path.basename(thing)))


MAKERS = [('tar', tar('w'), ''), ('tar.gz', tar('w:gz'), 'some/folder'), ('tar.xz', tar('w:xz'), ''), ('zip', zipped, ''),
          ('zip', zipped, 'some/folder')]
if shutil.which('zstd'):
    MAKERS.append(('tar.zst', tar_zstd, './folder'))


def compare(name, thing, archive, predict):
    """thing: the bare path; predict: further arguments, or None where it holds nothing that runs."""
    code, listing, _ = run('cmlpack', 'ls', '-R', thing)
    same = run('cmlpack', 'ls', '-R', archive)[:2] == (code, listing)
    paths = [p for p in listing.decode().splitlines() if not p.endswith('/')]
    cats = all(run('cmlpack', 'cat', thing, p) == run('cmlpack', 'cat', archive, p) for p in paths[:40])
    check(f'{name}: ls and cat', code == 0 and len(paths) > 0 and same and cats, (same, cats))
    with tempfile.TemporaryDirectory() as d:
        codes = [run('cmlpack', 'extract', what, os.path.join(d, n))[0] for n, what in (('a', thing), ('b', archive))]
        check(f'{name}: extract', codes == [0, 0] and same_tree(os.path.join(d, 'a'), os.path.join(d, 'b')), codes)
        bare, packed = run('cmlpack', 'verify', thing), run('cmlpack', 'verify', archive)
        check(f'{name}: verify', bare[0] == packed[0] and bare[1].replace(thing.encode(), archive.encode()) == packed[1], (bare, packed))
        if predict is None:
            return
        bare, packed = run('cmlrun', 'describe', thing), run('cmlrun', 'describe', archive)
        check(f'{name}: describe', bare[:2] == packed[:2], (bare, packed))
        outs = []
        for n, what in (('a.npz', thing), ('b.npz', archive)):
            out = os.path.join(d, n)
            args = ['--output', out] if predict[-1].endswith('.npz') else []
            r = run('cmlrun', 'predict', what, *predict, *args)
            outs.append((r[0], r[1], r[0] == 0 and args and open(out, 'rb').read()))
        check(f'{name}: predict', outs[0][0] == 0 and outs[0] == outs[1], r)


def mounted(thing, archive):
    with tempfile.TemporaryDirectory() as d:
        at, out = os.path.join(d, 'm'), os.path.join(d, 'bare')
        code, _, words = run('cmlfs', 'mount', archive, at)
        if code:
            check('mount', False, words)
            return
        try:
            run('cmlpack', 'extract', thing, out)
            check('mount: the tree of the bare file', same_tree(out, at))
        finally:
            run('cmlfs', 'umount', at)


def here(*path):
    return os.path.join(data, *path)


def write_floats(path, name, shape):
    """An .npz of one float32 array that counts up from -3."""
    values = [i - 3.0 for i in range(math.prod(shape))]
    head = str({'descr': '<f4', 'fortran_order': False, 'shape': shape}).encode()
    head += b' ' * (-(len(head) + 11) % 64) + b'\n'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr(name + '.npy', b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head + struct.pack(f'<{len(values)}f', *values))


def main():
    with tempfile.TemporaryDirectory() as d:
        compiled, program, model = (os.path.join(d, n) for n in ('text.mlmodelc', 'abs.pte', 'tanh.mlmodel'))
        os.mkdir(compiled)
        shutil.copy(here('fuzz', 'mil_text', 'basic'), os.path.join(compiled, 'model.mil'))
        shutil.copy(here('fuzz', 'pte', 'op_abs_f.pte'), program)
        shutil.copy(here('fuzz', 'run', '0530'), model)
        numbers, x = os.path.join(d, 'in.npz'), os.path.join(d, 'x.npz')
        write_floats(numbers, 'input_0', (2, 5))
        write_floats(x, 'x', (2, 3))
        image = here('digits', 'images', sorted(os.listdir(here('digits', 'images')))[0])
        things = [(here('digits', 'digits.pte'), ['--input', here('digits', 'inputs.npz')]),
                  (here('digits', 'digits-classifier.mlpackage'), ['--input', 'image=' + image]),
                  (here('fuzz', 'bpte', 'bundled.bpte'), None), (here('flat', 'wheel.bin'), None), (compiled, None),
                  (program, ['--input', numbers]), (model, ['--input', x])]
        for thing, predict in things:
            for suffix, make, within in MAKERS:
                archive = os.path.join(tempfile.mkdtemp(dir=d), 'archive.' + suffix)
                make(archive, [thing], within)
                compare(f'{os.path.basename(thing)} in {within or "a"} {suffix}', thing, archive, predict)
        archive = os.path.join(d, 'bundle.tar.gz')
        tar('w:gz')(archive, [here('fuzz', 'bpte', 'bundled.bpte')], 'x')
        bare, packed = run('cmlrun', 'verify', here('fuzz', 'bpte', 'bundled.bpte')), run('cmlrun', 'verify', archive)
        check('cmlrun verify of a bundled program in an archive', bare[0] == 0 and bare[1] == packed[1], (bare, packed))
        if os.path.exists('/dev/fuse') and os.path.exists(os.path.join(build, 'tools', 'cmlfs')):
            for thing in (here('digits', 'digits.pte'), model):
                tar('w:gz')(archive, [thing], 'x')
                mounted(thing, archive)
        else:
            skip('mount', 'there is no /dev/fuse, or no cmlfs, here')


main()
finish()
