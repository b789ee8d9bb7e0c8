#!/usr/bin/env python3
"""Flattening and unflattening against ExecuTorch's own code and against cat, in one run.

    python3 tests/bench/bench_flatten.py [--build build] [--dir /var/tmp] [--rounds 5] > flatten.json

Two trees are made: a gigabyte in a few large files (just under 1 GiB: above that ExecuTorch's flattening crashes) and
20,000 small files in 100 folders. Each round does everything once, in turn, each after a sync so that nobody pays for the
writing of another, and after as much memory was freed as the blob takes, for new memory may cost much on a virtual machine; the
fastest of the rounds counts. Sources are read just before, so that they are in the page cache. Small files that were written stay until the end: ext4
searches long for inodes that were not freed in the last seconds. cmlpack's times include the process's start. ExecuTorch's module is
taken from the wheel of the python that runs this (or $CML_PYTHON); without it only cat is compared."""
import argparse, glob, json, os, random, shutil, subprocess, sys, tempfile, time

WHEEL = r"""
import glob, importlib.util, os, sys, time
found = importlib.util.find_spec("executorch")
path = [p for d in (found.submodule_search_locations if found else []) for p in glob.glob(d + "/backends/apple/coreml/executorchcoreml*.so")]
if not path: sys.exit(3)
spec = importlib.util.spec_from_file_location("executorchcoreml", path[0])
wheel = importlib.util.module_from_spec(spec); spec.loader.exec_module(wheel)
what, source, target = sys.argv[1:]
start = time.perf_counter()
if what == "flatten":
    with open(target, "wb") as f: f.write(wheel.flatten_directory_contents(source))
else:
    with open(source, "rb") as f: data = f.read()
    os.mkdir(target)
    wheel.unflatten_directory_contents(data, target)
print("seconds", time.perf_counter() - start, flush=True)
os._exit(0)
"""


def make_large(top):
    chunk = random.Random(1).randbytes(1 << 20)
    for name, count in (("model.mlmodel", 3), ("weights/0-weight.bin", 700), ("weights/1-weight.bin", 320)):
        os.makedirs(os.path.dirname(f"{top}/{name}"), exist_ok=True)
        with open(f"{top}/{name}", "wb") as f:
            for i in range(count):
                f.write(i.to_bytes(8, "little") + chunk[8:])


def make_small(top):
    r = random.Random(2)
    for folder in range(100):
        os.makedirs(f"{top}/folder{folder:02}")
        for i in range(200):
            with open(f"{top}/folder{folder:02}/file_{i:03}.bin", "wb") as f:
                f.write(r.randbytes(r.randrange(1, 8192)))


def remove(path):
    shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.path.exists(path) and os.unlink(path)


def timed(command):
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def warm(path):
    """Machines may take pages back that nobody read for some seconds."""
    if os.path.isfile(path):
        with open(path, "rb") as f:
            while f.read(1 << 20):
                pass


def wheel_time(python, *arguments):
    done = subprocess.run([python, "-c", WHEEL, *arguments], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("seconds "):
            return float(line.split()[1])
    return None


def bench(name, make, options):
    top = f"{options.dir}/tree"
    make(top)
    files = sorted(glob.glob(f"{top}/**", recursive=True))
    total = sum(os.path.getsize(f) for f in files if os.path.isfile(f))
    cat = f"find {top} -type f | LC_ALL=C sort > {options.dir}/list"
    subprocess.run(cat, shell=True, check=True)
    blob, out = f"{options.dir}/blob", f"{options.dir}/out"
    runs = {
        "flatten": lambda: timed([options.cmlpack, "flatten", top, blob]),
        "cat": lambda: timed(["sh", "-c", f"tr '\\n' '\\0' < {options.dir}/list | xargs -0 -n 30000 -s 2000000 cat > {blob}"]),
        "executorch_flatten": lambda: wheel_time(options.python, "flatten", top, blob),
        "unflatten": lambda: timed([options.cmlpack, "unflatten", f"{options.dir}/kept", out]),
        "executorch_unflatten": lambda: wheel_time(options.python, "unflatten", f"{options.dir}/kept", out),
    }
    subprocess.run([options.cmlpack, "flatten", top, f"{options.dir}/kept"], check=True)
    times = {run: [] for run in runs}
    for _ in range(options.rounds):
        for run in runs:
            os.sync()
            for path in [f"{options.dir}/kept"] if "unflatten" in run else files:
                warm(path)
            shutil.copyfile(f"{options.dir}/kept", blob)
            remove(blob)  # so that each finds as much memory at hand
            seconds = runs[run]()
            if seconds is not None:
                times[run].append(seconds)
            remove(blob)
            if name == "large":
                remove(out)
            elif os.path.exists(out):
                os.rename(out, tempfile.mktemp(dir=options.dir))
    best = {run: min(t) for run, t in times.items() if t}
    result = {"bytes": total, "files": sum(map(os.path.isfile, files)), "seconds": best, "all_seconds": times, "ratios": {}}
    for key, slow, fast, bar in options.bars[name]:
        if slow in best and fast in best:
            ratio = best[slow] / best[fast]
            result["ratios"][key] = {"ratio": round(ratio, 3), "bar": bar, "reached": ratio >= bar}
            print(f"{name:6} {key:36} {ratio:6.2f}  (at least {bar})", file=sys.stderr)
    remove(top)
    remove(f"{options.dir}/kept")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--dir", default=None, help="where to make the trees; needs 5 GB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["large", "small"])
    options = parser.parse_args()
    options.cmlpack = os.path.abspath(f"{options.build}/tools/cmlpack")
    options.python = os.environ.get("CML_PYTHON", sys.executable)
    options.dir = tempfile.mkdtemp(dir=options.dir)
    options.bars = {
        name: [("flatten over executorch", "executorch_flatten", "flatten", flatten),
               ("flatten over cat", "cat", "flatten", 0.9),
               ("unflatten over executorch", "executorch_unflatten", "unflatten", unflatten)]
        for name, flatten, unflatten in (("large", 2.5, 1.0), ("small", 3.0, 1.5))
    }
    try:
        result = {name: bench(name, make, options) for name, make in (("large", make_large), ("small", make_small))
                  if options.only in (None, name)}
    finally:
        shutil.rmtree(options.dir, ignore_errors=True)
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0 if all(r["reached"] for t in result.values() for r in t["ratios"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
