"""Files that cml writes, read and run by ExecuTorch itself.

Every .pte, .ptd and .bpte of tests/data/fuzz (and of ../shared/reference/pte with --all) is parsed and written by libcml;
ExecuTorch's Python package must read the same program from both files, and its runtime must give the same outputs for the
recorded inputs. Skipped where the executorch package is not installed; CML_PYTHON names an interpreter that has it.
"""
import ctypes as c
import os
import sys
from pathlib import Path

source = Path(os.environ.get("CML_SOURCE", "."))
build = Path(os.environ.get("CML_BUILD", "build"))
python = os.environ.get("CML_PYTHON")
if python and python != sys.executable:
    os.execv(python, [python, *sys.argv])

try:
    import numpy as np
    import torch
    from executorch.devtools.bundled_program.serialize import deserialize_from_flatbuffer_to_bundled_program
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.extension.flat_tensor.serialize.serialize import FlatTensorConfig, FlatTensorSerializer
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer
except ImportError as missing:
    print(f"1..0 # SKIP {missing}")
    sys.exit(0)


class Span(c.Structure):
    _fields_ = [("data", c.c_void_p), ("size", c.c_size_t)]


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("offset", c.c_uint64), ("text", c.c_char * 480)]


class Buffer(c.Structure):
    _fields_ = [("data", c.c_void_p), ("size", c.c_size_t), ("capacity", c.c_size_t), ("failed", c.c_bool)]


class Sink(c.Structure):
    _fields_ = [("write", c.c_void_p), ("context", c.c_void_p)]


lib = c.CDLL(str(build / "libcml.so"))
lib.cml_sink_to_buffer.restype = Sink


def rewrite(data, kind):
    """The bytes that cml writes for what it reads from `data`."""
    model, error, buffer = c.c_void_p(), Error(), Buffer()
    holder = c.create_string_buffer(data, len(data))
    span = Span(c.addressof(holder), len(data))
    options = {"pte": [c.c_void_p()], "ptd": [c.c_uint32(0)], "bpte": []}[kind]
    if getattr(lib, f"cml_{kind}_parse")(span, c.byref(model), c.byref(error)):
        raise ValueError(error.text.decode())
    sink = lib.cml_sink_to_buffer(c.byref(buffer))
    if getattr(lib, f"cml_{kind}_serialize")(model, *options, sink, c.byref(error)):
        raise ValueError(error.text.decode())
    result = c.string_at(buffer.data, buffer.size)
    lib.cml_buffer_free(c.byref(buffer))
    getattr(lib, f"cml_{kind}_destroy")(model)
    return result


def run(data, name):
    """Outputs of all recorded calls, or None where the runtime cannot run the program or there are no inputs."""
    folder = source / ".." / "shared" / "reference" / "pte" / name
    if not (folder / "inputs.npz").exists() or (folder / "model.ptd").exists() or b"CoreMLBackend" in data:
        return None
    inputs, outputs = np.load(folder / "inputs.npz"), []
    program = _load_for_executorch_from_buffer(data)
    for prefix in sorted({key[: key.rindex("input_")] for key in inputs}):
        count = sum(key.startswith(prefix + "input_") for key in inputs)
        arguments = tuple(torch.from_numpy(inputs[f"{prefix}input_{i}"]) for i in range(count))
        outputs += [o.numpy().copy() if torch.is_tensor(o) else np.array(o) for o in program.run_method("forward", arguments)]
    return outputs


def same_arrays(a, b):
    return len(a) == len(b) and all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b))


def check_pte(path):
    data = path.read_bytes()
    written = rewrite(data, "pte")
    assert repr(deserialize_pte_binary(data)) == repr(deserialize_pte_binary(written)), "another program"
    name = path.parent.name if path.name == "model.pte" else path.stem
    before, after = run(data, name), run(written, name)
    assert (before is None) == (after is None) and (before is None or same_arrays(before, after)), "other outputs"


def check_ptd(path):
    data = path.read_bytes()
    a, b = (FlatTensorSerializer(FlatTensorConfig()).deserialize(x) for x in (data, rewrite(data, "ptd")))
    assert [bytes(x) for x in a.buffers] == [bytes(x) for x in b.buffers], "other bytes"
    assert {k: repr(v.tensor_layout) for k, v in a.named_data.items()} == {k: repr(v.tensor_layout) for k, v in b.named_data.items()}


def check_bpte(path):
    data = path.read_bytes()
    a, b = (deserialize_from_flatbuffer_to_bundled_program(x) for x in (data, rewrite(data, "bpte")))
    assert repr(a) == repr(b), "another bundle"


files = sorted((source / "tests" / "data" / "fuzz").glob("*pt[ed]/*pt[ed]"))
if "--all" in sys.argv:
    files += sorted((source / ".." / "shared" / "reference" / "pte").glob("*/model.*pt[ed]"))
failed = 0
for number, path in enumerate(files, 1):
    try:
        {".pte": check_pte, ".ptd": check_ptd, ".bpte": check_bpte}[path.suffix](path)
        print(f"ok {number} - {path.parent.name}/{path.name}")
    except Exception as error:  # a missing kernel fails before and after; anything else is a finding
        if "method_meta" in str(error) or "Failed to" in str(error):
            print(f"ok {number} - {path.parent.name}/{path.name} # SKIP {error}".replace("\n", " "))
            continue
        failed += 1
        print(f"not ok {number} - {path.parent.name}/{path.name}: {error!r}".replace("\n", " "))
print(f"1..{len(files)}")
sys.exit(bool(failed))
