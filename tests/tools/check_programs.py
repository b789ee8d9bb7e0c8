"""cmlrun's commands for programs as a user meets them: verify, trace, compare, bench, skipped delegates, ETDump. Speaks TAP.

log.pte is log(linear(relu(linear(x)))) and a sum, exported with stack traces; log-changed.pte has 0.3 added to the second
linear's weight. Where a python with the executorch wheel is named by $CML_PYTHON (or is the one that runs this), its Inspector
reads what --etdump wrote."""
import ast
import json
import math
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
recorded = os.path.join(data, 'et', 'programs')
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
    r = run('trace', digits, '--input', digits_input)
    check('trace tells what a delegate gives, behind its operations', re.match(r'0/ .*\n0 +CoreMLBackend +fp32 \[1, 10\] [^\n]*\n$', r.stdout, re.S), r.stdout)
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


def compare_kinds():
    """One net in several forms (make_drift.py): what a quantizer or a converter puts in, leaves out or merges is no drift."""
    net, npz = os.path.join(data, 'et', 'drift-{}.pte'), os.path.join(data, 'et', 'drift.npz')

    def drift(b, *args):
        return run('compare', net.format('float'), net.format(b), '--input', npz, '--snr', '20', *args)
    r = drift('q8')
    check('compare with a quantized program', r.returncode == 0 and r.stdout.startswith('no drift in 13 '), r)
    r = drift('q8', '--all')
    check('a convolution with its normalisation is held against the latter', re.search(r'^5 +aten::convolution\.out: SNR [3-9]\d\..* against 1 aten::_native_batch_norm_legit', r.stdout, re.M), r)
    r = drift('scale')
    check('compare finds a wrong scale where it stands', r.returncode == 1
          and re.match(r'first drift: 8 +quantized_decomposed::dequantize_per_tensor\.out: SNR \d\.\d dB, .* against 2 aten::relu\.out$', r.stdout), r)
    r = drift('coreml')
    check('compare with a Core ML delegate', r.returncode == 1 and re.match(r'first drift: 0/ +linear linear_0_cast_fp16 \(debug handle 5\): .* against 4 aten::addmm\.out$', r.stdout), r)
    r = drift('coreml', '--all')
    check('of delegated operations those before it agree', re.search(r'^0/ +relu aten_relu_default_cast_fp16 \(debug handle 3\): SNR [4-9]\d\..* against 2 aten::relu\.out$', r.stdout, re.M), r)


def skipped_delegates(folder):
    given, out = os.path.join(folder, 'given.npz'), os.path.join(folder, 'skipped.npz')
    r = run('predict', digits, '--input', digits_input, '--skip-delegates')
    check('a skipped delegate asks for its outputs', r.returncode and "would compute: 'delegate_0/output_0', fp32 [1, 10]" in r.stderr, r)
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


def debug_handles(folder):
    """called_thrice.pte's delegate keeps them: 1 for its linear, 2 for its tanh. In a copy the tanh has another name."""
    thrice, other, npz = os.path.join(recorded, 'called_thrice.pte'), os.path.join(folder, 'renamed.pte'), os.path.join(folder, 'thrice.npz')
    with zipfile.ZipFile(thrice[:-4] + '.npz') as z, zipfile.ZipFile(npz, 'w') as to:
        for n in z.namelist():
            if n.startswith('0/input_'):
                to.writestr(n[2:], z.read(n))
    with open(thrice, 'rb') as f, open(other, 'wb') as to:
        to.write(f.read().replace(b'aten_tanh_default', b'now_named_so_0000'))
    r = run('trace', thrice, '--input', npz, '--passes', '')
    check('trace says which debug handle', re.search(r'^\d+/ +linear aten_addmm_default \(debug handle 1\) ', r.stdout, re.M)
          and re.search(r'^\d+/ +tanh aten_tanh_default \(debug handle 2\) ', r.stdout, re.M), r)
    r = run('trace', thrice, '--input', npz)
    check('also of what a pass made of an operation', len(re.findall(r'^\d+/ +cml_linear aten_addmm_default \(debug handle 1\) ', r.stdout, re.M)) == 3, r)
    r = run('compare', thrice, other, '--input', npz, '--all')
    check('compare matches operations of other names by debug handles', r.returncode == 0
          and len(re.findall(r'^\d+/ +tanh now_named_so_0000 \(debug handle 2\): SNR inf dB, .*, against \d+/ tanh aten_tanh_default$', r.stdout, re.M)) == 3, r)


def other_backend(folder):
    """A program of two methods that was lowered to XNNPACK, run around its delegates."""
    pte = os.path.join(recorded, 'xnnpack.pte')
    with zipfile.ZipFile(pte[:-4] + '.npz') as z:
        arrays = {n[:-4]: z.read(n) for n in z.namelist()}
    given, out = os.path.join(folder, 'given.npz'), os.path.join(folder, 'around.npz')

    def around(step, changes, *args):
        """With what the step gives but for some of it, which is another array or nothing."""
        members = {n.split('/', 1)[1]: data for n, data in arrays.items() if re.match(step + '/(input|delegate)_', n)}
        members = {n: data for n, data in (members | changes).items() if data is not None}
        with zipfile.ZipFile(given, 'w') as z:
            for n, data in members.items():
                z.writestr(n + '.npy', data)
        return run('predict', pte, '--method', step.split(':')[1], '--input', given, '--output', out, *args)

    for step in ('0:forward', '1:other'):
        r = around(step, {}, '--skip-delegate')
        wrong = [r.stderr] if r.returncode else []
        for n in [] if r.returncode else [n for n in arrays if re.fullmatch(step + '/output_.', n)]:
            with zipfile.ZipFile(out) as z:
                wrong += [f'{n}: {said}' for said in [near(read_npy(z.read(n.split('/')[1] + '.npy')), read_npy(arrays[n]))] if said]
        check(f'method {step[2:]} around its delegates', not wrong, wrong)
    first, both = arrays['0:forward/delegate_0/output_0'], "'delegate_0/output_0', fp32 [9, 8] at most, 'delegate_1/output_0', fp32 [9, 3] at most"
    r = around('0:forward', {})
    check('without --skip-delegates the backend is named, and the option', r.returncode == 1 and "backend 'XnnpackBackend' (predict --skip-delegates" in r.stderr, r)
    r = around('0:forward', {'delegate_0/output_0': None, 'delegate_1/output_0': None}, '--skip-delegates')
    check('all that is missing is asked for at once', r.returncode == 2 and r.stderr.strip().endswith('would compute: ' + both), r)
    r = around('0:forward', {'delegate_1/output_0': None, 'delegate_2/output_0': first}, '--skip-delegates')
    check('a wrong name is answered with the right ones', r.returncode == 1 and "there is no 'delegate_2/output_0': outputs of skipped delegate calls are " + both in r.stderr, r)
    r = around('0:forward', {'delegate_1/output_0': first}, '--skip-delegates')
    check('a wrong shape is refused', r.returncode == 1 and "wanted is 'delegate_1/output_0', fp32 [9, 3] at most; given is fp32 [4, 8]" in r.stderr, r)
    r = around('1:other', {'delegate_0/output_1': first}, '--skip-delegates')
    check('a wrong shape where it is static', r.returncode == 1 and "wanted is 'delegate_0/output_1', fp32 [3, 3]; given is fp32 [4, 8]" in r.stderr, r)


def bench(npz):
    r = run('bench', program, '--input', npz, '--seconds', '0.01', '--profile', '--json')
    j = json.loads(r.stdout)
    check('bench times a whole program', r.returncode == 0 and j['runs'] > 0 and 0 < j['min_ms'] <= j['median_ms'] <= j['p90_ms']
          and {o['operator'] for o in j['operators']} >= {'aten::addmm.out', 'aten::log.out'}, r)


TYPES = {'<f4': 'f', '<f2': 'e', '<f8': 'd', '<i8': 'q', '<i4': 'i', '|b1': '?', '|u1': 'B', '|i1': 'b'}


def read_npy(data):
    """(shape, numbers) of a .npy file's bytes."""
    size = struct.unpack('<H', data[8:10])[0]
    head = ast.literal_eval(data[10:10 + size].decode())
    if head['descr'][1] == 'c':
        parts = struct.unpack(f"<{2 * math.prod(head['shape'])}{'f' if head['descr'] == '<c8' else 'd'}", data[10 + size:])
        return head['shape'], [complex(*p) for p in zip(parts[::2], parts[1::2])]
    return head['shape'], struct.unpack(f"<{math.prod(head['shape'])}{TYPES[head['descr']]}", data[10 + size:])


def near(a, b):
    """Nothing, or what is wrong."""
    (shape, got), (wanted, expected) = a, b
    if shape != wanted:
        return f'shape {shape}, expected {wanted}'
    off = [(g, e) for g, e in zip(got, expected) if not (g == e or abs(g - e) <= 1e-4 + 1e-4 * abs(e) or (g != g and e != e))]
    return f'{len(off)} of {len(got)} differ, such as {off[0]}' if off else ''


def recorded_program(name, folder):
    """One sequence over kept state, against what ExecuTorch's runtime or torch gave. Steps are S or S:METHOD."""
    pte, out = os.path.join(recorded, name + '.pte'), os.path.join(folder, 'out_{step}.npz')
    with zipfile.ZipFile(os.path.join(recorded, name + '.npz')) as z:
        arrays = {n[:-4]: z.read(n) for n in z.namelist()}
    steps = sorted({n.split('/')[0] for n in arrays}, key=lambda s: int(s.split(':')[0]))
    args = [a for k in ('', '1') if os.path.exists(pte[:-4] + k + '.ptd') for a in ('--data', pte[:-4] + k + '.ptd')]
    for s in steps:
        args += ['--method', s.split(':')[1]] if ':' in s else []
        args += ['--input', os.path.join(folder, f'in_{s}.npz')]
        with zipfile.ZipFile(args[-1], 'w') as z:
            for n, data in arrays.items():
                if n.startswith(f'{s}/input_'):
                    z.writestr(n.split('/')[1] + '.npy', data)
    r = run('predict', pte, *args, '--output', out)
    wrong = [r.stderr] if r.returncode else []
    for n, data in arrays.items():
        step, array = n.split('/')
        if r.returncode or not array.startswith('output_'):
            continue
        with zipfile.ZipFile(out.replace('{step}', step.split(':')[0])) as z:
            said = near(read_npy(z.read(array + '.npy')), read_npy(data))
        wrong += [f'{n}: {said}'] if said else []
    check(f'recorded program {name}', not wrong and steps, wrong[:3])
    return r


def steps_of_a_program(npz, folder):
    """What a step leaves out, and methods that are wrong."""
    both, one = (os.path.join(folder, n) for n in ('both.npz', 'one.npz'))
    shared = os.path.join(recorded, 'shared_buffers.pte')
    with zipfile.ZipFile(os.path.join(recorded, 'shared_buffers.npz')) as z, zipfile.ZipFile(both, 'w') as to:
        to.writestr('input_0.npy', z.read('0:prefill/input_0.npy'))
    write_npz(one)
    r = run('predict', program, '--input', npz, '--input', one)
    check('an input that a step leaves out is asked for where the run before overwrote it', r.returncode == 2
          and 'input 0 was not given again (the memory plan used its place in the run before): float32 [2, 4]' in r.stderr, r)
    r = run('predict', shared, '--method', 'prefill', '--input', both, '--method', 'sing', '--input', both)
    check('a method that is not there is named', r.returncode == 1 and "no method 'sing'; it has" in r.stderr, r)
    r = run('predict', shared, '--method', 'prefill', '--method', 'decode', '--input', both)
    check('more methods than inputs', r.returncode == 2 and 'more methods than inputs' in r.stderr, r)


def recorded_programs(folder):
    for name in sorted(n[:-4] for n in os.listdir(recorded) if n.endswith('.pte')):
        if name == 'xnnpack':
            other_backend(folder)
            continue
        if name == 'scale':  # of a backend that cmlrun does not have
            r = run('predict', os.path.join(recorded, name + '.pte'), '--input', os.path.join(folder, 'in.npz'))
            check('a backend that is not there is named', r.returncode == 1 and "backend 'ScaleBackend'" in r.stderr, r)
            continue
        r = recorded_program(name, folder)
        if name == 'mixed':
            check('a compile spec that is not heeded is said once, in one line', r.stderr.count('\n') == 1
                  and 'ignored: compute_units = cpu_and_ne of delegate 0 (everything runs on the CPU)' in r.stderr, r.stderr)
    parts, npz = os.path.join(recorded, 'parts.pte'), os.path.join(recorded, 'parts.npz')
    with zipfile.ZipFile(npz) as z, zipfile.ZipFile(os.path.join(folder, 'swapped.npz'), 'w') as to:
        for k in '01':
            to.writestr(f'input_{k}.npy', z.read(f'0/input_{1 - int(k)}.npy'))
    r = run('predict', parts, '--input', os.path.join(folder, 'swapped.npz'))
    check('real numbers are not taken for complex ones', r.returncode == 1 and re.search(r'input 0 takes complex64 \[5, 9\] at most, real and imaginary parts in a last '
          r'dimension of 2; given is fp32 \[4, 6\]$', r.stderr.strip()), r)
    r = run('predict', changed, '--input', os.path.join(folder, 'swapped.npz'))
    check('nor complex ones for real', r.returncode == 1, r)
    mixed = os.path.join(recorded, 'mixed.pte')
    j = json.loads(run('bench', mixed, '--seconds', '0.001', '--json').stdout)
    check('bench --json lists ignored compile specs, and memory', {(s['delegate'], s['key'], s['value']) for s in j['ignored_specs']}
          == {(0, 'compute_units', 'cpu_and_ne'), (1, 'compute_units', 'cpu_and_ne')} and j['peak_bytes'] >= j['base_bytes'] > 0 and j['open_ms'] < 1000, j)


def describe():
    r = run('describe', program)
    check('describe of a program without Core ML', r.returncode == 0 and 'ExecuTorch program of 1 method' in r.stdout
          and re.search(r'inputs +float32 \[2, 4\]', r.stdout) and re.search(r'\n +1 +aten::relu.out\n', r.stdout), r)
    j = json.loads(run('describe', program, '--json').stdout)['program']['methods'][0]
    check('describe --json', j['name'] == 'forward' and j['inputs'] == [{'kind': 'Tensor', 'dtype': 'float32', 'sizes': [2, 4], 'dynamism': 'static'}]
          and {'name': 'aten::addmm.out', 'calls': 2} in j['operators'] and j['kernel_calls'] == 7 and sum(j['memory_plan']) > 0, j)
    r = run('describe', os.path.join(recorded, 'mixed.pte'))
    check('describe of a program with two delegates', r.returncode == 0 and r.stdout.count('CoreMLBackend, called 1 times') == 2
          and 'compute_units = cpu_and_ne  (ignored: everything runs on the CPU)' in r.stdout, r)
    j = json.loads(run('describe', digits, '--json').stdout)
    check('describe of one with a single model tells both', j['program']['methods'] and j['inputs'][0]['shape'] == [1, 1, 8, 8], j)


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


RECORD = r"""
import subprocess, sys, warnings, logging, contextlib, io
warnings.filterwarnings("ignore"); logging.disable(logging.WARNING)
try:
    with contextlib.redirect_stderr(io.StringIO()):
        import numpy as np, torch
        from executorch.devtools import Inspector
        from executorch.devtools.inspector import compare_results
        from executorch.exir import to_edge
except ImportError:
    sys.exit(77)
cmlrun, stem = sys.argv[1:]
torch.manual_seed(0)
model, x = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.ReLU(), torch.nn.LayerNorm(6)).eval().requires_grad_(False), torch.randn(2, 3, 8)
program = to_edge(torch.export.export(model, (x,)), generate_etrecord=True).to_executorch()
record = program.get_etrecord()
record.update_representative_inputs([[x]])
record.update_reference_outputs([[model(x)]])
record.save(stem + ".etrecord")
open(stem + ".pte", "wb").write(program.buffer)
np.savez(stem + ".npz", input_0=x.numpy())
subprocess.run([cmlrun, "predict", stem + ".pte", "--input", stem + ".npz", "--output", stem + "-out.npz", "--etdump", stem + ".etdp", "--etdump-values", stem + ".bin"], check=True)
i = Inspector(etdump_path=stem + ".etdp", etrecord=stem + ".etrecord", debug_buffer_path=stem + ".bin")
(block,) = i.event_blocks
for e in block.events:
    print("EVENT", e.name, *e.op_types, *(e.stack_traces or {}))
with contextlib.redirect_stdout(io.StringIO()):
    gaps, whole = i.calculate_numeric_gap("SNR"), compare_results(block.reference_output, block.run_output, ["snr"])
print("GAPS", [max(g) for g in gaps["gap"]], whole["snr"])
"""


def etdump_and_record(folder):
    """Events and values are found in the program's ETRecord: by operator and source line, and against the exported model's own values."""
    r = subprocess.run([os.environ.get('CML_PYTHON', sys.executable), '-c', RECORD, cmlrun, os.path.join(folder, 'r')], capture_output=True, text=True, timeout=110)
    if r.returncode == 77:
        return skip('the Inspector reads it with an ETRecord', 'no executorch wheel')
    events = [l.split()[1:] for l in r.stdout.splitlines() if l.startswith('EVENT')]
    named = [e for e in events if e[0].startswith('native_call_')]
    gaps = [json.loads(l[5:].replace('] [', '], [').join('[]').replace('inf', '1e9')) for l in r.stdout.splitlines() if l.startswith('GAPS')]
    check('the Inspector finds events in an ETRecord', r.returncode == 0 and {e[0] for e in named} == {'native_call_convolution.out', 'native_call_relu.out', 'native_call_native_layer_norm.out'}
          and all(len(e) > 2 and e[1].startswith('aten.') for e in named) and len(named) * 2 + 1 == len(events), (r.stdout[-600:], r.stderr[-300:]))
    check('and values agree with the exported model', gaps and len(gaps[0][0]) == 3 and len(gaps[0][1]) == 1 and min(gaps[0][0] + gaps[0][1]) > 100, (r.stdout[-600:], r.stderr[-300:]))


def etdump(npz, folder):
    dump, values = os.path.join(folder, 'a.etdp'), os.path.join(folder, 'a.bin')
    for model, inputs, events in ((program, npz, ('native_call_log.out', '[[2, 3]]')), (digits, digits_input, ('DELEGATE_CALL', '[[1, 10]]'))):
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
        inner = [l[4] for l in lines if l[2] not in ('DELEGATE_CALL', 'OPERATOR_CALL', 'Method::execute') and not l[2].startswith('native_call_')]
        check('operations within a delegate have their values there', bool(inner) == (model == digits) and all(s != '[]' for s in inner), r.stdout[-600:])
        check('the Inspector reads it', r.returncode == 0 and found and all(int(l[3]) > 0 for l in found) and (not events[1] or found[0][4] == events[1]),
              (r.stdout[-600:], r.stderr[-300:]))


with tempfile.TemporaryDirectory() as folder:
    npz = os.path.join(folder, 'in.npz')
    write_npz(npz, input_0=X)
    verify()
    trace(npz)
    compare(npz)
    compare_kinds()
    debug_handles(folder)
    skipped_delegates(folder)
    bench(npz)
    etdump(npz, folder)
    etdump_and_record(folder)
    describe()
    recorded_programs(folder)
    steps_of_a_program(npz, folder)
finish()
