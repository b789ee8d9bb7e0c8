"""cmlfs as a user meets it: mount, look, unmount; options; wrong calls; a second mount; a killed server; Ctrl-C; every way to
end a mount. Speaks TAP; skips where this user may not mount. With --unprivileged, root becomes nobody for it: in a mount
namespace of its own, where nobody may open /dev/fuse, as everyone may on most machines."""
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
from tap import check, finish, skip, skip_all  # noqa: E402

build, source = os.environ['CML_BUILD'], os.environ['CML_SOURCE']
cmlfs = os.path.join(build, 'tools', 'cmlfs')
program = os.path.join(source, 'tests', 'data', 'digits', 'digits.pte')


def run(*args):
    return subprocess.run([cmlfs, *args], capture_output=True, text=True, timeout=30)


def check_error(name, code, words, *args):
    r = run(*args)
    lines = r.stderr.splitlines()
    check(name, r.returncode == code and len(lines) == 1 and lines[0].startswith('cmlfs: ') and words in lines[0] and not r.stdout, r)


def wait_for(what):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.01)
    return False


def wrong_calls(work):
    place = f'{work}/place'
    for name in ('mount', 'umount'):
        r = run(name, '--help')
        check(f'{name} --help teaches by example', r.returncode == 0 and 'Examples:' in r.stdout and not r.stderr, r)
    check_error('no command', 2, 'no command')
    check_error('a command that is not there', 2, 'frob', 'frob')
    check_error('too few arguments', 2, 'cmlfs mount FILE DIR', 'mount', program)
    check_error('an option that is not there', 2, '--frob', 'mount', program, place, '--frob')
    check_error('a mount option that is not there', 2, 'frob', 'mount', program, place, '-o', 'frob')
    check_error('a mount option without sense', 2, 'uid', 'mount', program, place, '-o', 'uid=x')
    check_error('a file that is not there', 1, 'no such file', 'mount', '/nonexistent', place)
    check_error('a file of another kind', 1, 'no format that cml knows', 'mount', cmlfs, place)
    check_error('a mount point in a folder that is not there', 1, 'No such file', 'mount', program, f'{work}/no/place')
    check_error('a mount point that is a file', 2, 'not a folder', 'mount', program, cmlfs)
    check_error('umount of what is no mount', 1, 'not mounted', 'umount', work)
    check('nothing was left behind', os.listdir(work) == [], os.listdir(work))


def mounts(work):
    place = f'{work}/place'
    r = run('mount', program, place)
    check('the mount is there when the command returns', r.returncode == 0 and os.path.isfile(f'{place}/program.json'), r)
    check('it says nothing', not r.stdout and not r.stderr, r)
    with open(f'{place}/forward/coreml_0/metadata.json', 'rb') as f:
        data = f.read()
    at = int(os.getxattr(f.name, 'user.cml.offset'))
    with open(program, 'rb') as f:
        f.seek(at)
        check('a file is the bytes at its offset', f.read(len(data)) == data and data)
    r = run('mount', program, place)
    check('a second mount at the same place is refused', r.returncode == 1 and r.stderr.count('\n') == 1, r)
    check('and leaves the first', os.path.isfile(f'{place}/program.json'))
    other = f'{work}/other'
    r = run('mount', program, other)
    check('a second mount elsewhere works', r.returncode == 0 and os.path.isfile(f'{other}/program.json'), r)
    for p in (other, place):
        r = run('umount', p)
        check('umount takes it away, folder and all', r.returncode == 0 and not os.path.exists(p), r)
    os.mkdir(place)
    r = run('mount', program, place)
    r = run('umount', place)
    check('a folder that was there before stays', r.returncode == 0 and os.path.isdir(place), r)
    os.rmdir(place)


def options(work):
    place = f'{work}/place'
    r = run('mount', program, place, '-o', 'ro,uid=123,gid=45', '-o', 'umask=027')
    st = os.stat(place) if r.returncode == 0 else None
    check('-o uid, gid, umask, ro', st and (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (123, 45, 0o550), r)
    if os.getuid() == 0:
        st = os.stat(f'{place}/program.json')
        check('and for a file', (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (123, 45, 0o440), st)
    r = run('umount', place)
    check('umount of a mount whose owner is somebody else', r.returncode == 0 and not r.stderr and not os.path.exists(place), r)


def gone(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] == 'Z'
    except OSError:
        return True


def in_mount_table(place):
    with open('/proc/self/mountinfo') as f:
        return any(line.split()[4] == place for line in f)


def ends(work):
    """Nothing is left of a mount: no entry in the mount table, no folder that it made, no process."""
    place = f'{work}/place'
    ways = [(number.name, lambda pid, number=number: os.kill(pid, number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ways += [('fusermount3 -u', lambda pid: subprocess.run(['fusermount3', '-u', place], check=True)),
             ('cmlfs umount', lambda pid: run('umount', place).check_returncode())]
    for name, end in ways:
        r = run('mount', program, place)
        pid = int(os.getxattr(place, 'user.cml.pid')) if r.returncode == 0 else 0
        there = pid > 0 and in_mount_table(place) and not gone(pid)
        if pid:
            end(pid)
        left = lambda: not gone(pid) or os.path.lexists(place) or in_mount_table(place)
        check(f'{name} in the background leaves nothing behind', there and wait_for(lambda: not left()), (r, pid))


def can_mark(folder):
    try:
        os.setxattr(folder, 'user.test', b'1')
        return True
    except OSError:
        return False


def kill(place):
    pid = int(os.getxattr(place, 'user.cml.pid'))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gone(pid))


def killed(work):
    place = f'{work}/place'
    run('mount', program, place)
    kill(place)
    r = run('mount', program, place)
    check('a mount over a dead one says what to do', r.returncode == 1 and 'umount' in r.stderr and r.stderr.count('\n') == 1, r)
    r = run('umount', place)
    check('umount clears a dead mount', r.returncode == 0, r)
    if can_mark(work):
        check('and the folder that it made', not os.path.exists(place))
    else:
        skip('and the folder that it made', 'this file system has no extended attributes for users')
    os.makedirs(place, exist_ok=True)
    r = run('mount', program, place)
    check('then it mounts again', r.returncode == 0 and os.path.isfile(f'{place}/program.json'), r)
    kill(place)
    r = run('umount', place)
    check('a folder that was there before a mount died stays', r.returncode == 0 and os.path.isdir(place), r)
    shutil.rmtree(place)


def foreground(work):
    place = f'{work}/place'
    for number in (signal.SIGINT, signal.SIGTERM):
        p = subprocess.Popen([cmlfs, 'mount', '-f', program, place], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        there = wait_for(lambda: os.path.isfile(f'{place}/program.json'))
        p.send_signal(number)
        out, err = p.communicate(timeout=10)
        check(f'-f, ended by {number.name}, leaves nothing', there and p.returncode == 0 and not err and not os.path.exists(place), (there, p.returncode, err))


def as_nobody():
    trial = subprocess.run(['unshare', '-m', 'true'], capture_output=True, text=True)  # not in a chroot, nor in most containers
    if trial.returncode:
        skip_all('no mount namespace of its own: ' + trial.stderr.strip())
    with tempfile.TemporaryDirectory() as d:
        words = ('mknod -m 666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse || exit 77; shift; '
                 'exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"')
        r = subprocess.run(['unshare', '-m', 'sh', '-c', words, 'sh', d, sys.executable, os.path.abspath(__file__)],
                           capture_output=True, text=True)
        if r.returncode == 77:
            skip_all('no mount namespace in which nobody may open /dev/fuse: ' + r.stderr.strip())
    print(r.stdout, end='')
    print(r.stderr, end='', file=sys.stderr)
    sys.exit(r.returncode)


def main():
    if '--unprivileged' in sys.argv:
        if os.getuid():
            skip_all('this user has no privileges: the other run of this test is the same')
        if not all(map(shutil.which, ('unshare', 'setpriv', 'fusermount3'))):
            skip_all('no unshare, setpriv or fusermount3 here')
        as_nobody()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # nohup, and shells for what runs in the background, had them ignored
    if not os.path.exists('/dev/fuse') or not os.access(cmlfs, os.X_OK):
        skip_all('no /dev/fuse, or built without FUSE')
    with tempfile.TemporaryDirectory() as work:
        r = run('mount', program, f'{work}/trial')
        if r.returncode:
            skip_all('this user may not mount: ' + r.stderr.strip())
        run('umount', f'{work}/trial')
        try:
            for part in (wrong_calls, mounts, options, killed, foreground, ends):
                part(work)
        finally:
            for name in os.listdir(work):  # what a failure left
                subprocess.run(['fusermount3', '-uzq', f'{work}/{name}'], stderr=subprocess.DEVNULL)
    finish()


main()
