"""cmlpack as a user meets it: exit codes, one-line errors, JSON that parses, output to a full device. Speaks TAP."""
import json
import os
import subprocess
import sys
import tempfile
import zlib

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
cmlpack = os.path.join(build, 'tools', 'cmlpack')
package = os.path.join(source, 'tests', 'data', 'models', 'lut.mlpackage')
program = os.path.join(source, 'tests', 'data', 'fuzz', 'container', 'digits')
bundle = os.path.join(source, 'tests', 'data', 'fuzz', 'bpte', 'bundled.bpte')


def run(*args, **more):
    return subprocess.run([cmlpack, *args], capture_output=True, timeout=60, **more)


def check_error(name, code, words, *args):
    r = run(*args)
    lines = r.stderr.decode().splitlines()
    good = r.returncode == code and len(lines) == 1 and lines[0].startswith('cmlpack: ') and words in lines[0]
    check(name, good, (r.returncode, lines))


def parse(*args):
    r = run(*args)
    try:
        return json.loads(r.stdout)
    except ValueError as e:
        return {'not JSON': str(e), 'text': r.stdout[:200]}


for name in ['info', 'ls', 'cat', 'extract', 'verify', 'flatten', 'unflatten']:
    r = run(name, '--help')
    check(f'{name} --help teaches by example', r.returncode == 0 and b'Examples:' in r.stdout and not r.stderr, r)
check('--version', run('--version').stdout.startswith(b'cmlpack '))
check_error('no command', 2, 'no command')
check_error('a command that is not there', 2, '"frob"', 'frob')
check_error('an option that is not there', 2, '--frob', 'ls', '--frob', program)
check_error('too few arguments', 2, 'cmlpack cat FILE PATH', 'cat', program)
check_error('too many arguments', 2, 'one argument too many', 'info', program, 'x')
check_error('a file that is not there', 1, 'no such file', 'ls', '/nonexistent')
check_error('a file of another kind', 1, 'no format that cml knows', 'ls', cmlpack)
check_error('a path that is not there', 1, 'cmlpack ls -R', 'cat', program, 'forward/nothing')
check_error('cat of a folder', 1, 'is a folder', 'cat', program, 'forward')
check_error('a folder that is no place to extract to', 1, 'exists already', 'extract', program, '/tmp')

info = parse('info', '--json', program)
check('info names the methods', [m['name'] for m in info.get('methods', [])] == ['forward'], info)
check('info names the inputs', info.get('models', [{}])[0].get('inputs') == ['x'], info)
check('info of a bundled program', parse('info', '--json', bundle).get('kind') == 'ExecuTorch bundled program')
listing = parse('ls', '-R', '--json', program)
check('ls lists files and folders', {'path': 'forward', 'kind': 'folder'} in listing, listing[:3])
data = open(program, 'rb').read()
good = 0
for entry in listing:
    if 'offset' not in entry:
        continue
    there = data[entry['offset']:entry['offset'] + entry['size']]
    good += zlib.crc32(there) == zlib.crc32(run('cat', program, entry['path']).stdout) and len(there) == entry['size']
check('offsets tell where the bytes lie', good >= 5, good)
check('program.json is JSON', parse('cat', program, 'program.json').get('format') == 'pte')
verified = parse('verify', '--json', program)
check('verify finds nothing in a good file', verified.get('errors') == 0 and verified.get('findings') == [], verified)
check('options may stand behind', run('ls', program, '-lR').stdout == run('ls', '-l', '-R', program).stdout)

with tempfile.TemporaryDirectory() as folder:
    broken = os.path.join(folder, 'broken.pte')
    open(broken, 'wb').write(data[:len(data) // 2])
    check_error('a program that is cut off', 1, 'at byte', 'ls', broken)
    r = run('verify', broken)
    check('verify reports it and fails', r.returncode == 1 and r.stdout.startswith(b'error: '), r)
    check('and says so in JSON', parse('verify', '--json', broken).get('kind', 0) is None)
    out = os.path.join(folder, 'out')
    check('extract writes everything', run('extract', program, out).returncode == 0)
    for entry in listing:
        path = os.path.join(out, entry['path'])
        if not (os.path.isdir(path) if entry['kind'] == 'folder' else os.path.getsize(path) == entry['size']):
            check('as listed', False, path)
    check_error('extract does not overwrite', 1, 'exists already', 'extract', program, out)
    one = os.path.join(folder, 'one')
    r = run('extract', program, one, 'forward/coreml_0/model.mlpackage', 'program.json')
    check('extract writes what is asked for', r.returncode == 0 and sorted(os.listdir(one)) == ['model.mlpackage', 'program.json'], r)
    check('what was extracted opens', parse('info', '--json', os.path.join(one, 'model.mlpackage')).get('kind') == 'Core ML package')
    check('package: exact and decoded beside each other',
          run('ls', package).stdout == b'lut.mlpackage/\nlut.mlpackage.view/\n', run('ls', package))

with open('/dev/full', 'wb') as full:
    r = subprocess.run([cmlpack, 'cat', program, 'program.json'], stdout=full, stderr=subprocess.PIPE)
    check('a full device', r.returncode == 1 and b'No space left' in r.stderr, r)
r = subprocess.run(f'"{cmlpack}" ls -R "{program}" >&-', shell=True, stderr=subprocess.PIPE)
check('a closed standard output', r.returncode == 1, r)
r = subprocess.run(f'"{cmlpack}" cat "{program}" program.json | head -c 1', shell=True, capture_output=True)
check('a reader that leaves early', r.stderr == b'', r)
finish()
