#!/usr/bin/env python3
"""cmlrun bench on the digits model: what the profile, the trace and the page say is well-formed and agrees. Prints TAP.

usage: check_bench.py CMLRUN SOURCE
"""
import json
import os
import re
import subprocess
import sys
import tempfile

CMLRUN, SOURCE = sys.argv[1:3]
MODEL = os.path.join(SOURCE, "tests/data/digits/digits-classifier.mlpackage")
count = 0


def check(good, what):
    global count
    count += 1
    print(f"{'ok' if good else 'not ok'} {count} - {what}", flush=True)


# One operation that threads share, with a name that HTML and JSON must take care of.
SHARED = """program(1.0)
{
  func main<ios16>(tensor<fp32, [64, 64, 64]> x) {
    tensor<bool, []> no = const()[name = tensor<string, []>("no"), val = tensor<bool, []>(false)];
    tensor<fp32, [64, 64, 64]> y = matmul(x = x, y = x, transpose_x = no, transpose_y = no)[name = tensor<string, []>("</script><b>&amp; \u00e9 \u6a21")];
  } -> (y);
}
"""


def check_threads(folder):
    model, trace, page = (os.path.join(folder, n) for n in ("m.mlmodelc", "threads.json", "threads.html"))
    os.mkdir(model)
    open(os.path.join(model, "model.mil"), "w", encoding="utf-8").write(SHARED)
    run = subprocess.run([CMLRUN, "bench", model, "--threads", "2", "--seconds", "0.05", "--trace", trace, "--html", page], capture_output=True, text=True)
    check(run.returncode == 0, "bench runs with two threads " + run.stderr.strip())
    events = json.load(open(trace, encoding="utf-8"))["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    check(sorted(tracks.values()) == ["operations, on the caller's thread", "worker 1"], f"each thread has a track: {tracks}")
    slices = [e for e in events if e["ph"] == "X"]
    operations, pieces = [e for e in slices if e["cat"] != "piece"], [e for e in slices if e["cat"] == "piece"]
    check(len(operations) == 1 and operations[0]["name"] == "</script><b>&amp; \u00e9 \u6a21", "the operation has its name")
    whole = operations[0]
    check(len(pieces) >= 2 and all(p["tid"] in tracks and p["name"] == whole["name"] for p in pieces), f"{len(pieces)} pieces lie on tracks")
    check(all(whole["ts"] <= p["ts"] and p["ts"] + p["dur"] <= whole["ts"] + whole["dur"] + 1e-6 for p in pieces), "pieces lie within their operation")
    for tid in tracks:
        own = sorted((p["ts"], p["dur"]) for p in pieces if p["tid"] == tid)
        check(all(a + d <= b + 1e-6 for (a, d), (b, _) in zip(own, own[1:])), f"the pieces of {tracks[tid]} follow one another")
    data = json.loads(re.search(r"<script type='application/json' id=data>(.*?)</script>", open(page, encoding="utf-8").read(), re.S).group(1))
    check([e["name"] for e in data["events"]] == [whole["name"]] and len(data["pieces"]) == len(pieces), "the page has the same, whatever the name")
    check(all(p[3] == 0 and p[0] < data["threads"] == 2 for p in data["pieces"]), "its pieces point at the operation")


def check_kernels():
    """Packed weights have the width of the kernels' tiles, so that the choice can be seen."""
    packed = {}
    for name in ("portable", "avx2", "avx512", "avx512vnni", "avx512vbmi", "avx512fp16", "amx", "neon"):
        run = subprocess.run([CMLRUN, "bench", MODEL, "--seconds", "0.01", "--json", "--kernels", name], capture_output=True, text=True)
        check(run.returncode == 0 or (run.returncode == 2 and f"no kernels named '{name}'" in run.stderr), f"--kernels {name}: {run.stderr.strip() or 'runs'}")
        if run.returncode == 0:
            result = json.loads(run.stdout)
            packed[name] = result["packed_bytes"]
            check(result["kernels"] == name, f"and with those of {name}")
    check("portable" in packed, f"portable kernels run everywhere: {packed}")
    if "avx512" in packed:
        check(packed["avx512"] > packed["avx2"], f"a choice is made: {packed}")


def check_pair_flops(folder):
    """A pointwise and a depthwise convolution that run as one operation count both: 2 x 6 x 7 x 8 x 16 and 2 x 3 x 4 x 16 x 9."""
    def constant(name, shape):
        def nested(dims):
            return "[" + ", ".join(nested(dims[1:]) if len(dims) > 1 else "0.5" for _ in range(dims[0])) + "]"
        kind = f"tensor<fp32, {list(shape)}>"
        return f'{kind} {name} = const()[name = tensor<string, []>("{name}"), val = {kind}({nested(shape)})];'
    os.mkdir(os.path.join(folder, "pair.mlmodelc"))
    with open(os.path.join(folder, "pair.mlmodelc", "model.mil"), "w") as f:
        f.write('program(1.0)\n[buildInfo = dict<tensor<string, []>, tensor<string, []>>({{"a", "b"}})]\n{\n'
                "func main<ios16>(tensor<fp32, [1, 8, 6, 7]> x) {\n" + constant("w", (16, 8, 1, 1)) + constant("v", (16, 1, 3, 3)) +
                'tensor<string, []> same = const()[name = tensor<string, []>("same"), val = tensor<string, []>("same")];'
                'tensor<int32, [2]> two = const()[name = tensor<string, []>("two"), val = tensor<int32, [2]>([2, 2])];'
                'tensor<int32, []> groups = const()[name = tensor<string, []>("groups"), val = tensor<int32, []>(16)];'
                'tensor<fp32, [1, 16, 6, 7]> a = conv(x = x, weight = w, pad_type = same)[name = tensor<string, []>("a")];'
                'tensor<fp32, [1, 16, 3, 4]> y = conv(x = a, weight = v, strides = two, pad_type = same, groups = groups)[name = tensor<string, []>("y")];'
                "} -> (y);\n}\n")
    run = subprocess.run([CMLRUN, "bench", os.path.join(folder, "pair.mlmodelc"), "--threads", "1", "--seconds", "0.01", "--profile", "--json"],
                         capture_output=True, text=True)
    flops = {o["operator"]: o["flops"] for o in json.loads(run.stdout)["operators"]} if run.returncode == 0 else run.stderr
    check(run.returncode == 0 and flops.get("cml_conv_pair") == 10752 + 3456, f"a pair of convolutions counts both: {flops}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        trace, page = os.path.join(folder, "t.json"), os.path.join(folder, "p.html")
        run = subprocess.run([CMLRUN, "bench", MODEL, "--threads", "1", "--seconds", "0.1", "--profile", "--json", "--trace", trace, "--html", page],
                             capture_output=True, text=True)
        check(run.returncode == 0, "bench runs " + run.stderr.strip())
        result = json.loads(run.stdout)
        operators = result["operators"]
        check(operators and result["median_ms"] > 0 and result["peak_gflops"] > 0 and result["peak_gbytes_per_s"] > 0, "the JSON has operators and peaks")
        check(result["threads"] == 1, "the JSON says on how many threads it ran")
        total = sum(o["ms"] for o in operators)
        check(total > 0, f"operators take {total} of {result['median_ms']} ms")
        for o in operators:
            rate = o["flops"] / o["ms"] / 1e6 if o["ms"] else 0
            check(abs(rate - o["gflops_per_s"]) <= rate * (0.01 + 1e-6 / max(o["ms"], 1e-6)) + 1e-3, f"{o['operator']}: the rate is work by time")
            share = max(o["gflops_per_s"] / result["peak_gflops"], o["gbytes_per_s"] / result["peak_gbytes_per_s"])
            check(abs(share - o["share_of_peak"]) <= 0.01 * share + 1e-3, f"{o['operator']}: the share is of the peaks")

        events = [e for e in json.load(open(trace))["traceEvents"] if e["ph"] == "X"]
        check(len(events) == sum(o["calls"] for o in operators), "the trace has an event for each call")
        check(all(a["ts"] + a["dur"] <= b["ts"] + 1e-3 for a, b in zip(events, events[1:])), "events follow one another")
        flops = {o["operator"]: o["flops"] for o in operators}
        for name in flops:
            check(sum(e["args"]["flops"] for e in events if e["args"]["operator"] == name) == flops[name], f"{name}: trace and profile agree")

        text = open(page).read()
        check(not re.search(r"(src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text), "the page takes nothing from outside")
        data = json.loads(re.search(r"<script type='application/json' id=data>(.*?)</script>", text, re.S).group(1))
        check([e["name"] for e in data["events"]] == [e["name"] for e in events], "page and trace have the same events")
        check(data["arena"] == result["arena_bytes"] and data["plan"], "the page has the memory plan")
        check(all(v["offset"] + v["bytes"] <= data["arena"] and v["first"] <= v["last"] for v in data["plan"]), "the plan lies within the arena")

        check_threads(folder)
        human = subprocess.run([CMLRUN, "bench", MODEL, "--threads", "1", "--seconds", "0.05", "--profile"], capture_output=True, text=True)
        check(human.returncode == 0 and "GFLOP/s" in human.stdout and "of peak" in human.stdout, "the table has rates and shares")
        check_kernels()
        check_pair_flops(folder)
        bad = subprocess.run([CMLRUN, "bench", MODEL, "--seconds", "0.05", "--trace", os.path.join(folder, "no/such/folder.json")], capture_output=True, text=True)
        check(bad.returncode == 1 and "folder.json" in bad.stderr, "a file that cannot be written is an error")
    print(f"1..{count}")


main()
