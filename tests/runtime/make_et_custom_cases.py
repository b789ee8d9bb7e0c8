#!/usr/bin/env python3
"""Writes cases of quantized_decomposed, llama and executorch_prim operators in the format of test_et_ops.c, with the results
of PyTorch's reference (torch.ao.quantization.fx._decomposed), of ExecuTorch's own library of llama operators, or of a
formula in torch where neither has one.

usage: make_et_custom_cases.py OUT
"""
import math
import os
import struct
import sys

import torch
import executorch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers)
from executorch.extension.pybindings import portable_lib  # noqa: F401

import make_et_op_cases as m

root = list(executorch.__path__)[0]
torch.ops.load_library(os.path.join(root, "kernels/quantized/libquantized_ops_aot_lib.so"))
torch.ops.load_library(os.path.join(root, "extension/llm/custom_ops/libcustom_ops_aot_lib.so"))
import executorch.exir  # noqa: E402,F401

Q, L = torch.ops.quantized_decomposed, torch.ops.llama
F32, F16, F64 = torch.float32, torch.float16, torch.float64


def kind(a):
    if isinstance(a, float):
        return "float"
    return "Tensor" if isinstance(a, (list, tuple)) and a and isinstance(a[0], torch.Tensor) else ""


def case(name, args, outs, rtol=1e-6, atol=1e-6, refused=False):
    outs = outs if isinstance(outs, (list, tuple)) else [outs]
    body = [a if isinstance(a, bytes) else m.argument(a, kind(a)) for a in args] + [b"o" + m.tensor(o) for o in outs]
    m.put(name, refused, rtol, atol, body)


def written(before, after):
    """An argument that the operator writes to."""
    return b"m" + m.tensor(before) + m.tensor(after)


def quantized():
    torch.manual_seed(1)
    x = torch.randn(3, 5) * 4
    x[0, 0], x[0, 1], x[2, 4] = 1e9, -1e9, 0.125
    for dtype, lo, hi in ((torch.int8, -128, 127), (torch.uint8, 0, 255), (torch.int16, -1000, 1000), (torch.int32, -70000, 70000)):
        q = Q.quantize_per_tensor(x, 0.0625, 3, lo, hi, dtype)
        case("quantized_decomposed::quantize_per_tensor.out", [x, 0.0625, 3, lo, hi, dtype], q, 0, 0)
        case("quantized_decomposed::dequantize_per_tensor.out", [q, 0.07, -2, lo, hi, dtype, None], Q.dequantize_per_tensor(q, 0.07, -2, lo, hi, dtype))
    s, z = torch.tensor([0.11], dtype=F64), torch.tensor([5])
    case("quantized_decomposed::quantize_per_tensor.Tensor_out", [x, s, z, -128, 127, torch.int8],
         Q.quantize_per_tensor.tensor(x, s, z, -128, 127, torch.int8), 0, 0)
    q = torch.randint(-128, 128, (3, 5), dtype=torch.int8)
    case("quantized_decomposed::dequantize_per_tensor.Tensor_out", [q, s, z, -128, 127, torch.int8, None],
         Q.dequantize_per_tensor.tensor(q, s, z, -128, 127, torch.int8))
    y = torch.randn(2, 3, 4)
    for axis in (0, 1, 2, -1):
        n = y.shape[axis]
        for dtype in (F32, F64):
            sc, zp = (torch.rand(n) * 0.1 + 0.01).to(dtype), torch.randint(-5, 5, (n,))
            q = Q.quantize_per_channel(y, sc, zp, axis % 3, -128, 127, torch.int8)
            case("quantized_decomposed::quantize_per_channel.out", [y, sc, zp, axis, -128, 127, torch.int8], q, 0, 0)
            for zeros in (zp, None):
                d = Q.dequantize_per_channel(q, sc, zeros, axis % 3, -128, 127, torch.int8)
                case("quantized_decomposed::dequantize_per_channel.out", [q, sc, zeros, axis, -128, 127, torch.int8, None], d.to(F32))
    for t in (torch.randn(4, 7), torch.randn(2, 3, 9), torch.rand(2, 4) + 1, -torch.rand(2, 4) - 1, torch.zeros(2, 3)):
        sc, zp = Q.choose_qparams_per_token_asymmetric(t, torch.int8)
        case("quantized_decomposed::choose_qparams_per_token_asymmetric.out", [t, torch.int8], [sc, zp])
        q = Q.quantize_per_token(t, sc, zp, -128, 127, torch.int8)
        case("quantized_decomposed::quantize_per_token.out", [t, sc, zp, -128, 127, torch.int8], q, 0, 0)
        case("quantized_decomposed::dequantize_per_token.out", [q, sc, zp, -128, 127, torch.int8, F32],
             Q.dequantize_per_token(q, sc, zp, -128, 127, torch.int8, F32))
        sc, zp = Q.choose_qparams.tensor(t, -128, 127, 1e-5, torch.int8)
        case("quantized_decomposed::choose_qparams.Tensor_out", [t, -128, 127, 1e-5, torch.int8], [sc.reshape(1), zp.reshape(1)])
    a, b = torch.randint(0, 256, (3, 9), dtype=torch.uint8), torch.randint(0, 256, (3, 9), dtype=torch.uint8)
    dq = lambda t, s, z: Q.dequantize_per_tensor(t, s, z, 0, 255, torch.uint8)
    r = Q.quantize_per_tensor(dq(a, 0.05, 100) + dq(b, 0.03, 7), 0.08, 90, 0, 255, torch.uint8)
    case("quantized_decomposed::add.out", [a, 0.05, 100, 0, 255, b, 0.03, 7, 0, 255, 0.08, 90, 0, 255], r, 0, 0)


def embeddings():
    idx = torch.tensor([[0, 3], [5, 1], [2, 2]])
    w = torch.randint(-128, 128, (6, 8), dtype=torch.int8)
    for groups in (None, 1, 2):
        shape = (6,) if groups is None else (6, groups)
        sc, zp = torch.rand(shape) + 0.1, torch.randint(-3, 4, shape).to(F32)
        spread = lambda t: (t if t.dim() == 2 else t[:, None]).repeat_interleave(8 // (groups or 1), 1)
        for zeros in (zp, None):
            full = (w.to(F32) - (spread(zeros) if zeros is not None else 0)) * spread(sc)
            case("quantized_decomposed::embedding_byte.out", [w, sc, zeros, -128, 127, idx], full[idx])
            case("quantized_decomposed::embedding_byte.dtype_out", [w, sc.half(), None if zeros is None else zeros.half(), -128, 127, idx, F32],
                 ((w.to(F32) - (spread(zeros) if zeros is not None else 0)) * spread(sc.half().float()))[idx])
            u = torch.randint(-8, 8, (6, 8), dtype=torch.int8)
            pack = torch.ops.quant_fusion._pack_embedding_weight
            full = (u.to(F32) - (spread(zeros) if zeros is not None else 0)) * spread(sc)
            case("quantized_decomposed::embedding_4bit.out", [pack(u, 4), sc, zeros, -8, 7, idx], full[idx])
            u = torch.randint(-2, 2, (6, 8), dtype=torch.int8)
            full = (u.to(F32) - (spread(zeros) if zeros is not None else 0)) * spread(sc)
            case("quantized_decomposed::embedding_2bit.out", [pack(u, 2), sc, zeros, -2, 1, idx], full[idx])
            case("quantized_decomposed::embedding_2bit.dtype_out", [pack(u, 2), sc, zeros, -2, 1, idx, F16], full[idx].half(), 1e-3, 1e-3)
    case("quantized_decomposed::embedding_byte.out", [w, sc, None, -128, 127, torch.tensor([6])], torch.zeros(1, 8), refused=True)
    case("quantized_decomposed::embedding_byte.out", [w, sc, None, -128, 127, torch.tensor([-1])], torch.zeros(1, 8), refused=True)
    x, w = torch.randn(3, 8), torch.randint(-128, 128, (8, 5), dtype=torch.int8)
    sc = torch.rand(8) * 0.1
    case("quantized_decomposed::mixed_mm.out", [x, w, sc, None], x @ (w.to(F32) * sc[:, None]), 1e-5, 1e-4)
    w = torch.randint(-128, 128, (5, 8), dtype=torch.int8)
    for sc in (torch.rand(5) * 0.1, torch.rand(5, 2) * 0.1):
        full = w.to(F32) * (sc[:, None] if sc.dim() == 1 else sc.repeat_interleave(4, 1))
        case("quantized_decomposed::mixed_linear.out", [x, w, sc, None, None], x @ full.t(), 1e-5, 1e-4)


def llama():
    torch.manual_seed(3)
    for (b, s, h, hk, d, n) in ((1, 1, 2, 2, 8, 4), (2, 3, 4, 2, 8, 9), (1, 5, 6, 1, 16, 8)):
        q, k, v = torch.randn(b, s, h, d), torch.randn(b, n, hk, d), torch.randn(b, n, hk, d)
        for start in (0, n - s):
            for causal in (True, False):
                case("llama::custom_sdpa.out", [q, k, v, start, None, 0.0, causal, None], L.custom_sdpa(q, k, v, start, None, 0.0, causal, None), 1e-5, 1e-5)
            mask = torch.randn(s, n)
            case("llama::custom_sdpa.out", [q, k, v, start, mask, 0.0, False, 0.3], L.custom_sdpa(q, k, v, start, mask, 0.0, False, 0.3), 1e-5, 1e-5)
            k1, v1, kc, vc = torch.randn(b, s, hk, d), torch.randn(b, s, hk, d), k.clone(), v.clone()
            if b == 1:
                out = L.sdpa_with_kv_cache(q, k1, v1, kc, vc, start, s, None, 0.0, True, None)
                case("llama::sdpa_with_kv_cache.out", [q, k1, v1, written(k, kc), written(v, vc), start, s, None, 0.0, True, None], out, 1e-5, 1e-5)
            c = k.clone()
            L.update_cache(k1, c, start)
            case("llama::update_cache.out", [k1, written(k, c), start], torch.zeros(0))
            where = torch.stack([torch.randperm(n)[:s] for _ in range(b)])
            c = k.clone()
            L.update_cache_with_indices(k1, c, 0, where)
            case("llama::update_cache_with_indices.out", [k1, written(k, c), 0, where], torch.zeros(0))
        case("llama::update_cache.out", [k1, written(k, k), n - s + 1], torch.zeros(0), refused=True)
        case("llama::custom_sdpa.out", [q, k, v, n, None, 0.0, True, None], q, refused=True)
        for second in (False, True):
            shape = (lambda l, heads: (b, heads, l, d) if second else (b, l, heads, d))
            qq, kk, vv = (torch.randint(-128, 128, shape(l, heads), dtype=torch.int8) for l, heads in ((s, h), (n, hk), (n, hk)))
            sc = [torch.rand(t.shape[:-1] + (1,)) * 0.02 for t in (qq, kk, vv)]
            zp = [torch.randint(-5, 5, t.shape[:-1] + (1,), dtype=torch.int8) for t in (qq, kk, vv)]
            args = [qq, kk, vv, n - s, None, 0.0, True, None, zp[0], sc[0], zp[1], sc[1], zp[2], sc[2], second]
            case("llama::custom_quantized_sdpa.out", args, L.custom_quantized_sdpa(*args), 1e-4, 1e-4)
    for n in (1, 2, 64, 28, 112):
        x = torch.randn(3, n)
        case("llama::fast_hadamard_transform.out", [x], L.fast_hadamard_transform(x), 1e-5, 1e-5)
    case("llama::fast_hadamard_transform.out", [torch.randn(2, 12)], torch.zeros(2, 12), refused=True)
    q, k, v = torch.randn(2, 2, 4, 3), torch.randn(2, 2, 4, 3), torch.randn(2, 2, 4, 5)
    args = [q, k, v, torch.rand(2, 2, 4, 3), torch.rand(2, 2, 4), torch.randn(2, 2, 3, 5)]
    case("llama::channelwise_gated_delta_rule.out", args, L.channelwise_gated_delta_rule(*args), 1e-5, 1e-5)


def copies():
    x = torch.randn(2, 3, 4, 5)
    cl = x.to(memory_format=torch.channels_last)
    case("dim_order_ops::_to_dim_order_copy.out", [x, False, [0, 2, 3, 1]], cl, 0, 0)
    case("dim_order_ops::_to_dim_order_copy.out", [cl, False, [0, 1, 2, 3]], x, 0, 0)
    case("dim_order_ops::_clone_dim_order.out", [cl, False, None], x, 0, 0)
    y = torch.tensor([-1.9, 2.5, 300.0, -129.0, 0.0])
    for dtype in (torch.int8, torch.int32, torch.int64, torch.bool, F16, torch.bfloat16, F64):
        case("dim_order_ops::_to_dim_order_copy.out", [y, False, None], y.to(dtype), 0, 0)
    z = torch.zeros(2, 3)
    case("aten::copy_", [written(z, torch.tensor([1.0, 2, 3]).expand(2, 3).contiguous()), torch.tensor([1, 2, 3]), False], [], 0, 0)


def main():
    for family in (quantized, embeddings, llama, copies):
        family()
    with open(sys.argv[1], "wb") as f:
        f.write(b"ETOP1\n" + b"".join(c for _, c in m.cases))
    print(f"{len(m.cases)} cases", file=sys.stderr)


main()
