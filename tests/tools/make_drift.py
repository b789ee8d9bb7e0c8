#!/usr/bin/env python3
"""Makes tests/data/et/drift-*.pte and drift.npz, one net four times, for what check_programs.py asks of cmlrun compare: in float; with
8 bits, where the quantizer folds the normalisation into the convolution; with 8 bits and the scale of one activation wrong; as a Core ML
delegate, with one layer's weights changed.

    python3 tests/tools/make_drift.py tests/data/et      (executorch 1.4.1, torchao, coremltools)"""
import copy
import os
import sys

import coremltools as ct
import executorch.kernels.quantized  # noqa: F401
import numpy as np
import torch
from executorch.backends.apple.coreml.compiler import CoreMLBackend
from executorch.backends.apple.coreml.partition import CoreMLPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import EdgeCompileConfig, to_edge, to_edge_transform_and_lower
from torch.export import export
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

torch.manual_seed(0)
LOOSE = EdgeCompileConfig(_check_ir_validity=False)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.n = torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4)
        self.a, self.b = torch.nn.Linear(64, 8), torch.nn.Linear(8, 3)
        self.n.running_mean.uniform_(-0.5, 0.5), self.n.running_var.uniform_(0.5, 2), self.n.weight.data.uniform_(0.5, 2)

    def forward(self, x):
        x = torch.relu(self.n(self.c(x)))
        return torch.softmax(self.b(torch.tanh(self.a(x.flatten(1)))), -1)


def quantized(net, x, wrong=None):
    p = prepare_pt2e(export(net, x).module(), XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True)))
    for _ in range(8):
        p(torch.randn(1, 2, 4, 4))
    p(*x)
    q = convert_pt2e(p)
    for n in q.graph.nodes:
        if wrong and n.name in wrong:
            n.args = (n.args[0], n.args[1] / 6, *n.args[2:])
    q.recompile()
    return to_edge(export(q, x), compile_config=LOOSE)


def main():
    net, x = Net().eval(), (torch.randn(1, 2, 4, 4),)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed.a.weight.mul_(1.5)
    specs = CoreMLBackend.generate_compile_specs(compute_precision=ct.precision.FLOAT16, minimum_deployment_target=ct.target.iOS18)
    made = {"float": to_edge(export(net, x), compile_config=LOOSE), "q8": quantized(net, x),
            "scale": quantized(net, x, ("quantize_per_tensor_default_1", "dequantize_per_tensor_default_1")),
            "coreml": to_edge_transform_and_lower(export(changed, x), partitioner=[CoreMLPartitioner(compile_specs=specs)], compile_config=LOOSE)}
    for name, edge in made.items():
        with open(os.path.join(sys.argv[1], f"drift-{name}.pte"), "wb") as f:
            f.write(edge.to_executorch().buffer)
    np.savez(os.path.join(sys.argv[1], "drift.npz"), input_0=x[0].numpy())


if __name__ == "__main__":
    main()
