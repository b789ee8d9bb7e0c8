"""Runs every shared reference case through cmlrun and compares the results as the cases' own graders do. Speaks TAP.

    check_reference.py ops|pte          (CML_REFERENCE: folder with grade.py, grade_pte.py, ops/ and pte/)

Skips where there are no cases or no numpy. A case that fails fails the test; what is excused is listed here with the reason.
"""
import concurrent.futures
import glob
import importlib.util
import json
import os
import re
import sys
import tempfile
import types

what = sys.argv[1]
build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
folder = os.environ.get('CML_REFERENCE', os.path.join(source, '..', 'shared', 'reference'))
cmlrun = os.path.join(build, 'tools', 'cmlrun')

# The first four: the expected shape contradicts what the model itself declares. The last two want the results of a layer of
# direction `reverse` in the order of its input; coremltools' own tests, which ran against Core ML, have them in the order of
# work (mlprogram-fp32-test_builder_to_backend_smoke-336966edbde3, ..._unilstm-0bbfa0ef8415).
EXCUSED = {'mlprogram-fp16-test_grayscale_input-036a3b738574', 'mlprogram-fp32-test_grayscale_input-036a3b738574',
           'mlprogram-fp16-test_iO16_default_image_dtype_output-1a091a8d5ac1',
           'mlprogram-fp32-test_iO16_default_image_dtype_output-1a091a8d5ac1',
           'mlprogram-fp16-gru-20a806108149', 'mlprogram-fp32-rnn-1cfeb6f8b78e',
           # The initial values of their buffers are not in the file: it has no data for them.
           'mutable_named', 'nostate_init',
           # torch's reciprocal is expected; the program holds `inverse` with an epsilon of 1e-4.
           'mil_unary', 'mil_unary_18'}


def skip(why):
    print(f'1..0 # SKIP {why}')
    sys.exit(0)


def load(name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, name + '.py'))
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


def run_ops(grade, path):
    options = types.SimpleNamespace(runner=f"'{cmlrun}' predict {{model}} --input {{inputs}} --output {{out}} --threads 1", state_flag='--state',
                                    function_flag='--function', timeout=100)
    return grade.run_case(grade.Path(path), options)[2]


def run_pte(grade, path):
    options = types.SimpleNamespace(runner=f"'{cmlrun}' predict {{model}} --method {{method}} {{inputs}} --output {{out}} {{ptd}} --threads 1",
                                    timeout=100)
    return grade.one(path, options)[2]


def main():
    try:
        import numpy  # noqa: F401
    except ImportError:
        skip('no numpy: set CML_PYTHON to a Python that has it')
    cases = sorted(glob.glob(os.path.join(folder, what, 'mlprogram-*' if what == 'ops' else '*', 'case.json')))
    if not cases:
        skip('the reference cases are not here')
    share = os.environ.get('CML_REFERENCE_SHARE')  # every Nth case, for slow builds
    cases = cases[::int(share)] if share else cases
    grade, run = (load('grade'), run_ops) if what == 'ops' else (load('grade_pte'), run_pte)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for i, (case, why) in enumerate(zip(cases, pool.map(lambda c: run(grade, os.path.dirname(c)), cases))):
            name = os.path.basename(os.path.dirname(case))
            weak = json.load(open(case)).get('weak') or json.load(open(case)).get('zeros_pass')
            excused = why and (name in EXCUSED or (weak and not re.search(r'exit -|timeout|Sanitizer', why)))
            lacking = why and what == 'pte' and re.search(r"operator '[\w:.]+'$", why)  # said clearly: not run, not wrong
            excused = excused or lacking
            failed += bool(why) and not excused
            print('not ok' if why and not excused else 'ok', i + 1, '-', name, (f'# SKIP excused: {why}' if excused else f'# {why}' if why else ''))
    print(f'1..{len(cases)}')
    sys.exit(failed > 0)


main()
