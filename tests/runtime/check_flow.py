#!/usr/bin/env python3
"""Builds programs with coremltools' builder, runs them with cmlrun and compares with NumPy: control flow, lists, states,
flexible inputs and shapes that only data decide. Prints TAP; skips where coremltools is not installed.

usage: check_flow.py CMLRUN [--all]

Without --all every third program.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

try:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import get_new_symbol, types
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

F32, I32 = np.float32, np.int32
RNG = np.random.default_rng(5)
TARGETS = {15: ct.target.iOS15, 16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}
CASES = []


def floats(*shape):
    return RNG.uniform(-2, 2, shape).astype(F32)


KINDS = {F32: types.fp32, I32: types.int32}


def build(opset, specs, body):
    placeholders, inputs = [], []
    for name, spec in specs.items():
        shape, kind = spec if isinstance(spec, tuple) and spec and isinstance(spec[0], (tuple, list)) else (spec, F32)
        symbols = [get_new_symbol() if n is None else n for n in shape]
        placeholders.append(mb.TensorSpec(shape=symbols, dtype=KINDS[kind]))
        inputs.append(ct.TensorType(name=name, shape=[ct.RangeDim(1, 40, 3) if n is None else n for n in shape], dtype=kind))

    names = list(specs)
    source = f"def main({', '.join(names)}):\n    return body({', '.join(names)})\n"
    scope = {"body": body}
    exec(source, scope)
    program = mb.program(input_specs=placeholders, opset_version=TARGETS[opset])(scope["main"])
    return ct.convert(program, convert_to="mlprogram", minimum_deployment_target=TARGETS[opset], inputs=inputs,
                      compute_precision=ct.precision.FLOAT32, pass_pipeline=ct.PassPipeline.EMPTY, skip_model_load=True)


def predict(cmlrun, model, inputs, folder):
    np.savez(os.path.join(folder, "in.npz"), **inputs)
    out = os.path.join(folder, "out.npz")
    r = subprocess.run([cmlrun, "predict", model, "--input", os.path.join(folder, "in.npz"), "--output", out, "--threads", "2"], capture_output=True, text=True, timeout=60)
    if r.returncode:
        raise RuntimeError(f"exit {r.returncode}: {r.stderr.strip()[:300]}")
    return list(np.load(out).values())


def check(cmlrun, name, opset, specs, fn, fail):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.mlpackage")
        build(opset, specs, fn.body).save(path)
        for inputs in fn.inputs():
            want = fn.truth(**inputs)
            want = [np.asarray(w) for w in (want if isinstance(want, (tuple, list)) else [want])]
            if fail:
                try:
                    predict(cmlrun, path, inputs, folder)
                except RuntimeError as e:
                    if "exit 1:" not in str(e) or fail not in str(e):
                        return f"fails with {e}"
                    continue
                return "was not refused"
            got = predict(cmlrun, path, inputs, folder)
            if len(got) != len(want):
                return f"{len(got)} outputs, expected {len(want)}"
            used = set()
            for w in want:  # outputs are matched by value: their names are coremltools'
                fit = [k for k, g in enumerate(got) if k not in used and g.size == w.size and (g.shape == w.shape or w.ndim == 0)
                       and np.allclose(g.astype(np.float64).reshape(-1), w.astype(np.float64).reshape(-1), 1e-5, 1e-5, equal_nan=True)]
                if not fit:
                    return f"expected {w.shape} {w.reshape(-1)[:6]}, got {[(g.shape, g.reshape(-1)[:6]) for g in got]} for {[(k, v.shape) for k, v in inputs.items()]}"
                used.add(fit[0])
    return None


class Body:
    """What a case runs, what it should give, and for which inputs."""
    def __init__(self, body, truth, inputs):
        self.body, self.truth, self.inputs = body, truth, inputs


def add(name, specs, body, truth, inputs, opset=15, fail=None):
    """specs: input -> shape (fp32), or (shape, type); None in a shape is a flexible dimension. fail: words of the refusal."""
    CASES.append((name, opset, specs, Body(body, truth, inputs), fail))


def shapes(*sizes, like):
    """Inputs for each size: like(n) -> dict."""
    return lambda: [like(n) for n in sizes]


# ---- shapes that data decide -----------------------------------------------------------------------------------------

for opset in (15, 16, 17, 18):
    add(f"reshape by shape arithmetic, iOS{opset}", {"x": (None, 4)},
        lambda x: mb.reshape(x=x, shape=mb.concat(values=(mb.gather(x=mb.shape(x=x), indices=[0], axis=0), np.array([2, 2], I32)), axis=0)),
        lambda x: x.reshape(-1, 2, 2), shapes(1, 3, 7, like=lambda n: {"x": floats(n, 4)}), opset)
    add(f"dynamic slice, iOS{opset}", {"x": (None, 5), "n": ((1,), I32)},
        lambda x, n: mb.slice_by_index(x=x, begin=mb.concat(values=(n, np.array([1], I32)), axis=0), end=np.array([0, 4], I32), end_mask=[True, False]),
        lambda x, n: x[int(n[0]):, 1:4], lambda: [{"x": floats(r, 5), "n": np.array([k], I32)} for r, k in ((3, 0), (4, 2), (5, -2), (2, 2))], opset)
    add(f"slice by a size from data, iOS{opset}", {"x": (6, 5), "n": ((2,), I32)},
        lambda x, n: mb.slice_by_size(x=x, begin=np.array([1, 0], I32), size=n),
        lambda x, n: x[1:1 + n[0], :n[1] if n[1] >= 0 else None], lambda: [{"x": floats(6, 5), "n": np.array(k, I32)} for k in ((2, 3), (5, -1), (1, 1))], opset)
    add(f"begin from data, fixed size, iOS{opset}", {"x": (6, 5), "at": ((2,), I32)},
        lambda x, at: mb.slice_by_size(x=x, begin=at, size=np.array([2, 3], I32)),
        lambda x, at: x[at[0]:at[0] + 2, at[1]:at[1] + 3], lambda: [{"x": floats(6, 5), "at": np.array(k, I32)} for k in ((0, 0), (4, 2), (3, 1))], opset)
    add(f"what is not zero, iOS{opset}", {"x": (3, 4)}, lambda x: mb.non_zero(x=mb.relu(x=x)), lambda x: np.argwhere(np.maximum(x, 0)),
        lambda: [{"x": floats(3, 4)}, {"x": np.full((3, 4), 1, F32)}, {"x": np.array([[0, 0, 0, 0], [0, 0, 2, 0], [0] * 4], F32)}], opset)
    add(f"gather what is not zero, iOS{opset}", {"x": (3, 4)}, lambda x: mb.gather_nd(x=x, indices=mb.non_zero(x=mb.cast(x=mb.relu(x=x), dtype="bool"))),
        lambda x: x[x > 0], lambda: [{"x": floats(3, 4)}, {"x": np.full((3, 4), 1, F32)}], opset)
    add(f"range from data, iOS{opset}", {"n": ((1,), I32)}, lambda n: mb.range_1d(start=I32(1), end=mb.squeeze(x=n, axes=[0]), step=I32(2)),
        lambda n: np.arange(1, n[0], 2), lambda: [{"n": np.array([k], I32)} for k in (2, 9, 12)], opset)
    add(f"fill from shape, iOS{opset}", {"x": (None, 2)}, lambda x: mb.fill(shape=mb.shape(x=x), value=F32(2.5)), lambda x: np.full(x.shape, 2.5),
        shapes(1, 5, like=lambda n: {"x": floats(n, 2)}), opset)
    add(f"tile by data, iOS{opset}", {"x": (2, 3), "r": ((2,), I32)}, lambda x, r: mb.tile(x=x, reps=r), lambda x, r: np.tile(x, r),
        lambda: [{"x": floats(2, 3), "r": np.array(k, I32)} for k in ((1, 1), (3, 2))], opset)
    add(f"pad by data, iOS{opset}", {"x": (2, 3), "p": ((4,), I32)}, lambda x, p: mb.pad(x=x, pad=p, mode="constant", constant_val=F32(1)),
        lambda x, p: np.pad(x, p.reshape(2, 2), constant_values=1), lambda: [{"x": floats(2, 3), "p": np.array(k, I32)} for k in ((0, 0, 1, 2), (1, 2, 0, 0))], opset)
    add(f"transpose, concat and split of any length, iOS{opset}", {"x": (None, 4), "y": (None, 4)},
        lambda x, y: mb.split(x=mb.transpose(x=mb.concat(values=(x, y), axis=0), perm=[1, 0]), num_splits=2, axis=0),
        lambda x, y: tuple(np.split(np.concatenate([x, y]).T, 2)), lambda: [{"x": floats(a, 4), "y": floats(b, 4)} for a, b in ((1, 2), (4, 4), (30, 7))], opset)
    add(f"one_hot of a size from data, iOS{opset}", {"x": ((3,), I32), "n": ((1,), I32)},
        lambda x, n: mb.one_hot(indices=x, one_hot_vector_size=mb.squeeze(x=n, axes=[0]), axis=-1, on_value=F32(1), off_value=F32(0)),
        lambda x, n: (x[:, None] == np.arange(n[0])).astype(F32), lambda: [{"x": np.array([0, 2, 1], I32), "n": np.array([k], I32)} for k in (3, 5)], opset)
    add(f"index out of range, iOS{opset}", {"x": (4, 2), "i": ((2,), I32)},
        (lambda x, i: mb.gather(x=x, indices=i, axis=0)) if opset < 17 else (lambda x, i: mb.gather(x=x, indices=i, axis=0, validate_indices=True)),
        lambda x, i: x, lambda: [{"x": floats(4, 2), "i": np.array([0, 4], I32)}], opset, "out of range")


# ---- control flow ----------------------------------------------------------------------------------------------------

def collatz(n):
    steps = 0
    n = int(n[0])
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return np.array([steps])


def collatz_body(n):
    even = lambda v: mb.equal(x=mb.mod(x=v, y=I32(2)), y=I32(0))
    def step(v, count):
        branch = mb.cond(pred=mb.squeeze(x=even(v), axes=[0]), _true_fn=lambda: mb.floor_div(x=v, y=I32(2)),
                         _false_fn=lambda: mb.add(x=mb.mul(x=v, y=I32(3)), y=I32(1)))
        return branch, mb.add(x=count, y=I32(1))
    return mb.while_loop(_cond=lambda v, count: mb.squeeze(x=mb.not_equal(x=v, y=I32(1)), axes=[0]), _body=step,
                         loop_vars=(n, mb.sub(x=n, y=n)))[1]


def powers_body(x, n):
    """x^n for a matrix, by a loop whose values swap places."""
    def step(i, a, b):
        return mb.add(x=i, y=I32(1)), b, mb.matmul(x=a, y=x)
    out = mb.while_loop(_cond=lambda i, a, b: mb.squeeze(x=mb.less(x=i, y=n), axes=[0]), _body=step,
                        loop_vars=(mb.sub(x=n, y=n), mb.mul(x=x, y=F32(1)), mb.mul(x=x, y=F32(2))))
    return out[1], out[2]


def powers(x, n):
    a, b = x, 2 * x
    for _ in range(int(n[0])):
        a, b = b, a @ x
    return a, b


def growing_body(x, n):
    """A loop variable that grows: its shape is data's."""
    def step(i, v):
        return mb.add(x=i, y=I32(1)), mb.concat(values=(v, x), axis=0)
    start = mb.slice_by_index(x=x, begin=[0, 0], end=[1, 3])
    return mb.while_loop(_cond=lambda i, v: mb.squeeze(x=mb.less(x=i, y=n), axes=[0]), _body=step, loop_vars=(mb.sub(x=n, y=n), start))[1]


def nested_body(x, n):
    def inner(j, v):
        return mb.add(x=j, y=I32(1)), mb.add(x=v, y=x)
    def outer(i, v):
        r = mb.while_loop(_cond=lambda j, w: mb.squeeze(x=mb.less(x=j, y=i), axes=[0]), _body=inner, loop_vars=(mb.sub(x=n, y=n), v))
        return mb.add(x=i, y=I32(1)), mb.mul(x=r[1], y=F32(0.5))
    return mb.while_loop(_cond=lambda i, v: mb.squeeze(x=mb.less(x=i, y=n), axes=[0]), _body=outer, loop_vars=(mb.sub(x=n, y=n), x))[1]


def nested(x, n):
    v = x.astype(np.float64)
    for i in range(int(n[0])):
        v = (v + i * x) * 0.5
    return v


def counts(*ks, like):
    return lambda: [like(np.array([k], I32)) for k in ks]


for opset in (15, 17, 18):
    add(f"cond inside while_loop, iOS{opset}", {"n": ((1,), I32)}, collatz_body, collatz, counts(1, 2, 7, 27, like=lambda n: {"n": n}), opset)
    add(f"loop variables that swap, iOS{opset}", {"x": (3, 3), "n": ((1,), I32)}, powers_body, powers, counts(0, 1, 2, 5, like=lambda n: {"x": floats(3, 3), "n": n}), opset)
    add(f"nested loops, iOS{opset}", {"x": (2, 3), "n": ((1,), I32)}, nested_body, nested, counts(0, 1, 4, like=lambda n: {"x": floats(2, 3), "n": n}), opset)
    add(f"cond with values from outside, iOS{opset}", {"x": (2, 3), "y": (2, 3)},
        lambda x, y: mb.cond(pred=mb.greater(x=mb.reduce_sum(x=x, axes=[0, 1], keep_dims=False), y=F32(0)), _true_fn=lambda: (mb.add(x=x, y=y), x),
                             _false_fn=lambda: (mb.sub(x=x, y=y), y)),
        lambda x, y: (x + y, x) if x.sum() > 0 else (x - y, y), lambda: [{"x": v * np.abs(floats(2, 3)), "y": floats(2, 3)} for v in (F32(1), F32(-1))], opset)

# ---- recurrent layers of many vectors, whose weights are packed -----------------------------------------------------


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


W, R, B, U = (RNG.uniform(-0.5, 0.5, s).astype(F32) for s in ((160, 7), (160, 40), (160,), (120,)))


def lstm(x, h, c, w=W, r=R, b=B):
    out = []
    for v in x:
        i, f, o, z = np.split(v @ w.T + h @ r.T + b, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out), h, c


def gru_states(x, d, h=None):
    """The state before the first step (zeros by default) and after each; weights from row d on."""
    out = [np.zeros((x.shape[1], 40), F32) if h is None else h]
    for v in x:
        (ir, io, iz), (hr, ho, hz) = np.split(v @ W[d:120 + d].T + U, 3, -1), np.split(out[-1] @ R[d:120 + d].T + B[d:120 + d], 3, -1)
        r, z = sigmoid(ir + hr), sigmoid(iz + hz)
        out.append((1 - z) * np.tanh(io + r * ho) + z * out[-1])
    return np.stack(out)


def gru(x, h):
    last = gru_states(x, 0, h)[-1]
    return last[None], last


for batch in (1, 3, 4, 9):
    add(f"lstm, batch {batch}", {"x": (None, batch, 7), "h": (batch, 40), "c": (batch, 40)},
        lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=W, weight_hh=R, bias=B, output_sequence=True), lstm,
        lambda n=batch: [{"x": floats(s, n, 7), "h": floats(n, 40), "c": floats(n, 40)} for s in (1, 6)], 17)
    add(f"gru, batch {batch}", {"x": (5, batch, 7), "h": (batch, 40)},
        lambda x, h: mb.gru(x=x, initial_h=h, weight_ih=W[:120], weight_hh=R[:120], bias=B[:120], input_bias=U, reset_after=True), gru,
        lambda n=batch: [{"x": floats(5, n, 7), "h": floats(n, 40)}], 18)

# a step or two of few vectors read their weights in place, by all threads where they are many
W2, R2, B2 = (RNG.uniform(-0.1, 0.1, s).astype(F32) for s in ((880, 150), (880, 220), (880,)))


for steps, batch in ((1, 1), (1, 3), (3, 1)):
    add(f"lstm of 220, {steps} steps, batch {batch}", {"x": (steps, batch, 150), "h": (batch, 220), "c": (batch, 220)},
        lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=W2, weight_hh=R2, bias=B2, output_sequence=True),
        lambda x, h, c: lstm(x, h, c, W2, R2, B2),
        lambda s=steps, n=batch: [{"x": floats(s, n, 150), "h": floats(n, 220), "c": floats(n, 220)}], 17)

# two directions are two threads' work
W3, R3, B3 = (RNG.uniform(-0.05, 0.05, (2, *s)).astype(F32) for s in ((2048, 20), (2048, 512), (2048,)))


def two_lstms(x, h, c):
    ends = []
    for d in range(2):
        own = slice(d * 512, d * 512 + 512)
        out, *last = lstm(x[::-1] if d else x, h[:, own], c[:, own], W3[d], R3[d], B3[d])
        ends.append((out[::-1] if d else out, *last))
    return [np.concatenate(both, -1) for both in zip(*ends)]


def gru_loop(x, d):
    """A layer as torch's converter writes it: all states, the first zeros; gates r, n, z."""
    steps, batch, _ = x.shape
    w, r, b, u = (np.split(v, 3) for v in (W[d:120 + d], R[d:120 + d], B[d:120 + d], U))

    def step(i, states):
        v, h = (mb.squeeze(x=mb.gather(x=t, indices=i, axis=0), axes=[0]) for t in (x, states))
        of_x, of_h = ([mb.linear(x=t, weight=m[k], bias=n[k]) for k in range(3)] for t, m, n in ((v, w, u), (h, r, b)))
        reset, update = (mb.sigmoid(x=mb.add(x=of_x[k], y=of_h[k])) for k in (0, 2))
        fresh = mb.tanh(x=mb.add(x=of_x[1], y=mb.mul(x=reset, y=of_h[1])))
        h = mb.add(x=mb.mul(x=mb.sub(x=F32(1), y=update), y=fresh), y=mb.mul(x=update, y=h))
        after = mb.add(x=i, y=I32(1))
        return after, mb.scatter(data=states, indices=after, updates=mb.expand_dims(x=h, axes=[0]), axis=0, mode="update")
    start = np.zeros((steps + 1, batch, 40), F32)
    return mb.while_loop(_cond=lambda i, s: mb.less(x=i, y=I32(steps)), _body=step, loop_vars=(np.array([0], I32), start))[1]


add("lstms of 512 in two directions", {"x": (4, 9, 20), "h": (9, 1024), "c": (9, 1024)},
    lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, weight_ih=W3[0], weight_hh=R3[0], bias=B3[0], weight_ih_back=W3[1], weight_hh_back=R3[1],
                            bias_back=B3[1], direction="bidirectional", output_sequence=True),
    two_lstms, lambda: [{"x": floats(4, 9, 20), "h": floats(9, 1024) / 4, "c": floats(9, 1024)}] * 5, 17)
for batch in (1, 2, 30):
    add(f"loops of gru in two directions, batch {batch}", {"x": (5, batch, 7)},
        lambda x: (gru_loop(x, 0), gru_loop(mb.reverse(x=x, axes=[0]), 40)), lambda x: (gru_states(x, 0), gru_states(x[::-1], 40)),
        lambda n=batch: [{"x": floats(5, n, 7)}])
    add(f"two loops of gru over one input, batch {batch}", {"x": (5, batch, 7)},
        lambda x: (gru_loop(x, 20), gru_loop(x, 3)), lambda x: (gru_states(x, 20), gru_states(x, 3)), lambda n=batch: [{"x": floats(5, n, 7)}])

# ---- lists -----------------------------------------------------------------------------------------------------------


def list_loop(x, n):
    """Squares row after row into a list, then gathers it."""
    def step(i, ls):
        row = mb.gather(x=x, indices=i, axis=0)
        return mb.add(x=i, y=I32(1)), mb.list_write(ls=ls, index=i, value=mb.mul(x=row, y=row))
    ls = mb.make_list(init_length=I32(1), dynamic_length=True, elem_shape=(I32(3),), dtype="fp32")
    count = mb.squeeze(x=n, axes=[0])
    out = mb.while_loop(_cond=lambda i, l: mb.less(x=i, y=count), _body=step, loop_vars=(mb.sub(x=count, y=count), ls))[1]
    return mb.list_gather(ls=out, indices=mb.range_1d(start=I32(0), end=count, step=I32(1))), mb.list_length(ls=out)


add("a list filled by a loop", {"x": (None, 3), "n": ((1,), I32)}, list_loop, lambda x, n: (x[:n[0]] ** 2, np.array(max(1, n[0]))),
    lambda: [{"x": floats(r, 3), "n": np.array([k], I32)} for r, k in ((3, 1), (5, 5), (30, 20))])


def list_sharing(x):
    a = mb.list_scatter(ls=mb.make_list(init_length=I32(3), dynamic_length=True, elem_shape=(I32(2),), dtype="fp32"), indices=np.array([0, 1, 2], I32), value=x)
    b = mb.list_write(ls=a, index=I32(1), value=np.array([7, 8], F32))
    return mb.list_gather(ls=a, indices=np.array([2, 1, 0], I32)), mb.list_read(ls=b, index=I32(1)), mb.list_gather(ls=b, indices=np.array([0, 1], I32))


add("a written list leaves the old one as it was", {"x": (3, 2)}, list_sharing, lambda x: (x[::-1], np.array([7, 8], F32), np.stack([x[0], [7, 8]])), lambda: [{"x": floats(3, 2)}])
add("a list index out of range", {"x": (2,), "i": ((1,), I32)},
    lambda x, i: mb.list_read(ls=mb.list_write(ls=mb.make_list(init_length=I32(1), elem_shape=(I32(2),), dtype="fp32"), index=I32(0), value=x), index=mb.squeeze(x=i, axes=[0])),
    lambda x, i: x, lambda: [{"x": floats(2), "i": np.array([k], I32)} for k in (5, -1)], fail="list")


def main():
    cmlrun = sys.argv[1]
    cases = CASES if "--all" in sys.argv else CASES[::3]
    print(f"1..{len(cases)}")
    for i, (name, opset, specs, fn, fail) in enumerate(cases, 1):
        try:
            wrong = check(cmlrun, name, opset, specs, fn, fail)
        except Exception as e: # a case that cannot be built or run is a failed one
            wrong = f"{type(e).__name__}: {e}"
        print(f"{'not ok' if wrong else 'ok'} {i} - {name}", flush=True)
        if wrong:
            print("# " + wrong.replace("\n", " ")[:600], flush=True)


if __name__ == "__main__":
    main()
