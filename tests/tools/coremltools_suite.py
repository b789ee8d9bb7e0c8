"""coremltools' own tests, with cml where Core ML would be.

    CML_BUILD=build python3 tests/tools/coremltools_suite.py [--every N] [pytest's arguments] [FOLDER or FILE below coremltools ...]

coremltools' wheel holds the tests that Apple runs on Macs. Elsewhere they convert models and stop there, for nothing can run them.
This script is a plugin of pytest that gives coremltools the module it looks for, libcoremlpython, made of libcml, and lets it believe
that it is on a Mac: each test then goes on to predict, and to compare with what NumPy or torch computes. No part of the ordinary suite:
all of it takes hours; --every 20 --part 3 runs one parametrisation in twenty of each test. Where a test allows float16 an error of 0.5,
because hardware might need it, this script asks for 0.02 and lists what only the former allows (LOOSE). --plain runs each model without
graph passes too, and lists where that gives something else.

Failures have to be read: models of other kinds, compute plans, devices and the words of Core ML's errors fail by nature.
"""
import ctypes as c
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import types
import zlib
from pathlib import Path

import numpy as np


class Error(c.Structure):
    _fields_ = [('status', c.c_int), ('offset', c.c_uint64), ('text', c.c_char * 480)]


class String(c.Structure):
    _fields_ = [('data', c.c_char_p), ('size', c.c_size_t)]


class Tensor(c.Structure):
    pass


Tensor._fields_ = [('dtype', c.c_int), ('rank', c.c_int32), ('dims', c.c_int64 * 16), ('data', c.c_void_p), ('list', c.c_void_p),
                   ('keys', c.POINTER(Tensor))]


class Feature(c.Structure):
    _fields_ = [('name', c.c_char_p), ('doc', c.c_char_p), ('kind', c.c_int), ('optional', c.c_bool), ('dtype', c.c_int), ('shape', c.c_void_p),
                ('rank', c.c_size_t), ('flexibility', c.c_int), ('ranges', c.c_void_p), ('shapes', c.c_void_p), ('shape_count', c.c_size_t),
                ('has_default', c.c_bool), ('default_value', c.c_double), ('color', c.c_int), ('key_is_string', c.c_bool)]


class Features(c.Structure):
    _fields_ = [('items', c.POINTER(Feature)), ('count', c.c_size_t)]

    def __iter__(self):
        return (self.items[i] for i in range(self.count))


class ContainerModel(c.Structure):
    _fields_ = [('method', c.c_char_p), ('function', c.c_char_p), ('delegate', c.c_size_t), ('tree', c.c_void_p), ('folder', c.c_void_p),
                ('root', c.c_void_p)]


class Options(c.Structure):
    _fields_ = [('function', c.c_char_p), ('passes', c.c_char_p), ('threads', c.c_size_t), ('cache', c.c_char_p), ('max_memory', c.c_uint64)]


INT64, DOUBLE, STRING, IMAGE = range(4)  # kinds of features
types_in_order = [None, 'float16', 'float32', 'float64', None, 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64',
                  'bool']
string_type = 14
build = Path(os.environ.get('CML_BUILD', 'build'))
lib = c.CDLL(str(build / 'libcml.so'))
lib.cml_container_model_at.restype = c.POINTER(ContainerModel)
for name in 'inputs', 'outputs', 'states':
    getattr(lib, 'cml_executable_' + name).restype = c.POINTER(Features)
for name in 'output', 'state':
    getattr(lib, 'cml_session_' + name).restype = c.POINTER(Tensor)


def call(function, *arguments):
    error = Error()
    if function(*arguments, c.byref(error)):
        raise RuntimeError(error.text.decode(errors='replace'))


def to_tensor(array):
    """What cml takes, and the array that owns the memory."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    tensor = Tensor(types_in_order.index(str(array.dtype)), array.ndim)
    tensor.dims[:array.ndim] = array.shape
    tensor.data = array.ctypes.data
    return tensor, array


def to_array(tensor):
    shape = tuple(tensor.dims[:tensor.rank])
    if tensor.dtype == string_type:
        strings = c.cast(tensor.data, c.POINTER(String))
        return np.array([strings[i].data.decode() for i in range(int(np.prod(shape)))], object).reshape(shape)
    dtype = np.dtype(types_in_order[tensor.dtype])
    count = int(np.prod(shape))
    return np.frombuffer(c.string_at(tensor.data, count * dtype.itemsize) if count else b'', dtype).reshape(shape).copy()


class Session:
    """A session, and what a state is to Core ML."""

    def __init__(self, model):
        self.model, self.handle = model, c.c_void_p()
        self.plain = Session(model.plain) if model.plain else None
        call(lib.cml_session_create, model.executable, c.byref(self.handle))

    def __del__(self):
        lib.cml_session_destroy(self.handle)

    def find(self, name):
        for i, state in enumerate(self.model.states):
            if state.name.decode() == name:
                return lib.cml_session_state(self.handle, c.c_size_t(i)).contents
        raise RuntimeError(f'there is no state {name}')

    def read_state(self, name):
        return to_array(self.find(name))

    def write_state(self, name, value):
        state = self.find(name)
        if tuple(state.dims[:state.rank]) != np.shape(value):
            raise RuntimeError(f'state {name} has another shape')
        value = np.ascontiguousarray(value, types_in_order[state.dtype])
        c.memmove(state.data, value.ctypes.data, value.nbytes)
        if self.plain:
            self.plain.write_state(name, value)

    def output(self, i, feature):
        tensor = lib.cml_session_output(self.handle, c.c_size_t(i)).contents
        value = to_array(tensor)
        if tensor.keys:
            return dict(zip(to_array(tensor.keys.contents).tolist(), value.tolist()))
        if feature.kind == IMAGE:
            from PIL import Image
            return Image.fromarray(value if value.dtype == np.uint8 else value.astype(np.float32))
        if feature.kind in (INT64, DOUBLE, STRING):
            return value.reshape(-1).tolist()[0]
        return value

    def predict(self, data):
        for name, value in data.items():
            tensor, keep = to_tensor(np.asarray(value))
            call(lib.cml_session_set_input, self.handle, name.encode(), c.byref(tensor))
        call(lib.cml_session_run, self.handle)
        outputs = {f.name.decode(): self.output(i, f) for i, f in enumerate(self.model.outputs)}
        if self.plain:
            compare_plain(outputs, self.plain.predict(data))
        return outputs


class Model:
    """What coremltools calls _MLModelProxy."""

    def __init__(self, path, units, function, hints, asset, passes=None):
        container, model, self.executable = c.c_void_p(), c.c_void_p(), c.c_void_p()
        call(lib.cml_container_open, os.fspath(asset.path if asset else path).encode(), None, c.byref(container))
        found = lib.cml_container_model_at(container, c.c_size_t(0)).contents
        call(lib.cml_model_read, c.c_void_p(found.tree), c.c_void_p(found.root), None, c.byref(model))
        options = Options(function=function.encode() or None, passes=passes, threads=1)
        call(lib.cml_executable_prepare, model, c.byref(options), c.byref(self.executable))
        self.owned = container, model
        for name in 'inputs', 'outputs', 'states':
            setattr(self, name, getattr(lib, 'cml_executable_' + name)(self.executable).contents)
        self.path = path
        self.plain = Model(path, units, function, hints, asset, b'') if without_passes and passes is None else None

    def __del__(self):
        if hasattr(self, 'owned'):
            lib.cml_executable_unref(self.executable)
            lib.cml_model_close(self.owned[1])
            lib.cml_container_close(self.owned[0])

    def predict(self, data, state=None):
        if self.states.count and state is None:
            raise RuntimeError('a model with states takes one to predict')
        return (state or Session(self)).predict(data)

    def batchPredict(self, many):
        return [self.predict(data) for data in many]

    def newState(self):
        return Session(self)

    def get_compiled_model_path(self):
        return self.compileModel(self.path)

    @staticmethod
    def compileModel(path):
        to = os.path.join(tempfile.mkdtemp(), Path(path).stem + '.mlmodelc')
        (shutil.copytree if os.path.isdir(path) else shutil.copy)(path, to)
        if os.path.isdir(path):
            with open(os.path.join(to, 'model.mil'), 'wb') as text:
                subprocess.run([build / 'tools' / 'cmlpack', 'cat', path, Path(path).name + '.view/model.mil'], stdout=text, check=True)
        return to

    @staticmethod
    def create_model_asset_from_path(path):
        return Asset(path)

    @staticmethod
    def maximum_supported_specification_version():
        return 10

    @staticmethod
    def auto_set_specification_version(spec):
        return spec


class Asset:
    def __init__(self, path):
        self.path = path


def pretend():
    """Lets coremltools load us where it looks for Core ML, and believe that this is a Mac."""
    module = types.ModuleType('coremltools.libcoremlpython')
    module._MLModelProxy, module._MLModelAssetProxy = Model, Asset
    for name in '_MLComputePlanProxy', '_MLCPUComputeDeviceProxy', '_MLGPUComputeDeviceProxy', '_MLNeuralEngineComputeDeviceProxy':
        setattr(module, name, type(name, (), {}))
    sys.modules[module.__name__] = module
    import platform
    import coremltools
    coremltools.models.utils._is_macos.__code__ = (lambda: True).__code__
    coremltools.models.utils._macos_version.__wrapped__.__code__ = (lambda: (26, 0)).__code__
    coremltools.models.utils._macos_version.cache_clear()
    platform.machine = lambda: 'arm64'
    for each in [m for n, m in sys.modules.items() if n.startswith('coremltools')]:
        for name in '_IS_MACOS', 'IS_MACOS':
            if hasattr(each, name):
                setattr(each, name, True)
    from coremltools.converters.mil import testing_utils
    testing_utils.assert_model_is_valid.__defaults__ = ('mlprogram', 'fp32'), False, None, None


loose = []
without_passes = '--plain' in sys.argv


def compare_plain(outputs, plain):
    """What graph passes change may differ by roundings."""
    for name, value in outputs.items():
        try:
            if isinstance(value, np.ndarray) and value.dtype != object:
                np.testing.assert_allclose(value, plain[name], 0.02, 0.02)
        except AssertionError as error:
            loose.append((os.environ.get('PYTEST_CURRENT_TEST'), f'with passes and without, {name}: {error}'))


def tighten():
    """float16 is let off with atol 0.5 and rtol 0.05, for the sake of hardware."""
    plain = np.testing.assert_allclose

    def assert_allclose(actual, desired, rtol=1e-7, atol=0, *rest, **named):
        if atol >= 0.5:
            try:
                return plain(actual, desired, 0.02, 0.02, *rest, **named)
            except AssertionError as error:
                loose.append((os.environ.get('PYTEST_CURRENT_TEST'), str(error)))
        if getattr(desired, 'dtype', None) == np.float16:  # the expectation itself was rounded, whatever the program computes in
            rtol, atol = max(rtol, 1e-3), max(atol, 1e-6)
        return plain(actual, desired, rtol, atol, *rest, **named)

    np.testing.assert_allclose = assert_allclose


# ---- pytest's hooks ----

def pytest_addoption(parser):
    parser.addoption('--every', type=int, default=1, help='run one parametrisation in N of each test')
    parser.addoption('--plain', action='store_true', help='run each model without graph passes too, and compare')
    parser.addoption('--part', type=int, default=0, help='with --every N: which, 0 to N-1')


def pytest_collection_modifyitems(config, items):
    every, part, seen, kept = config.getoption('--every'), config.getoption('--part'), set(), []
    for item in items:
        test = item.nodeid.partition('[')[0]
        if test not in seen or zlib.crc32(item.nodeid.encode()) % every == part:
            kept.append(item)
        seen.add(test)
    items[:] = kept


def pytest_terminal_summary(terminalreporter):
    for test, error in loose:
        terminalreporter.write_line(f'LOOSE {test}: ' + ' '.join(error.split()))


def main():
    import pytest
    os.environ.update(PYMIL_TEST_TARGETS='mlprogram', INCLUDE_MIL_FP32_UNIT_TESTS='1')
    root = Path(importlib.util.find_spec('coremltools').origin).parent
    arguments = [str(root / a) if (root / a.partition('::')[0]).exists() else a for a in sys.argv[1:]]
    if arguments == sys.argv[1:]:
        arguments.append(str(root / 'converters/mil/mil/ops/tests'))
    pretend()
    tighten()
    sys.exit(pytest.main(['-p', 'no:cacheprovider', '-q', '--tb=short', '-W', 'ignore', *arguments], plugins=[sys.modules['__main__']]))


if __name__ == '__main__':
    main()
