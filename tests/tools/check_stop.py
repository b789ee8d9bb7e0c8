"""cmlrun that is stopped, and cmlrun that may not have the memory it wants: within a second, in one line, with the exit code that
shells expect, and nothing half-written. Speaks TAP.

The Core ML model loops as long as its input is positive. pt_map.pte maps over its input's rows; its jump back, which is taken until the
last row, is changed to jump to the comparison just before it."""
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from npz import write_npz  # noqa: E402
from tap import check, finish  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
cmlrun = os.path.join(build, 'tools', 'cmlrun')
data = os.path.join(source, 'tests', 'data')
HEAD = 'program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"a", "b"}})]\n{\n'
LOOP = HEAD + '''  func main<ios16>(tensor<fp32, [1]> go) {
    tensor<fp32, [1]> r = while_loop(loop_vars = (go)) (tensor<fp32, [1]> a) {
        tensor<fp32, [1]> zero = const()[name = tensor<string, []>("zero"), val = tensor<fp32, [1]>([0x0p+0])];
        tensor<bool, [1]> more = greater(x = a, y = zero)[name = tensor<string, []>("more")];
      } -> (more) (tensor<fp32, [1]> b) {
        tensor<fp32, [1]> c = relu(x = b)[name = tensor<string, []>("c")];
      } -> (c)[name = tensor<string, []>("r")];
  } -> (r);
}
'''
TILES = 1 << 18  # times 4 floats: 4 MiB
TILE = HEAD + f'''  func main<ios16>(tensor<fp32, [4]> x) {{
    tensor<int32, [1]> n = const()[name = tensor<string, []>("n"), val = tensor<int32, [1]>([{TILES}])];
    tensor<fp32, [{TILES * 4}]> r = tile(x = x, reps = n)[name = tensor<string, []>("r")];
  }} -> (r);
}}
'''


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(content if isinstance(content, bytes) else content.encode())
    return path


def run(*args):
    return subprocess.run([cmlrun, *args], capture_output=True, text=True, timeout=60)


def readable(path):
    try:
        return zipfile.ZipFile(path).testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def stopped(name, folder, args, number, ready):
    """Sends the signal when ready() says so. What is in the folder afterwards must be what was there then."""
    process = subprocess.Popen([cmlrun, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    before = {f: os.stat(os.path.join(folder, f)).st_mtime_ns for f in os.listdir(folder)}
    begin = time.monotonic()
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    took = time.monotonic() - begin
    found = (process.returncode, took, out, err)
    check(f'{name}: ends within a second', took < 1, found)
    check(f'{name}: exit code {128 + number}', process.returncode == 128 + number, found)
    check(f'{name}: one line says so', err.count('\n') == 1 and 'stopped' in err, found)
    check(f'{name}: nothing half-written', {f: os.stat(os.path.join(folder, f)).st_mtime_ns for f in os.listdir(folder)} == before, os.listdir(folder))


def running():
    begin = time.monotonic()
    return lambda: time.monotonic() - begin > 0.5


def stops(folder, work):
    loop = os.path.dirname(write(os.path.join(work, 'loop.mlmodelc', 'model.mil'), LOOP))
    ends, goes_on = (write_npz(os.path.join(work, n), go=[v]) for n, v in (('ends.npz', 0.0), ('goes-on.npz', 1.0)))
    first, second = (os.path.join(folder, f'out_{i}.npz') for i in range(2))
    write(second, b'as it was')
    steps = ('predict', loop, '--input', ends, '--input', goes_on, '--output', os.path.join(folder, 'out_{step}.npz'), '--state', os.path.join(folder, 's.npz'))
    stopped('Ctrl-C in the second step', folder, steps, signal.SIGINT, lambda: os.path.exists(first))
    check('the first step is written', readable(first))
    with open(second, 'rb') as f:
        check("the second step's file is as it was", f.read() == b'as it was')
    os.remove(first)
    stopped('SIGTERM in the second step', folder, steps, signal.SIGTERM, lambda: os.path.exists(first))
    stopped('Ctrl-C on two threads', folder, ('predict', loop, '--threads', '2', '--input', goes_on, '--output', second), signal.SIGINT, running())
    with open(os.path.join(data, 'fuzz', 'pte', 'pt_map.pte'), 'rb') as f:
        program = f.read()
    jump, back = struct.pack('<II', 1, 12), struct.pack('<II', 6, 12)
    check('there is one jump to change', program.count(jump) == 1)
    endless = write(os.path.join(work, 'endless.pte'), program.replace(jump, back))
    inputs = write_npz(os.path.join(work, 'map.npz'), input_0=[[[1.0, 2.0], [3.0, 4.0]]] * 3, input_1=[[1.0, 1.0], [1.0, 1.0]])
    check('the program ends as it was', run('predict', os.path.join(data, 'fuzz', 'pte', 'pt_map.pte'), '--input', inputs).returncode == 0)
    stopped('Ctrl-C in a program', folder, ('predict', endless, '--input', inputs, '--output', second), signal.SIGINT, running())
    stopped('Ctrl-C in bench', folder, ('bench', endless, '--input', inputs, '--seconds', '0.1'), signal.SIGINT, running())
    stopped('Ctrl-C in trace', folder, ('trace', loop, '--input', goes_on), signal.SIGINT, running())


def border(what, args, low, high):
    """The least that is enough, between the two."""
    lowest, highest = low, high
    while lowest < highest:
        middle = (lowest + highest) // 2
        if run(*args, '--max-memory', str(middle)).returncode == 0:
            highest = middle
        else:
            lowest = middle + 1
    return lowest


def limits(folder, work):
    tile = os.path.dirname(write(os.path.join(work, 'tile.mlmodelc', 'model.mil'), TILE))
    x = write_npz(os.path.join(work, 'x.npz'), x=[1.0, 2.0, 3.0, 4.0])
    log = os.path.join(data, 'et', 'log.pte')
    log_x = write_npz(os.path.join(work, 'log.npz'), input_0=[[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    for name, args, least, most in (('model', ('predict', tile, '--input', x), TILES * 16, TILES * 16 + (1 << 20)),
                                    ('program', ('predict', log, '--input', log_x), 8 * 4, 1 << 20)):
        n, out = border(name, args, 0, 1 << 24), os.path.join(folder, name + '.npz')
        check(f'{name}: what it may take has to hold what it computes', least <= n <= most, n)
        r = run(*args, '--output', out, '--max-memory', str(n - 1))
        check(f'{name}: a byte less is refused', r.returncode == 1 and str(n - 1) in r.stderr and r.stderr.count('\n') == 1, r)
        check(f'{name}: and nothing written', not os.path.exists(out))
        r = run(*args, '--output', out, '--max-memory', str(n))
        check(f'{name}: what it needs is enough', r.returncode == 0 and readable(out), r)
    bundle = os.path.join(data, 'fuzz', 'bpte', 'bundled.bpte')
    for args in (('bench', tile, '--seconds', '0.01'), ('bench', log, '--input', log_x, '--seconds', '0.01'), ('trace', tile, '--input', x),
                 ('compare', tile, tile, '--input', x), ('verify', bundle)):
        refused, fine = run(*args, '--max-memory', '16'), run(*args, '--max-memory', str(1 << 26))
        check(f'{args[0]} takes --max-memory', refused.returncode == 1 and 'may take 16' in refused.stderr and fine.returncode == 0, (refused, fine))


with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as work:
    stops(folder, work)
    limits(folder, work)
finish()
