"""The library as its users meet it: `meson install` into an empty folder, then every header compiled alone, the exported
symbols, and the examples built against that folder by pkg-config, shared and static, and run. Speaks TAP."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish, skip  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
data = os.path.join(source, 'tests', 'data')


def run(*command, **more):
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def option(name):
    import json
    found = json.loads(run('meson', 'introspect', '--buildoptions', build).stdout)
    return next(o['value'] for o in found if o['name'] == name)


def check_symbols(library):
    if not shutil.which('nm'):
        return skip('exported symbols', 'no nm')
    lines = run('nm', '-D', '--defined-only', library).stdout.splitlines()
    names = [line.split()[-1].split('@')[0] for line in lines]
    check('symbols are exported', len(names) > 50, names)
    check('and all begin with cml_', not [n for n in names if not n.startswith('cml_')], [n for n in names if not n.startswith('cml_')])


def check_headers(folder, cc):
    headers = sorted(glob.glob(os.path.join(folder, 'cml', '*.h')))
    check('headers are installed', len(headers) > 20, headers)
    bad = []
    for h in headers:
        r = run(cc, '-std=c11', '-Wall', '-Wextra', '-Wpedantic', '-Werror', '-fsyntax-only', '-I', folder, '-x', 'c', '-',
                input=f'#include <cml/{os.path.basename(h)}>\nint nothing_else;\n')
        if r.returncode:
            bad.append(r.stderr)
    check('each header compiles alone, as <cml/NAME.h>', not bad, bad)


def check_example(name, program, environment, work):
    def go(*args):
        return run(program, *args, env={**os.environ, **environment})
    package = os.path.join(data, 'digits', 'digits-classifier.mlpackage')
    if name == 'open_and_list':
        r = go(os.path.join(data, 'digits', 'digits.pte'))
        check(f'{program}: lists', r.returncode == 0 and 'metadata.json  123' in r.stdout, r)
        r = go(os.path.join(source, 'README.md'))
        check(f'{program}: refuses in one line', r.returncode == 1 and r.stderr.count('\n') == 1, r)
    elif name == 'flatten_folder':
        r = go(package, os.path.join(work, 'blob'))
        check(f'{program}: flattens and restores', r.returncode == 0 and 'same folder' in r.stdout, r)
    elif name == 'own_backend':
        r = go(os.path.join(data, 'et', 'programs', 'scale.pte'), '1', '-2', '0.5')  # (3 x + x) 3 - 1
        check(f'{program}: runs its delegates', r.returncode == 0 and r.stdout.split() == ['11', '-25', '5'], r)
        r = go(os.path.join(data, 'et', 'log.pte'), '1')
        check(f'{program}: refuses in one line', r.returncode == 1 and r.stderr.count('\n') == 1, r)
    else:
        r = go(package)
        check(f'{program}: runs', r.returncode == 0 and 'classLabel' in r.stdout, r)
        r = go(os.path.join(data, 'flat', 'wheel.bin'))
        check(f'{program}: refuses in one line', r.returncode == 1 and r.stderr.count('\n') == 1, r)


def check_installed(work, cc):
    prefix = os.path.join(work, 'root') + option('prefix')
    libs = os.path.join(prefix, option('libdir'))
    for name in ('libcml.so', 'libcml.a', 'pkgconfig/cml.pc'):
        check(f'installs {name}', os.path.exists(os.path.join(libs, name)))
    for name in ('cmlfs', 'cmlpack', 'cmlrun'):
        if name == 'cmlfs' and not os.path.exists(os.path.join(build, 'tools', 'cmlfs')):
            skip('cmlfs', 'built without FUSE')
            continue
        check(f'installs {name}, its page and completions',
              os.access(os.path.join(prefix, 'bin', name), os.X_OK)
              and os.path.exists(os.path.join(prefix, 'share/man/man1', name + '.1'))
              and os.path.exists(os.path.join(prefix, 'share/bash-completion/completions', name)))
    check_headers(os.path.join(prefix, 'include'), cc)
    check_symbols(os.path.join(libs, 'libcml.so'))
    if option('b_sanitize') not in ('none', '', []):
        return skip('examples against the installed tree', 'the library is built for a sanitizer')
    where = {**os.environ, 'PKG_CONFIG_PATH': os.path.join(libs, 'pkgconfig'), 'PKG_CONFIG_SYSROOT_DIR': os.path.join(work, 'root')}
    for kind, flag in (('shared', []), ('static', ['--static'])):
        r = run('pkg-config', *flag, '--cflags', '--libs', 'cml', env=where)
        check(f'pkg-config {kind}', r.returncode == 0, r)
        flags = r.stdout.split()
        if kind == 'static':
            flags = [os.path.join(libs, 'libcml.a') if f == '-lcml' else f for f in flags]
        for path in sorted(glob.glob(os.path.join(source, 'examples', '*.c'))):
            name = os.path.basename(path)[:-2]
            program = os.path.join(work, f'{name}_{kind}')
            r = run(cc, '-Wall', '-Wextra', '-Werror', path, *flags, '-o', program)
            check(f'{name} builds ({kind})', r.returncode == 0, r.stderr)
            if r.returncode == 0:
                check_example(name, program, {'LD_LIBRARY_PATH': libs}, work)


def main():
    cc = os.environ.get('CC', 'cc').split()[0]
    with tempfile.TemporaryDirectory() as work:
        for name in ('open_and_list', 'flatten_folder', 'load_and_run', 'own_backend'):
            check_example(name, os.path.join(build, 'examples', 'example-' + name.replace('_', '-')), {}, work)
        if not shutil.which('meson') or not shutil.which('pkg-config'):
            skip('install', 'no meson or pkg-config')
        else:
            r = run('meson', 'install', '-C', build, '--no-rebuild', '--destdir', os.path.join(work, 'root'))
            check('meson install', r.returncode == 0, r.stdout[-500:] + r.stderr[-500:])
            check_installed(work, cc)
    finish()


main()
