#!/usr/bin/env python3
"""Linear layers of few vectors with compressed weights, built with coremltools' builder, against NumPy: each form of compressed constant,
fp32 and fp16, one vector, two, and five, which take them expanded. Prints TAP; skips where coremltools is not installed.

usage: check_compressed.py CMLRUN
"""
import os
import subprocess
import sys
import tempfile

import numpy as np

try:
    import logging
    logging.disable(logging.WARNING)
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)

N, K = 548, 512  # so large that they stay compressed for one vector and for two
RNG = np.random.default_rng(3)
AFFINE, BLOCKWISE, PALETTE = "affine", "blockwise", "palette"
CASES = [(AFFINE, 8, 0, True), (BLOCKWISE, 4, 32, True), (BLOCKWISE, 4, 32, False), (BLOCKWISE, 4, 512, True), (BLOCKWISE, 8, 32, True),
         (BLOCKWISE, 8, 64, False), (BLOCKWISE, 8, 8, True), (BLOCKWISE, 4, 2, False)] + [(PALETTE, bits, 1, False) for bits in (1, 2, 3, 4, 6, 8)] + [(PALETTE, bits, 4, False) for bits in (1, 4)]


def compressed(kind, bits, block, signed, dtype):
    """The constant's operation and its values in float64."""
    if kind == PALETTE:
        groups = block
        indices = RNG.integers(0, 1 << bits, (N, K))
        lut = RNG.standard_normal((groups, 1, 1 << bits, 1)).astype(dtype)
        index_type = types.nptype_from_builtin(types.string_to_builtin(f"uint{bits}"))
        rows = np.repeat(lut[:, 0, :, 0], N // groups, 0).astype(np.float64)
        return mb.constexpr_lut_to_dense(indices=indices.astype(np.uint8).astype(index_type), lut=lut), np.take_along_axis(rows, indices, 1)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    wide = np.int8 if signed else np.uint8
    codes = RNG.integers(low, high, (N, K)).astype(wide)
    groups = K // block if block else 1
    scale = (RNG.random((N, groups)) * 0.01 + 0.001).astype(dtype)
    zero = RNG.integers(low, high, (N, groups)).astype(wide)
    values = (codes.astype(np.float64) - np.repeat(zero, K // groups, 1)) * np.repeat(scale, K // groups, 1).astype(np.float64)
    if kind == AFFINE:
        return mb.constexpr_affine_dequantize(quantized_data=codes, zero_point=zero[:, 0], scale=scale[:, 0], axis=np.int32(0)), values
    code_type = types.nptype_from_builtin(types.string_to_builtin(f"{'int' if signed else 'uint'}{bits}"))
    return mb.constexpr_blockwise_shift_scale(data=codes.astype(code_type), scale=scale, offset=zero.astype(code_type)), values


def check(cmlrun, folder, case, dtype, rows):
    half = dtype == np.float16
    target = ct.target.iOS16 if case[0] == AFFINE else ct.target.iOS18
    values = []
    bias = np.linspace(-1, 1, N).astype(dtype)

    @mb.program(input_specs=[mb.TensorSpec(shape=(rows, K), dtype=types.fp16 if half else types.fp32)], opset_version=target)
    def program(x):
        weight, expanded = compressed(*case, dtype)
        values.append(expanded)
        return mb.linear(x=x, weight=weight, bias=bias, name="y")

    model = ct.convert(program, convert_to="mlprogram", compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                       pass_pipeline=ct.PassPipeline.EMPTY, minimum_deployment_target=target, skip_model_load=True)
    path = os.path.join(folder, "m.mlpackage")
    model.save(path)
    x = RNG.standard_normal((rows, K)).astype(dtype)
    np.savez(os.path.join(folder, "i.npz"), x=x.astype(np.float32))
    subprocess.run([cmlrun, "predict", path, "--input", os.path.join(folder, "i.npz"), "--output", os.path.join(folder, "o.npz")], check=True)
    with np.load(os.path.join(folder, "o.npz")) as out:
        got = out[out.files[0]].astype(np.float64)
    want = x.astype(np.float64) @ values[0].T + bias.astype(np.float64)
    return np.abs(got - want).max() / np.abs(want).max()


def main():
    runs = [(case, dtype, rows) for case in CASES for dtype in (np.float32, np.float16) for rows in (1, 2, 5)]
    print(f"1..{len(runs)}")
    with tempfile.TemporaryDirectory() as folder:
        for i, (case, dtype, rows) in enumerate(runs):
            error = check(sys.argv[1], folder, case, dtype, rows)
            good = error < (2e-3 if dtype == np.float16 else 3e-6)
            print(f"{'ok' if good else 'not ok'} {i + 1} - {case} {dtype.__name__} {rows}: {error:.1e}", flush=True)


main()
