#!/usr/bin/env python3
"""The mount: how fast it is there, how fast it reads, and what it costs, against ext4 and squashfuse_ll in one run.

    python3 tests/bench/bench_mount.py [--build build] [--dir /var/tmp] [--rounds 5] > mount.json

Opening and mounting is timed from the start of `cmlfs mount` until it returns, with the mount ready, for flat blobs of
10 MB, 1 GB and 8 GB (sparse). Reading compares a file of the mount with the container on the native file system: sequential
with a cold FUSE cache (a fresh mount each round; the container's own pages are warm on both sides), and 4 KiB at random
places, each first touched once per round and mapping. stat of every file and `tar c` run over one tree of many files, shown
by cmlfs from a flat blob and by squashfuse_ll from an uncompressed image, each mount fresh. The fastest of the rounds counts.
Anonymous memory is that of the serving process after all reads of the largest file."""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

MB = 1 << 20


def timed(go):
    start = time.perf_counter()
    go()
    return time.perf_counter() - start


def quiet(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Mount:
    def __init__(self, start, stop, place):
        self.start, self.stop, self.place = start, stop, place

    def __enter__(self):
        os.makedirs(self.place, exist_ok=True)
        self.seconds = timed(lambda: quiet(*self.start))
        return self

    def __exit__(self, *_):
        quiet(*self.stop)


def make_sparse(folder, size):
    os.makedirs(folder)
    with open(f'{folder}/weight.bin', 'wb') as f:
        f.write(b'w' * 4096)
        f.truncate(size)


def make_small(top, r):
    for i in range(60):
        os.makedirs(f'{top}/folder{i:02}')
        for k in range(50):
            with open(f'{top}/folder{i:02}/file_{k:03}.bin', 'wb') as f:
                f.write(r.randbytes(r.randrange(1, 32768)))


def read_all(path):
    buffer = bytearray(MB)
    with open(path, 'rb', buffering=0) as f:
        while f.readinto(buffer):
            pass


def read_random(path, places):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for at in places:
        os.pread(fd, 4096, at)
    os.close(fd)


def stat_all(top):
    n = 0
    for folder, _, files in os.walk(top):
        for name in files:
            os.stat(f'{folder}/{name}')
            n += 1
    return n


def anonymous_kib(pid):
    with open(f'/proc/{pid}/smaps_rollup') as f:
        return next(int(line.split()[1]) for line in f if line.startswith('Anonymous:'))


def ratio(result, name, value, bar, more=True):
    good = value >= bar if more else value <= bar
    result['figures'][name] = {'value': round(value, 4), 'bar': bar, 'reached': good}
    print(f'{name:32} {value:9.3f}  ({"at least" if more else "at most"} {bar}){"" if good else "  MISSED"}', file=sys.stderr)


def bench_open(o, result, cml):
    for name, size in (('10_MB', 10 * MB), ('1_GB', 1 << 30), ('8_GB_sparse', 8 << 30)):
        folder, blob = f'{o.dir}/sparse', f'{o.dir}/sparse.bin'
        make_sparse(folder, size)
        quiet(o.cmlpack, 'flatten', folder, blob)
        best = 1e9
        for _ in range(o.rounds):
            with cml(blob) as m:
                best = min(best, m.seconds)
        ratio(result, f'open_and_mount_{name}_ms', best * 1e3, 10, False)
        shutil.rmtree(folder)
        os.unlink(blob)


def bench_read(o, result, cml):
    folder, blob, size = f'{o.dir}/large', f'{o.dir}/large.bin', 512 * MB
    os.makedirs(folder)
    r = random.Random(1)
    with open(f'{folder}/weight.bin', 'wb') as f:
        for _ in range(size // MB):
            f.write(r.randbytes(MB))
    quiet(o.cmlpack, 'flatten', folder, blob)
    read_all(blob)  # warm on both sides
    read_all(f'{folder}/weight.bin')
    places = [r.randrange(size // 4096) * 4096 for _ in range(20000)]
    times = {k: [] for k in ('sequential_native', 'sequential_mount', 'random_native', 'random_mount')}
    for _ in range(o.rounds):
        times['sequential_native'].append(timed(lambda: read_all(f'{folder}/weight.bin')))
        with cml(blob) as m:
            times['sequential_mount'].append(timed(lambda: read_all(f'{m.place}/large/weight.bin')))
            pid = int(os.getxattr(m.place, 'user.cml.pid'))
            kib = anonymous_kib(pid)
        times['random_native'].append(timed(lambda: read_random(f'{folder}/weight.bin', places)))
        with cml(blob) as m:
            times['random_mount'].append(timed(lambda: read_random(f'{m.place}/large/weight.bin', places)))
    best = {k: min(v) for k, v in times.items()}
    result['seconds']['read'] = best
    ratio(result, 'sequential_read_against_native', best['sequential_native'] / best['sequential_mount'], .38)
    ratio(result, 'random_4k_read_against_native', best['random_native'] / best['random_mount'], .10)
    ratio(result, 'anonymous_memory_MiB', kib / 1024, 2, False)
    shutil.rmtree(folder)
    os.unlink(blob)


def bench_tree(o, result, cml):
    folder, blob, image = f'{o.dir}/many', f'{o.dir}/many.bin', f'{o.dir}/many.sqfs'
    make_small(folder, random.Random(2))
    quiet(o.cmlpack, 'flatten', folder, blob)
    quiet('mksquashfs', folder, image, '-noI', '-noD', '-noF', '-noX', '-no-progress', '-quiet')
    place = f'{o.dir}/squash'
    squash = lambda: Mount(['squashfuse_ll', image, place], ['fusermount3' if shutil.which('fusermount3') else 'fusermount', '-u', place], place)
    times = {}
    for what, go in (('stat', stat_all), ('tar', lambda p: quiet('sh', '-c', f'tar c -C "{p}" . | cat > /dev/null'))):
        for _ in range(o.rounds):
            for who, mount in (('cml', lambda: cml(blob)), ('squashfuse', squash)):
                with mount() as m:
                    times.setdefault(f'{what}_{who}', []).append(timed(lambda: go(m.place)))
    best = {k: min(v) for k, v in times.items()}
    result['seconds']['tree'] = best
    for what in ('stat', 'tar'):
        ratio(result, f'{what}_against_squashfuse', best[f'{what}_squashfuse'] / best[f'{what}_cml'], 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--build', default='build')
    parser.add_argument('--dir', default='/var/tmp', help='where to work; needs 2 GB')
    parser.add_argument('--rounds', type=int, default=5)
    o = parser.parse_args()
    o.cmlpack, cmlfs = (os.path.abspath(f'{o.build}/tools/{name}') for name in ('cmlpack', 'cmlfs'))
    result = {'figures': {}, 'seconds': {}}
    with tempfile.TemporaryDirectory(dir=o.dir) as o.dir:
        place = f'{o.dir}/place'
        cml = lambda blob: Mount([cmlfs, 'mount', blob, place], [cmlfs, 'umount', place], place)
        bench_open(o, result, cml)
        bench_read(o, result, cml)
        if shutil.which('squashfuse_ll') and shutil.which('mksquashfs'):
            bench_tree(o, result, cml)
        else:
            print('no squashfuse_ll or mksquashfs: stat and tar are not compared', file=sys.stderr)
    print(json.dumps(result, indent=2))
    return not all(f['reached'] for f in result['figures'].values())


sys.exit(main())
