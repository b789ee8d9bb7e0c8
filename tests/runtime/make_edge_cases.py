#!/usr/bin/env python3
"""Writes the recorded cases of edges (see op_cases.h): NaN, infinities, signed zeros, nothing at all, one of everything, and the
operators that compute with weights, in each of their opsets. Results come from NumPy and torch in float64.

usage: make_edge_cases.py FOLDER        writes FOLDER/edges.cases
"""
import argparse

import numpy as np
import torch
import torch.nn.functional as F

from make_move_cases import ACTS, Moves, Weights, recur
from make_op_cases import F16, F32, I32, SPECIAL, sigmoid, softplus, stored, tolerance

NAN, INF = np.nan, np.inf
OPSETS = (15, 16, 17, 18)


def ints(*v):
    return np.array(v, I32)


def t(a):
    return torch.from_numpy(np.ascontiguousarray(a, np.float64))


def special(shape, dtype):
    """Numbers with NaN, infinities and zeros of both signs in between."""
    v = np.array([1.5, -2.25, NAN, 0.0, INF, -0.0, -INF, 3.0, 0.25, -7.0, 6e-8], np.float64)
    return np.resize(v, shape).astype(dtype)


def each(f, op, fn, opsets=OPSETS):
    """fn(dtype, opset) gives the arguments and the results."""
    for i, opset in enumerate(opsets):
        for dtype in (F32, F16):
            with np.errstate(all="ignore"):
                args, outs = fn(dtype, opset)
                outs = [o if np.asarray(o).dtype != np.float64 else stored(o, dtype) for o in outs]
            if i % 2 == (dtype == F16) or len(opsets) < 3:
                f.add(op, opset, args, outs, **tolerance(dtype), note="edges")


# ---- elementwise -----------------------------------------------------------------------------------------------------


def elementwise(f):
    finite = [x for x in SPECIAL if not np.isinf(x)]
    maps = {  # values, parameters, definition
        "sigmoid": (SPECIAL, {}, sigmoid), "relu6": (SPECIAL, {}, lambda x: np.minimum(np.maximum(x, 0), 6)),
        "softplus": (SPECIAL, {}, lambda x: np.where(np.isposinf(x), INF, np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))),
        "softsign": (finite, {}, lambda x: x / (1 + np.abs(x))), "silu": (finite, {}, lambda x: x * sigmoid(x)),
        "elu": (SPECIAL, {"alpha": 0.75}, lambda x, a: np.where(x > 0, x, np.where(np.isnan(x), x, a * np.expm1(np.minimum(x, 0))))),
        "clamped_relu": (SPECIAL, {"alpha": 0.75, "beta": 2.0}, lambda x, a, b: np.minimum(b, np.where(x >= 0, x, a * x))),
        "linear_activation": (SPECIAL, {"alpha": 0.75, "beta": 0.5}, lambda x, a, b: a * x + b),
        "scaled_tanh": (SPECIAL, {"alpha": 0.75, "beta": 0.5}, lambda x, a, b: a * np.tanh(b * x)),
        "sigmoid_hard": (SPECIAL, {"alpha": 0.25, "beta": 0.5}, lambda x, a, b: np.minimum(np.maximum(a * x + b, 0), 1)),
        "thresholded_relu": (SPECIAL, {"alpha": 0.75}, lambda x, a: np.where(x >= a, x, np.where(np.isnan(x), x, 0))),
        "threshold": (SPECIAL, {"alpha": 0.75}, lambda x, a: np.maximum(x, a)),
        "leaky_relu": (SPECIAL, {"alpha": 0.25}, lambda x, a: np.where(x >= 0, x, a * x)),
        "inverse": (SPECIAL[2:], {"epsilon": 0.25}, lambda x, e: 1 / (x + e)),
        "log": (SPECIAL, {"epsilon": 0.0}, lambda x, e: np.log(x + e)), "rsqrt": (SPECIAL, {"epsilon": 0.0}, lambda x, e: 1 / np.sqrt(x + e)),
        "sin": ([0.0, -0.0, INF, -INF, NAN, 1e4], {}, np.sin), "cos": ([0.0, -0.0, INF, -INF, NAN, 1e4], {}, np.cos),
        "tan": ([0.0, -0.0, INF, -INF, NAN, 1.5], {}, np.tan),
    }
    for op, (values, params, fn) in maps.items():
        def make(dtype, opset):
            x = np.array(values, dtype)
            if op == "thresholded_relu" or op == "threshold":
                x = x[~np.isnan(x)]
            p = {k: dtype(v) for k, v in params.items()}
            return {"x": x, **p}, [fn(x.astype(np.float64), *(v.astype(np.float64) for v in p.values()))]
        each(f, op, make)
        each(f, op, lambda dtype, opset: ({"x": np.zeros((2, 0, 3), dtype), **{k: dtype(v) for k, v in params.items()}}, [np.zeros((2, 0, 3))]), (17,))
    for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"):
        f.add("gelu", 16, {"x": np.array([NAN, 0, 60000, INF], F32), "mode": mode}, [np.array([NAN, 0, 60000, INF], F32)])
    x = special((2, 11), F32)
    f.add("cast", 17, {"x": x, "dtype": "fp16"}, [x.astype(F16)])
    f.add("cast", 17, {"x": np.array([70000, -70000, 65519, 1e-8, NAN], F32), "dtype": "fp16"}, [np.array([INF, -INF, 65504, 0, NAN], F16)])
    f.add("cast", 15, {"x": x, "dtype": "bool"}, [x != 0])
    f.add("logical_not", 16, {"x": np.zeros((0, 2), bool)}, [np.zeros((0, 2), bool)])
    for op in ("prelu", "softplus_parametric"):
        for dtype in (F32, F16):
            x, a, b = special((2, 3, 2, 2), dtype), np.array([0.25, 0.5, -1], dtype), np.array([0.5, 1, 2], dtype)
            d, aa, bb = x.astype(np.float64), a[:, None, None].astype(np.float64), b[:, None, None].astype(np.float64)
            with np.errstate(all="ignore"):
                want = np.where(d < 0, aa * d, d) if op == "prelu" else aa * np.where(np.isposinf(d), INF, softplus(np.where(np.isinf(d) & (d > 0), 0, d) * bb))
            f.add(op, 17 if dtype == F32 else 15, {"x": x, "alpha": a, **({} if op == "prelu" else {"beta": b})}, [stored(want, dtype)], **tolerance(dtype))


# ---- reductions and normalisations -----------------------------------------------------------------------------------


def reductions(f):
    def log_sum_exp(x, axis):
        m = x.max(axis, keepdims=True)
        m = np.where(np.isfinite(m), m, 0)
        return np.log(np.exp(x - m).sum(axis)) + m.squeeze(axis)

    fns = {"reduce_sum": np.sum, "reduce_mean": np.mean, "reduce_prod": np.prod, "reduce_max": np.max, "reduce_min": np.min,
           "reduce_l1_norm": lambda x, axis: np.abs(x).sum(axis), "reduce_l2_norm": lambda x, axis: np.sqrt((x * x).sum(axis)),
           "reduce_sum_square": lambda x, axis: (x * x).sum(axis), "reduce_log_sum": lambda x, axis: np.log(x.sum(axis)), "reduce_log_sum_exp": log_sum_exp}
    rows = [[1, NAN, 2], [1, INF, 2], [1, -INF, 2], [INF, -INF, 0], [-INF, -INF, -INF], [0.0, -0.0, 0.0], [3, 4, 0.5]]
    for op, fn in fns.items():
        def make(dtype, opset):
            x = np.array(rows, dtype)
            return {"x": x, "axes": ints(-1)}, [fn(x.astype(np.float64), 1)]
        each(f, op, make)
        f.add(op, 16, {"x": np.zeros((0, 3), F32), "axes": ints(1)}, [np.zeros(0, F32)], note="no rows")
        f.add(op, 18, {"x": F32([-2]) if "log" not in op else F32([2]), "keep_dims": np.bool_(True)},
              [stored(fn(np.array([-2.0 if "log" not in op else 2.0]), 0).reshape(1), F32)], **tolerance(F32), note="one value")
    empty = np.zeros((2, 0), F32)
    for op, value in {"reduce_l1_norm": 0, "reduce_l2_norm": 0, "reduce_sum_square": 0, "reduce_log_sum": -INF}.items():
        f.add(op, 17, {"x": empty, "axes": ints(1)}, [np.full(2, value, F32)], note="of nothing")
    for op in ("reduce_argmax", "reduce_argmin"):
        f.add(op, 15, {"x": np.zeros((0, 3), F32), "axis": I32(1), "keep_dims": np.bool_(False)}, [np.zeros(0, I32)], note="no rows")
        f.add(op, 18, {"x": np.array([[INF, -INF, INF, -INF], [0.0, -0.0, 0.0, -0.0]], F16), "axis": I32(-1), "keep_dims": np.bool_(True), "output_dtype": None},
              [np.array([[0], [0]] if op == "reduce_argmax" else [[1], [0]], I32)], note="the first of equals")
    for opset in (15, 17):
        x = special((1, 12), F32)
        with np.errstate(all="ignore"):
            f.add("cumsum", opset, {"x": x, "axis": I32(-1)}, [np.cumsum(x, 1)])
    for dtype in (F32, F16):
        x = np.array([[1, NAN, 2], [1, INF, 2], [1, -INF, 2], [60000, 60000, -60000]], dtype)
        with np.errstate(all="ignore"):
            e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(1, keepdims=True))
            f.add("softmax", 15 if dtype == F32 else 17, {"x": x, "axis": I32(-1)}, [stored(e / e.sum(1, keepdims=True), dtype)], **tolerance(dtype))


def norms(f):
    def batch_norm(dtype, opset):
        x, m, v, g, b = special((2, 3, 2, 2), dtype), *(np.array(a, dtype) for a in ([0, 1, -1], [1, 4, 0.25], [1, 2, -1], [0, 0.5, 1]))
        s = lambda a: a.astype(np.float64)[None, :, None, None]
        y = (x.astype(np.float64) - s(m)) / np.sqrt(s(v) + float(dtype(1e-3))) * s(g) + s(b)
        return {"x": x, "mean": m, "variance": v, "gamma": g, "beta": b, "epsilon": dtype(1e-3)}, [y]
    each(f, "batch_norm", batch_norm)

    def rows(fn):
        def make(dtype, opset):
            x = np.array([[[1, NAN, 2, 3]], [[1, 2, -2, 5]], [[4, 4, 4, 4]]], dtype)[:, :, None]
            return fn(x, x.astype(np.float64), dtype)
        return make
    eps = 1e-3

    def layer(x, d, dtype):
        y = (d - d.mean(-1, keepdims=True)) / np.sqrt(d.var(-1, keepdims=True) + float(dtype(eps)))
        return {"x": x, "axes": ints(-1), "epsilon": dtype(eps)}, [y]

    def instance(x, d, dtype):
        y = (d - d.mean(-1, keepdims=True)) / np.sqrt(d.var(-1, keepdims=True) + float(dtype(eps)))
        return {"x": x, "epsilon": dtype(eps)}, [y]

    def l2(x, d, dtype):
        return {"x": x, "epsilon": dtype(eps)}, [d / np.sqrt((d * d).sum((-3, -2, -1), keepdims=True) + float(dtype(eps)))]

    def local(x, d, dtype):
        c = np.moveaxis(x.astype(np.float64), 3, 1)
        sums = np.stack([(c[:, max(0, i - 1):i + 2] ** 2).sum(1) for i in range(4)], 1)
        x = np.moveaxis(x, 3, 1)
        return {"x": np.ascontiguousarray(x), "size": I32(3), "alpha": dtype(0.5), "beta": dtype(0.75), "k": dtype(1)}, [c / (1 + 0.5 / 3 * sums) ** 0.75]
    each(f, "layer_norm", rows(layer))
    each(f, "instance_norm", rows(instance))
    each(f, "l2_norm", rows(l2))
    each(f, "local_response_norm", rows(local))
    for op, more in {"layer_norm": {"axes": ints(-1)}, "instance_norm": {}, "l2_norm": {}}.items():
        f.add(op, 16, {"x": np.zeros((0, 3, 4), F32), **more}, [np.zeros((0, 3, 4), F32)], note="no rows")


# ---- operators that move values --------------------------------------------------------------------------------------


def moves(f):
    for i, dtype in enumerate((F32, F16)):
        x, opset = special((2, 4, 3), dtype), 15 + 3 * i
        image = special((1, 4, 2, 4), dtype)
        ti = torch.from_numpy(image.astype(np.float64))
        cases = {
            "transpose": ({"perm": ints(2, 0, 1)}, x.transpose(2, 0, 1)), "reshape": ({"shape": ints(-1, 2)}, x.reshape(-1, 2)),
            "reverse": ({"axes": ints(-1, 0)}, np.flip(x, (2, 0))), "expand_dims": ({"axes": ints(-1)}, x[..., None]),
            "squeeze": ({"axes": None}, x), "flatten2d": ({"axis": I32(-1)}, x.reshape(8, 3)), "tile": ({"reps": ints(1, 2, 1)}, np.tile(x, (1, 2, 1))),
            "slice_by_index": ({"begin": ints(0, 3, 0), "end": ints(2, 0, 3), "stride": ints(1, -2, 1)}, x[:, 3:0:-2]),
            "slice_by_size": ({"begin": ints(0, 1, 0), "size": ints(-1, 2, -1)}, x[:, 1:3]), "band_part": ({"lower": I32(1), "upper": I32(0)}, np.where(np.tri(4, 3, dtype=bool) & ~np.tri(4, 3, -2, dtype=bool), x, dtype(0))),
            "gather": ({"indices": ints(2, 0), "axis": I32(-1)}, x[:, :, [2, 0]]),
            "gather_along_axis": ({"indices": np.array([[[3, 0, 1]], [[2, 2, 0]]], I32), "axis": I32(-2)}, np.take_along_axis(x, np.array([[[3, 0, 1]], [[2, 2, 0]]]), 1)),
            "gather_nd": ({"indices": np.array([[1, 3], [0, 0]], I32)}, x[[1, 0], [3, 0]]),
        }
        for op, (args, want) in cases.items():
            f.add(op, opset, {"x": x, **args}, [np.ascontiguousarray(want)], note="passes NaN and infinities")
        f.add("pad", opset, {"x": x, "pad": ints(0, 1, 1, 0), "mode": "constant", "constant_val": dtype(NAN)}, [np.pad(x, ((0, 0), (0, 1), (1, 0)), constant_values=dtype(NAN))])
        f.add("reverse_sequence", opset, {"x": x, "lengths": ints(1, 3), "seq_axis": I32(-2), "batch_axis": I32(0)}, [np.stack([x[0], np.concatenate([x[1][2::-1], x[1][3:]])])])
        f.add("pixel_shuffle", opset, {"x": image, "upscale_factor": I32(2)}, [torch.pixel_shuffle(ti, 2).numpy().astype(dtype)])
        f.add("pixel_unshuffle", 17, {"x": image, "downscale_factor": np.uint32(2)}, [torch.pixel_unshuffle(ti, 2).numpy().astype(dtype)])
        f.add("depth_to_space", opset, {"x": image, "block_size": I32(2)}, [image.reshape(1, 2, 2, 1, 2, 4).transpose(0, 3, 4, 1, 5, 2).reshape(1, 1, 4, 8)])
        f.add("space_to_depth", opset, {"x": image, "block_size": I32(2)}, [image.reshape(1, 4, 1, 2, 2, 2).transpose(0, 3, 5, 1, 2, 4).reshape(1, 16, 1, 2)])
        f.add("crop", opset, {"x": image, "crop_height": ints(1, 0), "crop_width": ints(0, 2)}, [image[:, :, 1:, :2]])
        f.add("upsample_nearest_neighbor", opset, {"x": image, "scale_factor_height": I32(2), "scale_factor_width": I32(1)}, [image.repeat(2, 2)])
        f.add("reshape_like", 16 + i, {"x": x, "ref_tensors": np.zeros((3, 8), I32), "begins": I32(0), "ends": I32(2), "end_masks": np.bool_(False)}, [x.reshape(3, 8)])
        f.add("sliding_windows", opset, {"x": special((5,), dtype), "axis": I32(-1), "size": I32(3)}, [np.lib.stride_tricks.sliding_window_view(special((5,), dtype), 3).copy()])
        f.add("slice_update", 18, {"x": x, "update": special((2, 1, 3), dtype), "begin": ints(0, 2, 0), "end": ints(2, 3, 3)},
              [np.concatenate([x[:, :2], special((2, 1, 3), dtype), x[:, 3:]], 1)])
        f.add("scatter", opset, {"data": x[0], "indices": ints(3, 1), "updates": special((2, 3), dtype), "axis": I32(-2), "mode": "update"},
              [np.stack([x[0, 0], special((2, 3), dtype)[1], x[0, 2], special((2, 3), dtype)[0]])])
        f.add("topk", opset, {"x": np.array([INF, -INF, 0, -0.0, 5], dtype), "k": I32(3)}, [np.array([INF, 5, 0], dtype), ints(0, 4, 2)])
    none = np.zeros((0, 4, 2, 4), F32)
    for op, args, shape in (("pixel_shuffle", {"upscale_factor": I32(2)}, (0, 1, 4, 8)), ("depth_to_space", {"block_size": I32(2)}, (0, 1, 4, 8)),
                            ("space_to_depth", {"block_size": I32(2)}, (0, 16, 1, 2)), ("crop", {"crop_height": ints(1, 0), "crop_width": ints(0, 2)}, (0, 4, 1, 2)),
                            ("upsample_nearest_neighbor", {"scale_factor_height": I32(2), "scale_factor_width": I32(1)}, (0, 4, 4, 4)),
                            ("upsample_bilinear", {"scale_factor_height": F32(2), "scale_factor_width": F32(1.5)}, (0, 4, 4, 6)),
                            ("resize_bilinear", {"target_size_height": I32(3), "target_size_width": I32(5)}, (0, 4, 3, 5)),
                            ("resize_nearest_neighbor", {"target_size_height": I32(3), "target_size_width": I32(5)}, (0, 4, 3, 5)),
                            ("space_to_batch", {"block_shape": ints(2, 2), "paddings": np.zeros((2, 2), I32)}, (0, 4, 1, 2)),
                            ("batch_to_space", {"block_shape": ints(2, 2), "crops": np.zeros((2, 2), I32)}, (0, 4, 4, 8)),
                            ("slice_by_index", {"begin": ints(0, 1, 0, 0), "end": ints(0, 3, 2, 4)}, (0, 2, 2, 4)),
                            ("slice_by_size", {"begin": ints(0, 1, 0, 0), "size": ints(0, 2, -1, -1)}, (0, 2, 2, 4))):
        f.add(op, 15, {"x": none, **args}, [np.zeros(shape, F32)], note="no images")
    f.add("slice_by_index", 17, {"x": np.arange(5, dtype=F32), "begin": ints(3), "end": ints(3)}, [np.zeros(0, F32)], note="nothing left")
    f.add("range_1d", 17, {"start": F32(2), "end": F32(2), "step": F32(1)}, [np.zeros(0, F32)])
    f.add("gather_along_axis", 17, {"x": np.zeros((2, 3), F32), "indices": np.zeros((2, 0), I32), "axis": I32(1)}, [np.zeros((2, 0), F32)])
    for op in ("concat", "stack"):
        a, b = special((2, 3), F32), special((2, 3), F32)[::-1].copy()
        f.add(op, 16, {"values": [a, b], "axis": I32(-1)}, [(np.concatenate if op == "concat" else np.stack)([a, b], -1)])
    f.add("split", 18, {"x": special((2, 6), F16), "num_splits": I32(3), "axis": I32(-1)}, np.split(special((2, 6), F16), 3, 1))


# ---- operators with weights ------------------------------------------------------------------------------------------


def products(f):
    def linear(dtype, opset):
        x, w, b = f.floats((3, 5), dtype), f.floats((2, 5), dtype), f.floats((2,), dtype)
        x[1, 2] = NAN
        x[2, 0] = INF
        w[:, 0] = 1
        return {"x": x, "weight": w, "bias": b}, [(t(x) @ t(w).T + t(b)).numpy()]
    each(f, "linear", linear)
    shapes = (((4, 3), (3, 2)), ((2, 1, 4, 3), (5, 3, 2)), ((3,), (3, 2)), ((2, 4, 3), (3,)), ((1, 7), (7, 1)))
    for i, (a, b) in enumerate(shapes):
        def matmul(dtype, opset):
            x, y = f.floats(a, dtype), f.floats(b, dtype)
            return {"x": x, "y": y}, [np.matmul(x.astype(np.float64), y.astype(np.float64))]
        each(f, "matmul", matmul, (15 + i % 4,))
    each(f, "matmul", lambda dtype, opset: ((lambda x, y: ({"x": x, "y": y, "transpose_x": np.bool_(True), "transpose_y": np.bool_(True)},
                                                           [np.matmul(x.T.astype(np.float64), y.T.astype(np.float64))]))(f.floats((3, 4), dtype), f.floats((2, 3), dtype))), (16, 17))
    f.add("matmul", 15, {"x": np.zeros((0, 3), F32), "y": np.zeros((3, 2), F32)}, [np.zeros((0, 2), F32)], note="no rows")
    f.add("matmul", 15, {"x": np.zeros((2, 0), F32), "y": np.zeros((0, 3), F32)}, [np.zeros((2, 3), F32)], note="sums of nothing")
    a, b = np.array([[1, -3], [70000, 2]], I32), np.array([[5, 7], [-1, 70000]], I32)
    f.add("matmul", 16, {"x": a, "y": b}, [np.matmul(a.astype(np.int64), b.astype(np.int64)).astype(I32)], note="integers")
    for i, (equation, a, b) in enumerate((("nchw,nwhu->nchu", (1, 2, 3, 4), (1, 4, 3, 2)), ("chw,whu->chu", (2, 3, 4), (4, 3, 2)))):
        def einsum(dtype, opset):
            x, y = f.floats(a, dtype), f.floats(b, dtype)
            return {"values": [x, y], "equation": equation}, [np.einsum(equation, x.astype(np.float64), y.astype(np.float64))]
        each(f, "einsum", einsum, (15 + i, 18))


def convolutions(f):
    def conv(dims, k, x_shape, w_shape, **more):
        def make(dtype, opset):
            x, w, b = f.floats(x_shape, dtype), f.floats(w_shape, dtype), f.floats((w_shape[0],), dtype)
            torch_more = {"stride": more.get("strides", (1,) * dims), "dilation": more.get("dilations", (1,) * dims), "groups": int(more.get("groups", 1))}
            pad = more.get("pad")
            tx = t(x)
            if pad is not None:
                tx = F.pad(tx, [int(v) for i in range(dims - 1, -1, -1) for v in pad[2 * i:2 * i + 2]])
            y = (F.conv1d, F.conv2d, F.conv3d)[dims - 1](tx, t(w), t(b), **torch_more).numpy()
            args = {"x": x, "weight": w, "bias": b, "pad_type": "custom" if pad is not None else "valid", "pad": None if pad is None else ints(*pad),
                    "strides": ints(*more["strides"]) if "strides" in more else None, "dilations": ints(*more["dilations"]) if "dilations" in more else None,
                    "groups": I32(more["groups"]) if "groups" in more else None}
            return args, [y]
        return make
    kinds = [(1, 3, (2, 3, 7), (4, 3, 3), {}), (1, 3, (1, 4, 9), (4, 1, 3), {"groups": 4, "strides": (2,), "pad": (2, 0)}), (2, 3, (1, 3, 6, 5), (2, 3, 3, 2), {"pad": (1, 2, 0, 1), "strides": (2, 1)}),
             (2, 3, (2, 4, 7, 7), (6, 2, 3, 3), {"groups": 2, "dilations": (2, 2)}), (3, 2, (1, 2, 4, 4, 5), (3, 2, 2, 2, 2), {"strides": (1, 2, 1)}), (2, 1, (1, 1, 1, 1), (1, 1, 1, 1), {})]
    for i, (dims, k, x, w, more) in enumerate(kinds):
        each(f, "conv", conv(dims, k, x, w, **more), (15 + i % 4, 15 + (i + 2) % 4))
    f.add("conv", 15, {"x": np.zeros((0, 2, 4, 4), F32), "weight": np.zeros((3, 2, 3, 3), F32)}, [np.zeros((0, 3, 2, 2), F32)], note="no images")
    x = np.zeros((1, 1, 1, 5), F32)
    x[..., 4] = NAN
    f.add("conv", 17, {"x": x, "weight": np.ones((1, 1, 1, 2), F32)}, [np.array([[[[0, 0, 0, NAN]]]], F32)], note="NaN stays in its window")

    def transposed(dims, x_shape, w_shape, **more):
        def make(dtype, opset):
            x, w = f.floats(x_shape, dtype), f.floats(w_shape, dtype)
            groups, strides, dilations = int(more.get("groups", 1)), more.get("strides", (1,) * dims), more.get("dilations", (1,) * dims)
            y = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1](t(x), t(w), None, stride=strides, dilation=dilations, groups=groups).numpy()
            return {"x": x, "weight": w, "strides": ints(*strides), "dilations": ints(*dilations), "groups": I32(groups), "pad_type": "valid"}, [y]
        return make
    for i, (dims, x, w, more) in enumerate([(1, (1, 2, 5), (2, 3, 3), {"strides": (2,)}), (2, (1, 4, 3, 2), (4, 1, 2, 3), {"groups": 2, "strides": (2, 1)}), (3, (1, 2, 2, 3, 2), (2, 2, 2, 1, 2), {}), (2, (1, 1, 2, 2), (1, 1, 2, 2), {"dilations": (2, 1)})]):
        each(f, "conv_transpose", transposed(dims, x, w, **more), (15 + i % 4, 15 + (i + 2) % 4))


POOLS = ((1, (1, 2, 7), (3,), (2,), (1, 1)), (2, (2, 1, 5, 6), (2, 3), (1, 2), (0, 1, 1, 1)), (3, (1, 1, 3, 4, 3), (2, 2, 2), (1, 2, 1), (0, 0, 1, 0, 0, 0)), (2, (1, 2, 3, 3), (3, 3), (1, 1), (0, 0, 0, 0)))
UNTOUCHED_POOLS = ((3, (2, 2, 5, 3, 4), (3, 1, 1), (2, 1, 1), (1, 1, 0, 0, 0, 0)), (2, (1, 2, 4, 9), (3, 1), (1, 1), (1, 0, 0, 0)), (3, (1, 2, 2, 4, 9), (2, 3, 1), (1, 2, 1), (0, 1, 1, 1, 0, 0)))


def pools_of(f, list_of_them):
    for i, (dims, shape, size, stride, pad) in enumerate(list_of_them):
        for op in ("max_pool", "avg_pool", "l2_pool"):
            if op == "l2_pool" and dims == 3:
                continue

            def pool(dtype, opset):
                x = f.floats(shape, dtype)
                flat = [v for j in range(dims - 1, -1, -1) for v in pad[2 * j:2 * j + 2]]
                fill = -INF if op == "max_pool" else 0.0
                padded = F.pad(t(x), flat, value=fill).numpy()
                count = F.pad(torch.ones(shape), flat).numpy()
                axes = tuple(range(-dims, 0))
                view = lambda a: np.lib.stride_tricks.sliding_window_view(a, size, tuple(range(2, 2 + dims)))[(slice(None),) * 2 + tuple(slice(None, None, s) for s in stride)]
                w = view(padded)
                y = w.max(axes) if op == "max_pool" else w.sum(axes) / view(count).sum(axes) if op == "avg_pool" else np.sqrt((w * w).sum(axes))
                args = {"x": x, "kernel_sizes": ints(*size), "strides": ints(*stride), "pad_type": "custom", "pad": ints(*pad)}
                if op == "avg_pool":
                    args["exclude_padding_from_average"] = np.bool_(True)
                return args, [y]
            each(f, op, pool, (15 + i, 15 + (i + 1) % 4))


def pools(f):
    pools_of(f, POOLS)
    x = np.array([[[1, NAN, 3, 4, -INF, -INF]]], F32)
    f.add("max_pool", 15, {"x": x, "kernel_sizes": ints(2), "strides": ints(2), "pad_type": "valid"}, [np.array([[[NAN, 4, -INF]]], F32)])
    f.add("avg_pool", 17, {"x": x, "kernel_sizes": ints(2), "strides": ints(2), "pad_type": "valid"}, [np.array([[[NAN, 3.5, -INF]]], F32)])
    for op in ("max_pool", "avg_pool", "l2_pool"):
        f.add(op, 16, {"x": np.zeros((0, 2, 4, 4), F32), "kernel_sizes": ints(2, 2), "pad_type": "valid"}, [np.zeros((0, 2, 3, 3), F32)], note="no images")


def attention(f):
    for shape, keys in (((1, 2, 3, 4), 5), ((2, 1, 4), 1), ((1, 1, 1, 8), 7)):
        def make(dtype, opset):
            q, k = f.floats(shape, dtype), f.floats((*shape[:-2], keys, shape[-1]), dtype)
            v = f.floats((*shape[:-2], keys, 3), dtype)
            mask = f.floats((*shape[:-1], keys), dtype)
            mask[..., 0] = 0
            if keys > 2:
                mask[..., 2] = -INF
            return {"query": q, "key": k, "value": v, "attn_mask": mask}, [F.scaled_dot_product_attention(t(q), t(k), t(v), t(mask)).numpy()]
        each(f, "scaled_dot_product_attention", make, (18,))
    q, k, v = (f.floats((1, 2, 4), F32) for _ in range(3))
    mask = np.array([[True, False], [True, True]])
    f.add("scaled_dot_product_attention", 18, {"query": q, "key": k, "value": v, "attn_mask": mask},
          [stored(F.scaled_dot_product_attention(t(q), t(k), t(v), torch.from_numpy(mask)).numpy(), F32)], **tolerance(F32), note="bool mask")


def others(f):
    for opset in (15, 17):
        x = f.floats((2, 1, 3, 4), F32)
        flip = np.tile(np.array([[-1, 0, 0, 0, 1, 0]], F32), (2, 1))
        f.add("affine", opset, {"x": x, "transform_matrix": flip, "output_height": I32(3), "output_width": I32(4), "sampling_mode": "bilinear", "padding_mode": "constant",
                                "padding_value": F32(0), "coordinates_mode": "normalized_minus_one_to_one", "align_corners": np.bool_(True)}, [x[..., ::-1]], atol=1e-6)
    f.add("identity", 15, {"x": special((2, 5), F16)}, [special((2, 5), F16)])
    for dtype in (F32, F16):
        x, q = f.floats((1, 2, 4, 3), dtype), f.rng.integers(0, 256, (3, 2, 2, 2)).astype(np.uint8)
        scale, bias = np.array([0.01, 0.02, 0.005], dtype), np.array([-1, -2, 0.5], dtype)
        w = q * scale[:, None, None, None].astype(np.float64) + bias[:, None, None, None].astype(np.float64)
        f.add("conv_quantized", 15 if dtype == F32 else 18, {"x": x, "weight": q, "quantization_type": "linear", "nbits": I32(8), "quant_scale": scale, "quant_bias": bias},
              [stored(F.conv2d(t(x), t(w)).numpy(), dtype)], atol=2e-2 if dtype == F16 else 1e-5, note="the weight is rounded")
    for dtype in (F32, F16): # nothing is left to chance
        shape = ints(2, 3)
        f.add("random_uniform", 15, {"shape": shape, "low": dtype(1.5), "high": dtype(1.5)}, [np.full((2, 3), 1.5, dtype)])
        f.add("random_normal", 17, {"shape": shape, "mean": dtype(-2), "stddev": dtype(0), "seed": I32(3)}, [np.full((2, 3), -2, dtype)])
        f.add("random_bernoulli", 16, {"shape": shape, "prob": dtype(1)}, [np.ones((2, 3), dtype)])
        f.add("random_bernoulli", 18, {"shape": ints(0, 2), "prob": dtype(0.5)}, [np.ones((0, 2), dtype)])
    f.add("random_categorical", 15, {"x": np.array([[-100, 100, -100]], F32), "size": I32(4)}, [np.ones((1, 4), F32)])
    f.add("random_categorical", 17, {"x": np.array([[0, 0, 1], [1, 0, 0]], F32), "mode": "probs", "size": I32(2)}, [np.array([[2, 2], [0, 0]], F32)])


def recurrent(f):
    """One step, one feature, no recurrence to speak of: by hand. NaN of one sequence stays in it."""
    s = lambda v: 1 / (1 + np.exp(-v))
    x = np.array([[[0.5], [NAN]], [[-1.0], [2.0]]], F32)  # 2 steps, batch of 2, 1 feature
    h0 = np.zeros((2, 1), F32)
    w, r, b = np.array([[0.75]], F32), np.array([[0.5]], F32), np.array([0.25], F32)
    h, states = h0.astype(np.float64), []
    for step in x.astype(np.float64):
        h = np.tanh(step * 0.75 + h * 0.5 + 0.25)
        states.append(h)
    f.add("rnn", 15, {"x": x, "initial_h": h0, "weight_ih": w, "weight_hh": r, "bias": b, "activation": "tanh", "output_sequence": np.bool_(True)},
          [stored(np.stack(states), F32), stored(h, F32)], **tolerance(F32))
    f.add("rnn", 17, {"x": x, "initial_h": np.array([[0], [0], [9]], F32), "weight_ih": w, "weight_hh": r, "bias": b, "activation": "tanh", "output_sequence": np.bool_(True)},
          [stored(np.stack(states), F32), stored(h, F32)], **tolerance(F32), note="a row too many")
    wi, wh, bi = np.array([[0.5], [0.25], [-0.5], [1]], F32), np.array([[0.1], [0.2], [0.3], [0.4]], F32), np.array([0.1, 0, -0.1, 0.2], F32)
    h = c = np.zeros((2, 1))
    states = []
    for step in x.astype(np.float64):
        i, fo, o, z = (step * float(wi[k, 0]) + h * float(wh[k, 0]) + float(bi[k]) for k in range(4))
        c = s(fo) * c + s(i) * np.tanh(z)
        h = s(o) * np.tanh(c)
        states.append(h)
    f.add("lstm", 17, {"x": x, "initial_h": h0, "initial_c": h0, "weight_ih": wi, "weight_hh": wh, "bias": bi, "direction": "forward", "output_sequence": np.bool_(True)},
          [stored(np.stack(states), F32), stored(h, F32), stored(c, F32)], **tolerance(F32))
    wi, wh = wi[:3], wh[:3]
    h, states = np.zeros((2, 1)), []
    for step in x.astype(np.float64):
        rr, z = (s(step * float(wi[k, 0]) + h * float(wh[k, 0])) for k in (0, 2))
        rr, z = s(step * float(wi[0, 0]) + h * float(wh[0, 0])), s(step * float(wi[2, 0]) + h * float(wh[2, 0]))
        o = np.tanh(step * float(wi[1, 0]) + rr * h * float(wh[1, 0]))
        h = (1 - z) * o + z * h
        states.append(h)
    f.add("gru", 16, {"x": x, "initial_h": h0, "weight_ih": wi, "weight_hh": wh, "direction": "forward", "output_sequence": np.bool_(True)},
          [stored(np.stack(states), F32), stored(h, F32)], **tolerance(F32))
    torch.manual_seed(0)
    layer = torch.nn.GRU(3, 4).double()  # a gate that an infinite input decides, with the reset behind the matrix
    x = np.linspace(-1, 1, 30).reshape(5, 2, 3).astype(F32)
    x[1, 0, 2], x[3, 1, 0] = INF, -INF
    with torch.no_grad():
        for w in layer.parameters():
            w.copy_(t(w.numpy().astype(F32)))
        out, h = layer(t(x))
    order = lambda m: np.concatenate([np.split(m.detach().numpy().astype(F32), 3)[k] for k in (0, 2, 1)])
    assert np.isfinite(out.numpy()).all()
    f.add("gru", 18, {"x": x, "initial_h": np.zeros((2, 4), F32), "weight_ih": order(layer.weight_ih_l0), "weight_hh": order(layer.weight_hh_l0),
                      "bias": order(layer.bias_hh_l0), "input_bias": order(layer.bias_ih_l0), "reset_after": np.bool_(True), "output_sequence": np.bool_(True)},
          [stored(out.numpy(), F32), stored(h[0].numpy(), F32)], **tolerance(F32), note="infinite inputs")


def untouched_pools(f):
    """Windows that do not reach into the dims at the end."""
    pools_of(f, UNTOUCHED_POOLS)


def many_points(f):
    """Two images, and more points of each than are sampled at a time."""
    for dtype in (F32, F16):
        x, c = f.floats((2, 3, 5, 6), dtype), (f.rng.integers(-20, 21, (2, 10, 9, 2)) / 16 + 1 / 64).astype(dtype)
        y = F.grid_sample(t(x), t(c), mode="bilinear", padding_mode="zeros", align_corners=False).numpy()
        f.add("resample", 17, {"x": x, "coordinates": c, "sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": dtype(0),
                               "coordinates_mode": "normalized_minus_one_to_one", "align_corners": np.bool_(False)}, [stored(y, dtype)], **tolerance(dtype), note="many points")


def wild_samples(f):
    """Coordinates beyond the image, far beyond it, infinite and NaN; images of one row, column or pixel; 1 to 129 points."""
    wild = [NAN, INF, -INF, 1e30, -1e30, 3e9, -3e9, 65504, -1e-30, -0.0]

    def sampled(x, v, nearest, border, pad):  # v: pixels (x, y); by torch, with coordinates that are finite and near
        size = np.array([x.shape[3], x.shape[2]], np.float64)
        v = np.where(np.isnan(v), 0.0 if border else -9.0, v)
        v = np.clip(v, 0, size - 1) if border else np.clip(v, -9, size + 9)
        unit = t((2 * v + 1) / size - 1)
        y, ones = (F.grid_sample(a, unit, mode="nearest" if nearest else "bilinear", padding_mode="zeros", align_corners=False) for a in (t(x), torch.ones_like(t(x))))
        return (y if border else y + pad * (1 - ones)).numpy()
    shapes = [(1, 1), (7, 9), (8, 8), (5, 13), (3, 22)]
    for i, (size, border, nearest) in enumerate((s, b, n) for s in ((5, 6), (1, 1), (1, 4), (7, 1)) for b in (False, True) for n in (False, True)):
        dtype = [F32, F16][i // 2 % 2]
        x = f.floats((2, 2, *size), dtype)
        v = f.rng.integers(-24, 16 * max(size) + 24, (2, *shapes[i % 5], 2)) / 16 + 1 / 64
        some = f.rng.random(v.shape) < 0.15
        v[some] = f.rng.choice(wild, some.sum())
        with np.errstate(over="ignore"):
            given = v.astype(F32)
        f.add("resample", 15 + i % 3, {"x": x, "coordinates": given, "sampling_mode": ["bilinear", "nearest"][nearest], "padding_mode": ["constant", "border"][border],
                                       "padding_value": dtype(2.5), "coordinates_mode": "unnormalized", "align_corners": np.bool_(i % 3 == 0)},
              [stored(sampled(x, given.astype(np.float64), nearest, border, 2.5), dtype)], **tolerance(dtype), note="wild points")
    for dtype in (F32, F16):  # neighbours that do not count are not seen
        x = special((1, 2, 5, 7), dtype)
        v = np.stack(np.meshgrid(np.arange(7), np.arange(5)), -1)[None].astype(F32)
        for padding in ("constant", "border", "reflection", "symmetric"):
            f.add("resample", 16, {"x": x, "coordinates": v, "sampling_mode": "bilinear", "padding_mode": padding, "padding_value": dtype(INF),
                                   "coordinates_mode": "unnormalized", "align_corners": np.bool_(False)}, [x], note="itself")
    x = f.floats((2, 3, 5, 6), F32)  # boxes with more points than are sampled at a time; half of each lies outside
    boxes = np.array([[0, 0, 4, 5], [2, 1, 6, 9], [-3, -2, 1, 2]], F32)
    h, w = (np.linspace(boxes[:, k], boxes[:, k + 2], n, axis=1).astype(np.float64) for k, n in ((0, 9), (1, 17)))
    v = np.stack(np.broadcast_arrays(w[:, None, :], h[:, :, None]), -1)
    outside = ((v < 0) | (v > [5, 4])).any(-1)[:, None]
    y = np.where(outside, 7.0, sampled(x[[1, 0, 1]], v, False, True, 0))
    f.add("crop_resize", 17, {"x": x, "boxes": boxes, "box_indices": ints(1, 0, 1), "target_height": I32(9), "target_width": I32(17), "normalized_coordinates": np.bool_(False),
                              "spatial_scale": F32(1), "box_coordinate_mode": "CORNERS_HEIGHT_FIRST", "sampling_mode": "STRICT_ALIGN_CORNERS", "pad_value": F32(7)},
          [stored(y, F32)], **tolerance(F32), note="many points")


def few_of_many(f):
    """The first of many: in the order of a stable sort, with equal values, infinities and zeros of both signs between them."""
    for i, (n, k) in enumerate(((300, 1), (300, 16), (300, 32), (300, 33), (530, 64))):
        dtype, ascending = [F32, F16][i % 2], i % 3 == 0
        x = (f.rng.integers(-400, 400, (2, n)) / 8).astype(dtype)
        x[0, 40:] = np.sort(x[0, 40:])[:: -1 if ascending else 1]  # each better than the one before
        x[1, ::37], x[1, 1::41], x[1, 2::43], x[1, 3::47] = 0.0, -0.0, INF, -INF
        order = np.argsort(x.astype(np.float64) * (1 if ascending else -1), axis=-1, kind="stable")[:, :k]
        f.add("topk", 17, {"x": x, "k": I32(k), "axis": I32(-1), "ascending": np.bool_(ascending)}, [np.take_along_axis(x, order, -1), order.astype(I32)], note="few of many")


def columns_of_extremes(f):
    """Sums, and where the first extreme is, along dims that are not the last: more columns than are done at a time, more rows than are summed at a time."""
    for i, (shape, axis) in enumerate((((2, 3, 260), 1), ((3, 7, 1, 2), 1), ((5, 9), 0))):
        for dtype in (F32, F16):
            x = (f.rng.integers(-20, 20, shape) / 4).astype(dtype)
            x.flat[::53], x.flat[1::71], x.flat[2::67], x.flat[3::89], x.flat[4::97] = 0.0, -0.0, INF, -INF, NAN
            for op, fn in (("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)):
                f.add(op, 17, {"x": x, "axis": I32(axis), "keep_dims": np.bool_(False)}, [fn(x, axis).astype(I32)], note="columns")
    x = f.floats((2, 67, 9), F16)
    for op, fn in (("reduce_sum", np.sum), ("reduce_mean", np.mean)):
        f.add(op, 16, {"x": x, "axes": ints(1), "keep_dims": np.bool_(True)}, [stored(fn(x.astype(np.float64), 1, keepdims=True), F16)], **tolerance(F16), note="columns")
    x = f.floats((67, 35), F32)
    f.add("reduce_log_sum", 15, {"x": abs(x), "axes": ints(0), "keep_dims": np.bool_(False)}, [stored(np.log(abs(x).astype(np.float64).sum(0)), F32)], **tolerance(F32), note="columns")


def far_taps(f):
    """Dilations and paddings that keep taps outside the image for all outputs, or for some."""
    kinds = [((1, 16, 5, 7), (32, 16, 3, 3), (5, 7), (5, 7), (1, 1), 1), ((2, 3, 5, 7), (4, 3, 3, 3), (4, 6), (4, 6), (1, 1), 1), ((1, 8, 6, 4), (8, 1, 3, 3), (6, 9), (6, 9), (1, 1), 8),
             ((1, 4, 9, 9), (6, 4, 5, 3), (9, 2), (18, 2), (2, 2), 1), ((1, 6, 3, 3), (6, 3, 2, 2), (3, 1), (3, 0), (3, 1), 2), ((1, 2, 1, 1), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1)]
    for i, (x_shape, w_shape, dilation, pad, stride, groups) in enumerate(kinds):
        for dtype in (F32, F16):
            x, w, b = f.floats(x_shape, dtype), f.floats(w_shape, dtype), f.floats((w_shape[0],), dtype)
            y = F.conv2d(t(x), t(w), t(b), stride=stride, padding=pad, dilation=dilation, groups=groups).numpy()
            f.add("conv", 15 if dtype == F32 else 17, {"x": x, "weight": w, "bias": b, "pad_type": "custom", "pad": ints(pad[0], pad[0], pad[1], pad[1]), "strides": ints(*stride),
                                                      "dilations": ints(*dilation), "groups": I32(groups)}, [stored(y, dtype)], **tolerance(dtype), note="far taps")


def lines_together(f):
    """What is done for many lines or columns at once: more of them, and longer ones, than are taken together; orders of equal elements and NaN."""
    for i, (shape, axis) in enumerate((((66, 5), 1), ((5, 66), 1), ((3, 9), 1), ((1, 2, 260), 1), ((66, 3, 1), 1))):
        for dtype in (F32, F16, I32):
            for exclusive in ((i + (dtype == F16)) % 2 == 0,):
                reverse = i % 3 != 1
                x = f.rng.integers(-9, 9, shape).astype(dtype)
                y = np.flip(x, axis) if reverse else x
                y = np.cumsum(y, axis, dtype=np.float64) - (y if exclusive else 0)
                f.add("cumsum", 17, {"x": x, "axis": I32(axis), "exclusive": np.bool_(exclusive), "reverse": np.bool_(reverse)},
                      [(np.flip(y, axis) if reverse else y).astype(dtype)], note="together")
    for i, (shape, axis, k) in enumerate((((9, 66), 0, 3), ((2, 7, 3, 2), 1, 7), ((40, 5), 0, 32), ((40, 5), 0, 33), ((3, 4), 0, 1))):
        for dtype in (F32, F16, I32):
            ascending = i % 2 == 0
            x = f.rng.integers(-4, 4, shape).astype(dtype)
            if dtype != I32:
                x.flat[::13], x.flat[1::17], x.flat[2::19], x.flat[3::23], x.flat[4::29] = -0.0, INF, -INF, NAN, 0.0
            keys = x.astype(np.float64) * (1 if ascending else -1)
            order = np.take(np.argsort(keys, axis, kind="stable"), range(k), axis)  # NaN last
            f.add("topk", 17, {"x": x, "k": I32(k), "axis": I32(axis), "ascending": np.bool_(ascending)}, [np.take_along_axis(x, order, axis), order.astype(I32)], note="together")
            f.add("argsort", 15, {"x": x, "axis": I32(axis), "ascending": np.bool_(ascending)}, [np.argsort(keys, axis, kind="stable").astype(I32)], note="together")
    for shape in ((5, 40), (2, 3, 257), (3, 33)):
        for dtype in (F32, F16):
            x = (f.rng.integers(-20, 20, shape) / 4).astype(dtype)
            x[0] = -INF
            x[-1].flat[7::19], x[1].flat[3::41], x[1].flat[2::67] = NAN, INF, -INF
            for op, fn in (("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)):
                f.add(op, 17, {"x": x, "axis": I32(-1), "keep_dims": np.bool_(False)}, [fn(x, -1).astype(I32)], note="together")
    for shape, axis in (((5, 20, 3), 1), ((31, 9, 4), 1), ((9, 2, 2), 0), ((2, 60, 13), 1)):
        for dtype in (F32, F16):
            x = f.floats(shape, dtype)
            x.flat[::31] = -INF
            e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(axis, keepdims=True))
            f.add("softmax", 15 if dtype == F32 else 17, {"x": x, "axis": I32(axis)}, [stored(e / e.sum(axis, keepdims=True), dtype)], **tolerance(dtype), note="together")
    for dtype in (F32, F16, I32):
        for x_shape, axis, shape in (((1, 2, 260), 1, (1, 1, 260)), ((2, 3, 9), 2, (2, 3, 4)), ((2, 3, 9), 1, (2, 5, 9))):
            data = f.rng.integers(-99, 99, x_shape).astype(dtype)
            at = f.rng.integers(-data.shape[axis], data.shape[axis], shape)
            places = np.where(at < 0, at + data.shape[axis], at)
            f.add("gather_along_axis", 15, {"x": data, "indices": at.astype(I32), "axis": I32(axis)}, [np.take_along_axis(data, places, axis)], note="together")
            up = f.rng.integers(1, 9, shape).astype(dtype)
            for mode in ("add", "update"):
                want = data.copy().astype(np.float64)
                for k in range(shape[axis]):  # one after the other: the last update wins
                    one, u = np.take(places, [k], axis), np.take(up, [k], axis)
                    np.put_along_axis(want, one, np.take_along_axis(want, one, axis) + u if mode == "add" else u, axis)
                f.add("scatter_along_axis", 15, {"data": data, "indices": at.astype(I32), "updates": up, "axis": I32(axis), "mode": mode}, [want.astype(dtype)], note="together")
    for x in (np.float32(3), np.float16(0), np.array([[[0, 2], [0, 0]], [[-1, 0], [3, 4]]], I32), np.array([[True, False], [False, True]]), np.zeros((2, 0), F32), np.array([[-0.0, 1, NAN]], F16)):
        f.add("non_zero", 15, {"x": np.asarray(x)}, [np.argwhere(x).astype(I32)], note="together")


def unaligned_grids(f):
    """An affine grid whose ends are the edges of the corner pixels, as torch makes it unless told otherwise."""
    x = f.floats((2, 3, 5, 6), F32, -1, 1)
    for d, size in ((1, (4, 3)), (2, (5, 6)), (2, (1, 9))):
        m = f.floats((d, 6), F32, -1, 1)
        grid = F.affine_grid(torch.tensor(np.repeat(m, 2 // d, 0).reshape(2, 2, 3)), (2, 3) + size, align_corners=False)
        f.add("affine", 15, {"x": x, "transform_matrix": m, "output_height": I32(size[0]), "output_width": I32(size[1]), "sampling_mode": "bilinear", "padding_mode": "constant",
                             "padding_value": F32(0), "coordinates_mode": "normalized_minus_one_to_one", "align_corners": np.bool_(False)},
              [F.grid_sample(torch.tensor(x), grid, align_corners=False).numpy()], atol=2e-5, note="unaligned")


def one_sequence(f):
    """Layers in halves whose hidden values fill several panels of packed weights, the last in part."""
    a = {"out": np.tanh, "rec": ACTS["sigmoid"], "cell": np.tanh, "clip": np.inf}
    for i, (kind, size) in enumerate((("rnn", 40), ("rnn", 72), ("rnn", 104), ("rnn", 136), ("gru", 72), ("lstm", 40))):
        g = {"rnn": 1, "gru": 3, "lstm": 4}[kind]
        small = lambda *shape: f.floats(shape, F16, -0.25, 0.25)
        x, h0, c0, w = small(5, 1, 3), small(1, size), small(1, size), {"w": small(g * size, 3), "r": small(g * size, size), "b": small(g * size)}
        states, h, c = recur(kind, *(v.astype(np.float64) for v in (x, h0, c0)), Weights(w, False), a, False)
        args = {"x": x, "initial_h": h0, "weight_ih": w["w"], "weight_hh": w["r"], "bias": w["b"], "output_sequence": np.bool_(True)}
        if kind == "lstm":
            args["initial_c"] = c0
        f.add(kind, 17 + i % 2, args, [np.asarray(o).astype(F16) for o in [np.stack(states), h] + [c] * (kind == "lstm")], atol=1e-3, rtol=2e-3, note="panels")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    a = p.parse_args()
    f = Moves("edges", np.random.default_rng(7), True)
    for part in (elementwise, reductions, norms, moves, products, convolutions, pools, attention, others, recurrent, untouched_pools, many_points, wild_samples, few_of_many, columns_of_extremes, far_taps, lines_together, unaligned_grids, one_sequence):
        part(f)
    f.save(a.folder)


if __name__ == "__main__":
    main()
