#!/usr/bin/env python3
"""Writes cases of the virtual machine's aten operators (test_et_ops.c describes the file), with eager torch's results.

usage: make_et_op_cases.py OUT [--only WORD] [--more]

Without --more the selection that is kept as tests/data/et/aten.cases; with it, more types and shapes.
"""
import argparse
import itertools
import math
import struct
import sys

import torch

DT = {torch.uint8: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float16: 5, torch.float32: 6,
      torch.float64: 7, torch.bool: 11, torch.bfloat16: 15}
F = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
I = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
B = torch.bool
nan, inf = math.nan, math.inf
gen = torch.Generator().manual_seed(0)
cases, seen_names = [], set()


def rnd(shape, dtype=torch.float32, low=-3, high=4):
    if dtype == B:
        return torch.randint(0, 2, shape, generator=gen).bool()
    if dtype.is_floating_point:
        return (torch.rand(shape, generator=gen, dtype=torch.float64) * (high - low) + low).to(dtype)
    if dtype == torch.uint8:
        low = 0
    return torch.randint(low, high + 3, shape, generator=gen).to(dtype)


def cl(t):
    return t.to(memory_format=torch.channels_last)


def text(s):
    b = s.encode()
    return struct.pack("<H", len(b)) + b


def order_of(t):
    return [0, 2, 3, 1] if t.dim() == 4 and not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last) else list(range(t.dim()))


def tensor(t, order=None):
    t = t.detach()
    order = order or order_of(t)
    flat = t.permute(order).contiguous().reshape(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
    return struct.pack("<BB", DT[t.dtype], t.dim()) + struct.pack(f"<{t.dim()}i", *t.shape) + bytes(order) + flat.numpy().tobytes()


def argument(a, kind):
    if a is None:
        return b"N"
    if isinstance(a, torch.Tensor):
        return b"t" + tensor(a)
    if isinstance(a, torch.dtype):
        return struct.pack("<cq", b"i", DT[a])
    if isinstance(a, bool):
        return struct.pack("<cB", b"b", a)
    if isinstance(a, int) and kind != "float":
        return struct.pack("<cq", b"i", a)
    if isinstance(a, (int, float)):
        return struct.pack("<cd", b"d", a)
    if isinstance(a, str):
        return b"s" + text(a)
    if "Tensor" in kind:
        return struct.pack("<cB", b"T", len(a)) + b"".join(argument(x, "") for x in a)
    if "bool" in kind:
        return struct.pack("<cB", b"B", len(a)) + bytes(a)
    if "float" in kind:
        return struct.pack("<cB", b"D", len(a)) + struct.pack(f"<{len(a)}d", *a)
    return struct.pack("<cB", b"I", len(a)) + struct.pack(f"<{len(a)}q", *a)


TOL = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-5, 2e-6), torch.float16: (2e-3, 1e-3), torch.bfloat16: (1.6e-2, 1e-2)}


def bits_of(name):
    base, _, overload = name.partition(".")
    return base, overload


def case(name, *args, out_order=None, tol=None, truth=None, out_dtype=None, **kwargs):
    """An operator by the name of its out-variant; args as the schema has them, without outputs."""
    base, overload = bits_of(name)
    op = getattr(getattr(torch.ops.aten, base), overload or "default")
    full, outs = fill(op, args, kwargs)
    inplace = not outs
    ordinary = [x for x, a in full]
    if truth is None:
        if inplace:
            before = args[0].clone()
            result = (op(args[0].clone(), *args[1:], **kwargs),)
        else:
            result = getattr(torch.ops.aten, base)(*args, **kwargs)
    else:
        result = truth
    if isinstance(result, torch.Tensor):
        result = (result,)
    result = [r if out_dtype is None else r.to(out_dtype) for r in result]
    body = [argument(x, str(a.type)) for x, a in full]
    if inplace:
        body[0] = b"m" + tensor(args[0]) + tensor(result[0], order_of(args[0]))
    elif "[]" in str(outs[0].type) or "List" in str(outs[0].type):
        body.append(struct.pack("<cB", b"W", len(result)) + b"".join(tensor(r) for r in result))
    else:
        body += [b"o" + tensor(r, out_order if out_order and len(out_order) == r.dim() else None) for r in result]
    float_types = [r.dtype for r in result if r.dtype.is_floating_point] + [a.dtype for a in ordinary if isinstance(a, torch.Tensor) and a.dtype in TOL]
    worst = max((TOL[d] for d in float_types if d in TOL), default=(0, 0))
    rtol, atol = tol or worst
    put(name, False, rtol, atol, body)


def refuse(name, *args, outs, **kwargs):
    """An operator that must refuse; outs: tensors as it would write them (dtype and rank count)."""
    base, overload = bits_of(name)
    op = getattr(getattr(torch.ops.aten, base), overload or "default")
    full, _ = fill(op, args, kwargs)
    body = [argument(x, str(a.type)) for x, a in full]
    body += [b"o" + tensor(o) for o in outs]
    put(name, True, 0, 0, body)


def fill(op, args, kwargs):
    full, outs, k = [], [], 0
    for a in op._schema.arguments:
        if a.alias_info is not None and a.alias_info.is_write and (a.kwarg_only or a.is_out):
            outs.append(a)
        elif k < len(args) and not a.kwarg_only:
            full.append((args[k], a))
            k += 1
        elif a.name in kwargs:
            full.append((kwargs[a.name], a))
        elif a.has_default_value():
            full.append((a.default_value, a))
        else:
            full.append((None, a))
    return full, outs


only = None


def put(name, refused, rtol, atol, body):
    full = name if "::" in name else "aten::" + name
    seen_names.add(name)
    if only and only not in name:
        return
    cases.append((name, text(full) + struct.pack("<BffB", refused, rtol, atol, len(body)) + b"".join(body)))


SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, nan, inf, -inf, 1e-3, 30.0, -30.0, 100.0])


def unary(more):
    real = "acos acosh asin asinh atan atanh cos cosh erf exp expm1 log log10 log1p log2 reciprocal rsqrt sigmoid sin sinh sqrt tan tanh".split()
    same = "abs ceil floor neg relu round sign trunc".split()
    for name in real + same + ["isinf", "isnan", "logical_not", "logit"]:
        op = name + ".out"
        for dtype in F if more else F[:1] + [torch.float16]:
            x = SPECIAL.to(dtype)
            if name == "logit":
                x = torch.tensor([0.1, 0.5, 0.9, 0, 1, 2, nan]).to(dtype)
            case(op, x, truth=torch.where(x.isnan(), x, torch.sign(x)) if name == "sign" else None)
        for dtype in (I if more else [torch.int32, torch.uint8]):
            case(op, rnd((2, 5), dtype))
        if name not in ("neg", "relu", "abs", "round", "ceil", "floor", "trunc", "sign"):
            case(op, rnd((3,), B))
        if more:
            case(op, rnd((), torch.float32, 0.1, 0.9))
            case(op, rnd((0, 3)))
            x = rnd((2, 3, 4, 5), torch.float32, 0.1, 0.9)
            case(op, cl(x))
            case(op, cl(x), out_order=[0, 1, 2, 3])
    for dtype in F:
        case("glu.out", rnd((3, 4, 6), dtype), 1)
        case("glu.out", rnd((3, 4, 6), dtype))
    refuse("glu.out", rnd((3, 4)), 0, outs=[rnd((1, 4))])
    for dtype in I + [B]:
        case("bitwise_not.out", rnd((5,), dtype))
    for dtype in F:
        for mode in ("none", "tanh"):
            x = torch.tensor([inf, -inf, nan, 1.0]).to(dtype)
            case("gelu.out", x, approximate=mode, truth=torch.nn.functional.gelu(x.double(), approximate=mode).to(dtype))
            case("gelu.out", torch.cat([rnd((20,), dtype), torch.tensor([nan, 0.0, 9.0, -9.0]).to(dtype)]), approximate=mode)
        case("elu.out", SPECIAL.to(dtype))
        case("elu.out", rnd((7,), dtype), 0.7, 1.2, 0.5)
        case("leaky_relu.out", SPECIAL.to(dtype), 0.2)
        case("logit.out", torch.tensor([0.1, 0.5, 0.9, 0, 1, 2, -1]).to(dtype), 0.01)
    refuse("neg.out", rnd((2,), B), outs=[rnd((2,), B)])
    refuse("exp.out", rnd((2,), torch.int32), outs=[rnd((2,), torch.int32)])
    refuse("exp.out", rnd((2, 2)), outs=[rnd((2,))])
    refuse("bitwise_not.out", rnd((2,)), outs=[rnd((2,))])


PAIRS = [((4, 5), (4, 5)), ((4, 5), (5,)), ((4, 1), (1, 5)), ((), (3,)), ((2, 3, 4), (3, 1)), ((0, 3), (1, 3)), ((), ())]


def binary(more):
    types = F[:1] + I[:2] + [torch.uint8]
    mixes = [(torch.float32, torch.int64), (torch.int32, torch.float16), (torch.uint8, torch.int8), (B, torch.int32), (torch.float16, torch.bfloat16), (torch.float64, torch.float32)]
    arithmetic = ["add", "sub", "mul", "div", "maximum", "minimum", "atan2"]
    compare = ["eq.Tensor", "ne.Tensor", "lt.Tensor", "le.Tensor", "gt.Tensor", "ge.Tensor"]
    logic = ["logical_and", "logical_or", "logical_xor"]
    outname = lambda n: n + ("_out" if "." in n else ".out")
    for name in arithmetic + compare + logic:
        for dtype in (F + I if more else [torch.float32, torch.int32]):
            case(outname(name), rnd((3, 4), dtype), rnd((3, 4), dtype))
        for a, b in PAIRS if more or name in ("add", "eq.Tensor") else PAIRS[1:3]:
            case(outname(name), rnd(a), rnd(b))
        for a, b in mixes if more or name in ("add", "mul", "div", "lt.Tensor") else mixes[:1]:
            if name == "sub" and a == B:
                continue
            case(outname(name), rnd((2, 3), a), rnd((3,), b))
            case(outname(name), rnd((2, 3), a), rnd((), b))
        if name not in ("sub",):
            case(outname(name), rnd((5,), B), rnd((5,), B))
        special = SPECIAL[:, None], torch.tensor([nan, 1.0, -inf, 0.0])
        case(outname(name), *special)
        x = rnd((2, 3, 4, 2))
        case(outname(name), cl(x), rnd((2, 3, 4, 2)))
        case(outname(name), cl(x), cl(rnd((2, 3, 4, 2))))
        if more:
            case(outname(name), cl(x), rnd((3, 1, 1)))
            case(outname(name), rnd((70, 50)), rnd((50,)))
            case(outname(name), rnd((50, 70, 3)), rnd((50, 1, 3)))
    for name in ("add", "sub"):
        case(name + ".out", rnd((3, 4)), rnd((3, 4)), alpha=2.5)
        case(name + ".out", rnd((3, 4), torch.int32), rnd((3, 4), torch.int32), alpha=-3)
        case(name + ".Scalar_out", rnd((3, 4)), 1.5, 2)
        case(name + ".Scalar_out", rnd((3, 4), torch.int32), 3, 2)
        case(name + ".Scalar_out", rnd((3, 4), torch.int32), 1.5)
        case(name + ".Scalar_out", rnd((3, 4), torch.float16), 1.5)
        refuse(name + ".out", rnd((2,), torch.int32), rnd((2,), torch.int32), alpha=1.5, outs=[rnd((2,), torch.int32)])
        refuse(name + ".out", rnd((2,)), rnd((3,)), outs=[rnd((2,))])
        refuse(name + ".out", rnd((2,)), rnd((2,)), outs=[rnd((2,), torch.int32)])
    case("rsub.Scalar_out", rnd((3, 4)), 1.5, 2)
    case("rsub.Scalar_out", rnd((3, 4), torch.int64), 7)
    refuse("sub.out", rnd((2,), B), rnd((2,), B), outs=[rnd((2,), B)])
    case("mul.Scalar_out", rnd((3, 4)), 2)
    case("mul.Scalar_out", rnd((3, 4), torch.int16), 2.5)
    case("mul.Scalar_out", rnd((3,), B), 2)
    case("div.Scalar_out", rnd((3, 4)), 2)
    case("div.Scalar_out", rnd((3, 4), torch.int32), 3)
    sa, sb = SPECIAL[:, None], torch.tensor([3.0, -0.7, 0.0, -0.0, inf, -inf, nan])
    ia, ib = torch.arange(-7, 8)[:, None], torch.tensor([3, -3, 1, -1, 2, 100])
    for dtype in F:
        x, y = sa.to(dtype), sb.to(dtype)
        for name in ("remainder.Tensor_out", "fmod.Tensor_out", "floor_divide.out", "pow.Tensor_Tensor_out"):
            case(name, x, y)
        for mode in (None, "floor", "trunc"):
            case("div.out_mode", x, y, rounding_mode=mode)
    for dtype in I[:4]:
        x, y = ia.to(dtype), ib.to(dtype)
        for name in ("remainder.Tensor_out", "fmod.Tensor_out", "floor_divide.out"):
            case(name, x, y)
        for mode in (None, "floor", "trunc"):
            case("div.out_mode", x, y, rounding_mode=mode)
        case("pow.Tensor_Tensor_out", x, torch.tensor([0, 1, 2, 3, -1, -2, 9]).to(dtype))
        case("pow.Tensor_Scalar_out", x, 3)
    for name in ("remainder", "fmod", "pow"):
        case(name + (".Tensor_Scalar_out" if name == "pow" else ".Scalar_out"), SPECIAL, 2.5)
        case(name + (".Tensor_Scalar_out" if name == "pow" else ".Scalar_out"), torch.arange(-5, 6), 2.5)
        case(name + (".Tensor_Scalar_out" if name == "pow" else ".Scalar_out"), torch.arange(-5, 6), 3)
        if name != "pow":
            case(name + ".Scalar_out", torch.arange(-5, 6), -3)
            refuse(name + ".Scalar_out", torch.arange(3), 0, outs=[torch.arange(3)])
    refuse("floor_divide.out", torch.arange(3), torch.tensor([1, 0, 2]), outs=[torch.arange(3)])
    refuse("pow.Tensor_Scalar_out", torch.arange(3), -1, outs=[torch.arange(3)])
    refuse("div.out_mode", rnd((2,)), rnd((2,)), rounding_mode="up", outs=[rnd((2,))])
    for e in (2, 3, 0.5, -1, -0.5, 0, 1):
        case("pow.Tensor_Scalar_out", SPECIAL, e)
    case("pow.Scalar_out", 2, torch.arange(5))
    case("pow.Scalar_out", 2.5, SPECIAL)
    case("pow.Scalar_out", 2.5, torch.arange(5))
    for mode in (None, "floor", "trunc"):
        case("div.Scalar_mode_out", rnd((7,)), -1.5, rounding_mode=mode)
        case("div.Scalar_mode_out", torch.arange(-5, 6), 2, rounding_mode=mode)
    for name in "eq ne lt le gt ge".split():
        case(name + ".Scalar_out", SPECIAL, 0.5)
        case(name + ".Scalar_out", torch.arange(-3, 4), 1.5)
        case(name + ".Scalar_out", torch.arange(-3, 4, dtype=torch.int8), 1)
        case(name + ".Scalar_out", rnd((5,), B), True)
        case(name + ".Scalar_out", torch.tensor([0.1, 0.2]).half(), 0.1)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        for dtype in I + [B]:
            case(name + ".Tensor_out", rnd((3, 4), dtype, -100, 100), rnd((4,), dtype, -100, 100))
        case(name + ".Tensor_out", rnd((3, 4), torch.int32), rnd((4,), torch.uint8))
        case(name + ".Scalar_out", rnd((3, 4), torch.int32), 5)
        case(name + ".Scalar_out", rnd((3, 4), B), True)
        refuse(name + ".Tensor_out", rnd((2,)), rnd((2,)), outs=[rnd((2,))])
    for name in ("bitwise_left_shift", "bitwise_right_shift"):
        for dtype in I:
            x, y = torch.tensor([-8, -1, 0, 1, 100]).to(dtype)[:, None], torch.tensor([0, 1, 3, 7]).to(dtype)
            case(name + ".Tensor_out", x, y)
            case(name + ".Tensor_Scalar_out", x, 2)
        case(name + ".Tensor_out", torch.tensor([-8, 5], dtype=torch.int32), torch.tensor([40, 31], dtype=torch.int32))
    for dtype in F + I:
        case("clamp.out", rnd((10,), dtype), -1, 2)
        case("clamp.Tensor_out", rnd((2, 5), dtype), rnd((5,), dtype), rnd((2, 1), dtype))
        if dtype != torch.uint8:
            case("hardtanh.out", rnd((10,), dtype), -1, 2)
    case("clamp.out", SPECIAL, -1, 2.5)
    case("clamp.out", SPECIAL, None, 0.5)
    case("clamp.out", SPECIAL, 3, 1)
    case("clamp.out", torch.arange(5), 0.5, None)
    case("clamp.out", SPECIAL, nan, 1.0)
    case("clamp.Tensor_out", SPECIAL[:, None], torch.tensor([nan, 0.0]), torch.tensor([1.0, 1.0]))
    case("clamp.Tensor_out", SPECIAL[:, None], torch.tensor([0.0, 0.5]), None)
    refuse("clamp.out", SPECIAL, None, None, outs=[SPECIAL])
    for a, b in [(torch.float32, torch.float32), (torch.int32, torch.float16), (torch.int64, torch.int64), (B, torch.uint8)]:
        case("where.self_out", rnd((3, 4), B), rnd((3, 4), a), rnd((4,), b))
        case("where.self_out", rnd((3, 1), B), rnd((), a), rnd((1, 4), b))
    case("where.self_out", torch.tensor([True, False]), torch.tensor([nan, 1.0]), torch.tensor([1.0, inf]))
    for dtype in F + I:
        case("masked_fill.Scalar_out", rnd((3, 4), dtype), rnd((4,), B), 3)
        case("masked_fill.Scalar_out", rnd((3, 4), dtype), rnd((4,), B), 2.7)
    case("masked_fill.Scalar_out", rnd((3, 4), B), rnd((4,), B), 0.5)
    case("masked_fill.Scalar_out", rnd((3, 4)), rnd((3, 1), B), -inf)
    case("masked_fill.Scalar_out", rnd((3, 4), B), rnd((3, 1), B), True)


def shape(more):
    some = [torch.float32, torch.int8, torch.float64, torch.float16, B] if more else [torch.float32, torch.int8]
    for dtype in some:
        x, y = rnd((2, 3, 4), dtype), rnd((2, 3, 4, 5), dtype)
        for name in "alias_copy detach_copy lift_fresh_copy".split():
            case(name + ".out", x)
        case("_conj_physical.out", x)
        case("clone.out", x)
        case("permute_copy.out", x, [2, 0, -2])
        case("permute_copy.out", y, [0, 3, 1, 2])
        case("permute_copy.out", cl(y), [1, 0, 3, 2])
        case("transpose_copy.int_out", x, 0, -1)
        case("t_copy.out", x[0].contiguous())
        case("t_copy.out", x[0, 0].contiguous())
        case("view_copy.out", x, [4, -1])
        case("view_copy.out", cl(y), [6, 20], truth=y.contiguous().view(6, 20))
        case("view_copy.out", rnd((), dtype), [1, 1])
        case("view_copy.out", rnd((0, 3), dtype), [3, 0, 2])
        case("expand_copy.out", rnd((3, 1), dtype), [2, -1, 4])
        case("unsqueeze_copy.out", x, -1)
        case("unsqueeze_copy.out", rnd((), dtype), 0)
        case("squeeze_copy.dim_out", rnd((1, 3, 1), dtype), -1)
        case("squeeze_copy.dim_out", rnd((1, 3, 1), dtype), 1)
        case("squeeze_copy.dims_out", rnd((1, 3, 1), dtype), [0, 2])
        case("select_copy.int_out", x, 1, -1)
        case("slice_copy.Tensor_out", x, 1, 0, 9223372036854775807, 2)
        case("slice_copy.Tensor_out", x, -1, -3, -1)
        case("slice_copy.Tensor_out", x, 0, 5, 9)
        case("slice_copy.Tensor_out", x, 2, None, None, 3)
        case("narrow_copy.out", x, 2, 1, 2)
        case("narrow_copy.out", x, 2, -2, 2)
        case("diagonal_copy.out", x)
        case("diagonal_copy.out", x, 1, 2, 0)
        case("diagonal_copy.out", x, -1, 1, 2)
        case("diagonal_copy.out", x, 7)
        case("as_strided_copy.out", rnd((24,), dtype), [3, 2], [5, 2], 1)
        case("unfold_copy.out", x, 2, 2, 1)
        case("unfold_copy.out", x, 1, 3, 2)
        case("flip.out", x, [0, -1])
        case("flip.out", cl(y), [1])
        case("roll.out", x, [1, -2], [0, 2])
        case("roll.out", x, [5], [])
        case("roll.out", cl(y), [2], [3])
        case("repeat.out", x[0].contiguous(), [2, 1, 3])
        case("repeat.out", rnd((), dtype), [2])
        case("repeat.out", x[0].contiguous(), [0, 3])
        case("cat.out", [x, rnd((2, 1, 4), dtype), rnd((2, 0, 4), dtype)], 1)
        case("cat.out", [rnd((0,), dtype), x, x], -1)
        case("stack.out", [x, x + x if dtype != B else ~x], -1)
        case("stack.out", [rnd((), dtype)] * 3)
        case("split_copy.Tensor_out", rnd((5, 3), dtype), 2)
        case("split_with_sizes_copy.out", x, [1, 0, 3], 2)
        case("unbind_copy.int_out", x, 1)
        case("select_scatter.out", x, rnd((2, 4), dtype), 1, -1)
        case("slice_scatter.out", x, rnd((2, 2, 4), dtype), 1, 0, None, 2)
        case("pixel_shuffle.out", rnd((2, 12, 2, 3), dtype), 2)
        case("pixel_unshuffle.out", rnd((3, 4, 6), dtype), 2)
        case("tril.out", y, 1)
        case("tril.out", cl(y), -1)
        case("roll.out", cl(y), [7], [], truth=y.roll(7))
        case("tril.out", x, -2)
        case("tril.out", x)
        case("copy.out", x, rnd((3, 1), torch.float32))
        case("copy_", x.clone(), rnd((4,), torch.int64))
        case("copy_", x.clone(), rnd((2, 3, 4), dtype))
    case("copy_", cl(rnd((2, 3, 4, 5))), rnd((2, 3, 4, 5)))
    case("cat.out", [rnd((2, 3)), rnd((2, 1), torch.int32)], 1)
    case("cat.out", [rnd((2,), torch.int8), rnd((2,), torch.uint8), rnd((2,), B)])
    case("cat.out", [rnd((1, 2, 3, 3)), cl(rnd((1, 2, 3, 3)))], 1)
    for a in F + I + [B]:
        for b in F + I + [B]:
            x = rnd((7,), a)
            case("_to_copy.out", x, truth=x.to(b))
    case("_to_copy.out", cl(rnd((2, 3, 4, 5))), out_order=[0, 1, 2, 3])
    case("view_copy.out", rnd((2, 60)), [2, 3, 4, 5], out_order=[0, 2, 3, 1])
    x = rnd((2, 3))
    refuse("view_copy.out", x, [4, -1], outs=[x])
    refuse("view_copy.out", x, [7], outs=[x[0]])
    refuse("permute_copy.out", x, [0, 0], outs=[x])
    refuse("permute_copy.out", x, [0, 5], outs=[x])
    refuse("select_copy.int_out", x, 1, 3, outs=[x[0]])
    refuse("select_copy.int_out", x, 2, 0, outs=[x[0]])
    refuse("slice_copy.Tensor_out", x, 3, outs=[x])
    refuse("slice_copy.Tensor_out", x, 0, 0, 1, 0, outs=[x])
    refuse("expand_copy.out", x, [2, 4], outs=[x])
    refuse("expand_copy.out", x, [3], outs=[x[0]])
    refuse("as_strided_copy.out", x, [3, 2], [2, 2], 1, outs=[x])
    refuse("as_strided_copy.out", x, [2], [-1], 1, outs=[x[0]])
    refuse("unfold_copy.out", x, 0, 3, 1, outs=[rnd((1, 1, 1))])
    refuse("cat.out", [x, rnd((3, 3))], 1, outs=[x])
    refuse("cat.out", [x, x], 2, outs=[x])
    refuse("repeat.out", x, [2], outs=[x])
    refuse("diagonal_copy.out", x, 0, 1, 1, outs=[x[0]])
    refuse("permute_copy.out", x, [1, 0], outs=[x.int()])


def make(more):
    for dtype in F + I + [B]:
        for name, args in (("full", ([2, 3], 2)), ("zeros", ([2, 3],)), ("ones", ([4],))):
            case(name + ".out", *args, truth=getattr(torch, name)(*args, dtype=dtype))
        case("full_like.out", rnd((2, 3), dtype), 1)
        case("fill.Scalar_out", rnd((2, 3), dtype), 1)
        case("fill.Tensor_out", rnd((2, 3), dtype), torch.tensor(1, dtype=dtype))
        case("scalar_tensor.out", 3, truth=torch.tensor(3).to(dtype))
    case("full.out", [2], 2.7, truth=torch.full([2], 2.7))
    case("full.out", [], -inf, truth=torch.full([], -inf))
    case("full.out", [0, 2], 1, truth=torch.full([0, 2], 1.0))
    case("arange.out", 5)
    case("arange.out", 5.5)
    for a in ((1, 9, 2), (9, 1, -3), (0.5, 3, 0.25), (3, 3, 1), (-1.5, 2, 1)):
        case("arange.start_out", *a)
    case("native_dropout.out", rnd((3, 4)), 0.5, False)
    refuse("arange.start_out", 0, 5, -1, outs=[rnd((1,))])
    refuse("arange.start_out", 0, 5, 0, outs=[rnd((1,))])


def reduce(more):
    types = F + I[:3] + [torch.uint8] if more else [torch.float32, torch.float16, torch.int32]
    dims = [[0], [-1], [0, 2], [], [1, 2], [0, 1, 2]]
    for dtype in types:
        x = rnd((3, 4, 5), dtype)
        for keep in (False, True):
            for d in dims:
                case("sum.IntList_out", x, d, keep)
                case("amax.out", x, d, keep)
                case("amin.out", x, d, keep)
                if d:
                    case("any.dims_out", x > 2, d, keep)
                if dtype.is_floating_point:
                    case("mean.out", x, d, keep)
                    case("var.out", x, d, True, keep)
                    case("var.correction_out", x, d, correction=0, keepdim=keep)
                    case("var_mean.correction_out", x, d, correction=2, keepdim=keep)
            for d in (0, 1, -1):
                for name in ("argmax.out", "argmin.out", "max.dim_max", "min.dim_min", "any.out", "prod.int_out"):
                    case(name, x, d, keep)
        case("argmax.out", x)
        case("argmin.out", x, None, True)
        for name in ("max.unary_out", "min.unary_out", "any.all_out", "prod.out"):
            case(name, x[:2, :2].contiguous())
        for d in (0, 1, 2, -1):
            case("cumsum.out", x, d)
            if dtype.is_floating_point:
                case("_softmax.out", x, d, False)
                case("_log_softmax.out", x, d, False)
        if dtype.is_floating_point:
            case("mean.dtype_out", x)
    y = cl(rnd((2, 3, 4, 5)))
    case("mean.out", y, [2, 3], True)
    case("sum.IntList_out", y, [1])
    case("argmax.out", y)
    case("amax.out", y, [1], True, out_order=[0, 2, 3, 1])
    case("_softmax.out", y, 1, False)
    case("sum.IntList_out", rnd((300, 70)), [0])
    case("sum.IntList_out", rnd((2, 3000)), [1])
    case("sum.IntList_out", rnd((3, 4), B), [1])
    case("sum.IntList_out", rnd((3, 4)), None)
    case("sum.IntList_out", rnd((3, 4), torch.int32), [0], dtype=torch.float32)
    case("sum.IntList_out", rnd((3, 4)), [0], dtype=torch.int32)
    case("mean.out", rnd((3, 4), torch.int32), [0], dtype=torch.float32)
    case("prod.out", rnd((3,), torch.int8), dtype=torch.float32)
    case("cumsum.out", rnd((3, 4), torch.int32), 0, dtype=torch.float32)
    case("cumsum.out", rnd((3,), B), 0)
    case("sum.IntList_out", rnd((0, 3)), [0])
    case("prod.int_out", rnd((0, 3)), 0)
    case("mean.out", rnd((0, 3)), [0])
    case("var.out", rnd((1, 3)), [0])
    case("any.out", rnd((0, 3)), 0)
    case("sum.IntList_out", rnd(()), [])
    case("amax.out", rnd(()), [0])
    case("argmax.out", rnd(()), 0)
    case("max.dim_max", rnd(()), 0)
    case("_softmax.out", rnd(()), 0, False)
    case("cumsum.out", rnd(()), -1)
    z = rnd((4, 40))
    z[1, 7] = nan
    z[2, 3] = inf
    z[3, :] = -inf
    for name in ("max.dim_max", "min.dim_min", "argmax.out"):
        case(name, z, 1)
        case(name, z, 0)
    for name in ("amax.out", "amin.out", "sum.IntList_out", "mean.out"):
        case(name, z, [1])
    case("max.unary_out", z)
    case("_softmax.out", z, 1, False)
    case("_log_softmax.out", z[2:3, :5].contiguous(), 1, False)
    case("argmax.out", torch.tensor([1, 3, 3, 2]), 0)
    refuse("amax.out", rnd((0, 3)), [0], outs=[rnd((3,))])
    refuse("sum.IntList_out", rnd((2, 3)), [2], outs=[rnd((3,))])
    refuse("sum.IntList_out", rnd((2, 3)), [0, 0], outs=[rnd((3,))])
    refuse("mean.out", rnd((2, 3)), [0], outs=[rnd((3,), torch.int32)])
    refuse("argmax.out", rnd((2, 3)), 0, outs=[rnd((3,))])
    refuse("_softmax.out", rnd((2, 3)), 2, False, outs=[rnd((2, 3))])
    refuse("_softmax.out", rnd((2, 3), torch.int32), 1, False, outs=[rnd((2, 3))])


def index(more):
    types = F + I[:3] + [torch.uint8, B]
    for dtype in types if more else [torch.float32, torch.int8, torch.float16]:
        x = rnd((3, 4, 5), dtype)
        ix = torch.randint(0, 3, (2, 4, 2), generator=gen)
        case("gather.out", x, 0, ix)
        case("gather.out", x, -1, ix)
        case("scatter.src_out", x, 2, torch.tensor([[[0, 3], [1, 4]]]), rnd((2, 2, 3), dtype))
        case("scatter.value_out", x, 1, torch.tensor([[[0, 3], [1, 2]]]), 1)
        case("scatter_add.out", x, 0, torch.zeros((2, 4, 1), dtype=torch.int64), rnd((3, 4, 5), dtype))
        case("index_select.out", x, 1, torch.tensor([3, 0, 3]))
        case("index_select.out", x, -1, torch.tensor(2))
        case("index.Tensor_out", x, [torch.tensor([2, -1])])
        case("index.Tensor_out", x, [None, torch.tensor([[0, 1], [3, -4]])])
        case("index.Tensor_out", x, [torch.tensor([0, 1]), None, torch.tensor([[4], [0]])])
        case("index.Tensor_out", x, [None, torch.tensor([0, 1]), torch.tensor([[4], [0]])])
        case("index.Tensor_out", x, [rnd((3, 4), B)])
        case("index.Tensor_out", x, [None, rnd((4,), B)])
        case("index.Tensor_out", x, [torch.tensor(1)])
        case("index.Tensor_out", x, [torch.zeros(0, dtype=torch.int64)])
        case("index.Tensor_out", cl(rnd((2, 3, 4, 5), dtype)), [None, torch.tensor([2, 0])])
        for acc in (False, True) if dtype != B else (False,):
            case("index_put.out", x, [torch.tensor([2, 0])], rnd((4, 5), dtype), acc)
            case("index_put.out", x, [None, torch.tensor([3, 0])], rnd((3, 2, 5), dtype), acc)
            case("index_put.out", x, [torch.tensor([0, 1]), None, torch.tensor([4, 0])], rnd((2, 4), dtype), acc)
        case("index_put.out", x, [torch.tensor([1, 1])], rnd((1, 5), dtype), True)
        case("index_put.out", x, [rnd((3, 4, 5), B)], rnd((), dtype))
        case("index_put_", x.clone(), [torch.tensor([2, 0])], rnd((5,), dtype))
        case("embedding.out", rnd((7, 3), dtype), torch.tensor([[0, 6], [3, 3]]))
        case("embedding.out", rnd((7, 3), dtype), torch.tensor(2, dtype=torch.int32))
        case("masked_select.out", x, rnd((3, 4, 5), B))
        case("masked_select.out", x, rnd((4, 1), B))
        case("masked_scatter.out", x, rnd((4, 5), B), rnd((60,), dtype))
        case("nonzero.out", x)
        if dtype != B:
            for largest in (False, True):
                y = torch.randperm(60, generator=gen).reshape(3, 4, 5).to(dtype)
                case("topk.values", y, 3, -1, largest)
                case("topk.values", y, 2, 0, largest)
                case("topk.values", y, 4, 1, largest)
    case("nonzero.out", torch.tensor([[1.0, 0, 2], [0, 3, 0]]), out_order=[1, 0])
    case("nonzero.out", torch.tensor(3.0))
    case("nonzero.out", torch.tensor(0.0))
    case("nonzero.out", torch.zeros(2, 3))
    case("topk.values", torch.tensor([1.0, nan, -inf, inf, 3.0]), 3)
    case("topk.values", torch.tensor([1.0, nan, -inf, inf, 3.0]), 5, -1, False)
    case("topk.values", torch.tensor(1.5), 1, 0)
    case("gather.out", rnd(()), 0, torch.tensor(0))
    case("gather.out", rnd((3, 4)), 1, torch.zeros((2, 0), dtype=torch.int64))
    case("repeat_interleave.Tensor_out", torch.tensor([2, 0, 3]))
    case("repeat_interleave.Tensor_out", torch.tensor([2, 1], dtype=torch.int32), output_size=3)
    x = rnd((3, 4))
    i = torch.tensor
    refuse("gather.out", x, 0, i([[3]]), outs=[rnd((1, 1))])
    refuse("gather.out", x, 0, i([[-1]]), outs=[rnd((1, 1))])
    refuse("gather.out", x, 0, i([0]), outs=[rnd((1,))])
    refuse("gather.out", x, 1, i([[0]] * 4), outs=[rnd((4, 1))])
    refuse("scatter.src_out", x, 1, i([[0, 1]]), rnd((1, 1)), outs=[x])
    refuse("scatter_add.out", x, 1, i([[4]]), rnd((1, 1)), outs=[x])
    refuse("index.Tensor_out", x, [i([3])], outs=[x])
    refuse("index.Tensor_out", x, [i([0]), i([0]), i([0])], outs=[x[0]])
    refuse("index.Tensor_out", x, [rnd((4,), B)], outs=[x])
    refuse("index_put.out", x, [i([0])], rnd((3,)), outs=[x])
    refuse("embedding.out", x, i([3]), outs=[x])
    refuse("embedding.out", x, i([-1]), outs=[x])
    refuse("index_select.out", x, 0, i([-4]), outs=[x])
    refuse("masked_scatter.out", x, torch.ones(3, 4).bool(), rnd((5,)), outs=[x])
    refuse("topk.values", x, 5, outs=[x, x.long()])
    refuse("repeat_interleave.Tensor_out", i([-1]), outs=[i([0])])


def linear(more):
    for dtype in F + [torch.int64, torch.int32]:
        case("mm.out", rnd((5, 7), dtype), rnd((7, 3), dtype), tol=(2e-2, 6e-2) if dtype == torch.bfloat16 else None)
    for dtype in F:
        loose = (2e-2, 1e-1) if dtype == torch.bfloat16 else (4e-3, 2e-2) if dtype == torch.float16 else None
        case("bmm.out", rnd((3, 2, 4), dtype), rnd((3, 4, 5), dtype), tol=loose)
        case("addmm.out", rnd((3,), dtype), rnd((2, 4), dtype), rnd((4, 3), dtype), tol=loose)
        case("addmm.out", rnd((2, 1), dtype), rnd((2, 4), dtype), rnd((4, 3), dtype), beta=0.5, alpha=2, tol=loose)
        case("linear.out", rnd((2, 3, 4), dtype), rnd((5, 4), dtype), rnd((5,), dtype), tol=loose)
        case("linear.out", rnd((4,), dtype), rnd((5, 4), dtype), tol=loose)
        for groups, cin, cout in ((1, 3, 4), (2, 4, 6), (4, 4, 4)):
            case("convolution.out", rnd((2, cin, 7, 6), dtype), rnd((cout, cin // groups, 3, 2), dtype), rnd((cout,), dtype), [2, 1], [1, 0], [1, 2], False, [0, 0], groups, tol=loose)
            case("convolution.out", rnd((2, cin, 4, 3), dtype), rnd((cin, cout // groups, 3, 2), dtype), rnd((cout,), dtype), [2, 3], [1, 0], [1, 2], True, [1, 1], groups, tol=loose)
    case("addmm.out", torch.full((3,), nan), rnd((2, 4)), rnd((4, 3)), beta=0)
    case("mm.out", rnd((2, 0)), rnd((0, 3)))
    case("mm.out", rnd((40, 33)), rnd((33, 70)))
    case("linear.out", rnd((2, 0)), rnd((3, 0)), rnd((3,)))
    case("convolution.out", rnd((2, 3, 9)), rnd((4, 3, 3)), None, [2], [1], [1], False, [0], 1)
    case("convolution.out", rnd((1, 2, 5, 5)), rnd((3, 2, 3, 3)), None, [1], [1], [1], False, [0], 1)
    case("convolution.out", rnd((2, 3, 9)), rnd((3, 4, 3)), None, [2], [1], [1], True, [1], 1)
    case("convolution.out", rnd((1, 2, 4, 4, 3)), rnd((3, 2, 2, 3, 2)), rnd((3,)), [1, 2, 1], [0, 1, 0], [1, 1, 1], False, [0, 0, 0], 1)
    x = rnd((2, 4, 6, 5))
    for g in (1, 4):
        w = rnd((4, 4 // g, 3, 3))
        want = torch.ops.aten.convolution(x, w, None, [1, 1], [1, 1], [1, 1], False, [0, 0], g)
        for a, b in ((cl(x), w), (x, cl(w)), (cl(x), cl(w))):
            for order in (None, [0, 2, 3, 1]):
                case("convolution.out", a, b, None, [1, 1], [1, 1], [1, 1], False, [0, 0], g, truth=want, out_order=order)
    for t in (False, True):
        x, w = rnd((2, 4, 5, 5), torch.float64), rnd((4, 2, 3, 3), torch.float64)
        y = torch.ops.aten.convolution(x, w, None, [2, 1], [1, 0], [1, 1], t, [0, 0], 2)
        case("convolution_backward.out", rnd(y.shape, torch.float64), x, w, [y.shape[1]], [2, 1], [1, 0], [1, 1], t, [0, 0], 2, [True, True, True])
    for p in (0.0, 1.0, 2.0, 3.0, inf):
        case("_cdist_forward.out", rnd((2, 4, 3)), rnd((5, 3)).expand(2, 5, 3).contiguous(), p, None)
        case("_pdist_forward.out", rnd((4, 3)), p)
    refuse("mm.out", rnd((2, 3)), rnd((2, 3)), outs=[rnd((2, 3))])
    refuse("mm.out", rnd((2, 3)), rnd((3,)), outs=[rnd((2, 3))])
    refuse("addmm.out", rnd((4,)), rnd((2, 4)), rnd((4, 3)), outs=[rnd((2, 3))])
    refuse("convolution.out", rnd((1, 3, 4, 4)), rnd((2, 2, 3, 3)), None, [1], [0], [1], False, [0], 1, outs=[rnd((1, 2, 2, 2))])
    refuse("convolution.out", rnd((1, 3, 2, 2)), rnd((2, 3, 3, 3)), None, [1], [0], [1], False, [0], 1, outs=[rnd((1, 2, 2, 2))])
    refuse("convolution.out", rnd((1, 3, 4, 4)), rnd((2, 3, 3, 3)), None, [0], [0], [1], False, [0], 1, outs=[rnd((1, 2, 2, 2))])


def image(more):
    for dtype in F if more else F[:3]:
        x = rnd((2, 3, 6, 7), dtype)
        for y in (x, cl(x)):
            case("max_pool2d_with_indices.out", y, [3, 2], [2, 2], [1, 1])
            case("max_pool2d_with_indices.out", y, [2, 2], [], [0], [2, 1], True)
            case("avg_pool2d.out", y, [3, 2], [2, 2], [1, 1])
            case("avg_pool2d.out", y, [3, 3], [2, 2], [1, 1], True, False)
            case("avg_pool2d.out", y, [2], [], [0], False, True, 3)
            case("avg_pool2d.out", y, [7, 2], [2, 2], [0], True)
            case("_adaptive_avg_pool2d.out", y, [4, 2])
            case("constant_pad_nd.out", y, [1, 2, -1, 3], 1.5)
        case("upsample_nearest2d.vec_out", x, [4, 11], None)
        case("upsample_nearest2d.vec_out", x, None, [2.0, 1.7])
        case("upsample_nearest2d.vec_out", x, None, [1.15, 2.1])
        for align in (False, True):
            case("upsample_bilinear2d.vec_out", x, [9, 4], align, None)
            case("upsample_bilinear2d.vec_out", x, None, align, [2.0, 1.7])
            case("upsample_bilinear2d.vec_out", x, None, align, [1.15, 0.6])
            if dtype in F[:2]:
                case("_upsample_bilinear2d_aa.out", x, [3, 11], align)
                case("_upsample_bilinear2d_aa.out", x, [4, 3], align, 0.6, 0.5)
    x = rnd((2, 3, 5, 6))
    grid = rnd((2, 4, 3, 2), torch.float32, -1.4, 1.4)
    for mode, pad, align in itertools.product((0, 1, 2), (0, 1, 2), (False, True)):
        case("grid_sampler_2d.out", x, grid, mode, pad, align, tol=(1e-4, 1e-4))
    case("max_pool2d_with_indices.out", torch.tensor([[[1.0, nan, 2.0, 5.0]]]), [1, 2], [1, 1])
    case("max_pool2d_with_indices.out", rnd((3, 4, 4), torch.int32), [2, 2])
    y, i = torch.ops.aten.max_pool2d_with_indices(x, [2, 2], [1, 1])
    case("max_pool2d_with_indices_backward.grad_input", rnd(y.shape), x, [2, 2], [1, 1], [0, 0], [1, 1], False, i)
    for d in (1, 2, 3):
        for dtype in (torch.float32, torch.int32) if d < 3 else (torch.float32,):
            z = rnd((2, 3) + (4,) * d, dtype)
            case(f"reflection_pad{d}d.out", z.float(), [1, 3, 2, 0, 1, 1][: 2 * d])
            case(f"replication_pad{d}d.out", z.float(), [1, 5, 2, 0, 1, 1][: 2 * d])
    case("constant_pad_nd.out", rnd((3, 4), torch.int32), [1, 1], 7)
    case("constant_pad_nd.out", rnd((3, 4), B), [0, 0, 2, 0], True)
    refuse("reflection_pad1d.out", rnd((2, 3)), [3, 0], outs=[rnd((2, 6))])
    refuse("constant_pad_nd.out", rnd((2, 3)), [-2, -2], outs=[rnd((2, 3))])
    refuse("constant_pad_nd.out", rnd((2, 3)), [1], outs=[rnd((2, 3))])
    refuse("max_pool2d_with_indices.out", x, [2, 2], [1, 1], [2, 2], outs=[x, x.long()])
    refuse("max_pool2d_with_indices.out", x, [9, 9], [1, 1], outs=[x, x.long()])
    refuse("avg_pool2d.out", x, [0, 1], outs=[x])
    refuse("upsample_nearest2d.vec_out", x, None, None, outs=[x])
    refuse("upsample_bilinear2d.vec_out", x, [0, 3], False, None, outs=[x])
    refuse("grid_sampler_2d.out", x, grid, 3, 0, False, outs=[x])
    refuse("max_pool2d_with_indices_backward.grad_input", rnd(y.shape), x, [2, 2], [1, 1], [0, 0], [1, 1], False, i + 99, outs=[x])


def norm(more):
    for dtype in F:
        x = rnd((2, 4, 3, 5), dtype)
        w, b, m, v = rnd((4,), dtype), rnd((4,), dtype), rnd((4,), dtype), rnd((4,), dtype, 0.5, 2)
        loose = (3e-2, 1e-1) if dtype == torch.bfloat16 else (5e-3, 2e-2) if dtype == torch.float16 else (1e-4, 1e-5)
        case("native_layer_norm.out", x, [5], rnd((5,), dtype), rnd((5,), dtype), 1e-5, tol=loose)
        case("native_layer_norm.out", x, [3, 5], None, None, 1e-5, tol=loose)
        case("native_group_norm.out", x, w, b, 2, 4, 15, 2, 1e-5, tol=loose)
        case("native_group_norm.out", x, None, b, 2, 4, 15, 4, 1e-5, tol=loose)
        case("native_group_norm.out", rnd((3, 4), dtype), w, b, 3, 4, 1, 2, 1e-5, tol=loose)
        if dtype == torch.float32 or dtype == torch.float64:
            case("_native_batch_norm_legit.no_stats_out", x, w, b, True, 0.1, 1e-5, tol=loose)
            case("_native_batch_norm_legit.no_stats_out", cl(x), None, None, True, 0.1, 1e-5, tol=loose)
        for y in (x, cl(x)):
            empty = torch.zeros(0, dtype=dtype)
            for ww, bb in ((w, b), (None, None)):
                want = torch.nn.functional.batch_norm(x.double(), m.double(), v.double(), ww if ww is None else ww.double(), bb if bb is None else bb.double(), False, 0.1, 1e-5).to(dtype)
                case("_native_batch_norm_legit_no_training.out", y, ww, bb, m, v, 0.1, 1e-5, truth=(want, empty, empty), tol=loose)
    case("native_layer_norm.out", torch.full((2, 4), 3.0), [4], None, None, 1e-5)
    case("native_layer_norm.out", rnd((2, 9)) + 1000, [9], None, None, 1e-5, tol=(2e-3, 2e-3))
    x = rnd((2, 3))
    e = torch.zeros(0)
    refuse("native_layer_norm.out", x, [2], None, None, 1e-5, outs=[x, x, x])
    refuse("native_layer_norm.out", x, [3], rnd((2,)), None, 1e-5, outs=[x, x, x])
    refuse("native_group_norm.out", x, None, None, 2, 3, 1, 2, 1e-5, outs=[x, x, x])
    refuse("native_group_norm.out", x, None, None, 2, 3, 4, 1, 1e-5, outs=[x, x, x])
    refuse("_native_batch_norm_legit_no_training.out", x, None, None, rnd((2,)), rnd((3,)), 0.1, 1e-5, outs=[x, e, e])


def found():
    """What once went wrong: kept whatever is selected of the others."""
    x = rnd((2, 2, 6, 6), torch.int32)
    case("max_pool2d_with_indices.out", x, [3, 3], [2, 1], [1, 1], [1, 2], True)  # windows begin before the image, in steps of two
    b = torch.randint(0, 256, (1, 2, 5, 7), generator=gen, dtype=torch.uint8)
    for align in (False, True):
        case("upsample_bilinear2d.vec_out", b, [9, 4], align, tol=(0, 1))
        case("_upsample_bilinear2d_aa.out", b, [3, 4], align, tol=(0, 1))
    case("upsample_nearest2d.vec_out", torch.arange(12).view(1, 1, 3, 4) + 2**60, [6, 8], truth=(torch.arange(12).view(1, 1, 3, 4) + 2**60).repeat_interleave(2, 2).repeat_interleave(2, 3))
    x = torch.tensor([1, nan, -2, nan, 0.5, 3]).reshape(1, 1, 2, 3)  # a dimension that keeps its size asks no neighbours
    case("upsample_bilinear2d.vec_out", x, [2, 6], False, None)
    case("upsample_bilinear2d.vec_out", x, [5, 3], False, None)
    image, weight = torch.arange(60.0).reshape(1, 3, 4, 5).sin(), torch.arange(54.0).reshape(2, 3, 3, 3).cos()
    for pad, dilation in (([6, 5], [6, 5]), ([4, 0], [4, 1]), ([3, 9], [3, 7])):  # rows, columns or corners of taps never meet the image
        case("convolution.out", image, weight, None, [1, 2], pad, dilation, False, [0, 0], 1)
    line, rows = torch.arange(600.0).reshape(1, 2, 300).sin(), torch.arange(960.0).reshape(1, 2, 12, 40).sin()  # taps wider apart than a block
    for groups in (1, 2):
        w = torch.arange(36.0 // groups).cos()
        case("convolution.out", line, w[:12 // groups].reshape(2, 2 // groups, 3), None, [1], [110], [110], False, [0], groups)
        case("convolution.out", rows, w.reshape(2, 2 // groups, 3, 3), None, [2, 1], [11, 5], [11, 5], False, [0, 0], groups)


def select(most=10):
    """At most so many cases of an operator, spread over what there is, and none that is large."""
    by_name = {}
    for n, c in cases:
        if len(c) < 2500:
            by_name.setdefault(n, []).append((n, c))
    return [l[i * len(l) // min(len(l), most)] for l in by_name.values() for i in range(min(len(l), most))]


def main():
    global only
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--only")
    ap.add_argument("--more", action="store_true")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    only = a.only
    torch.set_num_threads(1)
    for family in FAMILIES:
        family(a.more)
    chosen = cases if a.more or a.only else select()
    known = len(cases)
    found()
    if chosen is not cases:
        chosen += cases[known:]
    with open(a.out, "wb") as f:
        f.write(b"ETOP1\n" + b"".join(c for _, c in chosen))
    print(f"{len(chosen)} of {len(cases)} cases of {len(seen_names)} operators", file=sys.stderr)
    if a.list:
        for i, (n, _) in enumerate(chosen):
            print(i, n)


FAMILIES = [unary, binary, shape, make, reduce, index, linear, image, norm]

if __name__ == "__main__":
    main()
