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

    def add(self, op, opset, args, outputs, atol=0.0, rtol=0.0, refused=False, note=""):
        """args: name -> array, text or Packed (None leaves it out)."""
        args = {k: v for k, v in args.items() if v is not None}
        shape = "x".join(str(np.asarray(getattr(v, "values", v)).shape).replace(" ", "") for v in list(args.values())[:2] if not isinstance(v, str))
        b = b"CASE" + text(op) + text(f"{self.count} {note} {shape}"[:120]) + bytes([opset, int(refused)]) + struct.pack("<ff", atol, rtol)
        b += bytes([len(args)]) + b"".join(text(k) + tensor(v) for k, v in args.items())
        b += bytes([len(outputs)]) + b"".join(tensor(o) for o in outputs)
        if not self.more and len(b) > 2000: # few that are larger than a chunk
            self.large += 1
            if self.large > 8 and self.large % 16:
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


FAMILIES = [unary, binary, activation, reduce]

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
