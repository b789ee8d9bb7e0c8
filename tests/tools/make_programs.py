#!/usr/bin/env python3
"""Makes the recorded programs of tests/data/et/programs: NAME.pte, where it has external data NAME.ptd (NAME1.ptd …), and NAME.npz, which holds for
each step S of a sequence (S:METHOD where steps call several methods) the inputs S/input_K and the outputs S/output_K of ExecuTorch's own runtime (of torch where that does not run the program on Linux:
Core ML delegates, other backends, convolutions with the channels last). check_programs.py runs cmlrun over them.

    python3 tests/tools/make_programs.py tests/data/et/programs [NAME ...]      (executorch 1.4.1, torch, coremltools)"""
import contextlib
import io
import logging
import os
import struct
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import numpy as np
import torch
from torch.export import Dim, export

with contextlib.redirect_stderr(io.StringIO()):
    import executorch.kernels.quantized  # noqa: F401
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
    from executorch.exir.backend.backend_api import to_backend
    from executorch.exir.backend.backend_details import BackendDetails, CompileSpec, PreprocessResult
    from executorch.exir.capture._config import ExecutorchBackendConfig
    from executorch.exir.passes import MemoryPlanningPass
    from executorch.exir.passes.init_mutable_pass import InitializedMutableBufferPass
    from executorch.extension.pybindings import portable_lib
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from executorch.runtime import Runtime, Verification
    import coremltools as ct

torch.manual_seed(5)
PROGRAMS = {}
LOOSE = EdgeCompileConfig(_check_ir_validity=False)


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def portable(model, inputs, dynamic=None, **options):
    edge = to_edge(export(model.eval(), inputs, dynamic_shapes=dynamic), compile_config=LOOSE)
    return edge.to_executorch(ExecutorchBackendConfig(**options)).buffer


class Made(bytes):
    """A program that comes with external data, whose steps call several methods, or whose delegates' outputs are given."""
    ptds, methods, given = (), None, None


def array(v):
    """Of bfloat16 as NumPy saves that of ml_dtypes: two bytes of nothing known."""
    v = v.detach().contiguous()
    return v.view(torch.int16).numpy().view("V2") if v.dtype == torch.bfloat16 else v.numpy()


def recorded(buffer, steps):
    """Outputs of the real runtime, step after step over one loaded method."""
    method = Runtime.get().load_program(buffer, verification=Verification.Minimal).load_method("forward")
    return buffer, steps, [[o.clone() if isinstance(o, torch.Tensor) else o for o in method.execute(list(s))] for s in steps]


def coreml(precision="float16", **options):
    specs = CoreMLBackend.generate_compile_specs(compute_precision=getattr(ct.precision, precision.upper()), minimum_deployment_target=ct.target.iOS18, **options)
    return specs


# ---- ExecuTorch's own operators ----

@program
def dynamic():
    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 8), torch.nn.Conv1d(8, 4, 3, padding=1)

        def forward(self, x):
            y = torch.nn.functional.gelu(self.a(x))
            y = self.b(y.transpose(1, 2))
            return y.mean(-1), torch.cat([y, -y], 1), y.argmax(-1)
    n = Dim("n", max=12)
    x = torch.randn(2, 12, 6)
    return recorded(portable(M(), (x,), ({1: n},)), [(x,), (torch.randn(2, 3, 6),), (torch.randn(2, 7, 6),)])


@program
def mutable():
    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.arange(4.0))
            self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

        def forward(self, x):
            self.total.add_(x)
            self.count.add_(1)
            return self.total / self.count, self.count * 10
    steps = [(torch.randn(4),) for _ in range(4)]
    return recorded(portable(M(), steps[0], emit_mutable_buffer_names=True), steps)


@program
def control():
    class M(torch.nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v * 2 + 1, lambda v: (v - 1).abs(), (x,)) + x

    steps = [(torch.tensor([1.0, 2, -0.5]),), (torch.tensor([-3.0, 1, 0.25]),)]
    return recorded(portable(M(), steps[0]), steps)


@program
def attention():
    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Linear(16, 16 + 2 * 8, bias=False)
            self.register_buffer("k", torch.zeros(1, 10, 2, 4))
            self.register_buffer("v", torch.zeros(1, 10, 2, 4))

        def forward(self, x, start):
            at = start.item()
            torch._check(at >= 0)
            torch._check(at < 10)
            q, k, v = self.qkv(x).split([16, 8, 8], -1)
            return torch.ops.llama.sdpa_with_kv_cache(q.reshape(1, -1, 4, 4), k.reshape(1, -1, 2, 4), v.reshape(1, -1, 2, 4), self.k, self.v,
                                                      at, x.shape[1], None, 0.0, True, None)
    steps = [(torch.randn(1, 1, 16), torch.tensor([i])) for i in range(4)]
    return recorded(portable(M(), steps[0]), steps)


@program
def quantized():
    q = torch.ops.quantized_decomposed

    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.randint(-128, 127, (12, 8), dtype=torch.int8))
            self.register_buffer("scales", torch.rand(12, 1) * 0.05 + 0.01)
            self.register_buffer("w", torch.randint(-8, 8, (6, 8), dtype=torch.int8))
            self.register_buffer("ws", torch.rand(6) * 0.1)

        def forward(self, i):
            x = q.embedding_byte.default(self.table, self.scales, None, -128, 127, i)
            y = q.dequantize_per_tensor.default(q.quantize_per_tensor.default(x, 0.05, 3, -128, 127, torch.int8), 0.05, 3, -128, 127, torch.int8)
            w = q.dequantize_per_channel.default(self.w, self.ws, torch.zeros(6, dtype=torch.int64), 0, -8, 7, torch.int8)
            return torch.nn.functional.linear(y, w)
    steps = [(torch.tensor([1, 5, 11]),), (torch.tensor([0, 0, 7]),)]
    edge = to_edge(export(M().eval(), steps[0]), compile_config=LOOSE)
    return recorded(edge.to_executorch().buffer, steps)


@program
def spectrum():
    class M(torch.nn.Module):
        def forward(self, x):
            f = torch.fft.rfft(x)
            return torch.fft.irfft(f * f, n=12), torch.ops.aten.view_as_real_copy(f), f.abs()
    steps = [(torch.randn(2, 12),), (torch.randn(2, 12),)]
    return recorded(portable(M(), steps[0]), steps)


@program
def channels_last():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.BatchNorm2d(5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(5, 4, 1))

    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m = model

        def forward(self, x):
            return self.m(x.to(memory_format=torch.channels_last)).contiguous()
    steps = [(torch.randn(1, 3, 6, 8),), (torch.randn(1, 3, 6, 8),)]
    return portable(M(), steps[0]), steps, [[M().eval()(*s)] for s in steps]  # the wheel's convolution takes no channels last


# ---- Core ML delegates ----

def delegated(model, steps, dynamic=None, **options):
    partitioner = CoreMLPartitioner(compile_specs=coreml(**options.pop("specs", {})), **options)
    model.eval()
    with torch.no_grad():
        expected = [model(*s) for s in steps]
    edge = to_edge_transform_and_lower(export(model, steps[0], dynamic_shapes=dynamic), partitioner=[partitioner], compile_config=LOOSE)
    return edge.to_executorch().buffer, steps, [list(e) if isinstance(e, (tuple, list)) else [e] for e in expected]


@program
def mixed():
    """Two delegates with operators between and behind them."""
    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 6), torch.nn.Linear(6, 4)

        def forward(self, x):
            y = torch.relu(self.a(x))
            y = y.topk(6).values
            return torch.tanh(self.b(y)), y.argmax(-1)
    steps = [(torch.randn(2, 6),), (torch.randn(2, 6),)]
    return delegated(M(), steps, skip_ops_for_coreml_delegation=["aten.topk.default", "aten.argmax.default"],
                     specs={"precision": "float32", "compute_unit": ct.ComputeUnit.CPU_AND_NE})


@program
def ranged():
    """A delegate whose shapes are a range, called with several."""
    n = Dim("n", min=2, max=9)
    return delegated(torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Sigmoid(), torch.nn.Linear(7, 3)),
                     [(torch.randn(9, 5),), (torch.randn(2, 5),), (torch.randn(4, 5),)], ({0: n},), specs={"precision": "float32"})


class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.l = torch.nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.l(x))


class Thrice(torch.nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        y = self.cell(self.cell(x).cumsum(-1))
        return self.cell(x + y), torch.cond(y.sum() > 0, torch.sin, torch.cos, (y,))


@program
def called_thrice():
    """One delegate, of dynamic shape, that is called three times with operators between."""
    cell, n = Cell().eval(), {0: Dim("n", min=2, max=6)}
    steps = [(torch.randn(k, 4),) for k in (6, 2, 5)]
    lowered = to_backend("CoreMLBackend", to_edge(export(cell, steps[0], dynamic_shapes=(n,)), compile_config=LOOSE).exported_program(), coreml("float32"))
    with torch.no_grad():
        expected = [list(Thrice(cell)(*s)) for s in steps]
    return portable(Thrice(lowered), steps[0], (n,)), steps, expected


# ---- several methods, external data ----

class Shared(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(2, 4))
        self.register_buffer("count", torch.ones(1))
        self.l = torch.nn.Linear(4, 4)

    def prefill(self, x):
        self.seen.copy_(self.l(x))
        self.count.add_(1)
        return x * self.count

    def decode(self, x):
        self.seen.add_(x)
        return self.seen * self.count


class Method(torch.nn.Module):
    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x):
        return getattr(self.model, self.name)(x)


@program
def shared_buffers():
    """Two methods over the same buffers, one of which has an initial value. The wheel's Module keeps them apart: torch's values."""
    with torch.no_grad():
        model, names, steps = Shared().eval(), ["prefill", "decode", "decode", "prefill", "decode"], [(torch.randn(2, 4),) for _ in range(5)]
        methods = {n: export(Method(model, n), steps[0]) for n in ("prefill", "decode")}
        config = ExecutorchBackendConfig(memory_planning_pass=MemoryPlanningPass(share_mutable_buffers=True),
                                         passes=[InitializedMutableBufferPass(["count"])])
        made = Made(to_edge(methods, compile_config=LOOSE).to_executorch(config).buffer)
        made.methods = names
        return made, steps, [[getattr(model, n)(*s).clone()] for n, s in zip(names, steps)]


@program
def external():
    """Weights and a table in a .ptd, a mutable buffer and a constant in the program."""
    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.l = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)
            self.register_buffer("total", torch.zeros(3))

        def forward(self, i):
            self.total.add_(self.l(self.e(i)).sum(0).detach())
            return self.total * torch.tensor([1.0, 2, 3])
    steps = [(torch.randint(0, 9, (5,)),) for _ in range(3)]
    done = to_edge(export(M().eval().requires_grad_(False), steps[0]), compile_config=LOOSE).to_executorch(
        ExecutorchBackendConfig(external_constants=lambda n: "weights" if "weight" in n.name else None))
    made = Made(done.buffer)
    made.ptds = [bytes(done._tensor_data["weights"])]
    method = portable_lib._load_for_executorch_from_buffer(done.buffer, data_map_buffer=made.ptds[0])
    return made, steps, [[o.clone() for o in method.forward(s)] for s in steps]


@program
def external_parts():
    """A layer in a .ptd of its own each; torch's outputs."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).eval().requires_grad_(False)
    x = torch.randn(2, 4)
    done = to_edge(export(model, (x,)), compile_config=LOOSE).to_executorch(ExecutorchBackendConfig(external_constants=lambda n: "ab"[n.name.startswith("p_2")]))
    made = Made(done.buffer)
    made.ptds = [bytes(done._tensor_data[k]) for k in "ab"]
    return made, [(x,)], [[model(x)]]


# ---- a backend of one's own ----

class ScaleBackend(BackendDetails):
    """Multiplies by a number: that of its compile spec, which is also all of its bytes."""
    @staticmethod
    def preprocess(edge_program, compile_specs):
        return PreprocessResult(processed_bytes=compile_specs[0].value)


@program
def scale():
    class Inner(torch.nn.Module):
        def forward(self, x):
            return x * 3

    class M(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            y = self.inner(x) + x
            return self.inner(y) - 1
    x = torch.tensor([[1.0, -2, 0.5]])
    inner = to_backend("ScaleBackend", to_edge(export(Inner(), (x,)), compile_config=LOOSE).exported_program(), [CompileSpec("factor", struct.pack("<f", 3))])
    return portable(M(inner), (x,)), [(x,)], [[(x * 3 + x) * 3 - 1]]


@program
def xnnpack():
    """Two methods lowered to XNNPACK, what its delegates give beside the outputs."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    class M(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)

        def hidden(self, x):
            return torch.relu(self.a(x))

        def forward(self, x):
            h = self.hidden(x)
            i = h.topk(2, -1)[1]
            return self.b(h + i.sum(-1, keepdim=True).to(torch.float32)).softmax(-1), i

    class N(torch.nn.Module):
        def forward(self, x, y):
            return torch.cumsum(x * y + 1, 0), torch.sigmoid(x)
    m, n, x, y = M().eval(), N(), torch.randn(4, 6), torch.randn(3, 3)
    methods = {"forward": export(m, (x,), dynamic_shapes={"x": {0: Dim("t", min=1, max=9)}}), "other": export(n, (y, y + 1))}
    made = Made(to_edge_transform_and_lower(methods, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
    made.methods = ["forward", "other"]
    outputs = [m(x), n(y, y + 1)]
    made.given = [{"delegate_0/output_0": m.hidden(x), "delegate_1/output_0": outputs[0][0]},
                  {"delegate_0/output_0": y * (y + 1) + 1, "delegate_0/output_1": outputs[1][1]}]
    return made, [(x,), (y, y + 1)], outputs


@program
def bfloat():
    class M(torch.nn.Module):
        def forward(self, x, y):
            return x * 2 + y, (x + y).to(torch.float32)
    x, y = torch.tensor([[1.5, -3, 0.007]]).bfloat16(), torch.tensor([[100.0, 0.25, -0.0073]]).bfloat16()
    return portable(M(), (x, y)), [(x, y)], [[(x * 2 + y).float(), (x + y).float()]]


@program
def parts():
    """Complex tensors in and out, which the wheel's Python runtime does not take."""
    class M(torch.nn.Module):
        def forward(self, z, x):
            return torch.fft.irfft(z), z - 1, z.reshape(-1), torch.fft.rfft(x), torch.fft.rfft(x.double(), dim=0), torch.view_as_real(z * z)
    x = torch.randn(4, 6)
    steps = [(torch.randn(n, 9, dtype=torch.complex64), x) for n in (5, 2)]
    return portable(M(), steps[0], ({0: Dim("n", max=5)}, None)), steps, [M()(*s) for s in steps]


def main():
    folder, wanted = sys.argv[1], sys.argv[2:]
    os.makedirs(folder, exist_ok=True)
    for name in wanted or PROGRAMS:
        with contextlib.redirect_stderr(io.StringIO()):
            buffer, steps, outputs = PROGRAMS[name]()
        with open(os.path.join(folder, name + ".pte"), "wb") as f:
            f.write(buffer)
        names = [f"{s}:{m}" for s, m in enumerate(buffer.methods)] if getattr(buffer, "methods", None) else range(len(steps))
        for k, ptd in enumerate(getattr(buffer, "ptds", ())):
            with open(os.path.join(folder, f"{name}{'' if k == 0 else k}.ptd"), "wb") as f:
                f.write(ptd)
        arrays = {f"{s}/{n}": array(v) for s, given in zip(names, getattr(buffer, "given", None) or []) for n, v in given.items()}
        arrays |= {f"{s}/input_{i}": array(v) for s, step in zip(names, steps) for i, v in enumerate(step)}
        arrays |= {f"{s}/output_{i}": array(v) for s, step in zip(names, outputs) for i, v in enumerate(step) if isinstance(v, torch.Tensor)}
        np.savez(os.path.join(folder, name + ".npz"), **arrays)
        print(name, len(buffer), "bytes", len(steps), "steps")


if __name__ == "__main__":
    main()
