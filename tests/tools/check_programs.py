"""cmlrun's commands for programs as a user meets them: verify, trace, compare, bench, skipped delegates, ETDump. Speaks TAP.

log.pte is log(linear(relu(linear(x)))) and a sum, exported with stack traces; log-changed.pte has 0.3 added to the second
linear's weight. Where a python with the executorch wheel is named by $CML_PYTHON (or is the one that runs this), its Inspector
reads what --etdump wrote."""
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from npz import write_npz  # noqa: E402
from tap import check, finish, skip  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
cmlrun = os.path.join(build, 'tools', 'cmlrun')
data = os.path.join(source, 'tests', 'data')
program, changed = (os.path.join(data, 'et', n) for n in ('log.pte', 'log-changed.pte'))
bundle = os.path.join(data, 'fuzz', 'bpte', 'bundled.bpte')
digits, digits_input = (os.path.join(data, 'digits', n) for n in ('digits.pte', 'inputs.npz'))
X = [[-0.02535119, 1.0739002, 2.2628458, -0.9175293], [-0.22511572, 2.3466382, -1.1088485, 1.6253527]]


def run(*args):
    return subprocess.run([cmlrun, *args], capture_output=True, text=True, timeout=60)


def verify():
    r = run('verify', bundle)
    check('verify passes', r.returncode == 0 and len(re.findall(r'^ok .* largest error [0-9.e-]+, SNR [0-9.]+ dB$', r.stdout, re.M)) == 2, r)
    r = run('verify', bundle, '--rtol', '0', '--atol', '1e-7')
    check('verify fails with exit code 1 where nothing is tolerated', r.returncode == 1 and r.stdout.count('FAIL') == 2, r)
    r = run('verify', bundle, '--rtol', '0', '--atol', '1e-7', '--json')
    j = json.loads(r.stdout)
    check('verify --json', r.returncode == 1 and j['failures'] == 2 and len(j['outputs']) == 2
          and all(not o['ok'] and 0 < o['max_error'] < 0.01 and o['snr_db'] > 40 and o['wrong'] <= o['count'] for o in j['outputs']), r)
    r = run('verify', program)
    check('verify of a program without test sets', r.returncode == 1 and 'the file is no bundled program' in r.stderr, r)
    check('verify takes no negative tolerance', run('verify', bundle, '--atol', '-1').returncode == 2)


def trace(npz):
    r = run('trace', program, '--input', npz)
    lines = r.stdout.splitlines()
    check('trace tells each instruction', r.returncode == 0 and len(lines) == 7 and all(l.startswith(str(i)) for i, l in enumerate(lines)), r)
    relu = re.search(r'^2 +aten::relu.out +fp32 \[2, 4\] +0 \.\. ([0-9.]+), mean ([0-9.]+), sd ([0-9.]+)$', r.stdout, re.M)
    check('trace gives statistics', relu and 0 < float(relu[2]) < float(relu[1]), r.stdout)
    check('trace says where in the source', re.search(r'^1 +aten::addmm.out \(<stdin>:7, forward\)', r.stdout, re.M), r.stdout)
    check('trace counts NaN', re.search(r'^5 +aten::log.out .*, 5 NaN$', r.stdout, re.M), r.stdout)
    r = run('trace', program, '--input', npz, '--nan')
    check('trace --nan finds the first and exits with 1', r.returncode == 1 and len(r.stdout.splitlines()) == 1 and r.stdout.startswith('5 '), r)


def compare(npz):
    r = run('compare', program, program, '--input', npz)
    check('compare of equals', r.returncode == 0 and r.stdout == 'no drift in 7 outputs\n', r)
    r = run('compare', program, changed, '--input', npz)
    check('compare names the first instruction that drifts, by its source', r.returncode == 1
          and re.match(r'first drift: 3 +aten::permute_copy.out \(<stdin>:8, forward\): SNR -?[0-9.]+ dB, largest difference 0\.3', r.stdout), r)
    check('compare prints one line', len(r.stdout.splitlines()) == 1, r.stdout)
    r = run('compare', program, changed, '--input', npz, '--snr', '-3')
    check('compare --snr sets what counts as drift', not r.stdout.startswith('first drift: 3'), r)
    r = run('compare', program, changed, '--input', npz, '--all')
    check('compare --all prints what both have', len(r.stdout.splitlines()) == 7, r)


def skipped_delegates(folder):
    given, out = os.path.join(folder, 'given.npz'), os.path.join(folder, 'skipped.npz')
    r = run('predict', digits, '--input', digits_input, '--skip-delegates')
    check('a skipped delegate asks for its outputs', r.returncode and "give 'delegate_0/output_0', fp32 [1, 10]" in r.stderr, r)
    write_npz(given, **{'delegate_0/output_0': [[float(k) for k in range(10)]]})
    with zipfile.ZipFile(given, 'a') as z, zipfile.ZipFile(digits_input) as inputs:
        for name in inputs.namelist():
            z.writestr(name, inputs.read(name))
    r = run('predict', digits, '--input', given, '--skip-delegates', '--output', out)
    good = r.returncode == 0
    if good:
        with zipfile.ZipFile(out) as z:
            good = z.read('output_0.npy').endswith(struct.pack('<10f', *range(10)))
    check('a skipped delegate gives what was given', good, r)


def bench(npz):
    r = run('bench', program, '--input', npz, '--seconds', '0.01', '--profile', '--json')
    j = json.loads(r.stdout)
    check('bench times a whole program', r.returncode == 0 and j['runs'] > 0 and 0 < j['min_ms'] <= j['median_ms'] <= j['p90_ms']
          and {o['operator'] for o in j['operators']} >= {'aten::addmm.out', 'aten::log.out'}, r)


INSPECT = r"""
import sys, warnings, logging
warnings.filterwarnings("ignore"); logging.disable(logging.WARNING)
try:
    from executorch.devtools import Inspector
except ImportError:
    sys.exit(77)
i = Inspector(etdump_path=sys.argv[1], debug_buffer_path=sys.argv[2])
for block in i.event_blocks:
    for e in block.events:
        shapes = [list(v.shape) for v in e.debug_data if hasattr(v, "shape")]
        print("EVENT", block.name, e.name, len(e.perf_data.raw) if e.perf_data else 0, shapes, sep="|")
"""


def etdump(npz, folder):
    dump, values = os.path.join(folder, 'a.etdp'), os.path.join(folder, 'a.bin')
    for model, inputs, events in ((program, npz, ('native_call_log.out', '[[2, 3]]')), (digits, digits_input, ('DELEGATE_CALL', None))):
        r = run('predict', model, '--input', inputs, '--etdump', dump, '--etdump-values', values)
        with open(dump, 'rb') as f:
            head = f.read(12)
        check('an ETDump is written', r.returncode == 0 and head[8:12] == b'ED00', (r, head))
        r = subprocess.run([os.environ.get('CML_PYTHON', sys.executable), '-c', INSPECT, dump, values], capture_output=True, text=True, timeout=110)
        if r.returncode == 77:
            skip('the Inspector reads it', 'no executorch wheel')
            continue
        lines = [l.split('|') for l in r.stdout.splitlines() if l.startswith('EVENT')]
        found = [l for l in lines if l[2] == events[0]]
        check('the Inspector reads it', r.returncode == 0 and found and all(int(l[3]) > 0 for l in found) and (not events[1] or found[0][4] == events[1]),
              (r.stdout[-600:], r.stderr[-300:]))


with tempfile.TemporaryDirectory() as folder:
    npz = os.path.join(folder, 'in.npz')
    write_npz(npz, input_0=X)
    verify()
    trace(npz)
    compare(npz)
    skipped_delegates(folder)
    bench(npz)
    etdump(npz, folder)
finish()
