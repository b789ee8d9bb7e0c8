#!/usr/bin/env python3
"""Loading and memory of ExecuTorch programs, large ones and any that are given.

    python3 tests/bench/bench_programs.py [--build build] [--dir /tmp] [--mb 1000] [--no-make] [FILE.pte ...] > programs.json

Makes two programs of --mb megabytes (a gigabyte wants about 4 GB of memory while it is exported): one whose weights ExecuTorch's own
operators use (an embedding, a product, a convolution, a linear layer), one with a Core ML delegate over a package of that size; and
removes them again. For each file: open_ms, the time to open it and load its method without its delegates (bar: 10); prepare_ms, with
them; peak_bytes, the most memory that belongs to no file, while loading and running, of which base_bytes the process had before;
over_bytes: what that is beyond the program's own plan, base included (bar for programs without delegates: 2 MB). The fastest of
--rounds counts for times, the largest for memory. Exit code 1 when a bar is missed. Making needs the executorch wheel."""
import argparse
import json
import os
import subprocess
import sys
import tempfile


def make_portable(path, mb):
    import torch
    from executorch.exir import EdgeCompileConfig, to_edge

    class Model(torch.nn.Module):
        def __init__(self, n):  # n: units of 16 MB for 64
            super().__init__()
            self.table = torch.nn.Embedding(1024 * n, 1024)
            self.w = torch.nn.Parameter(torch.empty(1024, 1536 * n).uniform_(-.02, .02))
            self.conv = torch.nn.Conv2d(1024, 64 * n, 3, padding=1)
            self.out = torch.nn.Linear(64 * n, 16384)

        def forward(self, x):
            h = self.table(x)
            y = torch.mm(h[0], self.w).sum()
            c = self.conv(h.transpose(1, 2).reshape(1, 1024, 2, 2))
            return self.out(c.mean((2, 3))).sum() + y

    with torch.no_grad():
        program = torch.export.export(Model(max(1, mb * 64 // 1090)).eval(), (torch.tensor([[1, 2, 3, 4]]),))
        keep = EdgeCompileConfig(_check_ir_validity=False, preserve_ops=[torch.ops.aten.linear.default])
        done = to_edge(program, compile_config=keep).to_executorch()
        with open(path, "wb") as f:
            done.write_to_file(f)


def make_delegate(path, mb):
    import coremltools as ct
    import torch
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    layers = max(1, mb // 32)  # of 4096 x 4096 float16
    specs = CoreMLBackend.generate_compile_specs(compute_precision=ct.precision.FLOAT16, minimum_deployment_target=ct.target.iOS18)
    with torch.no_grad():
        model = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False, dtype=torch.float16) for _ in range(layers))).eval()
        program = torch.export.export(model, (torch.ones(1, 4096, dtype=torch.float16),))
        edge = to_edge_transform_and_lower(program, partitioner=[CoreMLPartitioner(compile_specs=specs)], compile_config=EdgeCompileConfig(_check_ir_validity=False))
        done = edge.to_executorch()
        with open(path, "wb") as f:
            done.write_to_file(f)


def measure(a, path):
    runs = []
    for _ in range(a.rounds):
        p = subprocess.run([os.path.join(a.build, "tools", "cmlrun"), "bench", path, "--seconds", "0.01", "--threads", str(a.threads), "--json"],
                           capture_output=True, text=True)
        if p.returncode:
            return {"error": p.stderr.strip()[-300:]}
        runs.append(json.loads(p.stdout))
    r = {k: min(x[k] for x in runs) for k in ("open_ms", "prepare_ms", "median_ms")}
    r |= {"plan_bytes": runs[0]["arena_bytes"], "base_bytes": runs[0]["base_bytes"], "peak_bytes": max(x["peak_bytes"] for x in runs)}
    return {"file_bytes": os.path.getsize(path), **r, "over_bytes": r["peak_bytes"] - r["plan_bytes"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("--dir", default=tempfile.gettempdir())
    p.add_argument("--mb", type=int, default=1000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--no-make", action="store_true", help="only the files given")
    p.add_argument("files", nargs="*")
    a = p.parse_args()
    results, missed = {}, []
    with tempfile.TemporaryDirectory(dir=a.dir) as folder:
        todo = [(path, None) for path in a.files]
        if not a.no_make:
            todo += [(os.path.join(folder, "portable.pte"), make_portable), (os.path.join(folder, "delegate.pte"), make_delegate)]
        for path, make in todo:
            if make and os.fork() == 0:  # memory of making goes with it
                os.dup2(2, 1)
                make(path, a.mb)
                os._exit(0)
            if make and os.wait()[1]:
                sys.exit("the program was not made: is there an executorch wheel?")
            name = os.path.basename(path) if make else path
            results[name] = r = measure(a, path)
            if make:
                os.unlink(path)
            if "error" in r:
                continue
            missed += [f"{name}: opened in {r['open_ms']:.1f} ms"] if r["open_ms"] >= 10 else []
            missed += [f"{name}: {r['over_bytes']} bytes over its plan"] if make is make_portable and r["over_bytes"] > 2 << 20 else []
    json.dump({"threads": a.threads, "programs": results, "missed": missed}, sys.stdout, indent=1)
    print()
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
