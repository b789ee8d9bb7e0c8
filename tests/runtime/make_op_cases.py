#!/usr/bin/env python3
"""Writes recorded cases of single operators (see op_cases.h): arguments, and results from NumPy and torch.

usage: make_op_cases.py FOLDER [--seed N] [--more]

writes FOLDER/FAMILY.cases. Without --more the selection that is kept in tests/data/ops; with it, several times as many
for a development machine. Results are computed in float64 from the arguments as they are stored; none comes from cml.
"""
import argparse
import itertools
import math
import os
import struct

import numpy as np

TYPES = {"float16": "fp16", "float32": "fp32", "float64": "fp64", "int8": "int8", "int16": "int16", "int32": "int32",
         "int64": "int64", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool"}
F16, F32, I32 = np.float16, np.float32, np.int32


class Packed:
    """An array of sub-byte integers, packed low bits first."""

    def __init__(self, values, dtype):
        self.values, self.dtype = np.asarray(values), dtype
        self.bits = int("".join(ch for ch in dtype if ch.isdigit()))

    def bytes(self):
        flat = self.values.reshape(-1).astype(np.int64) & ((1 << self.bits) - 1)
        bits = (flat[:, None] >> np.arange(self.bits)) & 1
        return np.packbits(bits.reshape(-1).astype(np.uint8), bitorder="little").tobytes()


def text(s):
    b = s.encode()
    return struct.pack("<H", len(b)) + b


def tensor(a):
    if isinstance(a, str):
        return text("string") + b"\0" + text(a)
    if isinstance(a, Packed):
        return text(a.dtype) + bytes([a.values.ndim]) + struct.pack(f"<{a.values.ndim}i", *a.values.shape) + a.bytes()
    a = np.asarray(a)
    return text(TYPES[a.dtype.name]) + bytes([a.ndim]) + struct.pack(f"<{a.ndim}i", *a.shape) + np.ascontiguousarray(a).tobytes()


class Family:
    def __init__(self, name, rng, more):
        self.name, self.rng, self.more, self.out, self.count, self.large = name, rng, more, [], 0, 0

    def add(self, op, opset, args, outputs, atol=0.0, rtol=0.0, refused=False, note="", kept=False):
        """args: name -> array, text or Packed (None leaves it out). `kept` however large it is."""
        args = {k: v for k, v in args.items() if v is not None}
        shape = "x".join(str(np.asarray(getattr(v, "values", v)).shape).replace(" ", "") for v in list(args.values())[:2] if not isinstance(v, str))
        b = b"CASE" + text(op) + text(f"{self.count} {note} {shape}"[:120]) + bytes([opset, int(refused)]) + struct.pack("<ff", atol, rtol)
        b += bytes([len(args)]) + b"".join(text(k) + tensor(v) for k, v in args.items())
        b += bytes([len(outputs)]) + b"".join(tensor(o) for o in outputs)
        if not self.more and not kept and len(b) > 500:  # few that are larger than a chunk
            self.large += 1
            if self.large > 10 and self.large % 10 or len(b) > 5000 and self.large > 3:
                return
        self.out.append(b)
        self.count += 1

    def refuse(self, op, opset, args, note=""):
        self.add(op, opset, args, [], refused=True, note=note)

    def floats(self, shape, dtype, low=-3, high=3):
        return self.rng.uniform(low, high, shape).astype(dtype)

    def save(self, folder):
        with open(os.path.join(folder, self.name + ".cases"), "wb") as f:
            f.write(b"".join(self.out))
        print(self.name, self.count, "cases,", sum(map(len, self.out)), "bytes")


def tolerance(dtype):
    """One rounding of the result, and single precision on the way."""
    return dict(atol=1e-6, rtol=2e-6) if dtype == F32 else dict(atol=2e-6, rtol=1.1e-3) if dtype == F16 else {}


def stored(value, dtype):
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype)


SHAPES = [(), (1,), (5,), (2, 3), (3, 1, 7), (1, 2, 3, 4), (2, 1, 3, 2, 2), (0,), (2, 0, 3), (1031,)]
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 65504.0, -65504.0, 6e-8]

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


# ---- unary -----------------------------------------------------------------------------------------------------------


def unary(f):
    plain = {
        "abs": (np.abs, -3, 3), "acos": (np.arccos, -1, 1), "asin": (np.arcsin, -1, 1), "atan": (np.arctan, -9, 9),
        "atanh": (np.arctanh, -0.99, 0.99), "ceil": (np.ceil, -3, 3), "cos": (np.cos, -9, 9), "cosh": (np.cosh, -4, 4),
        "erf": (erf, -3, 3), "exp": (np.exp, -8, 8), "exp2": (np.exp2, -8, 8), "floor": (np.floor, -3, 3),
        "round": (np.round, -3, 3), "sign": (np.sign, -3, 3), "sin": (np.sin, -9, 9), "sinh": (np.sinh, -4, 4),
        "sqrt": (np.sqrt, 0, 9), "square": (np.square, -9, 9), "tan": (np.tan, -1.4, 1.4), "tanh": (np.tanh, -4, 4),
    }
    for k, (op, (fn, low, high)) in enumerate(plain.items()):
        for i, (shape, dtype) in enumerate(itertools.product(SHAPES, (F32, F16))):
            if not f.more and (i + k) % 4:
                continue
            x = f.floats(shape, dtype, low, high)
            f.add(op, 15 + i % 4, {"x": x}, [stored(fn(x.astype(np.float64)), dtype)], **tolerance(dtype))
        for dtype in (F32, F16):
            x = np.array(SPECIAL, dtype)
            want = stored(fn(x.astype(np.float64)), dtype)
            if op in ("sin", "cos", "tan"):
                x, want = x[:9], want[:9]
            f.add(op, 17, {"x": x}, [want], **tolerance(dtype), note="special")
    ints = np.array([[0, 1, -1, 7], [-7, 46341, -2147483648, 2147483647]], I32)
    with np.errstate(all="ignore"):
        f.add("abs", 15, {"x": ints}, [np.abs(ints)])
        f.add("sign", 16, {"x": ints}, [np.sign(ints)])
        f.add("square", 17, {"x": ints}, [np.square(ints)])
    f.add("exp2", 18, {"x": np.array([0, 1, 5, 30], I32)}, [np.array([1, 2, 32, 1 << 30], I32)])
    for op, default, fn in (("inverse", 1e-4, lambda x: 1 / x), ("log", 1e-45, np.log), ("rsqrt", 1e-12, lambda x: 1 / np.sqrt(x))):
        for i, (shape, dtype) in enumerate(itertools.product(SHAPES, (F32, F16))):
            if not f.more and i % 3:
                continue
            x = f.floats(shape, dtype, 0.1, 5)
            eps = [None, dtype(0.5), dtype(0)][i % 3]
            e = float(dtype(default) if eps is None else eps)
            want = stored(fn(x.astype(np.float64) + e), dtype)
            f.add(op, 15 + i % 4, {"x": x, "epsilon": eps}, [want], **tolerance(dtype))
        x = f.floats((4, 3), F16, 0.1, 5)
        want = stored(fn(x.astype(np.float64) + 0.25), F16)
        f.add(op, 17, {"x": x, "epsilon": F32(0.25)}, [want], **tolerance(F16))
        f.refuse(op, 17, {"x": x, "epsilon": np.zeros((2,), F32)}, "two epsilons")
        f.refuse(op, 17, {"x": x, "epsilon": np.zeros((0,), F32)}, "no epsilon")
    for shape, dtype in itertools.product(SHAPES, (F32, F16)):
        x = f.floats(shape, dtype)
        f.add("clip", 16, {"x": x, "alpha": dtype(-0.5), "beta": dtype(1.25)}, [np.clip(x, dtype(-0.5), dtype(1.25))])
        f.add("threshold", 16, {"x": x, "alpha": dtype(0.25)}, [np.maximum(x, dtype(0.25))])
    nan = np.array([np.nan, np.inf, -np.inf, 0], F32)
    f.add("clip", 15, {"x": nan, "alpha": F32(-1), "beta": F32(1)}, [np.array([np.nan, 1, -1, 0], F32)])
    f.add("clip", 15, {"x": nan, "alpha": F32(1), "beta": F32(1)}, [np.array([np.nan, 1, 1, 1], F32)])
    f.refuse("clip", 17, {"x": nan, "alpha": F32(1), "beta": F32(1)}, "empty range")
    f.refuse("clip", 18, {"x": nan, "alpha": F32(2), "beta": F32(1)}, "empty range")
    f.add("threshold", 17, {"x": ints, "alpha": I32(5)}, [np.maximum(ints, 5)])
    b = f.rng.integers(0, 2, (3, 5)).astype(bool)
    f.add("logical_not", 15, {"x": b}, [~b])
    f.add("logical_not", 18, {"x": np.array(True)}, [np.array(False)])
    cast(f)


def cast(f):
    names = {"fp16": F16, "fp32": F32, "int32": I32, "bool": np.bool_, "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16}
    x = np.array([[0, 1, 2.5, 100.75], [7, 63.99, 0.25, 3]])
    for a, b in itertools.product(names, names):
        small = a in ("fp16", "fp32", "int32", "bool") and b in ("fp16", "fp32", "int32", "bool")
        v = x.astype(names[a])
        f.add("cast", 15 if small else 17, {"x": v, "dtype": b}, [v.astype(names[b])])
    v = np.array([-1.5, -0.99, -100.1, 3.99, 1e-9], F32)
    f.add("cast", 15, {"x": v, "dtype": "int32"}, [v.astype(I32)])
    f.add("cast", 17, {"x": v, "dtype": "int8"}, [v.astype(np.int8)])
    f.add("cast", 15, {"x": v, "dtype": "bool"}, [v != 0])
    v = np.array([-1, 256, 300, 65535, -32768, 2147483647], I32)
    for b in ("int8", "uint8", "int16", "uint16", "fp32", "bool"):
        f.add("cast", 17, {"x": v, "dtype": b}, [v.astype(names[b])], note="integers wrap")
    for shape in SHAPES:
        v = f.floats(shape, F32, -1e5, 1e5)
        f.add("cast", 16, {"x": v, "dtype": "fp16"}, [stored(v, F16)])
    f.refuse("cast", 16, {"x": v, "dtype": "int8"}, "not in this opset")
    f.refuse("cast", 17, {"x": v, "dtype": "int64"}, "no such type")
    f.refuse("cast", 17, {"x": v, "dtype": "fp17"}, "no such type")


# ---- binary ----------------------------------------------------------------------------------------------------------


PAIRS = [((), ()), ((3,), ()), ((), (2, 3)), ((2, 3), (3,)), ((2, 3), (2, 1)), ((4, 1), (1, 5)), ((1, 2, 3, 4), (2, 1, 1)),
         ((2, 1, 3, 1, 2), (4, 1, 5, 1)), ((0,), (1,)), ((2, 0), (1, 1)), ((33, 41), (33, 41)), ((3, 700), (3, 1)),
         ((2, 3, 1, 4), (1, 1, 5, 1)), ((1500,), (1500,))]


def binary(f):
    def wrapped(fn):
        return lambda x, y: fn(x, y)
    arithmetic = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "real_div": np.divide, "floor_div": np.floor_divide,
                  "mod": np.mod, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum}
    comparison = {"equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
                  "greater": np.greater, "greater_equal": np.greater_equal}
    logical = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}
    for k, (op, fn) in enumerate({**arithmetic, **comparison}.items()):
        for i, ((a, b), dtype) in enumerate(itertools.product(PAIRS, (F32, F16, I32))):
            if not f.more and (i + k) % 5:
                continue
            if dtype == I32:
                x, y = f.rng.integers(-6, 7, a).astype(I32), f.rng.integers(1, 5, b).astype(I32)
                if op in ("real_div", "floor_div", "mod"):
                    y = (y * f.rng.choice([-1, 1], b)).astype(I32)
                want = np.trunc(x / y).astype(I32) if op == "real_div" else fn(x, y)
                tol = {}
            else:
                x, y = f.floats(a, dtype), f.floats(b, dtype)
                if op == "pow":
                    x = np.abs(x) + dtype(0.1)
                if op in ("floor_div", "mod", "real_div"):
                    y = np.where(np.abs(y) < 0.3, dtype(0.5), y).astype(dtype)
                if op in comparison:
                    x, y, tol = np.round(x), np.round(y), {}
                else:
                    tol = tolerance(dtype)
                want = fn(x.astype(np.float64), y.astype(np.float64))
                want = want if op in comparison else stored(want, dtype)
            f.add(op, 15 + i % 4, {"x": x, "y": y}, [np.asarray(want)], **tol)
        f.refuse(op, 15, {"x": np.zeros((2, 3), F32), "y": np.zeros((2, 2), F32)}, "shapes")
        f.refuse(op, 18, {"x": np.zeros((0,), F32), "y": np.zeros((2,), F32)}, "shapes")
    s = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2.5], F32)
    with np.errstate(all="ignore"):
        for op, fn in {**arithmetic, **comparison}.items():
            f.add(op, 17, {"x": s[:, None], "y": s[None]}, [fn(s[:, None], s[None])], rtol=1e-6, note="special")
        e = np.array([-2147483648, -1, 0, 1, 2, 65536, 2147483647], I32)
        for op in ("add", "sub", "mul", "maximum", "minimum"):
            f.add(op, 17, {"x": e[:, None], "y": e[None]}, [arithmetic[op](e[:, None], e[None])], note="integers wrap")
        for op in comparison:
            f.add(op, 15, {"x": e[:, None], "y": e[None]}, [comparison[op](e[:, None], e[None])])
        n = np.array([-2147483647, -7, -1, 1, 2, 7, 2147483647], I32)
        for op in ("floor_div", "mod"):
            f.add(op, 15, {"x": e[:, None], "y": n[None]}, [arithmetic[op](e[:, None].astype(np.int64), n[None].astype(np.int64)).astype(I32)])
        f.add("pow", 16, {"x": np.array([2, 3, -2, 10, 0, -1], I32), "y": np.array([31, 5, 3, 10, 0, 7], I32)},
              [np.array([-2147483648, 243, -8, 1410065408, 1, -1], I32)])
    for op in ("real_div", "floor_div", "mod"):
        f.add(op, 16, {"x": np.array([5, -5], I32), "y": np.array([0, 0], I32)}, [np.array([0, 0], I32)], note="by zero")
    for op, fn in logical.items():
        for i, (a, b) in enumerate(PAIRS):
            x, y = f.rng.integers(0, 2, a).astype(bool), f.rng.integers(0, 2, b).astype(bool)
            f.add(op, 15 + i % 4, {"x": x, "y": y}, [np.asarray(fn(x, y))])
    triples = [((), (), ()), ((2, 3), (2, 3), (2, 3)), ((2, 1), (3,), ()), ((1, 4), (3, 1), (2, 1, 1)), ((0,), (1,), ()), ((2, 700), (700,), (2, 1))]
    for i, ((c, a, b), dtype) in enumerate(itertools.product(triples, (F32, F16, I32, np.bool_))):
        cond = f.rng.integers(0, 2, c).astype(bool)
        x, y = f.rng.integers(-9, 9, a).astype(dtype), f.rng.integers(-9, 9, b).astype(dtype)
        f.add("select", 15 + i % 4, {"cond": cond, "a": x, "b": y}, [np.asarray(np.where(cond, x, y))])
    x = np.array([1, 2, 3], F32)
    f.add("select", 15, {"cond": x > 1, "a": x * np.float32(np.nan), "b": x}, [np.array([1, np.nan, np.nan], F32)])
    f.refuse("select", 15, {"cond": np.zeros((4,), bool), "a": x, "b": x}, "shapes")
    for i, (shape, dtype) in enumerate(itertools.product([(5,), (2, 3), (3, 1, 7), (2, 3, 4, 5), (2, 300), (0, 3), (3, 0)], (F32, F16, I32))):
        x = f.rng.integers(-9, 9, shape).astype(dtype)
        for axis in range(-1, len(shape)):
            exclusive, reverse = bool((i + axis) & 1), bool((i + axis) & 2)
            y = np.flip(x, axis) if reverse else x
            y = np.cumsum(y, axis=axis, dtype=np.float64) - (y if exclusive else 0)
            y = np.flip(y, axis) if reverse else y
            f.add("cumsum", 15 + i % 4, {"x": x, "axis": I32(axis), "exclusive": np.bool_(exclusive), "reverse": np.bool_(reverse)},
                  [y.astype(dtype)], rtol=1e-3 if dtype == F16 else 0)
    f.add("cumsum", 15, {"x": np.ones((2, 2), F32)}, [np.array([[1, 1], [2, 2]], F32)])
    f.refuse("cumsum", 15, {"x": np.ones((2, 2), F32), "axis": I32(2)}, "axis")
    f.refuse("cumsum", 15, {"x": np.ones((), F32), "axis": I32(0)}, "rank 0")
    rows = [((3, 1, 50), (1, 2, 50)), ((2, 1), (3, 1, 51)), ((3, 50), (3, 1)), ((2, 2, 1, 49), (1, 2, 2, 1)), ((2, 2, 7, 7), (2, 1, 1)), ((1, 50), (2, 3, 1, 1))]
    for (a, b), dtype in itertools.product(rows, (F32, F16)):  # operands that lie in rows
        for op in ("sub", "real_div", "minimum"):
            x, y = f.floats(a, dtype), f.floats(b, dtype, 0.5, 2)
            f.add(op, 15, {"x": x, "y": y}, [stored(arithmetic[op](x.astype(np.float64), y.astype(np.float64)), dtype)], **tolerance(dtype), kept=True)
    short = [((5, 1, 16), (5, 15, 1)), ((3, 1, 7), (3, 53, 1)), ((4, 1, 9, 1), (4, 31, 1, 1)), ((2, 3, 1, 33), (2, 1, 17, 1))]
    for (a, b), dtype in itertools.product(short, (F32, F16, np.bool_)):  # rows that a chunk holds many of
        x, y = f.rng.integers(-99, 99, a).astype(dtype), f.rng.integers(-99, 99, b).astype(dtype)
        cond = f.rng.integers(0, 2, (*b[:-1], 1)).astype(bool)
        f.add("select", 15, {"cond": cond, "a": x, "b": y}, [np.where(cond, x, y)], note="short rows", kept=True)
    with np.errstate(all="ignore"):
        for (op, fn), dtype in itertools.product(arithmetic.items(), (F32, F16)):
            if dtype == F16 and op not in ("sub", "maximum", "minimum"):
                continue
            few, many = s[[1, 3, 4, 6]].astype(dtype)[:, None], np.tile(s, 7).astype(dtype)[None, :50]
            for x, y in ((few, many), (many, few)):
                f.add(op, 17, {"x": x, "y": y}, [fn(x.astype(F32), y.astype(F32)).astype(dtype)], **tolerance(dtype), note="special, rows", kept=True)


# ---- activations -----------------------------------------------------------------------------------------------------


def activation(f):
    plain = {"relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "sigmoid": sigmoid, "silu": lambda x: x * sigmoid(x),
             "softplus": softplus, "softsign": lambda x: x / (1 + np.abs(x))}
    scalar = {"elu": lambda x, a: np.where(x < 0, a * np.expm1(x), x), "leaky_relu": lambda x, a: np.where(x < 0, a * x, x),
              "thresholded_relu": lambda x, a: np.where(x < a, 0, x)}
    both = {"clamped_relu": lambda x, a, b: np.minimum(np.where(x < 0, a * x, x), b), "linear_activation": lambda x, a, b: a * x + b,
            "scaled_tanh": lambda x, a, b: a * np.tanh(b * x), "sigmoid_hard": lambda x, a, b: np.clip(a * x + b, 0, 1)}
    for i, (shape, dtype) in enumerate(itertools.product(SHAPES, (F32, F16))):
        x = f.floats(shape, dtype, -9, 9)
        d = x.astype(np.float64)
        for k, (op, fn) in enumerate(plain.items()):
            if f.more or (i + k) % 3 == 0:
                f.add(op, 15 + i % 4, {"x": x}, [stored(fn(d), dtype)], **tolerance(dtype))
        for k, (op, fn) in enumerate(scalar.items()):
            if f.more or (i + k) % 3 == 0:
                f.add(op, 15 + i % 4, {"x": x, "alpha": dtype(0.75)}, [stored(fn(d, 0.75), dtype)], **tolerance(dtype))
        for k, (op, fn) in enumerate(both.items()):
            if f.more or (i + k) % 3 == 0:
                f.add(op, 15 + i % 4, {"x": x, "alpha": dtype(0.75), "beta": dtype(0.5)}, [stored(fn(d, 0.75, 0.5), dtype)], **tolerance(dtype))
        for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION", None):
            if f.more or (i + len(mode or "")) % 3 == 0:
                if mode == "TANH_APPROXIMATION":
                    y = 0.5 * d * (1 + np.tanh(np.sqrt(2 / np.pi) * (d + 0.044715 * d**3)))
                elif mode == "SIGMOID_APPROXIMATION":
                    y = d * sigmoid(1.702 * d)
                else:
                    y = 0.5 * d * (1 + erf(d / np.sqrt(2))) if d.size else d
                f.add("gelu", 15 + i % 4, {"x": x, "mode": mode}, [stored(y, dtype)], **tolerance(dtype))
    x = np.array([[-2, 3.5], [np.nan, np.inf]], F16)
    f.add("leaky_relu", 17, {"x": x, "alpha": F32(0.25)}, [np.array([[-0.5, 3.5], [np.nan, np.inf]], F16)])
    f.add("relu", 15, {"x": np.array([np.nan, -np.inf, np.inf, -0.0], F32)}, [np.array([np.nan, 0, np.inf, 0], F32)])
    f.refuse("gelu", 16, {"x": x, "mode": "TANH"}, "mode")
    f.refuse("elu", 16, {"x": x, "alpha": np.ones((2,), F16)}, "alpha")
    for i, (shape, dtype) in enumerate(itertools.product([(2, 3, 4, 5), (1, 4, 2, 1), (2, 3, 5), (1, 2, 3, 2, 2), (0, 3, 2, 2), (1, 2, 30, 40)], (F32, F16))):
        c = shape[1]
        alpha = f.floats((c,), dtype) if len(shape) == 4 else np.full((c,), 0.3, dtype)
        x, a = f.floats(shape, dtype), alpha.reshape((c,) + (1,) * (len(shape) - 2)).astype(np.float64)
        d = x.astype(np.float64)
        f.add("prelu", 15 + i % 4, {"x": x, "alpha": alpha}, [stored(np.where(d < 0, a * d, d), dtype)], **tolerance(dtype))
        beta = f.floats((c,), dtype)
        b = beta.reshape(a.shape).astype(np.float64)
        f.add("softplus_parametric", 15 + i % 4, {"x": x, "alpha": alpha, "beta": beta}, [stored(a * softplus(d * b), dtype)], **tolerance(dtype))
    f.refuse("prelu", 15, {"x": np.ones((2, 3), F32), "alpha": np.ones((3,), F32)}, "rank")
    f.refuse("prelu", 15, {"x": np.ones((2, 3, 4, 5), F32), "alpha": np.ones((4,), F32)}, "channels")
    f.refuse("prelu", 15, {"x": np.ones((2, 3, 4), F32), "alpha": np.array([1, 2, 3], F32)}, "unequal")
    f.refuse("softplus_parametric", 15, {"x": np.ones((2, 3, 4), F32), "alpha": np.ones((3,), F32), "beta": np.ones((1, 3), F32)}, "rank")
    for i, (shape, dtype) in enumerate(itertools.product([(5,), (1,), (2, 3), (3, 1, 7), (2, 3, 4, 5), (2, 70, 3), (3, 5000), (2, 3, 130), (2, 0, 3), (0, 4)], (F32, F16))):
        x = f.floats(shape, dtype, -9, 9)
        if x.size > 5000 and dtype == F32 and not f.more:
            continue
        for axis in [None] + list(range(-len(shape), len(shape))):
            a = -1 if axis is None else axis
            if not f.more and axis is not None and (axis + i) % 2:
                continue
            d = x.astype(np.float64)
            y = np.exp(d - d.max(axis=a, keepdims=True)) if d.size else d
            y = y / y.sum(axis=a, keepdims=True) if d.size else d
            f.add("softmax", 15 + i % 4, {"x": x, "axis": None if axis is None else I32(axis)}, [stored(y, dtype)], **tolerance(dtype))
    f.add("softmax", 15, {"x": np.array([[1e4, 1e4], [-np.inf, 0]], F32)}, [np.array([[0.5, 0.5], [0, 1]], F32)])
    f.refuse("softmax", 15, {"x": np.ones((2,), F32), "axis": I32(1)}, "axis")
    f.refuse("softmax", 15, {"x": np.ones((), F32), "axis": I32(0)}, "axis")


# ---- reductions ------------------------------------------------------------------------------------------------------


def reduce(f):
    def lse(x, axis, keepdims):
        m = x.max(axis=axis, keepdims=True)
        r = np.log(np.exp(x - m).sum(axis=axis, keepdims=True)) + m
        return r if keepdims else r.reshape([n for k, n in enumerate(x.shape) if k not in [a % x.ndim for a in (range(x.ndim) if axis is None else axis)]])
    ops = {"reduce_l1_norm": lambda x, **k: np.abs(x).sum(**k), "reduce_l2_norm": lambda x, **k: np.sqrt(np.square(x).sum(**k)),
           "reduce_log_sum": lambda x, **k: np.log(x.sum(**k)), "reduce_log_sum_exp": lse, "reduce_max": lambda x, **k: x.max(**k),
           "reduce_mean": lambda x, **k: x.mean(**k), "reduce_min": lambda x, **k: x.min(**k), "reduce_prod": lambda x, **k: x.prod(**k),
           "reduce_sum": lambda x, **k: x.sum(**k), "reduce_sum_square": lambda x, **k: np.square(x).sum(**k)}
    shapes = [(5,), (1,), (3, 4), (2, 1, 3), (2, 3, 4, 5), (2, 3, 1, 2, 4), (3, 17, 2), (2, 300), (300, 2), (2, 2, 600)]
    for k, (op, fn) in enumerate(ops.items()):
        for i, (shape, dtype) in enumerate(itertools.product(shapes, (F32, F16, I32))):
            if not f.more and (i + k) % 2:
                continue
            n = len(shape)
            choices = [None] + [c for m in range(1, n + 1) for c in itertools.combinations(range(n), m)]
            for axes in choices if f.more else [choices[j] for j in f.rng.choice(len(choices), min(3, len(choices)), replace=False)]:
                if dtype == I32:
                    x = f.rng.integers(1, 4, shape).astype(I32)
                else:
                    x = f.floats(shape, dtype, 0.5, 1.5) if op in ("reduce_log_sum", "reduce_prod") else f.floats(shape, dtype)
                keep = [None, True, False][f.rng.integers(3)]
                given = None if axes is None else np.array([a - n * int(f.rng.integers(2)) for a in axes], I32)
                with np.errstate(all="ignore"):
                    y = fn(x.astype(np.int64 if op in ("reduce_prod", "reduce_sum") and dtype == I32 else np.float64), axis=axes, keepdims=bool(keep))
                    y = np.asarray(y).astype(dtype)
                if dtype == F16 and np.isinf(y).any():
                    continue
                f.add(op, 15 + i % 4, {"x": x, "axes": given, "keep_dims": None if keep is None else np.bool_(keep)}, [y],
                      **(dict(atol=1e-6, rtol=3e-6) if dtype == F32 else tolerance(dtype)))
        f.refuse(op, 15, {"x": np.ones((2, 3), F32), "axes": np.array([2], I32)}, "axis")
        f.refuse(op, 15, {"x": np.ones((2, 3), F32), "axes": np.array([-3], I32)}, "axis")
        f.refuse(op, 15, {"x": np.ones((2, 3), F32), "axes": np.array([0, -2], I32)}, "twice")
    e = np.zeros((2, 0, 3), F32)
    f.add("reduce_sum", 15, {"x": e, "axes": np.array([1], I32)}, [np.zeros((2, 3), F32)])
    f.add("reduce_prod", 15, {"x": e, "axes": np.array([1], I32)}, [np.ones((2, 3), F32)])
    f.add("reduce_sum", 15, {"x": e, "axes": np.array([0], I32)}, [np.zeros((0, 3), F32)])
    f.add("reduce_mean", 15, {"x": e, "axes": np.array([1, 2], I32)}, [np.full((2,), np.nan, F32)])
    f.add("reduce_sum", 15, {"x": F32(3)}, [F32(3)], note="rank 0")
    v = np.array([[1, np.nan, 3], [4, 5, 6], [np.inf, 1, -np.inf]], F32)
    f.add("reduce_max", 15, {"x": v, "axes": np.array([1], I32)}, [np.array([np.nan, 6, np.inf], F32)])
    f.add("reduce_min", 15, {"x": v, "axes": np.array([0], I32)}, [np.array([1, np.nan, -np.inf], F32)])
    f.add("reduce_sum", 15, {"x": np.full((3,), 2147483647, I32)}, [np.array(2147483645, I32)], note="wraps")
    f.add("reduce_mean", 15, {"x": np.array([[-1, -2], [3, 4]], I32), "axes": np.array([1], I32)}, [np.array([-1, 3], I32)], note="truncates")
    f.add("reduce_sum", 15, {"x": np.full((40000,), 0.1, F16)}, [np.float16(np.full((40000,), 0.1, F16).astype(np.float64).sum())], note="accumulates in float32")
    for i, (shape, dtype) in enumerate(itertools.product(shapes, (F32, F16, I32))):
        for op, fn in (("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)):
            for axis in [None] + list(range(-len(shape), len(shape))):
                if not f.more and (axis or 0) % 2:
                    continue
                opset = 15 + int(f.rng.integers(4))
                x = f.rng.integers(-5, 5, shape).astype(dtype)
                keep = [None, True, False][f.rng.integers(3)]
                kind = [None, "int32", "uint16"][f.rng.integers(3)] if opset >= 17 else None
                y = fn(x, axis=-1 if axis is None else axis, keepdims=bool(keep))
                f.add(op, opset, {"x": x, "axis": None if axis is None else I32(axis), "keep_dims": None if keep is None else np.bool_(keep),
                                  "output_dtype": kind}, [np.asarray(y).astype(np.uint16 if kind == "uint16" else I32)])
    f.add("reduce_argmax", 16, {"x": v}, [np.array([1, 2, 0], I32)], note="NaN is the largest")
    f.add("reduce_argmin", 16, {"x": v}, [np.array([1, 0, 2], I32)], note="NaN is the smallest")
    f.refuse("reduce_argmax", 16, {"x": v, "axis": I32(2)}, "axis")
    f.refuse("reduce_argmax", 16, {"x": np.ones((2, 0), F32)}, "empty")
    f.refuse("reduce_argmax", 16, {"x": F32(1)}, "rank 0")
    f.refuse("reduce_argmin", 17, {"x": v, "output_dtype": "int8"}, "type")
    f.large = 0
    for shape, dtype in itertools.product(((2, 9, 15), (1, 64, 3), (1, 65, 2)), (F32, F16)):  # columns of a few dozen rows
        for op in ("reduce_sum", "reduce_mean", "reduce_log_sum", "reduce_log_sum_exp"):
            x = f.floats(shape, dtype, 0.5, 1.5)
            y = ops[op](x.astype(np.float64), axis=(1,), keepdims=False)
            f.add(op, 15, {"x": x, "axes": np.array([1], I32)}, [y.astype(dtype)], **(dict(atol=1e-6, rtol=3e-6) if dtype == F32 else tolerance(dtype)))
    for dtype in (F32, F16):
        w = f.floats((70, 2, 2, 2), dtype)
        w[[0, 1, 66, 69], [0, 1, 1, 1], 0, [0, 1, 1, 0]] = np.nan
        w[[3, 68], 0, 1, 1], w[:, 1, 1, 1] = np.inf, -np.inf
        f.add("reduce_max", 15, {"x": w, "axes": np.array([0, 2], I32)}, [w.max((0, 2))], note="more rows than one call takes", kept=True)
        w = f.floats((3, 7, 50), dtype)
        w[1, 6, 3], w[2, 0, 3], w[0, 5, 49] = np.nan, np.nan, np.nan
        f.add("reduce_max", 15, {"x": w, "axes": np.array([0, 1], I32)}, [w.max((0, 1))], note="rows side by side, the last few fewer", kept=True)
        f.add("reduce_max", 15, {"x": np.array([[0.0, -0.0, -0.0, -1]] * 2 + [[-0.0, 0.0, -0.0, -0.0]] * 70, dtype), "axes": np.array([0], I32)},
              [np.zeros(4, dtype)], note="zeros of both signs", kept=True)


# ---- normalisation ---------------------------------------------------------------------------------------------------


def norm(f):
    wide = dict(atol=4e-6, rtol=4e-6)

    def tol(dtype):
        return wide if dtype == F32 else tolerance(dtype)
    for i, (shape, dtype) in enumerate(itertools.product([(2, 3, 4), (1, 4, 3, 5), (2, 2, 3, 1, 2), (1, 2, 40, 60), (0, 2, 3), (2, 1, 1)], (F32, F16))):
        c, ones = shape[1], (1, shape[1]) + (1,) * (len(shape) - 2)
        opset = 15 + i % 4
        other = F32 if opset >= 17 and i % 3 == 0 else dtype
        x = f.floats(shape, dtype)
        d = x.astype(np.float64)
        mean, var = f.floats((c,), other), f.floats((c,), other, 0.2, 2)
        gamma, beta = [(None, None), (f.floats((c,), other), f.floats((c,), other)), (f.floats((c,), other), None)][i % 3]
        eps = None if i % 2 else other(0.01)
        e = 1e-5 if eps is None else float(eps)
        g = 1 if gamma is None else gamma.reshape(ones).astype(np.float64)
        b = 0 if beta is None else beta.reshape(ones).astype(np.float64)
        y = (d - mean.reshape(ones)) / np.sqrt(var.reshape(ones).astype(np.float64) + e) * g + b
        f.add("batch_norm", opset, {"x": x, "mean": mean, "variance": var, "gamma": gamma, "beta": beta, "epsilon": eps}, [stored(y, dtype)], **tol(dtype))
        axes = tuple(range(2, len(shape)))
        y = (d - d.mean(axes, keepdims=True)) / np.sqrt(d.var(axes, keepdims=True) + e) * g + b
        f.add("instance_norm", opset, {"x": x, "gamma": gamma, "beta": beta, "epsilon": eps}, [stored(y, dtype)], **tol(dtype))
        last = (-3, -2, -1)
        y = d / np.sqrt(np.square(d).sum(last, keepdims=True) + (1e-6 if eps is None else e))
        f.add("l2_norm", opset, {"x": x, "epsilon": eps}, [stored(y, dtype)], **tol(dtype))
        for size in (1, 2, 3, 4, 5):
            a, bb, k = [(None, None, None), (other(0.5), other(0.75), other(2))][size % 2]
            if len(shape) == 3:  # (C, H, W)
                square = np.pad(np.square(d), [(size // 2, (size - 1) // 2), (0, 0), (0, 0)])
                total = sum(square[j:j + shape[0]] for j in range(size))
                y = d / (float(k if k is not None else 1) + float(a if a is not None else 1e-4) / size * total) ** float(bb if bb is not None else 0.75)
                f.add("local_response_norm", opset, {"x": x, "size": I32(size), "alpha": a, "beta": bb, "k": k}, [stored(y, dtype)], **tol(dtype))
                continue
            square = np.pad(np.square(d), [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (len(shape) - 2))
            total = sum(square[:, j:j + c] for j in range(size))
            y = d / (float(k if k is not None else 1) + float(a if a is not None else 1e-4) / size * total) ** float(bb if bb is not None else 0.75)
            f.add("local_response_norm", opset, {"x": x, "size": I32(size), "alpha": a, "beta": bb, "k": k}, [stored(y, dtype)], **tol(dtype))
    for i, (shape, dtype) in enumerate(itertools.product([(7,), (3, 5), (2, 3, 4), (1, 4, 1, 5), (2, 3, 4, 5), (2, 3, 1, 2, 3), (3, 2100), (2, 5, 300), (0, 4)], (F32, F16))):
        n = len(shape)
        choices = [None] + [c for m in range(1, n + 1) for c in itertools.combinations(range(n), m)]
        for axes in choices if f.more else [choices[j] for j in f.rng.choice(len(choices), min(6, len(choices)), replace=False)]:
            opset = 15 + int(f.rng.integers(4))
            other = F32 if opset >= 17 else dtype
            real = tuple(range(n)) if axes is None else axes
            inner, keep = [shape[a] for a in real], [shape[a] if a in real else 1 for a in range(n)]
            x = (f.floats(shape, dtype) + dtype(2)).astype(dtype)
            d = x.astype(np.float64)
            gamma, beta = [(None, None), (f.floats(inner, other), f.floats(inner, other)), (f.floats(inner, other), None)][f.rng.integers(3)]
            if gamma is None and f.rng.integers(2):
                beta = f.floats(inner, other)
            y = (d - d.mean(real, keepdims=True)) / np.sqrt(d.var(real, keepdims=True) + 1e-3) if d.size else d
            y = y * (1 if gamma is None else gamma.reshape(keep).astype(np.float64)) + (0 if beta is None else beta.reshape(keep).astype(np.float64))
            given = None if axes is None else np.array([a - n * int(f.rng.integers(2)) for a in f.rng.permutation(axes)], I32)
            f.add("layer_norm", opset, {"x": x, "axes": given, "gamma": gamma, "beta": beta, "epsilon": other(1e-3)}, [stored(y, dtype)],
                  **(wide if dtype == F32 else dict(atol=2e-3, rtol=2e-3)))
    x = np.ones((2, 3, 4), F32)
    big = (np.arange(3000) % 7 + 10000).astype(F32).reshape(1, 3000)
    d = big.astype(np.float64)
    f.add("layer_norm", 16, {"x": big, "axes": np.array([1], I32)}, [stored((d - d.mean()) / np.sqrt(d.var() + 1e-5), F32)], **wide, note="a large mean")
    v = np.ones((3,), F32)
    f.refuse("batch_norm", 15, {"x": x, "mean": v[:2], "variance": v}, "channels")
    f.refuse("batch_norm", 15, {"x": x[0], "mean": v, "variance": v}, "rank")
    f.refuse("instance_norm", 15, {"x": x, "gamma": v[None]}, "rank")
    f.refuse("l2_norm", 15, {"x": x[0]}, "rank")
    f.refuse("layer_norm", 15, {"x": x, "axes": np.array([3], I32)}, "axis")
    f.refuse("layer_norm", 15, {"x": x, "axes": np.array([1], I32), "gamma": np.ones((4,), F32)}, "gamma")
    f.refuse("layer_norm", 15, {"x": x, "axes": np.array([1], I32), "beta": np.ones((4,), F32)}, "beta")
    f.refuse("local_response_norm", 15, {"x": x, "size": I32(0)}, "size")


# ---- compressed constants --------------------------------------------------------------------------------------------


def constexpr(f):
    def blocks(table, shape):
        for axis, n in enumerate(shape):
            table = np.repeat(table, n // table.shape[axis], axis)
        return table
    for i, (src, dst) in enumerate(itertools.product((np.int8, np.uint8), (F16, F32))):
        for shape, axis in (((5,), 0), ((3, 4), 1), ((3, 4), -2), ((2, 3, 4, 5), 1), ((40, 60), 0), ((2, 1100), 1)):
            q = f.rng.integers(np.iinfo(src).min, np.iinfo(src).max + 1, shape).astype(src)
            for vz, vs in itertools.product((False, True), repeat=2):
                n = shape[axis]
                z = f.rng.integers(0, 100, (n,) if vz else ()).astype([src, F32][i % 2])
                s = f.floats((n,) if vs else (), dst, 0.01, 0.1)
                view = [1] * len(shape)
                view[axis] = n
                y = (q.astype(np.float64) - (z.reshape(view) if vz else z)) * (s.reshape(view) if vs else s).astype(np.float64)
                f.add("constexpr_affine_dequantize", 16 + i % 3, {"quantized_data": q, "zero_point": z, "scale": s, "axis": I32(axis)}, [stored(y, dst)],
                      **tolerance(dst))
                if vz == vs:
                    zz = z.astype(src)
                    y = (q.astype(np.float64) - (zz.reshape(view) if vz else zz)) * (s.reshape(view) if vs else s).astype(np.float64)
                    f.add("dequantize", 17 + i % 2, {"input": q, "zero_point": zz, "scale": s, "axis": I32(axis) if vs else None}, [stored(y, dst)], **tolerance(dst))
                    x = f.floats(shape, dst, -9, 9)
                    y = np.round(x / (s.reshape(view) if vs else s)).astype(np.float64) + (zz.reshape(view) if vz else zz)
                    y = np.clip(y, np.iinfo(src).min, np.iinfo(src).max).astype(src)
                    f.add("quantize", 17 + i % 2, {"input": x, "zero_point": zz, "scale": s, "axis": I32(axis) if vs else None, "output_dtype": np.dtype(src).name},
                          [y], atol=1)
    x = np.array([-1.25, -0.75, 0.25, 0.75, 1e9, -1e9, np.nan], F32)
    f.add("quantize", 17, {"input": x, "scale": F32(0.5), "output_dtype": "int8"}, [np.array([-2, -2, 0, 2, 127, -128, 0], np.int8)], note="halves to even")
    f.add("dequantize", 17, {"input": np.array([[1, 2]], np.uint8), "scale": F16(0.5)}, [np.array([[0.5, 1]], F16)])
    s = np.ones((3,), F32)
    f.refuse("quantize", 17, {"input": x, "scale": F32(0), "output_dtype": "int8"}, "zero")
    f.refuse("quantize", 17, {"input": x, "scale": F32(1), "output_dtype": "int16"}, "type")
    f.refuse("quantize", 17, {"input": x, "scale": s, "output_dtype": "int8"}, "no axis")
    f.refuse("quantize", 17, {"input": x, "scale": s, "axis": I32(0), "output_dtype": "int8"}, "length")
    f.refuse("quantize", 17, {"input": x, "scale": F32(1), "axis": I32(0), "output_dtype": "int8"}, "axis without need")
    f.refuse("dequantize", 17, {"input": np.zeros((2, 3), np.int8), "zero_point": np.zeros((), np.int8), "scale": s, "axis": I32(1)}, "ranks")
    f.refuse("constexpr_affine_dequantize", 16, {"quantized_data": np.zeros((2, 3), np.int8), "zero_point": np.int8(0), "scale": s, "axis": I32(2)}, "axis")
    h = f.floats((3, 5), F16)
    f.add("constexpr_cast", 16, {"source_val": h, "output_dtype": "fp32"}, [h.astype(F32)])
    f.refuse("constexpr_cast", 16, {"source_val": h, "output_dtype": "int32"}, "type")
    # palettes of iOS16
    for bits, shape in itertools.product((1, 2, 4, 6, 8), ((5,), (3, 7), (1,), (2, 3, 5, 4), (3, 401), (0, 3))):
        kind = [F16, F32, np.int8, np.uint8][f.rng.integers(4)]
        lut = f.rng.integers(0, 100, (1 << bits,)).astype(kind)
        index = f.rng.integers(0, 1 << bits, shape)
        packed = np.frombuffer(Packed(index, f"uint{bits}").bytes(), np.uint8)
        f.add("constexpr_lut_to_dense", 16 + bits % 2, {"indices": packed, "lut": lut, "shape": np.array(shape, np.uint32)}, [lut[index]])
        mask = f.rng.integers(0, 2, shape)
        values = f.rng.integers(1, 100, (int(mask.sum()),)).astype(kind)
        dense = np.zeros(shape, kind)
        dense[mask != 0] = values
        f.add("constexpr_sparse_to_dense", 16 + bits % 2, {"nonzero_data": values, "mask": np.frombuffer(Packed(mask, "uint1").bytes(), np.uint8),
                                                           "shape": np.array(shape, np.uint32)}, [dense])
        f.add("constexpr_sparse_to_dense", 18, {"nonzero_data": values, "mask": Packed(mask, "uint1")}, [dense])
        if mask.size:
            f.refuse("constexpr_sparse_to_dense", 18, {"nonzero_data": np.append(values, kind(1)), "mask": Packed(mask, "uint1")}, "too many")
    f.refuse("constexpr_lut_to_dense", 16, {"indices": np.zeros((3,), np.uint8), "lut": np.zeros((16,), F16), "shape": np.array([5, 2], np.uint32)}, "too few")
    f.refuse("constexpr_lut_to_dense", 16, {"indices": np.zeros((3,), np.uint8), "lut": np.zeros((5,), F16), "shape": np.array([6], np.uint32)}, "entries")
    f.refuse("constexpr_lut_to_dense", 16, {"indices": np.zeros((3,), np.uint8), "lut": np.zeros((16,), F16), "shape": np.array([4294967295] * 4, np.uint32)}, "huge")
    f.refuse("constexpr_sparse_to_dense", 16, {"nonzero_data": np.ones((1,), F16), "mask": np.array([8], np.uint8), "shape": np.array([3], np.uint32)}, "bits behind")
    # iOS18: tables by blocks, and vectors
    shapes = [((4,), (2,)), ((4, 6), (1, 1)), ((4, 6), (4, 1)), ((4, 6), (1, 6)), ((4, 6), (2, 3)), ((6, 4, 2), (3, 2, 1)), ((6, 4, 1, 3), (2, 1, 1, 1)),
              ((2, 3, 4, 5), (2, 1, 2, 1)), ((2, 3, 4, 5), (2, 3, 4, 5)), ((8, 1040), (4, 4)), ((3, 1300), (3, 1300)), ((1, 2, 1, 6), (1, 2, 1, 3)), ((0, 4), (1, 2))]
    for shape, counts in shapes:
        for bits in (1, 2, 3, 4, 6, 8) if f.more else f.rng.choice([1, 2, 3, 4, 6, 8], 2, replace=False):
            for vector, axis in [(1, None)] + [(v, a) for v in (2, 3) for a in range(-len(shape), len(shape)) if f.more or f.rng.integers(3) == 0]:
                kind = [F16, F32, np.int8, np.uint8][f.rng.integers(4)]
                lut = f.rng.integers(0, 100, counts + (1 << bits, vector)).astype(kind)
                index = f.rng.integers(0, 1 << bits, shape)
                group = blocks(np.arange(int(np.prod(counts))).reshape(counts), shape) if 0 not in shape else np.zeros(shape, int)
                vectors = lut.reshape(-1, 1 << bits, vector)[group, index]  # [..., vector]
                a = (len(shape) - 1 if axis is None else axis % len(shape))
                dense = np.moveaxis(vectors, -1, a + 1).reshape([n * vector if k == a else n for k, n in enumerate(shape)])
                name = f"uint{bits}"
                data = index.astype(np.uint8) if bits == 8 else Packed(index, name)
                f.add("constexpr_lut_to_dense", 18, {"indices": data, "lut": lut, "vector_axis": None if axis is None else I32(axis)}, [dense])
                mask = f.rng.integers(0, 2, shape)
                few = index[mask != 0]
                wide = np.repeat(mask, vector, a)
                few_data = few.astype(np.uint8) if bits == 8 else Packed(few, name)
                f.add("constexpr_lut_to_sparse", 18, {"indices_mask": Packed(mask, "uint1"), "indices_nonzero_data": few_data, "lut": lut,
                                                      "vector_axis": None if axis is None else I32(axis)}, [Packed(wide, "uint1"), dense[wide != 0]])
        for kind in ("int4", "uint4", np.int8, np.uint8, F16, F32) if f.more else f.rng.choice(np.array(["int4", "uint4", np.int8, np.uint8, F16, F32], object), 3, replace=False):
            dst = [F16, F32][f.rng.integers(2)]
            low, high = (-8, 8) if kind == "int4" else (0, 16) if kind == "uint4" else (-100, 100) if kind == np.int8 else (0, 200)
            if kind in (F16, F32):
                low, high = -9, 9
            pack = (lambda v: Packed(v, kind)) if isinstance(kind, str) else (lambda v: v.astype(kind))
            data, scale = f.rng.integers(low, high, shape), f.floats(counts, dst, 0.1, 1)
            offset = [None, f.rng.integers(low, high, counts), f.floats(counts, dst, 0, 3)][f.rng.integers(3)]
            s, o = blocks(scale.astype(np.float64), shape), 0 if offset is None else blocks(offset.astype(np.float64), shape)
            if 0 in shape:
                s, o = np.zeros(shape), 0
            y = s * (data - o)
            given = None if offset is None else offset if offset.dtype == dst else pack(offset)
            f.add("constexpr_blockwise_shift_scale", 18, {"data": pack(data), "scale": scale, "offset": given}, [stored(y, dst)], **tolerance(dst))
            mask = f.rng.integers(0, 2, shape)
            f.add("constexpr_sparse_blockwise_shift_scale", 18, {"data_mask": Packed(mask, "uint1"), "nonzero_data": pack(data[mask != 0]), "scale": scale, "offset": given},
                  [Packed(mask, "uint1"), stored(y, dst)[mask != 0]], **tolerance(dst))
    mask = np.array([[1, 0, 1], [0, 1, 1]])
    f.add("constexpr_sparse_to_dense", 18, {"nonzero_data": Packed([-3, 7, -8, 1], "int4"), "mask": Packed(mask, "uint1")}, [Packed([[-3, 0, 7], [0, -8, 1]], "int4")])
    index, lut = Packed(np.zeros((4, 6), int), "uint2"), np.zeros((1, 1, 4, 1), F16)
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((1, 4, 1), F16)}, "rank")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((3, 1, 4, 1), F16)}, "blocks")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((0, 1, 4, 1), F16)}, "blocks")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((1, 1, 2, 1), F16)}, "bits")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((1, 1, 4, 2), F16)}, "no axis")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((1, 1, 4, 2), F16), "vector_axis": I32(2)}, "axis")
    f.refuse("constexpr_lut_to_dense", 18, {"indices": index, "lut": np.zeros((1, 1, 4, 0), F16), "vector_axis": I32(1)}, "empty")
    d = np.zeros((4, 6), np.int8)
    f.refuse("constexpr_blockwise_shift_scale", 18, {"data": d, "scale": np.ones((4,), F16)}, "rank")
    f.refuse("constexpr_blockwise_shift_scale", 18, {"data": d, "scale": np.ones((3, 1), F16)}, "blocks")
    f.refuse("constexpr_blockwise_shift_scale", 18, {"data": d, "scale": np.ones((4, 1), F16), "offset": np.ones((1, 1), np.int8)}, "offset")
    f.refuse("constexpr_blockwise_shift_scale", 18, {"data": d, "scale": np.ones((4, 1), F16), "offset": np.ones((4, 1), np.uint8)}, "offset's type")
    f.refuse("constexpr_sparse_blockwise_shift_scale", 18, {"data_mask": Packed(mask, "uint1"), "nonzero_data": np.zeros((3,), np.int8), "scale": np.ones((1, 1), F16)}, "too few")


# ---- sorting ---------------------------------------------------------------------------------------------------------


def sort(f):
    small = (np.int8, np.uint8, np.int16, np.uint16)
    for i, (shape, dtype) in enumerate(itertools.product([(1,), (9,), (3, 5), (2, 3, 4), (2, 2, 3, 2, 2), (200,), (3, 130), (0, 3), (3, 0)], (F32, F16, I32) + small)):
        for axis in [None] + list(range(-len(shape), len(shape))):
            if not f.more and axis is not None and (axis + i) % 3:
                continue
            x = f.rng.integers(0 if np.dtype(dtype).kind == "u" else -20, 20, shape).astype(dtype)
            a = -1 if axis is None else axis
            up = bool(f.rng.integers(2))
            order = np.argsort(x.astype(np.int64) * (1 if up else -1), axis=a, kind="stable")
            given = {"x": x, "axis": None if axis is None else I32(axis), "ascending": np.bool_(True) if up else None}
            if dtype not in small:
                f.add("argsort", 15 + i % 4, given, [order.astype(I32)])
            n = shape[a]
            for k in sorted({1, n // 2, n, max(n // 20, 1)}):
                if k > n:
                    continue
                opset = 17 + k % 2 if dtype in small else 15 + (i + k) % 4
                first = np.take(order, range(k), axis=a)
                values = np.take_along_axis(x, first, axis=a)
                kd = [np.int8, np.int16, I32][f.rng.integers(3)] if opset >= 17 and k < 100 else I32
                extra = {}
                if opset >= 16:
                    extra = {"sort": np.bool_(True), "return_indices": [None, np.bool_(True), np.bool_(False)][f.rng.integers(3)]}
                with_indices = extra.get("return_indices") is None or bool(extra["return_indices"])
                kind = [None, "int32", "uint16"][f.rng.integers(3)] if opset >= 17 and with_indices else None
                f.add("topk", opset, {**given, "k": None if k == 1 and i % 2 else kd(k), **extra, "output_indices_dtype": kind},
                      [values] + ([first.astype(np.uint16 if kind == "uint16" else I32)] if with_indices else []))
    x = np.array([2, np.nan, -np.inf, np.inf, -0.0, 0.0, 2], F32)
    f.add("argsort", 15, {"x": x, "ascending": np.bool_(True)}, [np.array([2, 4, 5, 0, 6, 3, 1], I32)], note="NaN last")
    f.add("argsort", 15, {"x": x, "ascending": np.bool_(False)}, [np.array([3, 0, 6, 4, 5, 2, 1], I32)], note="NaN last")
    e = np.array([2147483647, -2147483648, 0, -1], I32)
    f.add("argsort", 15, {"x": e, "ascending": np.bool_(True)}, [np.array([1, 3, 2, 0], I32)])
    f.add("topk", 17, {"x": e, "k": I32(-1)}, [e[[0, 2, 3, 1]], np.array([0, 2, 3, 1], I32)], note="-1 takes all")
    f.refuse("topk", 16, {"x": e, "k": I32(5)}, "k")
    f.refuse("topk", 16, {"x": e, "k": I32(-2)}, "k")
    f.refuse("topk", 16, {"x": e, "axis": I32(1)}, "axis")
    f.refuse("topk", 17, {"x": e, "return_indices": np.bool_(False), "output_indices_dtype": "int32"}, "no indices")
    f.refuse("topk", 17, {"x": e, "output_indices_dtype": "int8"}, "type")
    f.refuse("argsort", 17, {"x": np.array(1, F32)}, "rank 0")


# ---- images ----------------------------------------------------------------------------------------------------------

GRIDS = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def grid(mode, n_in, n_out):
    """The grid of iOS15 resize_bilinear, in coremltools' documentation."""
    i = np.arange(n_out, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if n_out == 1:
            return np.array([(n_in - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
        p = i * (n_in - 1) / (n_out - 1)
    elif mode == "DEFAULT":
        p = i * n_in / n_out
    elif mode == "OFFSET_CORNERS":
        p = (i + 0.5) * max(1, n_in - 1) / n_out
    else:
        p = (i + 0.5) * n_in / n_out - 0.5
    return np.clip(p, 0, n_in - 1)


def interpolate(x, axis, points):
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    shape = [1] * x.ndim
    shape[axis] = len(points)
    w = (points - low).reshape(shape)
    return np.take(x, low, axis) * (1 - w) + np.take(x, high, axis) * w


def nearest(x, axis, n_out):
    n_in = x.shape[axis]
    return np.take(x, ((2 * np.arange(n_out) + 1) * n_in) // (2 * n_out), axis)


def image(f):
    import torch
    for i, (shape, size) in enumerate(itertools.product([(1, 2, 3), (2, 3, 4, 5), (1, 1, 2, 3, 2), (1, 1, 1, 1), (1, 2, 7, 300)], [(1, 1), (5, 7), (3, 2), (4, 9), (2, 1500)])):
        if size[1] > 1000 and (i % 3 or shape[-1] > 200) and not f.more:
            continue
        dtype = [F32, F16][i % 2]
        x = f.floats(shape, dtype)
        d = x.astype(np.float64)
        tol = dict(atol=3e-6, rtol=3e-6) if dtype == F32 else dict(atol=1e-3, rtol=1e-3)
        for mode in GRIDS:
            y = interpolate(interpolate(d, -2, grid(mode, shape[-2], size[0])), -1, grid(mode, shape[-1], size[1]))
            f.add("resize_bilinear", 15 + i % 4, {"x": x, "target_size_height": I32(size[0]), "target_size_width": I32(size[1]),
                                                  "sampling_mode": None if mode == "DEFAULT" else mode}, [stored(y, dtype)], **tol)
            target = np.array((9,) * (i % 2) + size, [I32, np.int16, np.uint16, np.uint32][i % 4])
            if len(target) <= len(shape):
                f.add("resize", 17 + i % 2, {"x": x, "shape": target, "resized_dims": np.uint32(2), "interpolation_mode": "LINEAR", "sampling_mode": mode}, [stored(y, dtype)], **tol)
        y = nearest(nearest(x, -2, size[0]), -1, size[1])
        f.add("resize_nearest_neighbor", 15 + i % 4, {"x": x, "target_size_height": I32(size[0]), "target_size_width": I32(size[1])}, [y])
        f.add("resize", 17 + i % 2, {"x": x, "shape": np.array(size, I32), "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"}, [y])
    x = f.floats((2, 3, 4, 5), F32)
    d = x.astype(np.float64)
    f.add("resize", 17, {"x": x, "shape": np.array([6, 0], I32), "resized_dims": np.uint32(2)}, [stored(interpolate(d, 2, grid("DEFAULT", 4, 6)), F32)], atol=3e-6)
    f.add("resize", 17, {"x": x, "shape": np.array([2, 6, 7], I32), "resized_dims": np.uint32(1)}, [stored(interpolate(d, 3, grid("DEFAULT", 5, 7)), F32)], atol=3e-6)
    y = d
    for axis, n in enumerate((3, 2, 6, 7)):
        y = interpolate(y, axis, grid("UNALIGN_CORNERS", d.shape[axis], n))
    f.add("resize", 18, {"x": x, "shape": np.array([3, 2, 6, 7], I32), "resized_dims": np.uint32(4), "sampling_mode": "UNALIGN_CORNERS"}, [stored(y, F32)], atol=3e-6)
    f.add("resize", 18, {"x": x, "shape": np.array([3, 2], I32), "resized_dims": np.uint32(0)}, [x])
    n = f.rng.integers(-2**31, 2**31 - 1, (1, 2, 3, 4)).astype(I32)
    f.add("resize", 18, {"x": n, "shape": np.array([5, 3], I32), "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"}, [nearest(nearest(n, 2, 5), 3, 3)])
    f.refuse("resize", 17, {"x": x, "shape": np.array([5], I32), "resized_dims": np.uint32(2)}, "dims")
    f.refuse("resize", 17, {"x": x, "shape": np.array([1, 1, 1, 1, 5], I32), "resized_dims": np.uint32(2)}, "shape")
    f.refuse("resize", 17, {"x": x, "shape": np.array([-3, 5], I32), "resized_dims": np.uint32(2)}, "negative")
    f.refuse("resize", 17, {"x": x, "shape": np.array([2147483647, 2147483647], I32), "resized_dims": np.uint32(2)}, "huge")
    f.refuse("resize", 17, {"x": x, "shape": np.array([5, 5], I32), "resized_dims": np.uint32(4294967295)}, "dims")
    f.refuse("resize", 17, {"x": x, "shape": np.array([5, 5], I32), "resized_dims": np.uint32(2), "interpolation_mode": "CUBIC"}, "mode")
    f.refuse("resize_bilinear", 15, {"x": x, "target_size_height": I32(0)}, "size")
    f.refuse("resize_bilinear", 15, {"x": x, "target_size_height": I32(2147483647), "target_size_width": I32(2147483647)}, "size")
    f.refuse("resize_bilinear", 15, {"x": np.ones((2, 3), F32)}, "rank")
    f.refuse("resize_bilinear", 15, {"x": x, "sampling_mode": "NEAREST"}, "mode")
    f.refuse("resize_bilinear", 15, {"x": np.ones((1, 0, 3), F32)}, "empty")
    for i, (shape, scale) in enumerate(itertools.product([(1, 2, 3, 4), (2, 5, 3), (1, 1, 1, 1)], [(1, 1), (2, 3), (2.5, 1.25), (0.5, 1.5), (3.17, 1.0)])):
        whole = all(isinstance(s, int) for s in scale)
        kind = I32 if whole else F32
        size = [int(np.floor(np.float32(s) * np.float32(n))) for s, n in zip(scale, shape[-2:])]
        dtype = [F32, F16][i % 2]
        x = f.floats(shape, dtype)
        d = x.astype(np.float64)
        if 0 in size:
            continue
        tol = dict(atol=3e-6, rtol=3e-6) if dtype == F32 else dict(atol=1e-3, rtol=1e-3)
        scales = {"scale_factor_height": kind(scale[0]), "scale_factor_width": kind(scale[1])}
        y = d
        for axis, by in ((-2, scale[0]), (-1, scale[1])):  # the scale divides, unless it comes to the same size
            n = shape[axis]
            picked = torch.nn.functional.interpolate(torch.arange(n, dtype=torch.float32)[None, None], scale_factor=float(by), mode="nearest")[0, 0].long().numpy()
            y = y if len(picked) == n else np.take(y, picked, axis)
        f.add("upsample_nearest_neighbor", 15 + i % 4, {"x": x, **scales}, [y.astype(dtype)])
        for opset, align, half, mode in ((15, None, None, "STRICT_ALIGN_CORNERS"), (15, True, None, "STRICT_ALIGN_CORNERS"), (15, False, None, "UNALIGN_CORNERS"),
                                         (16, False, True, "UNALIGN_CORNERS"), (17, False, False, "DEFAULT"), (18, True, False, "STRICT_ALIGN_CORNERS")):
            y = interpolate(interpolate(d, -2, grid(mode, shape[-2], size[0])), -1, grid(mode, shape[-1], size[1]))
            f.add("upsample_bilinear", opset, {"x": x, **scales, "align_corners": None if align is None else np.bool_(align),
                                               "half_pixel_centers": None if half is None else np.bool_(half)}, [stored(y, dtype)], **tol)
    x = f.floats((1, 2, 3, 4), F32)
    for bad in (0.0, -1.0, np.nan, np.inf, 1e30):
        f.refuse("upsample_nearest_neighbor", 15, {"x": x, "scale_factor_height": F32(bad), "scale_factor_width": F32(bad)}, "scale")
    f.add("crop", 15, {"x": x, "crop_height": np.array([1, 0], I32), "crop_width": np.array([1, 2], I32)}, [x[:, :, 1:, 1:2]])
    f.add("crop", 18, {"x": x.astype(F16), "crop_height": np.array([0, 0], I32), "crop_width": np.array([0, 1], I32)}, [x.astype(F16)[..., :3]])
    f.refuse("crop", 15, {"x": x, "crop_height": np.array([2, 2], I32), "crop_width": np.array([0, 0], I32)}, "too much")
    f.refuse("crop", 15, {"x": x, "crop_height": np.array([-1, 0], I32), "crop_width": np.array([0, 0], I32)}, "negative")
    f.refuse("crop", 15, {"x": x, "crop_height": np.array([1], I32), "crop_width": np.array([0, 0], I32)}, "length")
    samples(f)


def samples(f):
    import torch
    x = f.floats((2, 3, 5, 6), F32)
    t = torch.tensor(x)
    names = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    for mode, (pad, torch_pad), align in itertools.product(("bilinear", "nearest"), names.items(), (False, True)):
        c = (f.rng.integers(-40, 41, (2, 4, 3, 2)) / 16 + 1 / 64).astype(F32)
        if (pad == "symmetric") == align and pad in ("reflection", "symmetric"):
            continue  # torch reflects about the corners' centres when aligned, about their edges when not
        if pad == "reflection" or pad == "symmetric":
            c = c * F32(0.9)
        y = torch.nn.functional.grid_sample(t, torch.tensor(c), mode=mode, padding_mode=torch_pad, align_corners=align).numpy()
        for opset, style in ((15, "normalized_minus_one_to_one"), (16, "normalized_zero_to_one"), (17, "unnormalized")):
            g = c.astype(np.float64)
            size = np.array([6.0, 5.0])
            if style == "normalized_zero_to_one":
                g = (g + 1) / 2
            if style == "unnormalized":
                g = (g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2
            f.add("resample", opset, {"x": x, "coordinates": g.astype(F32), "sampling_mode": mode, "padding_mode": pad, "padding_value": F32(0),
                                      "coordinates_mode": style, "align_corners": np.bool_(align)}, [y], atol=2e-5, rtol=1e-5, note=f"{mode} {pad} {align} {style}")
    # coremltools' own values (its test of resample)
    x4 = np.array([11.0, 22.0, 33.0, 44.0], F32).reshape(1, 1, 2, 2)
    c4 = np.array([-1.0, -2.0, -3.7, -1.0, 0.0, 0.0, 3.5, 1.2], F32).reshape(1, 2, 2, 2)
    for mode, pad, value, style, align, want in (("bilinear", "constant", 6.17, "normalized_minus_one_to_one", True, [8.585, 6.17, 27.5, 6.17]),
                                                 ("nearest", "border", -1, "unnormalized", False, [11, 11, 11, 44]),
                                                 ("bilinear", "reflection", -1, "normalized_zero_to_one", True, [22, 36.3, 11, 34.1]),
                                                 ("nearest", "symmetric", -1, "normalized_zero_to_one", False, [22, 33, 11, 33])):
        f.add("resample", 15, {"x": x4, "coordinates": c4, "sampling_mode": mode, "padding_mode": pad, "padding_value": F32(value), "coordinates_mode": style,
                               "align_corners": np.bool_(align)}, [np.array(want, F32).reshape(1, 1, 2, 2)], atol=1e-4)
    base = {"x": x4, "coordinates": c4, "sampling_mode": "bilinear", "padding_mode": "border", "padding_value": F32(0), "coordinates_mode": "unnormalized", "align_corners": np.bool_(True)}
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, 1e-30, -0.0], F32).reshape(1, 2, 2, 2)
    for pad in ("border", "reflection", "symmetric"):
        f.add("resample", 16, {**base, "x": np.full((1, 1, 2, 2), 3, F32), "coordinates": wild, "padding_mode": pad}, [np.full((1, 1, 2, 2), 3, F32)], atol=1e-5, note="wild points")
    f.refuse("resample", 15, {**base, "coordinates": c4[0]}, "rank")
    f.refuse("resample", 15, {**base, "coordinates": np.zeros((2, 2, 2, 2), F32)}, "batch")
    f.refuse("resample", 15, {**base, "coordinates": np.zeros((1, 2, 2, 3), F32)}, "pairs")
    f.refuse("resample", 15, {**base, "padding_mode": "mirror"}, "mode")
    for d, size in itertools.product((1, 2), ((4, 3), (1, 7))):
        m = f.floats((d, 6), F32, -1, 1)
        y = torch.nn.functional.grid_sample(t, torch.nn.functional.affine_grid(torch.tensor(np.repeat(m, 2 // d, 0).reshape(2, 2, 3)), (2, 3) + size, align_corners=True),
                                            align_corners=True).numpy()
        args = {"x": x, "transform_matrix": m, "output_height": I32(size[0]), "output_width": I32(size[1]), "sampling_mode": "bilinear", "padding_mode": "constant",
                "padding_value": F32(0), "coordinates_mode": "normalized_minus_one_to_one", "align_corners": np.bool_(True)}
        f.add("affine", 15 + d, args, [y], atol=2e-5)
    f.refuse("affine", 15, {**args, "padding_value": F32(1)}, "padding")
    f.refuse("affine", 15, {**args, "transform_matrix": np.zeros((3, 6), F32)}, "matrices")
    f.refuse("affine", 15, {**args, "output_width": I32(-1)}, "size")
    # boxes: the grid of resize_bilinear with the box in place of the image
    for i, (mode, corners, normal) in enumerate(itertools.product(GRIDS, ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"), (False, True))):
        h, w, th, tw = 5, 6, 1 + i % 3, 1 + i % 4
        boxes = np.array([[1, 1, 3, 4], [0.5, 1.25, 3, 2.75], [0, 0, 4, 5], [2, 1, 6, 4]], np.float64)  # h0 w0 h1 w1; the last leaves the image
        images = np.array([1, 0, 1, 0])
        want = np.zeros((4, 3, th, tw))
        for k, (h0, w0, h1, w1) in enumerate(boxes):
            ph, pw = h0 + grid(mode, h1 - h0 + 1, th), w0 + grid(mode, w1 - w0 + 1, tw)
            for a, b in itertools.product(range(th), range(tw)):
                if 0 <= ph[a] <= h - 1 and 0 <= pw[b] <= w - 1:
                    want[k, :, a, b] = interpolate(interpolate(x[images[k]].astype(np.float64), 1, ph[a:a + 1]), 2, pw[b:b + 1])[:, 0, 0]
                else:
                    want[k, :, a, b] = 7
        if mode == "UNALIGN_CORNERS" or mode == "OFFSET_CORNERS":
            pass
        scale = np.array([h - 1, w - 1, h - 1, w - 1]) if normal else 1
        given = boxes / scale
        if corners.startswith("CENTER"):
            given = np.concatenate([(given[:, :2] + given[:, 2:]) / 2, given[:, 2:] - given[:, :2]], 1)
        if corners.endswith("WIDTH_FIRST"):
            given = given[:, [1, 0, 3, 2]]
        if normal:  # rounding must not push an end outside
            keep, given, wanted, idx = slice(0, 2), given[:2], want[:2], images[:2]
        else:
            wanted, idx = want, images
        options = {"target_height": I32(th), "target_width": I32(tw), "normalized_coordinates": np.bool_(normal), "spatial_scale": F32(1), "box_coordinate_mode": corners, "sampling_mode": mode}
        f.add("crop_resize", 17 + i % 2, {"x": x, "boxes": given.astype(F32), "box_indices": idx.astype([I32, np.uint16][i % 2]), **options, "pad_value": F32(7)}, [stored(wanted, F32)], atol=1e-4)
        roi = np.concatenate([idx[:, None], given], 1).reshape(-1, 1, 5, 1, 1).astype(F32)
        f.add("crop_resize", 16, {"x": x, "roi": roi, **options, "pad_value": F32(7)}, [stored(wanted[:, None], F32)], atol=1e-4)
    roi4 = np.array([1, 1, 3, 4], F32).reshape(1, 1, 4, 1, 1)
    f.add("crop_resize", 15, {"x": x, "roi": roi4, "target_height": I32(3), "target_width": I32(4), "sampling_mode": "ALIGN_CORNERS"}, [x[None, :, :, 1:4, 1:5]], atol=1e-5, note="all images")
    x16 = np.arange(1, 17, dtype=F32).reshape(1, 1, 4, 4)
    f.add("crop_resize", 15, {"x": x16, "roi": np.array([2, 2, 1, 1], F32).reshape(1, 1, 4, 1, 1), "target_height": I32(2), "target_width": I32(2), "sampling_mode": "ALIGN_CORNERS"},
          [np.array([11, 10, 7, 6], F32).reshape(1, 1, 1, 2, 2)], note="backwards")
    f.add("crop_resize", 15, {"x": x16, "roi": np.array([2, 2, 1, 1], F32).reshape(1, 1, 4, 1, 1), "target_height": I32(2), "target_width": I32(2), "sampling_mode": "UNALIGN_CORNERS",
                              "normalized_coordinates": np.bool_(True)}, [np.array([3.5, 5.5, 11.5, 13.5], F32).reshape(1, 1, 1, 2, 2)], note="backwards, coremltools' value")
    f.add("crop_resize", 17, {"x": x16, "boxes": np.array([[1, 1, 2, 2]], np.uint16), "sampling_mode": "ALIGN_CORNERS"}, [np.array([8.5], F32).reshape(1, 1, 1, 1)])
    f.refuse("crop_resize", 15, {"x": x, "roi": roi4[0]}, "rank")
    f.refuse("crop_resize", 15, {"x": x, "roi": np.zeros((1, 1, 6, 1, 1), F32)}, "fields")
    f.refuse("crop_resize", 15, {"x": x, "roi": np.full((1, 1, 5, 1, 1), 2, F32)}, "image")
    f.refuse("crop_resize", 15, {"x": x, "roi": np.full((1, 1, 5, 1, 1), np.nan, F32)}, "image")
    f.refuse("crop_resize", 17, {"x": x, "boxes": np.zeros((3, 4), F32)}, "indices")
    f.refuse("crop_resize", 17, {"x": x, "boxes": np.zeros((2, 4), F32), "box_indices": np.array([0, -1], I32)}, "image")
    f.refuse("crop_resize", 17, {"x": x, "boxes": np.zeros((2, 4), F32), "target_height": I32(0)}, "size")
    f.refuse("crop_resize", 17, {"x": x, "boxes": np.zeros((2, 4), np.uint16), "normalized_coordinates": np.bool_(True)}, "type")


FAMILIES = [unary, binary, activation, reduce, norm, constexpr, sort, image]

if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--more", action="store_true")
    p.add_argument("--only")
    a = p.parse_args()
    np.seterr(all="ignore")
    for family in FAMILIES:
        if not a.only or a.only == family.__name__:
            f = Family(family.__name__, np.random.default_rng(a.seed), a.more)
            family(f)
            f.save(a.folder)
