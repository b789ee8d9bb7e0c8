"""load_package.py NEW [OLD]: coremltools loads NEW as a specification and as a MIL program; with OLD, both are the same program."""
import os
import sys

import numpy as np
import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load


def load_program(path):
    spec = ct.models.utils.load_spec(path)
    weights = os.path.join(path, "Data", "com.apple.CoreML", "weights")
    return spec, load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)


def constants(program):
    for name, function in sorted(program.functions.items()):
        for op in function.operations:
            for output in op.outputs:
                if op.op_type == "const" or op.op_type.startswith("constexpr_"):
                    yield name, output.name, op.inputs if op.op_type != "const" else {"val": output}


new_spec, new = load_program(sys.argv[1])
if len(sys.argv) > 2:
    old_spec, old = load_program(sys.argv[2])
    assert new_spec.description == old_spec.description
    pairs = list(zip(constants(new), constants(old), strict=True))
    assert pairs
    for (f, _, a), (g, _, b) in pairs:
        assert (f, a.keys()) == (g, b.keys())  # inline values get names from a counter
        for key in a:
            np.testing.assert_array_equal(a[key].val, b[key].val)
