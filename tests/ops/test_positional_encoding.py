import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, OpBlock, check_op, export_and_import, run_kernel

FLOATS = ['float32', 'float64', 'float16']
NUMBERS = FLOATS + ['int32', 'int64', 'int8', 'uint8']


def codes(first, steps, num_hiddens):
    """The definition, with the C library's sine, float64 (1, steps, num_hiddens)."""
    rows = [[(math.sin, math.cos)[c % 2](i / 10000 ** ((c - c % 2) / num_hiddens))
             for c in range(num_hiddens)] for i in range(first, first + steps)]
    return onp.array(rows, 'float64').reshape(1, steps, num_hiddens)


def truth(data, past=None, num_hiddens=1, dtype='float32'):
    return codes(0 if past is None else past.shape[1], data.shape[1], num_hiddens)


def case(shape, past=None, dtype='float32', **attrs):
    arrays = [onp.ones(shape), None if past is None else onp.ones(past)]
    found = Case(ops.positional_encoding, arrays, truth, dtype=dtype, **attrs)
    found.attrs['dtype'] = dtype
    return found


SHAPES = [((1, 1), 1), ((2, 3), 2), ((2, 5, 7), 31), ((3, 31, 2, 2), 32), ((1, 65), 33),
          ((2, 100), 3), ((2, 4, 5), 1023)]
PASTS = [None, (1, 1), (3, 0, 2), (2, 63, 5), (1, 1000)]


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('shape, num_hiddens', SHAPES, ids=str)
def test_battery(shape, num_hiddens, dtype):
    check_op(case(shape, dtype=dtype, num_hiddens=num_hiddens), modes=dtype == 'float32')


@pytest.mark.parametrize('dtype', FLOATS)
@pytest.mark.parametrize('past', PASTS[1:], ids=str)
def test_positions_go_on_from_past(past, dtype):
    check_op(case((2, 6, 3), past, dtype, num_hiddens=7), modes=dtype == 'float32')


@pytest.mark.parametrize('shape', [(2, 0), (0, 3), (2, 3, 0), (0, 0, 0)], ids=str)
@pytest.mark.parametrize('past', [None, (0, 5), (2, 0)], ids=str)
def test_no_elements(shape, past):
    """Batch and features may be nothing, and so may steps."""
    check_op(case(shape, past, num_hiddens=5))


@pytest.mark.parametrize('dtype', NUMBERS)
@pytest.mark.parametrize('past_dtype', [None, 'int8', 'float16', 'int64'])
def test_dtypes_of_data(dtype, past_dtype):
    data = np.zeros((2, 300), dtype=dtype)  # more than int8 and float16 can count
    past = None if past_dtype is None else np.zeros((2, 300), dtype=past_dtype)
    for out in FLOATS:
        y = ops.positional_encoding(data, past, num_hiddens=6, dtype=out)
        want = truth(data, past, 6)
        assert y.dtype == out and onp.abs(y.asnumpy() - want).max() <= EPS[out]


@pytest.mark.parametrize('past', [100000 - 5, 4000000])
@pytest.mark.parametrize('num_hiddens', [4, 301])
def test_far_positions(past, num_hiddens):
    """With tables, and without where they would be too large to keep."""
    for dtype in FLOATS:
        y, _ = run_kernel(case((1, 10), (0, past), dtype, num_hiddens=num_hiddens))
        want = codes(past, 10, num_hiddens)
        assert onp.abs(y - want).max() <= max(EPS[dtype], 4e6 * EPS['float64'])


def test_computed_in_double_and_rounded_once():
    want = codes(0, 2000, 64)
    for dtype in FLOATS:
        y, _ = run_kernel(case((1, 2000), dtype=dtype, num_hiddens=64))
        assert onp.array_equal(y, want.astype(dtype))
    # On the way over float32 some would be others.
    assert not onp.array_equal(want.astype('float32').astype('float16'), want.astype('float16'))


def test_the_same_numbers_with_and_without_a_table():
    """Of 128 columns in float64, 65536 rows are the most that is kept."""
    kept, _ = run_kernel(case((1, 6), (1, 65530), 'float64', num_hiddens=128))
    computed, _ = run_kernel(case((1, 7), (1, 65530), 'float64', num_hiddens=128))
    assert onp.array_equal(kept, computed[:, :6])


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', FLOATS)
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    for past, num_hiddens in ((None, 700), ((1, 100000), 353)):  # the second has no table
        many = case((2, 150, 3), past, dtype, num_hiddens=num_hiddens)
        for threads in (1, 2, 3, 7):
            y, grads = run_kernel(many, target, threads)
            assert onp.abs(y - many.expected).max() <= max(EPS[dtype] / 2, 1e-10)
            assert onp.array_equal(y, run_kernel(many, 'v2')[0])
            assert not any(grad.any() for grad in grads if grad is not None)


def in_threads(work, count=4):
    """What work(0), work(1), ... return, run at the same time."""
    results, ready = [None] * count, threading.Barrier(count)

    def run(i):
        ready.wait()
        results[i] = work(i)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_a_table_that_grows_while_others_read_it():
    """Columns that no other test has, so that the tables are new."""
    cases = [case((1, rows), dtype=dtype, num_hiddens=19) for dtype in FLOATS
             for rows in (1, 64, 65, 700, 5000)]

    def work(i):
        order = onp.random.RandomState(i).permutation(3 * len(cases)) % len(cases)
        return [(j, run_kernel(cases[j])[0]) for j in order]
    for found in in_threads(work):
        for j, y in found:
            assert onp.array_equal(y, cases[j].expected.astype(y.dtype)), cases[j]


HAMMER = '''
#include <thread>
#include <vector>
#include "common/error.cc"
#include "common/parallel.cc"
#include "common/positions.cc"

constexpr int kMostColumns = 40, kPositions = 300;

// Calls for a random row of a random table; how many of them were wrong.
static int calls(int count, uint32_t random) {
  int wrong = 0;
  for (int i = 0; i < count; ++i) {
    random = random * 1664525u + 1013904223u;
    const int columns = 1 + (random >> 8) % kMostColumns, position = (random >> 16) % kPositions;
    float row[kMostColumns], want[kMostColumns];
    d2l::write_codes(d2l::DType::kFloat32, columns, position, 1, row);
    d2l::compute(columns, position, 1, want);
    wrong += memcmp(row, want, columns * sizeof(float)) != 0;
  }
  return wrong;
}

extern "C" int hammer(int threads, int count) {
  std::vector<int> wrong(threads);
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) {
    all.emplace_back([&wrong, i, count] { wrong[i] = calls(count, i); });
  }
  for (std::thread& thread : all) thread.join();
  for (int i = 1; i < threads; ++i) wrong[0] += wrong[i];
  return wrong[0];
}
'''


def test_more_tables_than_are_kept(compile_source, tmp_path):
    """Each is soon dropped, often while others read it or wait for it."""
    library = compile_source(tmp_path, 'v2', HAMMER, '-pthread')
    program = 'import ctypes; print(ctypes.CDLL({!r}).hammer(4, 20000))'.format(str(library))
    done = subprocess.run([sys.executable, '-c', program], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, '0\n')


FORK = '''
import os, signal, sys, threading, time
import d2l
from tests.ops.test_positional_encoding import case, onp, run_kernel
small, large = (case((1, 70), (1, past), num_hiddens=64) for past in (0, 200000))
thread = threading.Thread(target=run_kernel, args=(large,))
thread.start()
time.sleep(float(sys.argv[1]))
child = os.fork()
if child == 0:
    signal.alarm(20)  # a lock that nobody opens any more
    right = all(onp.array_equal(run_kernel(c)[0], c.expected.astype('float32'))
                for c in (small, large, small))
    os._exit(0 if right else 3)
thread.join()
status = os.waitpid(child, 0)[1]
assert status == 0, status
'''


@pytest.mark.parametrize('seconds', [0.0, 0.03, 3.0])
def test_a_process_forked_while_a_table_grows(seconds):
    """Before, during and after, more or less."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', FORK, str(seconds)], cwd=root,
                          env=dict(os.environ, PYTHONPATH=root), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=100)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('grad_req', ['write', 'add'])
@pytest.mark.parametrize('hybrid', [False, True])
def test_gradients_are_zero(grad_req, hybrid):
    block = OpBlock(ops.positional_encoding, {'num_hiddens': 4})
    if hybrid:
        block.hybridize(static_alloc=True, static_shape=True)
    data, past = np.ones((2, 3, 4)), np.ones((2, 5))
    for x in (data, past):
        x.attach_grad(grad_req)
    for calls in (1, 2):
        with autograd.record():
            y = data + block(data, past)
        y.backward()
        assert (data.grad == (calls if grad_req == 'add' else 1)).all()
        assert (past.grad == 0).all()


@pytest.mark.parametrize('past', [False, True])
def test_export_and_import(past):
    """One graph for any number of steps."""
    block = OpBlock(ops.positional_encoding, {'num_hiddens': 6, 'dtype': 'float64'})
    block.hybridize()
    arrays = [np.ones((2, 3), dtype='int32')] + [np.ones((2, 4, 5))] * past
    imported = export_and_import(block, arrays)
    for steps in (3, 9):
        data = np.ones((1, steps), dtype='int32')
        y = imported(data, *arrays[1:])
        assert y.dtype == 'float64'
        assert onp.abs(y.asnumpy() - codes(4 * past, steps, 6)).max() < 1e-14


@pytest.mark.parametrize('composed', [False, True])
def test_legacy_arrays_and_symbols(composed):
    data, past = np.ones((2, 3), dtype='int32'), np.ones((2, 5))
    want = codes(5, 3, 5).astype('float32')

    def run():
        y = ops.positional_encoding(data.as_nd_ndarray(), past.as_nd_ndarray(), num_hiddens=5)
        assert type(y) is mx.nd.NDArray
        names = [mx.sym.var(name).as_np_ndarray() for name in ('data', 'past')]
        symbol = ops.positional_encoding(*names, num_hiddens=5)
        z, = symbol.bind(mx.cpu(), {'data': data, 'past': past}).forward()
        return y.asnumpy(), z.asnumpy()
    if composed:
        with ops.composed():
            results = run()
    else:
        results = run()
    for got in results:
        assert got.dtype == 'float32' and onp.abs(got - want).max() <= EPS['float32']


@pytest.mark.parametrize('known, fragment', [
    ({'data': (2, -1), 'past': (2, 3)}, 'the shape of data must be known, got (2, ?)'),
    ({'data': (2, 3), 'past': (-1, 5)}, 'the shape of past must be known, got (?, 5)')], ids=str)
def test_unknown_shapes(known, fragment):
    """Axes must be known: without them MXNet writes past its own buffer (see _hint_ndim)."""
    names = [mx.sym.var(name).as_np_ndarray() for name in ('data', 'past')]
    symbol = ops.positional_encoding(*names, num_hiddens=4)
    with pytest.raises(MXNetError) as error:
        symbol.infer_shape(**known)
    assert 'positional_encoding: ' + fragment in str(error.value)


@pytest.mark.parametrize('data, past, attrs, fragment', [
    ((), None, {}, 'data must have at least 2 axes, got shape ()'),
    ((3,), None, {}, 'data must have at least 2 axes, got shape (3,)'),
    ((2, 3), (3,), {}, 'past must have at least 2 axes, got shape (3,)'),
    ((2, 3), None, {'num_hiddens': 0}, 'num_hiddens must be an integer from 1 to 1048576, got 0'),
    ((2, 3), None, {'num_hiddens': -4}, 'num_hiddens must be an integer from 1 to 1048576, got -4'),
    ((2, 3), None, {'num_hiddens': 2.5}, 'num_hiddens must be an integer from 1 to 1048576, got'),
    ((2, 3), None, {'dtype': 'int32'}, 'dtype must be float16, float32 or float64, got int32'),
    ((2, 3), (2, 3), {'dtype': None}, 'dtype must be float16, float32 or float64, got None'),
], ids=str)
def test_bad_arguments(data, past, attrs, fragment):
    with pytest.raises(MXNetError, match='positional_encoding: ') as error:
        ops.positional_encoding(np.ones(data), None if past is None else np.ones(past), **attrs)
    assert fragment in str(error.value)


def test_bad_types():
    with pytest.raises(MXNetError, match='past must have a floating-point or integer dtype'):
        ops.positional_encoding(np.ones((2, 3)), np.ones((2, 3), dtype='bool'))
    with pytest.raises(TypeError, match='positional_encoding: data must be an MXNet array'):
        ops.positional_encoding(None)
    with pytest.raises(TypeError, match='positional_encoding: past must be an MXNet array'):
        ops.positional_encoding(np.ones((2, 3)), 5)
