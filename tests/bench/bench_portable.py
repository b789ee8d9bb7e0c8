#!/usr/bin/env python3
"""cml against ExecuTorch's own kernels, operator by operator and for whole programs, in one run.

    python3 tests/bench/bench_portable.py [--build build] [--only WORD,…] [--seconds 0.1] [--json FILE] [--cache DIR]

Each case is exported as a .pte (kept in --cache) and run by the wheel's executorch.runtime in one process and by `cmlrun bench`
in another, in turns, on one thread. A run is the same for both: inputs copied in, the method executed; the wheel also clones its
outputs and passes through Python, about 5 us, which "call" measures on an empty program and the ratio leaves out. Loading is
left out. Of each side the median of the fastest of the rounds counts. ratio: the wheel's time over cml's, above 1 where cml is
faster. Exit code 1 when a ratio is below --bar. Needs the executorch wheel."""
import argparse
import contextlib
import glob
import io
import json
import logging
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
try:
    with contextlib.redirect_stderr(io.StringIO()):
        import numpy as np
        import torch
        from executorch.exir import EdgeCompileConfig, to_edge
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime
        import executorch.kernels.quantized  # noqa: F401  registers quantized_decomposed's out variants
except ImportError as e:
    sys.exit(f"bench_portable.py: {e}")

A = torch.ops.aten
CASES = {}


def rand(*shape, dtype=torch.float32):
    g = torch.Generator().manual_seed(len(shape) + sum(shape))
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=g).bool()
    return torch.rand(shape, generator=g).mul(2).sub(1).to(dtype) if dtype.is_floating_point else torch.randint(1, 50, shape, generator=g).to(dtype)


class Call(torch.nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *inputs):
        return self.fn(*inputs)


def case(name, fn, *inputs, keep=()):
    CASES[name] = (fn, inputs, keep)


def transforms():
    def there(v):
        return A.view_as_real_copy(torch.fft.rfft(v))
    for lines, n in ((64, 512), (100, 400), (16, 4096), (1, 1000), (1, 1023), (1, 2048), (1, 8191), (1, 16000), (1, 65536), (1, 262144), (8, 1021), (10000, 16)):
        case(f"rfft {lines} x {n}", there, rand(lines, n))
        case(f"rfft, irfft {lines} x {n}", lambda v, n=n: torch.fft.irfft(torch.fft.rfft(v), n=n), rand(lines, n))
    case("rfft 1 x 32768 float64", there, rand(1, 32768, dtype=torch.float64))
    for shape in ((4, 128, 128), (2, 3, 128, 128)):
        case("rfft2, irfft2 " + " x ".join(map(str, shape)), lambda v: torch.fft.irfft2(torch.fft.rfft2(v)), rand(*shape))


def elementwise():
    x, y, p = rand(256, 256), rand(256, 256), rand(256, 256).abs() + 0.1
    half, ints, flags = x.half(), rand(256, 256, dtype=torch.int32), rand(256, 256, dtype=torch.bool)
    for n in ("abs acos asin asinh atan ceil cos cosh erf exp expm1 floor isinf isnan logical_not neg reciprocal relu round sigmoid sign sin sinh "
              "sqrt tan tanh trunc").split():
        case(n, getattr(A, n), x if n not in ("sqrt", "reciprocal") else p)
    for n in "log log10 log1p log2 rsqrt atanh logit".split():
        case(n, getattr(A, n), p * 0.9)
    case("acosh", A.acosh, p + 1)
    case("bitwise_not", A.bitwise_not, ints)
    for n in "exp sigmoid relu gelu".split():
        case(n + " float16", getattr(A, n), half)
    case("gelu", A.gelu, x)
    case("gelu tanh", lambda v: A.gelu(v, approximate="tanh"), x)
    case("elu", A.elu, x)
    case("leaky_relu", A.leaky_relu, x)
    case("glu", lambda v: A.glu(v, -1), x)
    case("hardtanh", lambda v: A.hardtanh(v, -0.5, 0.5), x)
    case("clamp", lambda v: A.clamp(v, -0.5, 0.5), x)
    case("clamp.Tensor", lambda v, a: A.clamp(v, a, None), x, y)
    for n in "add sub mul div maximum minimum atan2 fmod remainder pow floor_divide".split():
        case(n, getattr(A, n), p if n == "pow" else x, p)
        case(n + " broadcast row", getattr(A, n), p if n == "pow" else x, p[0].contiguous())
    for n in "add mul div".split():
        case(n + " float16", getattr(A, n), half, p.half())
        case(n + " int32", getattr(A, n), ints, ints)
        case(n + " mixed", getattr(A, n), x, ints)
        case(n + " broadcast column", getattr(A, n), x, p[:, :1].contiguous())
        case(n + " scalar", lambda v, op=getattr(A, n): op(v, 2.5), x)
    case("add int64", A.add, ints.long(), ints.long())
    case("floor_divide int64", A.floor_divide, ints.long(), ints.long())
    case("remainder int64", A.remainder, ints.long(), ints.long())
    case("pow scalar", lambda v: A.pow(v, 3), x)
    case("pow scalar 2.5", lambda v: A.pow(v, 2.5), p)
    case("rsub", lambda v: A.rsub(v, 2.0), x)
    case("div trunc", lambda a, b: A.div(a, b, rounding_mode="trunc"), x, p)
    case("div floor", lambda a, b: A.div(a, b, rounding_mode="floor"), x, p)
    for n in "eq ne lt le gt ge".split():
        case(n, getattr(A, n), x, y)
        case(n + " scalar", lambda v, op=getattr(A, n): op(v, 0.5), x)
    case("lt int64", A.lt, ints.long(), ints.long())
    for n in "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor".split():
        case(n, getattr(A, n), flags, flags.flip(0).contiguous())
    case("bitwise_and int32", A.bitwise_and, ints, ints)
    case("bitwise_left_shift", A.bitwise_left_shift, ints, ints % 8)
    case("where", A.where, flags, x, y)
    case("masked_fill", lambda v, m: A.masked_fill(v, m, 0.0), x, flags)
    case("masked_scatter", A.masked_scatter, x, flags, y)
    case("masked_select", A.masked_select, x, flags)


def shapes():
    x, image, ints = rand(64, 32, 64), rand(1, 32, 64, 64), rand(64, 32, 64, dtype=torch.int8)
    case("clone", A.clone, x)
    case("permute 102", lambda v: A.permute_copy(v, [1, 0, 2]), x)
    case("permute 021", lambda v: A.permute_copy(v, [0, 2, 1]), x)
    case("permute 210", lambda v: A.permute_copy(v, [2, 1, 0]), x)
    case("permute int8", lambda v: A.permute_copy(v, [0, 2, 1]), ints)
    case("permute to last", lambda v: A.permute_copy(v, [0, 2, 3, 1]), image)
    case("transpose", lambda v: A.transpose_copy(v, 0, 2), x)
    case("t", A.t_copy, rand(256, 256))
    case("view", lambda v: A.view_copy(v, [32, 4096]), x)
    case("expand", lambda v: A.expand_copy(v, [64, 32, 64]), rand(64, 1, 64))
    case("expand last", lambda v: A.expand_copy(v, [64, 32, 64]), rand(64, 32, 1))
    case("unsqueeze", lambda v: A.unsqueeze_copy(v, 1), x)
    case("squeeze", lambda v: A.squeeze_copy(v, [1]), rand(64, 1, 2048))
    case("select", lambda v: A.select_copy(v, 1, 3), x)
    case("slice rows", lambda v: A.slice_copy(v, 0, 8, 56), x)
    case("slice last", lambda v: A.slice_copy(v, 2, 8, 56), x)
    case("slice step", lambda v: A.slice_copy(v, 2, 0, 64, 2), x)
    case("narrow", lambda v: A.narrow_copy(v, 1, 4, 20), x)
    case("diagonal", lambda v: A.diagonal_copy(v, 0, 0, 2), x)
    case("as_strided", lambda v: A.as_strided_copy(v, [64, 1000], [1000, 1]), x)
    case("unfold", lambda v: A.unfold_copy(v, 2, 8, 4), x)
    case("flip", lambda v: A.flip(v, [2]), x)
    case("flip rows", lambda v: A.flip(v, [0]), x)
    case("roll", lambda v: A.roll(v, [3], [2]), x)
    case("repeat", lambda v: A.repeat(v, [2, 1, 2]), x)
    case("cat 0", lambda a, b: A.cat([a, b], 0), x, x)
    case("cat 2", lambda a, b: A.cat([a, b], 2), x, x)
    case("cat mixed", lambda a, b: A.cat([a, b], 1), x, ints)
    case("stack 0", lambda a, b: A.stack([a, b], 0), x, x)
    case("stack 3", lambda a, b: A.stack([a, b], 3), x, x)
    case("split", lambda v: A.split_copy(v, 16, 2), x)
    case("split_with_sizes", lambda v: A.split_with_sizes_copy(v, [8, 24], 1), x)
    case("unbind", lambda v: A.unbind_copy(v, 1), rand(64, 4, 512))
    case("select_scatter", lambda v, s: A.select_scatter(v, s, 1, 3), x, rand(64, 64))
    case("slice_scatter", lambda v, s: A.slice_scatter(v, s, 2, 8, 24), x, rand(64, 32, 16))
    case("pixel_shuffle", lambda v: A.pixel_shuffle(v, 2), image)
    case("pixel_unshuffle", lambda v: A.pixel_unshuffle(v, 2), image)
    case("tril", lambda v: A.tril(v), rand(256, 256))
    case("constant_pad_nd", lambda v: A.constant_pad_nd(v, [1, 1, 1, 1], 0.0), image)
    for k in (1, 2, 3):
        z = rand(*((4, 16) + ((2048,), (64, 32), (16, 16, 8))[k - 1]))
        case(f"reflection_pad{k}d", lambda v, k=k: getattr(A, f"reflection_pad{k}d")(v, [2] * (2 * k)), z)
        case(f"replication_pad{k}d", lambda v, k=k: getattr(A, f"replication_pad{k}d")(v, [2] * (2 * k)), z)
    for a, b in (("float32", "float16"), ("float16", "float32"), ("float32", "int32"), ("int64", "float32"), ("float32", "bool"), ("int64", "int32"),
                 ("bool", "float32"), ("float32", "bfloat16"), ("uint8", "float32"), ("float32", "int8"), ("float64", "float32")):
        case(f"to {a} {b}", lambda v, b=b: v.to(getattr(torch, b)), rand(256, 256, dtype=getattr(torch, a)))
    case("full_like", lambda v: A.full_like(v, 2.0), x)
    case("fill", lambda v: A.fill(v, 2.0), x)
    case("arange", lambda v: A.arange(65536.0) + v, rand(1))
    case("full", lambda v: A.full([256, 256], 1.5) + v, rand(1))


def reductions():
    x, ints, flags = rand(64, 32, 64), rand(256, 256, dtype=torch.int64), rand(256, 256, dtype=torch.bool)
    for dims in ([2], [1], [0], [0, 2], [1, 2]):
        for n in "sum mean amax amin var any".split():
            op = getattr(A, n)
            case(f"{n} {dims}", (lambda v, op=op, d=dims: op(v, d, True)) if n != "var" else (lambda v, d=dims: A.var(v, d, correction=1, keepdim=True)),
                 x if n != "any" else x > 0)
    case("sum all", lambda v: A.sum(v, None), x)
    case("mean all", lambda v: A.mean(v, None), x)
    case("sum int64", lambda v: A.sum(v, [1]), ints)
    case("sum float16", lambda v: A.sum(v, [1]), rand(256, 256).half())
    case("var_mean", lambda v: A.var_mean(v, [2], correction=1), x)
    case("prod", lambda v: A.prod(v), x)
    case("prod dim", lambda v: A.prod(v, 2), x)
    case("max", lambda v: A.max(v), x)
    case("min", lambda v: A.min(v), x)
    case("any all", lambda v: A.any(v), torch.zeros(256, 256, dtype=torch.bool))
    for d in (1, 2):
        case(f"argmax {d}", lambda v, d=d: A.argmax(v, d), x)
        case(f"argmin {d}", lambda v, d=d: A.argmin(v, d), x)
        case(f"max dim {d}", lambda v, d=d: A.max(v, d), x)
        case(f"min dim {d}", lambda v, d=d: A.min(v, d), x)
        case(f"cumsum {d}", lambda v, d=d: A.cumsum(v, d), x)
        case(f"softmax {d}", lambda v, d=d: A._softmax(v, d, False), x)
        case(f"log_softmax {d}", lambda v, d=d: A._log_softmax(v, d, False), x)
    case("softmax float16", lambda v: A._softmax(v, 2, False), x.half())
    case("argmax all", lambda v: A.argmax(v), x)
    case("topk", lambda v: A.topk(v, 10), rand(64, 1000))


def indexing():
    x = rand(512, 128)
    i = torch.randint(0, 512, (256,))
    case("embedding", lambda w, k: A.embedding(w, k), x, i)
    case("index_select 0", lambda v, k: A.index_select(v, 0, k), x, i)
    case("index_select 1", lambda v, k: A.index_select(v, 1, k), x, i % 128)
    case("gather 1", lambda v, k: A.gather(v, 1, k), x, torch.randint(0, 128, (512, 64)))
    case("gather 0", lambda v, k: A.gather(v, 0, k), x, torch.randint(0, 512, (256, 128)))
    case("scatter src", lambda v, k, s: A.scatter(v, 1, k, s), x, torch.randint(0, 128, (512, 64)), rand(512, 64))
    case("scatter value", lambda v, k: A.scatter(v, 1, k, 1.5), x, torch.randint(0, 128, (512, 64)))
    case("scatter_add", lambda v, k, s: A.scatter_add(v, 1, k, s), x, torch.randint(0, 128, (512, 64)), rand(512, 64))
    case("index 0", lambda v, k: A.index(v, [k]), x, i)
    case("index 1", lambda v, k: A.index(v, [None, k]), x, i % 128)
    case("index 0 1", lambda v, a, b: A.index(v, [a, b]), x, i, i % 128)
    case("index mask", lambda v, m: A.index(v, [m]), x, x > 0)
    case("index_put", lambda v, k, s: A.index_put(v, [k], s), x, i, rand(256, 128))
    case("index_put accumulate", lambda v, k, s: A.index_put(v, [k], s, True), x, i, rand(256, 128))
    case("nonzero", lambda v: A.nonzero(v), (x > 0.5).float())


def products():
    for dtype, tag in ((torch.float32, ""), (torch.float16, " float16")):
        for m, k, n in ((1, 256, 256), (16, 256, 256), (128, 128, 128), (256, 256, 256)):
            case(f"mm {m} {k} {n}{tag}", A.mm, rand(m, k, dtype=dtype), rand(k, n, dtype=dtype))
            case(f"linear {m} {k} {n}{tag}", A.linear, rand(m, k, dtype=dtype), rand(n, k, dtype=dtype), rand(n, dtype=dtype), keep=(1, 2))
    case("mm constant 1 256 256", A.mm, rand(1, 256), rand(256, 256), keep=(1,))
    case("mm constant 1 1024 1024", A.mm, rand(1, 1024), rand(1024, 1024), keep=(1,))
    case("linear 1 1024 1024", A.linear, rand(1, 1024), rand(1024, 1024), None, keep=(1,))
    case("mm int64", A.mm, rand(64, 64, dtype=torch.int64), rand(64, 64, dtype=torch.int64))
    case("mm float64", A.mm, rand(128, 128, dtype=torch.float64), rand(128, 128, dtype=torch.float64))
    case("bmm", A.bmm, rand(8, 64, 64), rand(8, 64, 64))
    case("bmm 1", A.bmm, rand(8, 1, 64), rand(8, 64, 128))
    case("addmm", A.addmm, rand(128), rand(64, 128), rand(128, 128), keep=(0, 2))
    case("addmm 1", A.addmm, rand(512), rand(1, 512), rand(512, 512), keep=(0, 2))
    conv = lambda x, w, b, stride=1, pad=1, groups=1, t=False: A.convolution(
        x, w, b, [stride] * (x.dim() - 2), [pad] * (x.dim() - 2), [1] * (x.dim() - 2), t, [0] * (x.dim() - 2), groups)
    case("convolution 3x3", conv, rand(1, 16, 32, 32), rand(32, 16, 3, 3), rand(32), keep=(1, 2))
    case("convolution 1x1", lambda x, w, b: conv(x, w, b, pad=0), rand(1, 64, 16, 16), rand(64, 64, 1, 1), rand(64), keep=(1, 2))
    case("convolution depthwise", lambda x, w: conv(x, w, None, groups=32), rand(1, 32, 32, 32), rand(32, 1, 3, 3), keep=(1,))
    case("convolution 1d", lambda x, w: conv(x, w, None), rand(1, 32, 256), rand(32, 32, 3), keep=(1,))
    case("convolution small", conv, rand(1, 3, 8, 8), rand(8, 3, 3, 3), rand(8), keep=(1, 2))
    case("convolution float16", lambda x, w: conv(x, w, None), rand(1, 16, 32, 32).half(), rand(32, 16, 3, 3).half(), keep=(1,))
    case("convolution transposed", lambda x, w: conv(x, w, None, stride=2, t=True), rand(1, 16, 16, 16), rand(16, 16, 4, 4), keep=(1,))
    case("convolution transposed 1d", lambda x, w: conv(x, w, None, stride=2, t=True), rand(1, 16, 64), rand(16, 16, 4), keep=(1,))
    case("convolution_backward", lambda g, x, w: A.convolution_backward(g, x, w, [8], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True]),
         rand(1, 8, 16, 16), rand(1, 8, 16, 16), rand(8, 8, 3, 3))
    case("cdist", lambda a, b: A._cdist_forward(a, b, 2.0, None), rand(64, 32), rand(64, 32))
    case("pdist", lambda a: A._pdist_forward(a, 2.0), rand(64, 32))


def images():
    x = rand(1, 16, 64, 64)
    case("max_pool2d", lambda v: A.max_pool2d_with_indices(v, [2, 2], [2, 2]), x)
    case("max_pool2d 3x3", lambda v: A.max_pool2d_with_indices(v, [3, 3], [2, 2], [1, 1]), x)
    case("avg_pool2d", lambda v: A.avg_pool2d(v, [2, 2], [2, 2]), x)
    case("avg_pool2d 3x3", lambda v: A.avg_pool2d(v, [3, 3], [1, 1], [1, 1]), x)
    case("adaptive_avg_pool2d 1", lambda v: A._adaptive_avg_pool2d(v, [1, 1]), x)
    case("adaptive_avg_pool2d 7", lambda v: A._adaptive_avg_pool2d(v, [7, 7]), x)
    case("upsample_nearest2d", lambda v: A.upsample_nearest2d(v, None, [2.0, 2.0]), rand(1, 16, 32, 32))
    case("upsample_bilinear2d", lambda v: A.upsample_bilinear2d(v, None, False, [2.0, 2.0]), rand(1, 16, 32, 32))
    case("upsample_bilinear2d_aa", lambda v: A._upsample_bilinear2d_aa(v, [24, 24], False), x)
    case("grid_sampler_2d", lambda v, g: A.grid_sampler_2d(v, g, 0, 0, False), x, rand(1, 32, 32, 2))
    case("grid_sampler_2d nearest", lambda v, g: A.grid_sampler_2d(v, g, 1, 0, False), x, rand(1, 32, 32, 2))
    case("max_pool2d backward", lambda g, v, i: A.max_pool2d_with_indices_backward(g, v, [2, 2], [2, 2], [0, 0], [1, 1], False, i), rand(1, 16, 32, 32), x,
         A.max_pool2d_with_indices(x, [2, 2], [2, 2])[1])


def norms():
    x = rand(1, 32, 32, 32)
    w, b = rand(32), rand(32)
    case("layer_norm", lambda v, s, t: A.native_layer_norm(v, [256], s, t, 1e-5), rand(128, 256), rand(256), rand(256))
    case("group_norm", lambda v, s, t: A.native_group_norm(v, s, t, 1, 32, 1024, 8, 1e-5), x, w, b)
    case("batch_norm", lambda v, s, t, m, d: A._native_batch_norm_legit_no_training(v, s, t, m, d, 0.1, 1e-5), x, w, b, rand(32), rand(32).abs() + 0.5)


def quantized():
    try:
        q = torch.ops.quantized_decomposed
        x, w = rand(128, 256), rand(256, 256, dtype=torch.int8)
        case("quantize_per_tensor", lambda v: q.quantize_per_tensor(v, 0.01, 3, -128, 127, torch.int8), x)
        case("dequantize_per_tensor", lambda v: q.dequantize_per_tensor(v, 0.01, 3, -128, 127, torch.int8), w)
        case("quantize_per_channel", lambda v, s, z: q.quantize_per_channel(v, s, z, 0, -128, 127, torch.int8), x, rand(128).double().abs() * 0.01 + 0.01,
             torch.zeros(128, dtype=torch.int64))
        case("dequantize_per_channel", lambda v, s, z: q.dequantize_per_channel(v, s, z, 0, -128, 127, torch.int8), w, rand(256).double().abs() * 0.01 + 0.01,
             torch.zeros(256, dtype=torch.int64))
        case("choose_qparams_per_token", lambda v: q.choose_qparams_per_token_asymmetric(v, torch.int8), x)
        case("embedding_byte", lambda w, s, k: q.embedding_byte(w, s, None, -128, 127, k), w, rand(256).abs(), torch.randint(0, 256, (64,)), keep=(0, 1))
        case("embedding_4bit", lambda w, s, k: q.embedding_4bit(w, s, None, -8, 7, k), rand(256, 128, dtype=torch.uint8), rand(256, 8).abs(),
             torch.randint(0, 256, (64,)), keep=(0, 1))
    except (AttributeError, RuntimeError) as e:
        print("quantized operators are not measured:", e, file=sys.stderr)


# ---- whole programs ----

class Attention(torch.nn.Module):
    def __init__(self, width=128, heads=4, depth=2, vocabulary=512):
        super().__init__()
        self.embed = torch.nn.Embedding(vocabulary, width)
        self.blocks = torch.nn.ModuleList(torch.nn.TransformerEncoderLayer(width, heads, 4 * width, 0, "gelu", batch_first=True, norm_first=True) for _ in range(depth))
        self.head = torch.nn.Linear(width, vocabulary)

    def forward(self, tokens):
        x = self.embed(tokens)
        for b in self.blocks:
            y = b.norm1(x)
            q, k, v = torch.nn.functional.linear(y, b.self_attn.in_proj_weight, b.self_attn.in_proj_bias).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
            a = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v
            x = x + b.self_attn.out_proj(a.transpose(1, 2).flatten(2))
            x = x + b.linear2(torch.nn.functional.gelu(b.linear1(b.norm2(x))))
        return self.head(x)


def block(i, o, s=1, g=1, k=3):
    return torch.nn.Sequential(torch.nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), torch.nn.BatchNorm2d(o), torch.nn.ReLU6())


def networks():
    torch.manual_seed(0)
    mobile = torch.nn.Sequential(block(3, 16, 2), block(16, 16, 1, 16), block(16, 32, k=1), block(32, 32, 2, 32), block(32, 64, k=1), block(64, 64, 1, 64),
                                 block(64, 64, k=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 100), torch.nn.Softmax(-1))
    case("program mobile net 64x64", mobile, rand(1, 3, 64, 64))
    case("program mobile net 64x64 channels last", mobile, rand(1, 3, 64, 64).to(memory_format=torch.channels_last))
    case("program cnn", torch.nn.Sequential(block(3, 16), torch.nn.MaxPool2d(2), block(16, 32), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(2048, 64),
                                            torch.nn.ReLU(), torch.nn.Linear(64, 10)), rand(1, 3, 32, 32))
    case("program mlp", torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.ReLU()) for _ in range(6))), rand(1, 128))
    case("program transformer 32 tokens", Attention(), torch.randint(0, 512, (1, 32)))
    case("program transformer 1 token", Attention(), torch.randint(0, 512, (1, 1)))
    case("program small steps", lambda v: ((v + 1) * v - v.mean()).tanh().abs().sum() + v, rand(4, 4))


# ---- running ----

class Program(torch.nn.Module):
    """A function with some arguments kept as parameters."""
    def __init__(self, fn, inputs, keep):
        super().__init__()
        self.fn, self.count, self.keep = fn, len(inputs), keep
        for k in keep:
            self.register_buffer(f"c{k}", inputs[k])

    def forward(self, *given):
        it = iter(given)
        return self.fn(*[getattr(self, f"c{k}") if k in self.keep else next(it) for k in range(self.count)])


def export(fn, inputs, keep, path):
    absent = [k for k, v in enumerate(inputs) if v is None]
    live = tuple(v for k, v in enumerate(inputs) if k not in keep and k not in absent)
    full = (lambda *a: fn(*a, *[None] * len(absent))) if absent else fn
    body = fn if isinstance(fn, torch.nn.Module) else Program(full, [v for v in inputs if v is not None], keep)
    # linear and others would be taken apart on the way; the peer has kernels for them
    keep_ops = [A.linear.default, A.upsample_nearest2d.vec, A.upsample_bilinear2d.vec]
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        program = torch.export.export(body.eval(), live)
        edge = to_edge(program, compile_config=EdgeCompileConfig(_check_ir_validity=False, preserve_ops=keep_ops))
        out = edge.to_executorch()
    with open(path, "wb") as f:
        f.write(out.buffer)
    np.savez(path[:-4] + ".npz", **{f"input_{k}": v.float().numpy() if v.dtype == torch.bfloat16 else v.contiguous().numpy() for k, v in enumerate(live)})


def peer_time(path, inputs, seconds):
    """In a child: the wheel aborts on what it does not like."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(seconds) + 20)
        try:
            with silent():
                os.write(write, repr(peer_time_here(path, inputs, seconds)).encode())
        except Exception:
            pass
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f:
        said = f.read()
    os.waitpid(child, 0)
    if not said:
        raise RuntimeError("executorch does not run it")
    return float(said)


def peer_time_here(path, inputs, seconds):
    method = Runtime.get().load_program(path).load_method("forward")
    for _ in range(3):
        method.execute(inputs)
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        method.execute(inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def cml_time(cmlrun, path, seconds):
    p = subprocess.run([cmlrun, "bench", path, "--input", path[:-4] + ".npz", "--seconds", str(seconds), "--threads", "1", "--json"], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr.strip())
    return json.loads(p.stdout)["median_ms"]


@contextlib.contextmanager
def silent():
    with open(os.devnull, "w") as null:
        saved = os.dup(1), os.dup(2)
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)


def measure(a, cache, name, call):
    fn, inputs, keep = CASES[name]
    path = os.path.join(cache, "".join(c if c.isalnum() else "_" for c in name) + ".pte")
    if not os.path.exists(path[:-4] + ".npz"):
        export(fn, inputs, keep, path)
    live = [v for k, v in enumerate(inputs) if k not in keep and v is not None]
    peer = ours = math.inf
    for _ in range(a.rounds):
        peer = min(peer, peer_time(path, live, a.seconds))
        ours = min(ours, cml_time(a.cmlrun, path, a.seconds))
    return {"executorch_ms": peer, "cml_ms": ours, "ratio": max(peer - call, 1e-6) / ours}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build")
    p.add_argument("--only", default="")
    p.add_argument("--seconds", type=float, default=0.1, help="for each side, in each round")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--bar", type=float, default=0)
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--cache", metavar="DIR", help="where exported programs are kept (default: a new folder)")
    a = p.parse_args()
    a.cmlrun = os.path.join(a.build, "tools", "cmlrun")
    torch.set_num_threads(1)
    portable_lib._unsafe_reset_threadpool(1)
    for family in (elementwise, shapes, reductions, indexing, transforms, products, images, norms, quantized, networks):
        family()
    case("call", lambda v: A.alias_copy(v), rand(1))
    results, failed = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        cache = a.cache or folder
        os.makedirs(cache, exist_ok=True)
        call = measure(a, cache, "call", 0)
        call = call["executorch_ms"] - call["cml_ms"]
        print(f"a call through Python: {call * 1e3:.1f} us\n{'case':44} {'executorch':>11} {'cml':>11} {'ratio':>7}")
        for name in CASES:
            if not any(w in name for w in a.only.split(",")) or name == "call":
                continue
            try:
                results[name] = r = measure(a, cache, name, call)
            except Exception as e:
                failed[name] = str(e).split("\n")[0][:200] or type(e).__name__
                print(f"{name:44} not measured: {failed[name][:110]}", flush=True)
                continue
            print(f"{name:44} {r['executorch_ms'] * 1e3:8.1f} us {r['cml_ms'] * 1e3:8.1f} us {r['ratio']:7.2f}{'  <' if r['ratio'] < 1 else ''}", flush=True)
    ratios = [r["ratio"] for r in results.values()]
    below = [n for n, r in results.items() if r["ratio"] < 1]
    if ratios:
        print(f"{len(ratios)} cases, geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, least {min(ratios):.2f}, below 1: {len(below)}")
    if a.json:
        with open(a.json, "w") as f:
            json.dump({"call_ms": call, "cases": results, "failed": failed}, f, indent=1)
    sys.exit(any(r < a.bar for r in ratios))


if __name__ == "__main__":
    main()
