"""Kernels and adapter under the address and undefined-behaviour sanitizers; run by `make asan`.

    python tests/ops/sanitized.py

Builds build/ops-sanitized and runs, each in a process of its own that has libasan preloaded:
every kernel of every instruction set of this processor on blocks of exactly the right size; the
functions of src/operators/mxnet/abi.cc, called as MXNet calls them and with what it should not
give them; and the operators' tests in MXNet.  Before that, two planted faults must be found.
Exit status 0 if there is nothing to report.
"""
import argparse
import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SANITIZE = 'address,undefined'
CLOSING = 'sanitizers: nothing to report'


def load(path, name):
    """A module by its file: d2l.ops._native without d2l.ops and so without MXNet, and setup.py."""
    spec = importlib.util.spec_from_file_location(name, str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HERE = Path(__file__).parent
native = load(ROOT / 'd2l' / 'ops' / '_native.py', 'native_of_sanitized')
CASES = load(HERE / 'sanitized_cases.py', 'cases_of_sanitized').CASES
memory = load(HERE / 'sanitized_memory.py', 'memory_of_sanitized')
Heap, array_at = memory.Heap, memory.array_at


# --- The kernels, through the plain C interface ---------------------------------------------------

def drive_kernels(library):
    gomp = ctypes.CDLL('libgomp.so.1')
    library.d2l_op_name.restype = library.d2l_op_target.restype = ctypes.c_char_p
    runs, index = 0, 0
    while library.d2l_op_name(index) is not None:
        name, target = library.d2l_op_name(index).decode(), library.d2l_op_target(index).decode()
        index += 1
        if not library.d2l_cpu_supports(target.encode()):
            continue
        kernel, rng = native.Kernel(library, name, target), np.random.default_rng(0)
        for dtype in ('float32', 'float64', 'float16'):
            for arrays, attrs in CASES[name](rng, dtype):
                for threads in (1, 3) if arrays[0].size > 20000 else (1,):
                    for shift in (0, 1):
                        gomp.omp_set_num_threads(threads)
                        with Heap(shift) as heap:
                            run_kernel(kernel, heap, arrays, attrs)
                        runs += 1
    return runs


def each(arrays, function):
    """Of every array; None for an optional input that is not there."""
    return [None if array is None else function(array) for array in arrays]


def run_kernel(kernel, heap, arrays, attrs):
    """Forward and backward; an output that is not written wholly still holds a NaN."""
    def tensors(shapes_and_dtypes):
        return [native.Tensor.of(heap.empty(shape, dtype), dtype, shape)
                for shape, dtype in shapes_and_dtypes]
    attrs = {**native.given(arrays), **attrs}
    inputs = each(arrays, lambda a: native.Tensor.of(heap.put(a), a.dtype, a.shape))
    _, specs, workspace = kernel.infer(inputs, **attrs)
    specs = [(t.shape, t.dtype_name) for t in specs]
    outputs = tensors(specs)
    kernel.run(None, inputs, outputs, None, heap.workspace(workspace[0]), **attrs)
    heads = [native.Tensor.of(heap.put(np.ones(shape, dtype)), dtype, shape)
             for shape, dtype in specs]
    grads = []
    if not kernel.updates:
        grads = each(arrays, lambda a: native.Tensor.of(heap.empty(a.shape, a.dtype), a.dtype,
                                                        a.shape))
        kernel.run(heads, inputs, outputs, grads, heap.workspace(workspace[1]), **attrs)
    heap.check_fences()
    if all(a is None or a.size for a in arrays):
        for tensor in outputs + [grad for grad in grads if grad is not None]:
            got = array_at(tensor.data, tensor.shape, tensor.dtype_name)
            assert not np.isnan(got).any(), 'not all of {} {} was written'.format(
                got.dtype, got.shape)


# --- The adapter, as MXNet calls it ---------------------------------------------------------------

class Refused(Exception):
    """A function of the adapter reported failure; the text is its message."""


class Adapter:
    """The operators that a library registers; every array handed over is a block of its own."""

    def __init__(self, library):
        self.c, self.heap = library, Heap()
        self._check(library.initialize(10901))
        self.entries = {}
        for index in range(library._opRegSize()):
            name = ctypes.c_char_p()
            numbers = [ctypes.c_int() for _ in range(4)]
            pointers = [ctypes.c_void_p() for _ in range(11)]
            is_subgraph, forwards, backwards, creates = map(ctypes.byref, numbers)
            p = [ctypes.byref(pointer) for pointer in pointers]
            library._opRegGet(index, ctypes.byref(name), is_subgraph, p[0], p[1], forwards, p[2],
                              p[3], backwards, p[4], p[5], creates, *p[6:])
            kernels = [ctypes.c_void_p.from_address(pointers[i].value).value for i in (1, 3)]
            self.entries[name.value.decode().replace('_npx_d2l_', '')] = dict(
                parse=pointers[6], type=pointers[7], shape=pointers[9], mutate=pointers[10],
                kernels=kernels)

    def _check(self, succeeded):
        if self.c._msgSize() != (0 if succeeded else 1):
            raise AssertionError('{} messages'.format(self.c._msgSize()))
        if not succeeded:
            text = ctypes.c_char_p()
            self.c._msgGet(0, ctypes.byref(text))
            raise Refused(text.value.decode())

    def _numbers(self, values, dtype='int32'):
        return ctypes.c_void_p(self.heap.put(np.array(values, dtype)))

    def _attrs(self, attrs):
        def texts(values):
            return self._numbers([self.heap.put(np.frombuffer(str(v).encode() + b'\0', 'uint8'))
                                  for v in values], 'int64')
        return texts(attrs), texts(attrs.values()), len(attrs)

    def parse(self, name, attrs):
        counts = ctypes.c_int(), ctypes.c_int()
        self._check(self.c._opCallParseAttrs(self.entries[name]['parse'], *self._attrs(attrs),
                                             *map(ctypes.byref, counts)))
        return counts[0].value, counts[1].value

    def infer_shape(self, name, attrs, shapes, num_outputs):
        """None stands for an unknown shape."""
        dims = self._numbers([self.heap.put(np.array(s or (), 'int32')) or 0 for s in shapes],
                             'int64')
        axes = self._numbers([-1 if s is None else len(s) for s in shapes])
        given = [ctypes.c_void_p() for _ in range(4)]
        self._check(self.c._opCallInferShape(
            self.entries[name]['shape'], *self._attrs(attrs), dims, axes, len(shapes),
            *map(ctypes.byref, given), num_outputs))
        return (self._take_shapes(given[0], given[1], len(shapes)),
                self._take_shapes(given[2], given[3], num_outputs))

    def _take_shapes(self, dims, axes, count):
        """What the adapter allocated, which it must be able to free as MXNet asks it to."""
        rows = (ctypes.c_void_p * count).from_address(dims.value)
        found = [tuple(array_at(row, (ndim,), 'int32')) for row, ndim in zip(
            rows, array_at(axes.value, (count,), 'int32'))]
        for pointer in list(rows) + [dims, axes]:
            self.c._opCallFree(ctypes.c_void_p(getattr(pointer, 'value', pointer)))
        return found

    def infer_type(self, name, attrs, types, num_outputs):
        given, found = self._numbers(types), self._numbers([-9] * num_outputs)
        self._check(self.c._opCallInferType(
            self.entries[name]['type'], *self._attrs(attrs), given, len(types), found,
            num_outputs))
        return array_at(found.value, (num_outputs,), 'int32').tolist()

    def changed_inputs(self, name, attrs):
        indices, count = ctypes.c_void_p(), ctypes.c_int()
        self._check(self.c._opCallMutateInputs(
            self.entries[name]['mutate'], *self._attrs(attrs), ctypes.byref(indices),
            ctypes.byref(count)))
        found = array_at(indices.value, (count.value,), 'int32').tolist()
        self.c._opCallFree(indices)
        return found

    def compute(self, name, backward, attrs, inputs, outputs, storage=0):
        """inputs and outputs: triples of address, MXNet's type and shape."""
        def tensors(triples):
            shapes = [self.heap.put(np.array(s, 'int64')) or 0 for _, _, s in triples]
            return (self._numbers(shapes, 'int64'), self._numbers([len(s) for _, _, s in triples]),
                    self._numbers([address or 0 for address, _, _ in triples], 'int64'),
                    self._numbers([dtype for _, dtype, _ in triples]), None, None, None,
                    len(triples))
        malloc_type = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        malloc = malloc_type(lambda _, size: self.heap.libc.malloc(size))
        none = [None] * 10
        self._check(self.c._opCallFCompute(
            ctypes.c_void_p(self.entries[name]['kernels'][backward]), *self._attrs(attrs),
            *tensors(inputs), *tensors(outputs), malloc, None, malloc, None, None, None, None,
            self._numbers([storage] * len(inputs)), self._numbers([storage] * len(outputs)),
            *none))

    def run(self, name, arrays, attrs):
        """All that MXNet does for one call and its gradient."""
        attrs = {**native.given(arrays), **attrs}
        arrays = [a for a in arrays if a is not None]
        num_inputs, num_outputs = self.parse(name, attrs)
        assert num_inputs == len(arrays)
        types = [native.DTYPES[str(a.dtype)] for a in arrays]
        out_types = self.infer_type(name, attrs, types, num_outputs)
        same, shapes = self.infer_shape(name, attrs, [a.shape for a in arrays], num_outputs)
        assert same == [a.shape for a in arrays]
        inputs = [(self.heap.put(a), t, a.shape) for a, t in zip(arrays, types)]
        outputs = [(self.heap.empty(s, native.NAMES[t]), t, s) for s, t in zip(shapes, out_types)]
        self.compute(name, 0, attrs, inputs, outputs)
        if self.entries[name]['mutate']:
            changed = self.changed_inputs(name, attrs)
            assert changed and changed == sorted(set(changed)) and changed[-1] < num_inputs
        else:
            heads = [(self.heap.put(np.ones(s, native.NAMES[t])), t, s) for _, t, s in outputs]
            grads = [(self.heap.empty(s, native.NAMES[t]), t, s) for _, t, s in inputs]
            self.compute(name, 1, attrs, heads + inputs + outputs, grads)
        for storage in (1, 2):
            must_refuse('sparse', self.compute, name, 0, attrs, inputs, outputs, storage)
        must_refuse('no_such', self.compute, name, 0, {**attrs, 'no_such': 1}, inputs, outputs)
        long = [(address, t, (1,) * 13) for address, t, _ in inputs]
        must_refuse('12 axes', self.compute, name, 0, attrs, long, outputs)
        must_refuse('inputs, got', self.compute, name, 1, attrs, inputs * 40, outputs)
        must_refuse('inputs, got', self.compute, name, 0, attrs, inputs[1:], outputs)


BAD_ATTRIBUTES = [{'no_such': 1}, {'': ''}, {'x' * 3000: 'y' * 3000}, {'%s%n': '%s%n'},
                  {'\u00e9' * 400: 1}]
BAD_ATTRIBUTES += [{'k{}'.format(i): i for i in range(n)} for n in (63, 64, 65, 300)]


def must_refuse(words, function, *args):
    try:
        result = function(*args)
    except Refused as error:
        assert words in str(error), 'no {!r} in {!r}'.format(words, str(error))
    else:
        raise AssertionError('accepted: {} {}, with result {}'.format(words, args, result))


def drive_adapter(library):
    assert library._opVersion() == 11
    assert not library.initialize(10800) and library._msgSize() == 1
    adapter = Adapter(library)
    for name in adapter.entries:
        rng = np.random.default_rng(0)
        cases = [case for dtype in ('float32', 'float64', 'float16')
                 for case in CASES[name](rng, dtype) if case[0][0].size < 2000]
        for arrays, attrs in cases:
            with Heap() as adapter.heap:
                adapter.run(name, arrays, attrs)
        arrays, attrs = next(case for case in reversed(cases)
                             if all(a is not None for a in case[0]))
        integers = any(case[0][0].dtype.kind != 'f' for case in cases)
        with Heap() as adapter.heap:
            bad_calls(adapter, name, [a.shape for a in arrays], attrs, integers)
    return len(adapter.entries)


def bad_calls(adapter, name, shapes, attrs, integers):
    """Whatever MXNet may be brought to ask for, by users or by a graph read from a file.

    integers: whether the first input may have them.
    """
    inputs, outputs = adapter.parse(name, attrs)
    for bad in BAD_ATTRIBUTES:
        bad = {**attrs, **bad}
        must_refuse(name, adapter.parse, name, bad)
        must_refuse(name, adapter.infer_type, name, bad, [0] * inputs, outputs)
        must_refuse(name, adapter.infer_shape, name, bad, shapes, outputs)
    for axes in (13, 14, 100, 1000):
        for i in range(inputs):
            many = shapes[:i] + [(1,) * axes] + shapes[i + 1:]
            must_refuse('12 axes', adapter.infer_shape, name, attrs, many, outputs)
    unknown = [[None] * inputs, [None] + shapes[1:], [(-1,) * len(shapes[0])] + shapes[1:]]
    for wrong in unknown:
        must_refuse(name, adapter.infer_shape, name, attrs, wrong, outputs)
    for n in (0, 1, inputs - 1, inputs + 1, 17, 100):
        if n != inputs:
            must_refuse('inputs', adapter.infer_shape, name, attrs, (shapes * n)[:n], outputs)
            must_refuse('inputs', adapter.infer_type, name, attrs, [0] * n, outputs)
    for dtype in (*(() if integers else (3, 4)), 7, 12, 100, -2, 2 ** 31 - 1, -2 ** 31):
        must_refuse(name, adapter.infer_type, name, attrs, [dtype] * inputs, outputs)


# --- Builds, processes and planted faults ---------------------------------------------------------

def drive_parser(library):
    """Word vectors, cut off or spoiled at every byte, in memory that ends where the text does."""
    library.d2l_parse_vectors.restype = ctypes.c_int64
    text = b'a 0.25 -1.5e-3\nword 12345678.875 .5\n\xff -7 0.12345678 \r\n'
    texts = [text] + [text[:i] + b'\n' for i in range(len(text))]
    texts += [text[:i] + c + text[i + 1:-1] + b'\n' for i in range(len(text)) for c in
              (b' ', b'.', b'e', b'\n', b'9', b'-', b'99999999999999999999999')]
    for text in texts:
        with Heap() as heap:
            chars = heap.put(np.frombuffer(text, 'uint8'))
            rows = heap.empty((text.count(b'\n'), 2), np.dtype('float32'))
            library.d2l_parse_vectors(ctypes.c_void_p(chars), ctypes.c_int64(len(text)),
                                      ctypes.c_int64(2), ctypes.c_void_p(rows),
                                      ctypes.c_void_p(heap.empty((len(text),), np.dtype('uint8'))))
    return len(texts) + number_cells(library, texts[:len(text) + 1])


def number_cells(library, texts):
    """The same as tables, under right and wrong sizes."""
    library.d2l_number_cells.restype = ctypes.c_int64
    sizes = [(text, rows, 3) for text in texts for rows in (0, 1, text.count(b'\n'), 9)]
    for text, rows, columns in [(text.replace(b' ', b'\t'), *size) for text, *size in sizes]:
        with Heap() as heap:
            library.d2l_number_cells(
                ctypes.c_void_p(heap.put(np.frombuffer(text, 'uint8'))),
                *map(ctypes.c_int64, (len(text), rows, columns)),
                ctypes.c_void_p(heap.empty((rows, columns), np.dtype('int32'))),
                ctypes.c_void_p(heap.empty((rows * columns, 3), np.dtype('int64'))))
    return len(sizes)


FAULTS = [
    # One element too many in the loop that writes a row; the kernels must show it.
    ('kernels', 'layer_norm.h', 'layer_norm.cc', 'v2', 'store_row(cols, y, ',
     'store_row(cols + 1, y, ', 'heap-buffer-overflow'),
    # A shift by 64 and more; the adapter must show it.
    ('adapter', 'common/params.cc', 'common/params.cc', 'common',
     'i < count_ && i < kMostAttrs; ++i) {\n    // Names', 'i < count_; ++i) {\n    // Names',
     'runtime error: shift exponent'),
    # Ten or eight bytes read where fewer are left; the parsers must show it.
    ('parser', 'common/vectors.cc', 'common/vectors.cc', 'common', 'end - p > 10', 'end > p',
     'heap-buffer-overflow'),
    ('parser', 'common/cells.cc', 'common/cells.cc', 'common', 'end - p >= 8', 'end > p',
     'heap-buffer-overflow'),
]


def runtime():
    """What to preload, or None where the compiler has no sanitizers."""
    cxx = shlex.split(os.environ.get('CXX', 'g++'))
    paths = []
    for name in ('libasan.so', 'libstdc++.so'):  # the second for exceptions that MXNet throws
        try:
            paths.append(subprocess.check_output(cxx + ['-print-file-name=' + name],
                                                 text=True).strip())
        except (OSError, subprocess.CalledProcessError):
            return None
    return ' '.join(paths) if all(map(os.path.isabs, paths)) else None


def build():
    """The sanitized library and the folder of its objects."""
    setup = load(ROOT / 'setup.py', 'setup_of_sanitized')
    folder = ROOT / 'build' / 'ops-sanitized'
    library = folder / setup.LIBRARY.name
    setup.Build(folder, library, SANITIZE).run()
    return folder, library


def plant(fault, objects, folder):
    """The library with a fault in one of its objects."""
    _, file, source, target, right, wrong, _ = fault
    setup = load(ROOT / 'setup.py', 'setup_of_fault')
    shutil.copytree(str(setup.SOURCES), str(folder / 'src'))
    setup.SOURCES = folder / 'src'
    text = (setup.SOURCES / file).read_text()
    if text.count(right) != 1:
        raise AssertionError('no place to plant a fault in {}: {!r}'.format(file, right))
    (setup.SOURCES / file).write_text(text.replace(right, wrong))
    faulty = setup.Build(folder / 'objects', folder / 'libfaulty.so', SANITIZE)
    options = shlex.split(setup.TARGETS.get(target, ''))
    out = faulty.compile(setup.SOURCES / source, target, options)
    stem = out.name.split('.')[0] + '.'
    others = [o for o in objects.glob('*.o') if not o.name.startswith(stem)]
    faulty.execute(faulty.cxx + faulty.link + [str(o) for o in others + [out]]
                   + ['-ldl', '-lpthread'], faulty.library, others + [out])
    return faulty.library


def run(command, preload, library):
    """Exit status and output of a process under the sanitizers; 1 if there was any report."""
    environment = dict(
        os.environ, LD_PRELOAD=preload, D2L_OPS_LIBRARY=str(library), PYTHONPATH=str(ROOT),
        ASAN_OPTIONS='detect_leaks=0', UBSAN_OPTIONS='halt_on_error=1:print_stacktrace=1',
        OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable] + command, cwd=str(ROOT), env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    reported = 'AddressSanitizer' in done.stdout or 'runtime error: ' in done.stdout
    return done.returncode or int(reported), done.stdout


def battery():
    """The operators' quick tests in MXNet, but for those that need no MXNet, as --drive does.

    Those that take long for each dtype run for one, since the code is the same.
    And those of the functions that read Python's objects and text, which --drive does not call.
    """
    own = ('test_sanitized.py', 'test_build.py', 'test_vec_math.py', 'test_gemm.py',
           'test_philox.py')
    files = sorted(p for p in HERE.glob('test_*.py') if p.name not in own)
    files += [ROOT / 'tests' / 'data' / name for name in ('test_tokens.py', 'test_cells.py')]
    return ['-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', '-m', 'not slow',
            '-k', 'not every_instruction_set and not (rows_without_a_gradient and not float32)',
            '--capture=no'] + [  # a report must not be lost with the process
        str(p) for p in files]


def main():
    preload = runtime()
    if preload is None:
        print('sanitizers: the compiler has none (libasan.so is missing)')
        return 2
    objects, library = build()
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            faulty = plant(fault, objects, Path(folder))
            status, output = run([__file__, '--drive', str(faulty), '--part', fault[0]], preload,
                                 faulty)
        if status == 0 or fault[-1] not in output:
            print(output)
            print('sanitizers: a fault planted in {} was not found'.format(fault[1]))
            return 1
        print('planted in {} and found: {}'.format(fault[1], fault[-1]), flush=True)
    for command in ([__file__, '--drive', str(library)], battery()):
        status, output = run(command, preload, library)
        if status:
            print(output)
            print('sanitizers: failed, exit status {}: {}'.format(status, ' '.join(command)))
            return 1
        print(output.strip().splitlines()[-1], flush=True)
    print(CLOSING)
    return 0


PARTS = {'kernels': (drive_kernels, '{} calls, forward and backward'),
         'adapter': (drive_adapter, '{} operators'), 'parser': (drive_parser, '{} texts')}


def drive(path, parts):
    library = ctypes.CDLL(path)
    print('; '.join('{}: {}'.format(part, PARTS[part][1].format(PARTS[part][0](library)))
                    for part in parts))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--drive', metavar='LIBRARY', help='only this; under the sanitizers')
    parser.add_argument('--part', choices=list(PARTS), help='of it, only this')
    args = parser.parse_args()
    sys.exit(drive(args.drive, [args.part] if args.part else PARTS) if args.drive else main())
