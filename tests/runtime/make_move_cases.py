#!/usr/bin/env python3
"""Writes recorded cases (see op_cases.h) of the operators that move elements, and of recurrent ones and suppression.

usage: make_move_cases.py FOLDER [--seed N] [--more]

Results are NumPy's, or torch's where it has the operator; loops in plain Python stand for what neither has. None is cml's.
"""
import argparse
import itertools
import struct

import numpy as np
import torch

from make_op_cases import F16, F32, I32, Family, tensor, text

I8, U8, I16, U16 = np.int8, np.uint8, np.int16, np.uint16
ALL15 = [F32, F16, I32, np.bool_]
ALL17 = ALL15 + [I8, U8, I16, U16]


class Moves(Family):
    def add(self, op, opset, args, outputs, atol=0.0, rtol=0.0, refused=False, note="", keep=False):
        """A list is a variadic parameter's values; keep: whatever the size."""
        flat = [(k, v) for k, given in args.items() if given is not None for v in (given if isinstance(given, list) else [given])]
        b = b"CASE" + text(op) + text(f"{self.count} {note} {[np.shape(v) for _, v in flat[:2] if not isinstance(v, str)]}"[:120])
        b += bytes([opset, int(refused)]) + struct.pack("<ff", atol, rtol) + bytes([len(flat)])
        b += b"".join(text(k) + tensor(v) for k, v in flat) + bytes([len(outputs)]) + b"".join(tensor(o) for o in outputs)
        if not self.more and not keep and len(b) > 900: # few that are larger than a tile or worth several threads
            self.large += 1
            if self.large > 4 and (self.large % 8 or len(b) > 6000):
                return
        self.out.append(b)
        self.count += 1

    def values(self, shape, dtype):
        if dtype == np.bool_:
            return self.rng.integers(0, 2, shape).astype(bool)
        if dtype in (F32, F16):
            return self.rng.integers(-1000, 1000, shape).astype(dtype) / dtype(8)
        return self.rng.integers(0, 100, shape).astype(dtype)

    def type_of(self, i):
        """An opset and an element type that it has, in turn."""
        opset = 15 + i % 4
        return opset, (ALL15 if opset < 17 else ALL17)[(i // 4) % (4 if opset < 17 else 8)]


def ints(*v):
    return np.array(v, I32)


SHAPES = [(), (1,), (5,), (2, 3), (3, 1, 4), (2, 3, 4, 5), (1, 2, 3, 2, 2), (0,), (2, 0, 3), (7, 33), (64, 65), (3, 70, 40), (2, 300, 3)]


def shapes(f):
    for i, shape in enumerate(SHAPES):
        opset, dtype = f.type_of(i)
        x = f.values(shape, dtype)
        n = x.size
        for target in [(n,), (1, n), (n, 1, 1), shape, tuple(reversed(shape))]:
            if 0 in target and target != shape:
                continue # a 0 is no length
            f.add("reshape", opset, {"x": x, "shape": np.array(target, I32)}, [x.reshape(target)])
        if n:
            f.add("reshape", 17, {"x": x, "shape": np.array((-1, 1), I16)}, [x.reshape(-1, 1)])
        f.add("shape", opset, {"x": x}, [np.array(shape, I32)])
        for rank in (1, 2):
            for axes in itertools.combinations(range(-len(shape) - rank, len(shape) + rank), rank):
                if len({a % (len(shape) + rank) for a in axes}) == rank and (f.more or (sum(axes) + i) % 4 == 0):
                    f.add("expand_dims", opset, {"x": x, "axes": np.array(axes, I32)}, [np.expand_dims(x, axes)])
        if shape:
            f.add("squeeze", opset, {"x": x}, [x.squeeze()])
        for axis in range(-len(shape) - 1, len(shape) + 2):
            pre, post = int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))
            if pre * post == n:
                f.add("flatten2d", opset, {"x": x, "axis": I32(axis)}, [x.reshape(pre, post)])
    x = f.values((1, 3, 1, 2), F32)
    for axes, want in (([0], (3, 1, 2)), ([-2], (1, 3, 2)), ([0, 2], (3, 2)), ([0, 1], (3, 1, 2)), ([1], (1, 3, 1, 2)), ([2, -4], (3, 2))):
        f.add("squeeze", 16, {"x": x, "axes": np.array(axes, I32)}, [x.reshape(want)])
    f.refuse("squeeze", 16, {"x": x, "axes": ints(4)}, "axis")
    f.refuse("expand_dims", 16, {"x": x, "axes": ints(5)}, "axis")
    f.refuse("expand_dims", 16, {"x": x, "axes": ints(-6)}, "axis")
    f.refuse("expand_dims", 16, {"x": x, "axes": np.arange(13).astype(I32)}, "too many")
    x = f.values((2, 3, 4), F32)
    f.add("reshape", 15, {"x": x, "shape": ints(0, -1, 0)}, [x])
    f.add("reshape", 16, {"x": x, "shape": ints(4, 0, -1)}, [x.reshape(4, 3, 2)])
    f.refuse("reshape", 16, {"x": x, "shape": ints(0, -1)}, "zero and another rank")
    f.add("reshape", 17, {"x": x, "shape": ints(-1, 0)}, [x.reshape(6, 4)], note="zeros from the right")
    f.add("reshape", 18, {"x": x, "shape": ints(0, 2, 0, 4)}, [x.reshape(1, 2, 3, 4)], note="zeros from the right")
    for bad in ((-1, -1), (5, -1), (-2, 12), (25,), (2, 3, 5), (0, 0, 0, 0), (2147483647, 2147483647, 2147483647, 2147483647)):
        f.refuse("reshape", 15, {"x": x, "shape": np.array(bad, I32)}, "impossible")
    e = f.values((0, 3), F32)
    f.add("reshape", 17, {"x": e, "shape": ints(-1, 3)}, [e.reshape(-1, 3)])
    f.refuse("reshape", 17, {"x": x, "shape": ints(0, 0, 0, 0, 7)}, "impossible")
    refs = [f.values((2, 3), F32), f.values((5, 4), I32)]
    for begins, ends, masks, want in (((0, 1), (2, 2), (False, False), (2, 3, 4)), ((0, 1), (0, 0), (True, True), (2, 3, 4)),
                                      ((0, -1), (-1, 2), (False, False), (2, 4)), ((-2, -1), (5, 9), (False, True), (2, 3, 4))):
        y = x.reshape(want) if np.prod(want) == 24 else f.values(want, F32)
        f.add("reshape_like", 16, {"x": y, "ref_tensors": refs, "begins": [I32(b) for b in begins], "ends": [I32(b) for b in ends],
                                   "end_masks": [np.bool_(m) for m in masks]}, [y])
    f.refuse("reshape_like", 16, {"x": x, "ref_tensors": refs, "begins": [I32(0)], "ends": [I32(1), I32(1)], "end_masks": [np.bool_(0)] * 2}, "counts")
    f.refuse("reshape_like", 16, {"x": x, "ref_tensors": refs, "begins": [I32(0)] * 2, "ends": [I32(1)] * 2, "end_masks": [np.bool_(0)] * 2}, "size")


def make(f):
    for i, shape in enumerate(SHAPES):
        for value in (F32(1.5), F16(-2), I32(7), np.bool_(True), None):
            want = np.full(shape, F32(0) if value is None else value)
            f.add("fill", 15 + i % 4, {"shape": np.array(shape, I32), "value": value}, [want])
            f.add("fill_like", 16 + i % 3, {"ref_tensor": f.values(shape, I32), "value": value}, [want])
    f.refuse("fill", 15, {"shape": ints(2, -1), "value": F32(1)}, "negative")
    f.refuse("fill", 15, {"shape": np.array([2147483647] * 4, I32), "value": F32(1)}, "too large")
    for a, b, s in ((0, 5, 1), (5, 0, -1), (0, 7, 3), (-3, 9, 4), (3, 3, 1), (5, 3, 1), (10, -10, -3)):
        for i, dtype in enumerate((I32, F32, F16)):
            f.add("range_1d", 15 + i, {"start": dtype(a), "end": dtype(b), "step": dtype(s)}, [np.arange(a, b, s).astype(dtype)])
    f.add("range_1d", 15, {"start": F32(0.1), "end": F32(1.3), "step": F32(0.25)}, [np.arange(0.1, 1.3, 0.25).astype(F32)], rtol=1e-6)
    f.add("range_1d", 17, {"start": F16(0.5), "end": F16(4), "step": F16(0.75)}, [np.arange(0.5, 4, 0.75).astype(F16)], rtol=1e-3)
    f.refuse("range_1d", 15, {"start": I32(0), "end": I32(3), "step": I32(0)}, "step")
    f.refuse("range_1d", 15, {"start": F32(np.nan), "end": F32(3), "step": F32(1)}, "nan")
    f.refuse("range_1d", 15, {"start": F32(0), "end": F32(3e38), "step": F32(1e-9)}, "endless")
    for i, shape in enumerate([(), (3,), (2, 3), (2, 1, 4), (0,)]):
        x = f.rng.integers(-1, 5, shape).astype(I32)
        for axis in [None] + list(range(-len(shape) - 1, len(shape) + 1)):
            for on, off, dtype in ((None, None, I32), (F32(2.5), F32(-1), F32), (F16(1), F16(0.5), F16), (np.bool_(1), np.bool_(0), np.bool_)):
                hot = (x[..., None] == np.arange(4))
                want = np.moveaxis(np.where(hot, 1 if on is None else on, 0 if off is None else off).astype(dtype), -1, -1 if axis is None else axis)
                f.add("one_hot", 15 + i % 4, {"indices": x, "one_hot_vector_size": I32(4), "axis": None if axis is None else I32(axis),
                                              "on_value": on, "off_value": off}, [want])
    f.refuse("one_hot", 15, {"indices": ints(1), "one_hot_vector_size": I32(-4)}, "size")
    f.refuse("one_hot", 15, {"indices": ints(1), "one_hot_vector_size": I32(4), "axis": I32(2)}, "axis")
    for i, shape in enumerate([(), (5,), (3, 4), (2, 3, 4), (2, 0), (2, 2, 3, 2, 2)]):
        for dtype in ALL15:
            x = (f.values(shape, dtype) * f.rng.integers(0, 2, shape)).astype(dtype)
            want = np.argwhere(x).astype(I32) if shape else np.zeros((int(x != 0), 0), I32)
            f.add("non_zero", 15 + i % 4, {"x": x}, [want])
    f.add("non_zero", 17, {"x": np.array([np.nan, 0, -0.0, np.inf], F32)}, [np.array([[0], [3]], I32)])
    for i, shape in enumerate([(3, 4), (4, 3), (2, 5, 5), (1, 2, 1, 6), (0, 3), (3, 0), (2, 33, 9)]):
        opset, dtype = f.type_of(i * 5)
        x = f.values(shape, dtype)
        m, n = np.arange(shape[-2])[:, None], np.arange(shape[-1])[None]
        for low, up in itertools.product((-1, 0, 1, 7), (-1, 0, 2, 9)):
            keep = ((low < 0) | (m - n <= low)) & ((up < 0) | (n - m <= up))
            f.add("band_part", opset, {"x": x, "lower": I32(low), "upper": I32(up)}, [np.where(keep, x, np.zeros((), dtype))])
    f.add("band_part", 15, {"x": np.full((2, 2), np.nan, F32), "lower": I32(0), "upper": I32(0)}, [np.array([[np.nan, 0], [0, np.nan]], F32)])
    f.refuse("band_part", 15, {"x": np.ones(3, F32)}, "rank")


def move(f):
    for i, shape in enumerate(SHAPES):
        perms = list(itertools.permutations(range(len(shape))))
        if len(perms) > 24:
            perms = perms[:: max(1, len(perms) // (120 if f.more else 12))]
        for k, perm in enumerate(perms):
            opset, dtype = f.type_of(i + 4 * k + k)
            if np.prod(shape) > 2000:
                opset, dtype = (17, [U8, I16, F32, F16][k % 4])
            x = f.values(shape, dtype)
            given = np.array(perm, I32) - (len(shape) if k % 3 == 1 else 0)
            f.add("transpose", opset, {"x": x, "perm": given.astype(I32)}, [np.transpose(x, perm)])
        opset, dtype = f.type_of(i)
        x = f.values(shape, dtype)
        for n in range(len(shape) + 1):
            for axes in itertools.combinations(range(len(shape)), n):
                if f.more or (i + sum(axes)) % 3 == 0:
                    f.add("reverse", opset, {"x": x, "axes": np.array([a - (len(shape) if a % 2 else 0) for a in axes], I32)}, [np.flip(x, axes)])
        f.add("reverse", opset, {"x": x}, [np.flip(x)])
        if shape:
            for reps in ((1,) * len(shape), (2,) + (1,) * (len(shape) - 1), (1,) * (len(shape) - 1) + (3,), tuple(1 + (k + i) % 3 for k in range(len(shape)))):
                if x.size < 2000:
                    f.add("tile", opset, {"x": x, "reps": np.array(reps, I32)}, [np.tile(x, reps)])
    x = f.values((2, 3), F32)
    for bad in ((0, 0), (0,), (0, 2), (0, 1, 2), (-3, 0)):
        f.refuse("transpose", 15, {"x": x, "perm": np.array(bad, I32)}, "perm")
    f.refuse("reverse", 15, {"x": x, "axes": ints(2)}, "axis")
    f.refuse("tile", 15, {"x": x, "reps": ints(2, -1)}, "reps")
    f.add("tile", 15, {"x": x, "reps": ints(2, 0)}, [np.tile(x, (2, 0))])
    f.refuse("tile", 15, {"x": x, "reps": ints(2)}, "reps")
    f.refuse("tile", 15, {"x": x, "reps": ints(2147483647, 2147483647)}, "too large")
    for i, (shape, seq, batch) in enumerate([((4, 3), 0, 1), ((3, 4), 1, 0), ((2, 5, 3), 1, 0), ((3, 2, 5), -1, 0), ((4, 2, 3, 2), 0, 2), ((4, 0), 0, 1)]):
        opset, dtype = f.type_of(i)
        x = f.values(shape, dtype)
        lengths = f.rng.integers(0, shape[seq] + 1, shape[batch]).astype(I32)
        want = np.moveaxis(x.copy(), (batch, seq), (0, 1))
        for b, n in enumerate(lengths):
            want[b, :n] = want[b, :n][::-1].copy()
        f.add("reverse_sequence", opset, {"x": x, "lengths": lengths, "seq_axis": I32(seq), "batch_axis": I32(batch)}, [np.moveaxis(want, (0, 1), (batch, seq))])
    f.refuse("reverse_sequence", 15, {"x": x, "lengths": ints(5, 1), "seq_axis": I32(0), "batch_axis": I32(1)}, "lengths")
    f.refuse("reverse_sequence", 15, {"x": np.ones((3, 2), F32), "lengths": ints(4, 1), "seq_axis": I32(0), "batch_axis": I32(1)}, "too long")
    f.refuse("reverse_sequence", 15, {"x": np.ones((3, 2), F32), "lengths": ints(-1, 1), "seq_axis": I32(0), "batch_axis": I32(1)}, "negative")
    f.refuse("reverse_sequence", 15, {"x": np.ones((3, 2), F32), "lengths": ints(1, 1)}, "one axis")
    blocks(f)


def blocks(f):
    for i, (n, c, h, w, b) in enumerate([(1, 1, 2, 3, 2), (2, 3, 4, 2, 2), (1, 2, 3, 3, 3), (3, 1, 1, 1, 4), (1, 5, 7, 9, 2), (2, 1, 20, 30, 3)]):
        for dtype in (F32, F16):
            deep, wide = f.values((n, c * b * b, h, w), dtype), f.values((n, c, h * b, w * b), dtype)
            opset = 16 + i % 3
            f.add("pixel_shuffle", opset, {"x": deep, "upscale_factor": I32(b)}, [torch.pixel_shuffle(torch.from_numpy(deep), b).numpy()])
            f.add("pixel_unshuffle", opset, {"x": wide, "downscale_factor": np.uint32(b)}, [torch.pixel_unshuffle(torch.from_numpy(wide), b).numpy()])
            f.add("depth_to_space", opset, {"x": deep, "block_size": I32(b)},
                  [deep.reshape(n, b, b, c, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c, h * b, w * b)])
            f.add("space_to_depth", opset, {"x": wide, "block_size": I32(b)},
                  [wide.reshape(n, c, h, b, w, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h, w)])
    x = f.values((1, 4, 3, 5), F32)
    f.refuse("pixel_shuffle", 15, {"x": x, "upscale_factor": I32(3)}, "channels")
    f.refuse("pixel_shuffle", 15, {"x": x, "upscale_factor": I32(0)}, "factor")
    f.refuse("pixel_shuffle", 15, {"x": x[0], "upscale_factor": I32(2)}, "rank")
    f.refuse("space_to_depth", 15, {"x": x, "block_size": I32(2)}, "size")
    f.refuse("depth_to_space", 15, {"x": x, "block_size": I32(-2)}, "size")
    for i, (n, c, h, w, b0, b1, pads) in enumerate([(1, 1, 4, 4, 2, 2, (0, 0, 0, 0)), (2, 3, 3, 5, 2, 3, (1, 0, 0, 1)), (1, 2, 2, 2, 2, 2, (2, 2, 1, 1)),
                                                    (1, 1, 1, 6, 3, 2, (1, 1, 0, 0)), (3, 1, 5, 4, 1, 2, (0, 0, 0, 0))]):
        x = f.values((n, c, h, w), F32 if i % 2 else F16)
        p = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
        ph, pw = p.shape[2] // b0, p.shape[3] // b1
        y = p.reshape(n, c, ph, b0, pw, b1).transpose(3, 5, 0, 1, 2, 4).reshape(n * b0 * b1, c, ph, pw)
        args = {"block_shape": ints(b0, b1)}
        f.add("space_to_batch", 15 + i % 4, {"x": x, **args, "paddings": np.array(pads, I32).reshape(2, 2)}, [y])
        f.add("batch_to_space", 15 + i % 4, {"x": y, **args, "crops": np.array(pads, I32).reshape(2, 2)}, [x])
    zero = np.zeros((2, 2), I32)
    f.refuse("space_to_batch", 15, {"x": np.ones((1, 1, 3, 4), F32), "block_shape": ints(2, 2), "paddings": zero}, "size")
    f.refuse("batch_to_space", 15, {"x": np.ones((3, 1, 3, 4), F32), "block_shape": ints(2, 2), "crops": zero}, "batch")
    f.refuse("batch_to_space", 15, {"x": np.ones((4, 1, 3, 4), F32), "block_shape": ints(2, 2), "crops": zero + 9}, "crops")
    f.refuse("space_to_batch", 15, {"x": np.ones((4, 1, 3, 4), F32), "block_shape": ints(2, 0), "paddings": zero}, "block")
    f.refuse("space_to_batch", 15, {"x": np.ones((4, 1, 3, 4), F32), "block_shape": ints(2, 2), "paddings": zero - 1}, "paddings")


def join(f):
    for i, shape in enumerate(SHAPES):
        opset, dtype = f.type_of(i)
        n = 1 + i % 4
        same = [f.values(shape, dtype) for _ in range(n)]
        for axis in range(-len(shape), len(shape)):
            parts = [f.values(shape[:axis % len(shape)] + (k + (i + axis) % 2,) + shape[axis % len(shape) + 1:], dtype) for k in range(n)]
            f.add("concat", opset, {"values": parts, "axis": I32(axis)}, [np.concatenate(parts, axis)])
            a = axis % len(shape)
            want = np.stack(same, a + 1).reshape(shape[:a] + (n * shape[a],) + shape[a + 1:])
            f.add("concat", opset, {"values": same, "axis": I32(axis), "interleave": np.bool_(True)}, [want])
        if not shape:
            f.add("concat", opset, {"values": same, "axis": I32(0)}, [np.stack(same)])
        for axis in range(-len(shape) - 1, len(shape) + 1):
            f.add("stack", opset, {"values": same, "axis": I32(axis)}, [np.stack(same, axis)])
    x, y = f.values((2, 3), F32), f.values((2, 4), F32)
    f.refuse("concat", 15, {"values": [x, y], "axis": I32(0)}, "shapes")
    f.refuse("concat", 15, {"values": [x, y], "axis": I32(2)}, "axis")
    f.refuse("concat", 15, {"values": [x, x[0]], "axis": I32(0)}, "ranks")
    f.refuse("concat", 15, {"values": [x, x.astype(I32)], "axis": I32(0)}, "types")
    f.refuse("concat", 15, {"values": [x, y], "axis": I32(1), "interleave": np.bool_(True)}, "interleave")
    f.refuse("stack", 15, {"values": [x, y], "axis": I32(0)}, "shapes")
    f.refuse("stack", 15, {"values": [x, x], "axis": I32(3)}, "axis")
    for i, (shape, axis, sizes) in enumerate([((6,), 0, (1, 2, 3)), ((4, 6), 1, (3, 3)), ((4, 6), -2, (0, 4)), ((2, 3, 4), -1, (1, 1, 2)), ((5, 1, 2), 0, (5,)), ((0, 4), 1, (1, 3))]):
        opset, dtype = f.type_of(i)
        x = f.values(shape, dtype)
        want = np.split(x, np.cumsum(sizes)[:-1], axis)
        f.add("split", opset, {"x": x, "split_sizes": np.array(sizes, I32), "axis": I32(axis)}, want)
        f.add("split", opset, {"x": x, "num_splits": I32(len(sizes)), "split_sizes": np.array(sizes, I32), "axis": I32(axis)}, want)
    for n in (1, 2, 3, 6):
        x = f.values((3, 6, 2), F16)
        f.add("split", 16, {"x": x, "num_splits": I32(n), "axis": I32(1)}, np.split(x, n, 1))
    f.refuse("split", 15, {"x": x, "num_splits": I32(1), "split_sizes": ints(5), "axis": I32(1)}, "sum")
    f.refuse("split", 15, {"x": x, "num_splits": I32(1), "split_sizes": ints(-5), "axis": I32(1)}, "negative")
    f.refuse("split", 15, {"x": x, "axis": I32(1)}, "neither")
    for i, (shape, pads) in enumerate([((5,), (1, 2)), ((3, 4), (0, 1, 2, 3)), ((2, 3, 4), (1, 1)), ((2, 3, 4), (1, 0, 2, 3)), ((1, 2, 5, 6), (2, 2, 3, 1)), ((2, 30, 40), (3, 4, 5, 6)), ((3, 4, 5), (1, 1, 2, 2, 3, 3))]):
        full = [(0, 0)] * (len(shape) - len(pads) // 2) + list(zip(pads[::2], pads[1::2]))
        for k, dtype in enumerate((F32, F16)):
            x = f.values(shape, dtype)
            p = {"x": x, "pad": np.array(pads, I32)}
            f.add("pad", 15 + (i + k) % 4, p, [np.pad(x, full)])
            f.add("pad", 15 + (i + k) % 4, {**p, "mode": "constant", "constant_val": dtype(-1.5)}, [np.pad(x, full, constant_values=dtype(-1.5))])
            f.add("pad", 15 + (i + k) % 4, {**p, "mode": "replicate"}, [np.pad(x, full, "edge")])
            if all(max(p) < n for p, n in zip(full, shape)):
                f.add("pad", 15 + (i + k) % 4, {**p, "mode": "reflect"}, [np.pad(x, full, "reflect")])
    x = np.ones((2, 0), F32)
    f.add("pad", 15, {"x": x, "pad": ints(1, 1), "constant_val": F32(3)}, [np.full((2, 2), 3, F32)])
    f.add("pad", 15, {"x": np.ones((2, 2), F32), "pad": np.zeros(0, I32)}, [np.ones((2, 2), F32)])
    f.refuse("pad", 15, {"x": x, "pad": ints(1, 1), "mode": "replicate"}, "empty")
    x = np.ones((2, 3), F32)
    f.refuse("pad", 15, {"x": x, "pad": ints(0, 3), "mode": "reflect"}, "too far")
    f.refuse("pad", 15, {"x": x, "pad": ints(0, -1)}, "negative")
    f.refuse("pad", 15, {"x": x, "pad": ints(0, 1, 1)}, "odd")
    f.refuse("pad", 15, {"x": x, "pad": ints(0, 1, 1, 1, 1, 1)}, "long")
    f.refuse("pad", 15, {"x": x, "pad": ints(0, 1), "mode": "circular"}, "mode")
    for n, shape, dtype in ((2, (5, 9), F32), (2, (37,), F16), (3, (19,), F16), (4, (2, 17), F16), (4, (23,), I32), (8, (3, 7), F16), (8, (7, 37), F32)): # the last: more than a block
        same = [f.values(shape, dtype) for _ in range(n)]
        f.add("stack", 16, {"values": same, "axis": I32(-1)}, [np.stack(same, -1)], keep=True)


def slices(f):
    dims = [(0, 5, 1), (1, 4, 2), (-3, 5, 1), (-1, -6, -1), (4, 0, -2), (3, 3, 1), (-20, 20, 3), (20, -20, -1), (2, -1, 1)]
    for i, (b, e, s) in enumerate(dims):
        for shape, axis in (((5,), 0), ((3, 5), 1), ((5, 2, 3), 0), ((2, 5, 4), 1)):
            opset, dtype = f.type_of(i)
            x = f.values(shape, dtype)
            cut = [slice(0, n, 1) for n in shape]
            cut[axis] = slice(b, e, s)
            v = {"x": x, "begin": np.array([c.start for c in cut], I32), "end": np.array([c.stop for c in cut], I32), "stride": np.array([c.step for c in cut], I32)}
            f.add("slice_by_index", opset, v, [x[tuple(cut)]])
            if b + e >= 0 and s == 1:
                f.add("slice_by_index", opset, {k: v[k] for k in ("x", "begin", "end")}, [x[tuple(cut)]])
            if x[tuple(cut)].size or True:
                u = f.values(x[tuple(cut)].shape, dtype)
                y = x.copy()
                y[tuple(cut)] = u
                f.add("slice_update", 18, {**v, "update": u}, [y])
    for k in range(60 if f.more else 24):
        rank = 1 + k % 4
        shape = tuple(int(n) for n in f.rng.integers(1, 6, rank))
        x = f.values(shape, F32)
        begin, end = f.rng.integers(-6, 6, rank), f.rng.integers(-6, 6, rank)
        step = f.rng.choice([-3, -2, -1, 1, 1, 2], rank)
        bm, em, sq = f.rng.integers(0, 2, rank), f.rng.integers(0, 2, rank), f.rng.integers(0, 2, rank) * f.rng.integers(0, 2, rank)
        begin = np.where(sq & (1 - bm), [int(f.rng.integers(-n, n)) for n in shape], begin)
        cut = tuple((slice(None if m else int(b), None if q else int(e), int(s))) if not z else (0 if m and s > 0 else -1 if m else int(b))
                    for b, e, s, m, q, z in zip(begin, end, step, bm, em, sq))
        v = {"x": x, "begin": begin.astype(I32), "end": end.astype(I32), "stride": step.astype(I32), "begin_mask": bm.astype(bool),
             "end_mask": em.astype(bool), "squeeze_mask": sq.astype(bool)}
        want = x[cut]
        f.add("slice_by_index", 15 + k % 4, v, [np.asarray(want)])
        if np.ndim(want):
            y, u = x.copy(), f.values(want.shape, F32)
            y[cut] = u
            f.add("slice_update", 18, {**v, "update": u}, [y])
    x = f.values((3, 4), F32)
    f.refuse("slice_by_index", 15, {"x": x, "begin": ints(0), "end": ints(1, 2)}, "length")
    f.refuse("slice_by_index", 15, {"x": x, "begin": ints(0, 0), "end": ints(1, 2), "stride": ints(1, 0)}, "stride")
    for at in (3, -4):
        f.refuse("slice_by_index", 15, {"x": x, "begin": ints(at, 0), "end": ints(1, 2), "squeeze_mask": np.array([True, False])}, "index")
    f.refuse("slice_update", 18, {"x": x, "update": x, "begin": ints(0, 0), "end": ints(1, 2)}, "shape")
    f.refuse("slice_update", 18, {"x": x, "update": F32(1), "begin": ints(0, 0), "end": ints(1, 1)}, "scalar")
    for i, (shape, begin, size) in enumerate([((5,), (1,), (3,)), ((3, 4), (0, 1), (2, -1)), ((3, 4), (-2, -3), (-1, 2)), ((2, 3, 4), (1, 0, 2), (1, 3, 2)), ((4,), (4,), (0,)), ((4,), (2,), (-1,))]):
        opset, dtype = f.type_of(i)
        x = f.values(shape, dtype)
        cut = tuple(slice(b % n if b < 0 else b, (b % n if b < 0 else b) + s if s >= 0 else n) for b, s, n in zip(begin, size, shape))
        f.add("slice_by_size", opset, {"x": x, "begin": np.array(begin, I32), "size": np.array(size, I32)}, [x[cut]])
    for b, s in ((3, 2), (-5, 1), (5, -1), (0, -2), (0, 5)):
        f.refuse("slice_by_size", 15, {"x": np.ones(4, F32), "begin": ints(b), "size": ints(s)}, "range")
    for i, (shape, axis, size, stride) in enumerate([((6,), 0, 3, 1), ((2, 7), 1, 2, 2), ((7, 3), -2, 4, 3), ((2, 5, 3), 1, 5, 1), ((3, 4, 2), -1, 1, 1)]):
        opset, dtype = f.type_of(i * 5)
        if dtype == np.bool_:
            dtype = F32
        x = f.values(shape, dtype)
        a = axis % len(shape)
        windows = np.lib.stride_tricks.sliding_window_view(x, size, a)
        want = np.moveaxis(windows, -1, a + 1).take(range(0, windows.shape[a], stride), a)
        f.add("sliding_windows", opset, {"x": x, "axis": I32(axis), "size": I32(size), "stride": I32(stride)}, [want])
    for axis, size, stride in ((0, 4, 1), (1, 1, 1), (0, 0, 1), (0, 1, 0)):
        f.refuse("sliding_windows", 15, {"x": np.ones(3, F32), "axis": I32(axis), "size": I32(size), "stride": I32(stride)}, "window")


INDEX = {15: [I32], 16: [I32, I16, U16], 17: [I32, I16, U16, I8, U8], 18: [I32, I16, U16, I8, U8]}


def gather(f):
    for i, (shape, axis, at) in enumerate([((5,), 0, ()), ((5,), 0, (3,)), ((5, 3), 0, (4,)), ((5, 3), -1, (2, 2)), ((2, 4, 3), 1, (5,)), ((2, 4, 3), -2, ()), ((3, 2, 2, 3), 2, (1, 2, 3)), ((4, 3), 0, (0,)), ((40, 30), 1, (50,))]):
        for opset in (15, 16, 17, 18):
            dtype = (ALL15 if opset < 17 else ALL17)[i % (4 if opset < 17 else 8)]
            x, n = f.values(shape, dtype), shape[axis]
            kind = INDEX[opset][i % len(INDEX[opset])]
            low = -n if opset < 17 and kind in (I32, I16) else 0
            idx = f.rng.integers(low, n, at).astype(kind)
            f.add("gather", opset, {"x": x, "indices": idx, "axis": I32(axis)}, [np.asarray(np.take(x, idx, axis))])
            along = f.rng.integers(low, n, shape[:axis % len(shape)] + (3,) + shape[axis % len(shape) + 1:]).astype(kind)
            f.add("gather_along_axis", opset, {"x": x, "indices": along, "axis": I32(axis)}, [np.take_along_axis(x, along.astype(np.int64), axis)])
    for opset, kind in ((16, I32), (17, U8), (18, I16)):
        for shape, batch, axis, at in (((2, 5), 1, 1, (2, 3)), ((2, 3, 4), 1, 2, (2, 2)), ((2, 3, 4, 2), 2, 2, (2, 3, 2, 2)), ((2, 3, 4), 1, 1, (2,)), ((2, 4), 1, 1, (2, 0))):
            x, idx = f.values(shape, F32), f.rng.integers(0, shape[axis], at).astype(kind)
            rows = int(np.prod(shape[:batch]))
            want = np.stack([np.take(a, b, axis - batch) for a, b in zip(x.reshape((rows,) + shape[batch:]), idx.reshape((rows,) + at[batch:]))])
            want = want.reshape(shape[:batch] + want.shape[1:])
            f.add("gather", opset, {"x": x, "indices": idx, "axis": I32(axis), "batch_dims": I32(batch)}, [want])
    x = f.values((3, 4), F32)
    for op in ("gather", "gather_along_axis"):
        idx = np.array([3], I32) if op == "gather" else np.full((1, 4), 3, I32)
        f.refuse(op, 15, {"x": x, "indices": idx}, "range")
        f.refuse(op, 16, {"x": x, "indices": -idx - 1}, "range")
        f.refuse(op, 17, {"x": x, "indices": idx, "validate_indices": np.bool_(True)}, "range")
        f.refuse(op, 18, {"x": x, "indices": idx * 0 - 1, "validate_indices": np.bool_(True)}, "negative")
        f.refuse(op, 17, {"x": x, "indices": idx, "axis": I32(2)}, "axis")
    f.refuse("gather", 17, {"x": x, "indices": ints(0), "axis": I32(0), "batch_dims": I32(1)}, "batch")
    f.refuse("gather", 17, {"x": x, "indices": ints(0), "axis": I32(1), "batch_dims": I32(-1)}, "batch")
    f.refuse("gather", 17, {"x": x, "indices": ints(0, 1), "axis": I32(1), "batch_dims": I32(1)}, "batch size")
    f.refuse("gather_along_axis", 17, {"x": x, "indices": np.zeros((1, 3), I32)}, "shape")
    f.refuse("gather_along_axis", 17, {"x": x, "indices": ints(0)}, "rank")
    for i, (shape, at, depth, batch) in enumerate([((5,), (3,), 1, 0), ((3, 4), (2,), 2, 0), ((3, 4), (2, 2), 1, 0), ((2, 3, 4), (), 3, 0), ((2, 3, 4), (2, 5), 1, 1), ((2, 3, 4), (2, 5), 2, 1), ((2, 3, 4, 2), (2, 3, 2), 1, 2), ((3, 4), (0,), 1, 0), ((3, 2), (2,), 0, 0)]):
        for opset in (15, 16, 17, 18):
            if batch and opset == 15:
                continue
            x = f.values(shape, ALL15[i % 4])
            kind = INDEX[opset][i % len(INDEX[opset])]
            idx = np.stack([f.rng.integers(-shape[batch + k] if opset < 17 and kind in (I32, I16) else 0, shape[batch + k], at) for k in range(depth)], -1) if depth else np.zeros(at + (0,))
            idx = idx.astype(kind)
            want = np.zeros(at + shape[batch + depth:], x.dtype)
            for p in np.ndindex(*at):
                want[p] = x[p[:batch] + tuple(int(v) for v in idx[p])]
            f.add("gather_nd", opset, {"x": x, "indices": idx, "batch_dims": I32(batch) if opset > 15 else None}, [want])
    f.refuse("gather_nd", 15, {"x": x, "indices": np.zeros((2, 3), I32)}, "depth")
    f.refuse("gather_nd", 15, {"x": x, "indices": I32(0)}, "scalar")
    f.refuse("gather_nd", 16, {"x": np.ones((3, 4), F32), "indices": ints(3, 0)}, "range")
    f.refuse("gather_nd", 17, {"x": np.ones((3, 4), F32), "indices": ints(0, -1), "validate_indices": np.bool_(True)}, "negative")
    f.refuse("gather_nd", 17, {"x": np.ones((3, 4), F32), "indices": np.zeros((2, 1), I32), "batch_dims": I32(1)}, "batch size")
    f.refuse("gather_nd", 17, {"x": np.ones((3, 4), F32), "indices": np.zeros((3, 1), I32), "batch_dims": I32(2)}, "batch")
    for kind, dtype in itertools.product((I16, U16), (F16, F32)):
        x, idx = f.values((2, 4, 3), dtype), f.rng.integers(-4 if kind == I16 else 0, 4, (2, 5, 3)).astype(kind)
        f.add("gather_along_axis", 16, {"x": x, "indices": idx, "axis": I32(1)}, [np.take_along_axis(x, idx.astype(np.int64), 1)])


MODES = {"add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y, "max": max, "min": min,
         "update": lambda x, y: y, None: lambda x, y: x + y}


def scatter(f):
    def combine(data, places, mode):
        """places: (index, value) one after the other, in double precision."""
        want = data.astype(np.float64)
        for p, v in places:
            r = MODES[mode](want[p], float(v))
            want[p] = np.trunc(r) if data.dtype == I32 else r
        return want.astype(data.dtype)

    def values(shape, dtype):
        return (f.rng.integers(1, 9, shape) * f.rng.choice([-1, 1], shape)).astype(dtype)

    for i, ((shape, axis, n), mode, dtype) in enumerate(itertools.product([((5,), 0, 3), ((4, 3), 0, 6), ((2, 3, 4), -2, 2), ((2, 5), 1, 0), ((3, 2, 2), 2, 3)], MODES, (F32, F16, I32))):
        if not f.more and i % 2:
            continue
        opset = 15 + i % 4
        a = axis % len(shape)
        idx = f.rng.integers(0 if opset > 16 else -shape[a], shape[a], n).astype(I32)
        data, up = values(shape, dtype), values(shape[:a] + (n,) + shape[a + 1:], dtype)
        places = [(p[:a] + (int(idx[p[a]]),) + p[a + 1:], up[p]) for p in sorted(np.ndindex(*up.shape), key=lambda p: (p[:a], p[a], p[a + 1:]))]
        tol = dict(rtol=1e-6) if dtype == F32 else dict(rtol=1e-3, atol=1e-3) if dtype == F16 else {}
        f.add("scatter", opset, {"data": data, "indices": idx, "updates": up, "axis": I32(axis), "mode": mode}, [combine(data, places, mode)], **tol)
        along = f.rng.integers(0 if opset > 16 else -shape[a], shape[a], up.shape).astype(I32)
        places = [(p[:a] + (int(along[p]),) + p[a + 1:], up[p]) for p in np.ndindex(*up.shape)]
        f.add("scatter_along_axis", opset, {"data": data, "indices": along, "updates": up, "axis": I32(axis), "mode": mode}, [combine(data, places, mode)], **tol)
    for i, ((shape, at, depth), mode, dtype) in enumerate(itertools.product([((5,), (4,), 1), ((3, 4), (5,), 2), ((3, 4), (2,), 1), ((2, 3, 2), (2, 3), 2), ((4,), (0,), 1)], MODES, (F32, F16, I32))):
        if not f.more and i % 2:
            continue
        opset = 15 + i % 4
        idx = np.stack([f.rng.integers(0 if opset > 16 else -shape[k], shape[k], at) for k in range(depth)], -1).astype(I32)
        data, up = values(shape, dtype), values(at + shape[depth:], dtype)
        places = [(tuple(int(v) for v in idx[p]) + q, up[p + q]) for p in np.ndindex(*at) for q in np.ndindex(*shape[depth:])]
        tol = dict(rtol=1e-6) if dtype == F32 else dict(rtol=1e-3, atol=1e-3) if dtype == F16 else {}
        f.add("scatter_nd", opset, {"data": data, "indices": idx, "updates": up, "mode": mode}, [combine(data, places, mode)], **tol)
    one = np.ones((3, 2), F32)
    f.refuse("scatter", 15, {"data": one, "indices": ints(3), "updates": one[:1]}, "range")
    f.refuse("scatter", 17, {"data": one, "indices": ints(-1), "updates": one[:1], "validate_indices": np.bool_(True)}, "negative")
    f.refuse("scatter", 15, {"data": one, "indices": ints(1), "updates": one}, "shape")
    f.refuse("scatter", 15, {"data": one, "indices": ints(1), "updates": one[:1], "mode": "assign"}, "mode")
    f.refuse("scatter", 15, {"data": one, "indices": ints(1), "updates": one[:1], "axis": I32(2)}, "axis")
    f.refuse("scatter_along_axis", 15, {"data": one, "indices": np.full((1, 2), 3, I32), "updates": one[:1]}, "range")
    f.refuse("scatter_along_axis", 15, {"data": one, "indices": np.zeros((1, 2), I32), "updates": one}, "shape")
    f.refuse("scatter_along_axis", 18, {"data": one, "indices": np.full((1, 2), -1, I32), "updates": one[:1], "validate_indices": np.bool_(True)}, "negative")
    f.refuse("scatter_nd", 15, {"data": one, "indices": np.array([[0, 2]], I32), "updates": one[0, :1]}, "range")
    f.refuse("scatter_nd", 17, {"data": one, "indices": np.array([[0, -1]], I32), "updates": one[0, :1], "validate_indices": np.bool_(True)}, "negative")
    f.refuse("scatter_nd", 15, {"data": one, "indices": np.zeros((1, 3), I32), "updates": one[0, :1]}, "depth")
    # int32 wraps; division of the smallest number
    low = np.array([-2147483648, 2147483647], I32)
    f.add("scatter", 15, {"data": low, "indices": ints(0, 1), "updates": ints(-1, 1), "mode": "add"}, [np.array([2147483647, -2147483648], I32)])
    f.add("scatter", 15, {"data": low, "indices": ints(0), "updates": ints(-1), "mode": "div"}, [np.array([-2147483648, 2147483647], I32)])


def boxes_overlap(a, b):
    w = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    h = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def detect(f):
    for i, (n, count, classes, most, iou, low, per_class) in enumerate([(1, 5, 1, 3, 0.3, 0.2, False), (2, 12, 3, 12, 0.4, 0.4, True), (1, 30, 4, 10, 0.2, 0.0, False),
                                                                        (3, 8, 2, 4, 0.5, 0.6, True), (1, 20, 1, 25, 0.0, 0.1, False), (2, 6, 5, 0, 0.5, 0.1, False)]):
        for opset, dtype in ((15, F32), (16, F16), (17, F32), (18, F16)):
            boxes = np.concatenate([f.rng.uniform(0, 10, (n, count, 2)), f.rng.uniform(2, 5, (n, count, 2))], -1).astype(dtype)
            scores = (f.rng.permutation(n * count * classes).reshape(n, count, classes) / (n * count * classes)).astype(dtype)
            out = [np.zeros((n, most, 4), dtype), np.zeros((n, most, classes), dtype), np.full((n, most), -1, I32), np.zeros(n, I32)]
            for b in range(n):
                best = scores[b].max(-1).astype(np.float64)
                kept = []
                for k in np.argsort(-best, kind="stable"):
                    if opset < 17 and best[k] < float(dtype(low)):
                        continue
                    rivals = [j for j in kept if not per_class or scores[b, j].argmax() == scores[b, k].argmax()]
                    if all(boxes_overlap(boxes[b, j].astype(np.float64), boxes[b, k].astype(np.float64)) <= float(dtype(iou)) for j in rivals):
                        kept.append(k)
                kept = kept[:most]
                out[0][b, :len(kept)], out[1][b, :len(kept)], out[2][b, :len(kept)], out[3][b] = boxes[b, kept], scores[b, kept], kept, len(kept)
            args = {"boxes": boxes, "scores": scores, "iou_threshold": dtype(iou), "score_threshold": dtype(low), "max_boxes": I32(most), "per_class_suppression": np.bool_(per_class)}
            if opset >= 17:
                del args["score_threshold"]
                args["boxes"], args["scores"] = boxes.swapaxes(1, 2), scores.swapaxes(1, 2)
                out = [out[0].swapaxes(1, 2), out[1].swapaxes(1, 2), out[2]]
            f.add("non_maximum_suppression", opset, args, out)
    a = {"iou_threshold": F32(0.5), "score_threshold": F32(0.5), "max_boxes": I32(3)}
    f.refuse("non_maximum_suppression", 15, {"boxes": np.ones((1, 3, 5), F32), "scores": np.ones((1, 3, 2), F32), **a}, "coordinates")
    f.refuse("non_maximum_suppression", 15, {"boxes": np.ones((1, 3, 4), F32), "scores": np.ones((1, 4, 2), F32), **a}, "counts")
    f.refuse("non_maximum_suppression", 15, {"boxes": np.ones((1, 3, 4), F32), "scores": np.ones((1, 3, 2), F32), **a, "max_boxes": I32(-1)}, "most")


ACTS = {"tanh": np.tanh, "scaled_tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        "relu": lambda x: np.maximum(x, 0), "linear": lambda x: x}


def recur(kind, x, h, c, p, a, backward):
    """One direction in double precision; p: weights. Gives the states in the order of work."""
    states, size = [], h.shape[-1]
    d = {k: v.astype(np.float64) for k, v in p.items() if v is not None}
    zero = np.zeros(d["w"].shape[0])
    b, ib, peep = d.get("b", zero), d.get("ib", zero), d.get("peep", np.zeros(3 * size))
    for t in range(x.shape[0])[::-1 if backward else 1]:
        g, rh = x[t] @ d["w"].T + ib, h @ d["r"].T
        part = lambda m, k: m[..., k * size:(k + 1) * size]
        if kind == "rnn":
            h = a["out"](g + rh + b)
        elif kind == "gru":
            r, z = a["rec"](part(g + rh + b, 0)), a["rec"](part(g + rh + b, 2))
            if p.get("after"):
                o = a["out"](part(g, 1) + r * (part(rh, 1) + part(b, 1)))
            else:
                o = a["out"](part(g, 1) + part(b, 1) + (r * h) @ part(d["r"].T, 1))
            h = (1 - z) * o + z * h
        else:
            s = g + rh + b
            i, o_in = a["rec"](part(s, 0) + part(peep, 0) * c), part(s, 2)
            fg, z = a["rec"](part(s, 1) + part(peep, 1) * c), a["cell"](part(s, 3))
            c = np.clip(fg * c + i * z, -a["clip"], a["clip"])
            h = a["rec"](o_in + part(peep, 2) * c) * a["out"](c)
        states.append(h)
    return states, h, c


def recurrent(f):
    sizes = [(1, 1, 1, 1), (3, 2, 4, 5), (5, 1, 7, 3), (4, 3, 2, 17), (2, 9, 33, 40)]
    gates = {"rnn": 1, "gru": 3, "lstm": 4}
    names = list(ACTS)
    for i, ((s, n, inputs, size), kind, way, whole) in enumerate(itertools.product(sizes, gates, ("forward", "reverse", "bidirectional"), (True, False))):
        if way == "bidirectional" and kind != "lstm":
            continue
        opset, dtype = 15 + i % 4, F16 if i % 4 > 1 and i % 3 == 0 else F32
        dirs, g = 2 if way == "bidirectional" else 1, gates[kind]
        small = lambda *shape: f.floats(shape, dtype, -0.6, 0.6)
        x, h0, c0 = small(s, n, inputs), small(n, dirs * size), small(n, dirs * size)
        act, rec, cell = (names[(i + k) % 6] for k in (0, 2, 4)) if i % 2 else ("tanh", "sigmoid", "tanh")
        clip = dtype(0.4) if kind == "lstm" and i % 5 == 0 else None
        after = kind == "gru" and opset == 18 and i % 8 < 4
        a = {"out": ACTS[act], "rec": ACTS[rec], "cell": ACTS[cell], "clip": float(clip) if clip is not None else np.inf}
        weights = [{"w": small(g * size, inputs), "r": small(g * size, size), "b": small(g * size) if i % 3 else None,
                    "peep": small(3 * size) if kind == "lstm" and i % 4 == 1 else None,
                    "ib": small(g * size) if after else None} for _ in range(dirs)]
        parts = []
        for k, p in enumerate(weights):
            cut = slice(k * size, (k + 1) * size)
            q = {**p}
            clean = {key: v for key, v in q.items()}
            states, h, c = recur(kind, x.astype(np.float64), h0[:, cut].astype(np.float64), c0[:, cut].astype(np.float64),
                                 Weights(clean, after), a, way == "reverse" or k == 1)
            parts.append((states[::-1] if k == 1 else states, h, c))
        all_h = np.concatenate([np.stack(p[0]) for p in parts], -1) if whole else np.concatenate([p[1] for p in parts], -1)[None]
        out = [all_h, np.concatenate([p[1] for p in parts], -1)] + ([np.concatenate([p[2] for p in parts], -1)] if kind == "lstm" else [])
        w = weights[0]
        args = {"x": x, "initial_h": h0, "weight_ih": w["w"], "weight_hh": w["r"], "bias": w["b"], "direction": way, "output_sequence": np.bool_(whole), "activation": act}
        if kind != "rnn":
            args["recurrent_activation"] = rec
        if kind == "lstm":
            args.update(initial_c=c0, peephole=w["peep"], cell_activation=cell, clip=clip)
            if dirs == 2:
                v = weights[1]
                args.update(weight_ih_back=v["w"], weight_hh_back=v["r"], bias_back=v["b"], peephole_back=v["peep"])
        if after:
            args.update(reset_after=np.bool_(True), input_bias=w["ib"])
        tol = dict(atol=2e-5, rtol=1e-4) if dtype == F32 else dict(atol=1e-3, rtol=2e-3)
        f.add(kind, opset, args, [np.asarray(o).astype(dtype) for o in out], **tol, note=way)
    torch_layers(f)
    one = lambda *shape: np.ones(shape, F32)
    ok = {"x": one(2, 1, 3), "initial_h": one(1, 4), "weight_ih": one(4, 3), "weight_hh": one(4, 4)}
    for bad in ({"x": one(2, 3)}, {"initial_h": one(1, 3)}, {"initial_h": one(0, 4)}, {"weight_ih": one(4, 2)}, {"weight_hh": one(4, 3)}, {"bias": one(3)},
                {"direction": "sideways"}, {"activation": "softmax"}, {"direction": "bidirectional"}):
        f.refuse("rnn", 15, {**ok, **bad}, str(list(bad)))
    ok = {"x": one(2, 1, 3), "initial_h": one(1, 4), "initial_c": one(1, 4), "weight_ih": one(16, 3), "weight_hh": one(16, 4)}
    for bad in ({"initial_c": one(1, 3)}, {"peephole": one(4)}, {"direction": "bidirectional"}, {"clip": one(2)}, {"weight_hh": one(12, 4)}):
        f.refuse("lstm", 15, {**ok, **bad}, str(list(bad)))


class Weights(dict):
    """recur's weights, with the flag `after` beside them."""
    def __init__(self, p, after):
        super().__init__(p)
        self.after = after

    def get(self, key, otherwise=None):
        return self.after if key == "after" else super().get(key, otherwise)


def torch_layers(f):
    """torch's own layers, weights put in Core ML's order."""
    for i, (s, n, inputs, size) in enumerate([(4, 2, 3, 5), (7, 1, 6, 8), (2, 3, 1, 2)]):
        torch.manual_seed(i)
        x = torch.randn(s, n, inputs)
        for both in (False, True):
            d = 2 if both else 1
            layer = torch.nn.LSTM(inputs, size, bidirectional=both)
            h, c = torch.randn(d, n, size), torch.randn(d, n, size)
            out, (hn, cn) = layer(x, (h, c))
            order = lambda m: np.concatenate([np.split(m.detach().numpy(), 4)[k] for k in (0, 1, 3, 2)])
            flat = lambda m: np.concatenate(list(m.detach().numpy()), -1)
            args = {"x": x.numpy(), "initial_h": flat(h), "initial_c": flat(c), "output_sequence": np.bool_(True)}
            for k, tail in enumerate(("", "_reverse")[:d]):
                back = "_back" if k else ""
                args["weight_ih" + back] = order(getattr(layer, "weight_ih_l0" + tail))
                args["weight_hh" + back] = order(getattr(layer, "weight_hh_l0" + tail))
                args["bias" + back] = order(getattr(layer, "bias_ih_l0" + tail)) + order(getattr(layer, "bias_hh_l0" + tail))
            if both:
                args["direction"] = "bidirectional"
            f.add("lstm", 15 + i, args, [out.detach().numpy(), flat(hn), flat(cn)], atol=2e-5, rtol=1e-4, note="torch")
        layer = torch.nn.GRU(inputs, size)
        out, hn = layer(x, h[:1])
        order = lambda m: np.concatenate([np.split(m.detach().numpy(), 3)[k] for k in (0, 2, 1)])
        # torch's z weighs the old state, as Core ML's; its reset acts after the matrix
        f.add("gru", 18, {"x": x.numpy(), "initial_h": h[0].numpy(), "weight_ih": order(layer.weight_ih_l0), "weight_hh": order(layer.weight_hh_l0),
                          "bias": order(layer.bias_hh_l0), "input_bias": order(layer.bias_ih_l0), "reset_after": np.bool_(True), "output_sequence": np.bool_(True)},
              [out.detach().numpy(), hn[0].detach().numpy()], atol=2e-5, rtol=1e-4, note="torch")
        layer = torch.nn.RNN(inputs, size, nonlinearity="relu")
        out, hn = layer(x, h[:1])
        f.add("rnn", 15 + i, {"x": x.numpy(), "initial_h": h[0].numpy(), "weight_ih": layer.weight_ih_l0.detach().numpy(), "weight_hh": layer.weight_hh_l0.detach().numpy(),
                              "bias": (layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy(), "activation": "relu", "output_sequence": np.bool_(True)},
              [out.detach().numpy(), hn[0].detach().numpy()], atol=2e-5, rtol=1e-4, note="torch")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--more", action="store_true")
    options = parser.parse_args()
    for fill in (shapes, make, move, join, slices, gather, scatter, detect, recurrent):
        f = Moves(fill.__name__, np.random.default_rng(options.seed), options.more)
        fill(f)
        f.save(options.folder)


if __name__ == "__main__":
    main()
