import itertools

import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel

FLAGS = list(itertools.product([False, True], repeat=2))


def truth(a, b, transpose_a=False, transpose_b=False):
    a = a.swapaxes(1, 2) if transpose_a else a
    return a @ (b.swapaxes(1, 2) if transpose_b else b)


def arrays(batch, rows, depth, cols, flags, seed=0):
    rng = onp.random.RandomState(seed)
    return [rng.standard_normal((batch, depth, rows) if flags[0] else (batch, rows, depth)),
            rng.standard_normal((batch, cols, depth) if flags[1] else (batch, depth, cols))]


def case(sizes, dtype='float32', flags=(False, False)):
    """sizes: batch, rows, depth, cols; an entry is a sum of that many terms of about 1."""
    return Case(ops.batch_dot, arrays(*sizes, flags), truth, dtype, grad_scale=3.0,
                transpose_a=flags[0], transpose_b=flags[1])


# Vectors on either side, tiles and vectors with a rest, and more than one block of depth and of
# columns.
SIZES = [(1, 1, 1, 1), (3, 2, 5, 3), (2, 1, 33, 7), (2, 9, 31, 1), (3, 8, 16, 32), (2, 13, 17, 33),
         (17, 4, 3, 5)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('flags', FLAGS, ids=str)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_battery(sizes, flags, dtype):
    check_op(case(sizes, dtype, flags), modes=dtype == 'float32' and sizes[1] < 9)


# Around the blocks of depth, of columns and of rows; beyond the first cache, with and without a
# rest; vectors; a few long rows, which are not packed.
LARGE = [(1, 70, 257, 33), (2, 61, 300, 90), (1, 530, 40, 300), (1, 40, 520, 512), (3, 1, 300, 300),
         (3, 300, 300, 1), (20, 65, 40, 16), (1, 270, 520, 300), (1, 0, 3, 4), (2, 3, 0, 4),
         (2, 3, 4, 0), (0, 3, 4, 5), (1, 70, 3, 0), (1, 70, 0, 70), (3, 5, 300, 90),
         (2, 32, 259, 7), (1, 2, 1030, 3)]


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('sizes', LARGE, ids=str)
def test_every_instruction_set_and_thread_count(sizes, dtype, target, runs_target):
    runs_target(target)
    for flags in FLAGS:
        many = case(sizes, dtype, flags)
        a, b = many.exact()
        dout = many.cotangent.astype('float64')
        left, right = truth(a, onp.eye(sizes[2])[None], flags[0]), truth(
            onp.eye(sizes[2])[None], b, False, flags[1])
        da, db = dout @ right.swapaxes(1, 2), left.swapaxes(1, 2) @ dout
        wanted = [left @ right, da.swapaxes(1, 2) if flags[0] else da,
                  db.swapaxes(1, 2) if flags[1] else db]
        y, grads = run_kernel(many, target, threads=1)
        # Errors of the sum's terms, of random signs, and the one of storing.
        bound = 4 * EPS['float32' if dtype == 'float16' else dtype]
        for got, want, terms in zip([y, *grads], wanted, (sizes[2], sizes[3], sizes[1])):
            error = abs(got.astype('float64') - want)
            assert (error <= bound * max(terms, 1) + EPS[dtype] * abs(want)).all()
        for threads in (2, 3):
            y_n, grads_n = run_kernel(many, target, threads)
            assert onp.array_equal(y, y_n)
            assert all(onp.array_equal(p, q) for p, q in zip(grads, grads_n))


def test_a_batch_beyond_the_caches():
    """There the next example is fetched while one is computed; of the last there is no next."""
    many = case((70, 129, 255, 129))
    assert sum(a.nbytes for a in many.arrays) > 1 << 23
    y, _ = run_kernel(many)
    assert abs(y - many.expected).max() < 2e-4


def test_examples_and_rows_do_not_meet():
    """Rows are read in whole vectors, which go on into the next row and the next example."""
    a, b = (x.astype('float32') for x in arrays(3, 5, 6, 19, (False, False)))
    want = truth(a.astype('float64'), b.astype('float64'))
    b[1], b[0, 3, 18], b[2, 5, 0] = onp.nan, onp.inf, onp.inf
    got = ops.batch_dot(np.array(a), np.array(b)).asnumpy()
    assert onp.isnan(got[1]).all() and onp.isinf(got[0, :, 18]).all() and onp.isinf(
        got[2, :, 0]).all()
    assert abs(got[0, :, :18] - want[0, :, :18]).max() < 1e-5
    assert abs(got[2, :, 1:] - want[2, :, 1:]).max() < 1e-5


def test_products_of_any_depth_are_zero_without_it():
    for flags in FLAGS:
        a, b = (np.array(x) for x in arrays(2, 3, 0, 17, flags))
        y = ops.batch_dot(a, b, transpose_a=flags[0], transpose_b=flags[1])
        assert y.shape == (2, 3, 17) and (y.asnumpy() == 0).all()


def test_views_that_are_not_aligned():
    a, b = (x.astype('float32') for x in arrays(3, 40, 33, 48, (False, False)))
    whole = [np.array(x) for x in (a, b)]
    got = ops.batch_dot(whole[0][1:], whole[1][1:]).asnumpy()
    assert abs(got - truth(a[1:].astype('float64'), b[1:])).max() < 1e-4


def test_gradients_are_added_up():
    a, b = (np.array(x, dtype='float32') for x in arrays(2, 3, 4, 5, (False, False)))
    a.attach_grad('add')
    for _ in range(2):
        with autograd.record():
            y = ops.batch_dot(a, b)
        y.backward()
    once = onp.ones((2, 3, 5)) @ b.asnumpy().swapaxes(1, 2)
    assert abs(a.grad.asnumpy() - 2 * once).max() < 1e-5


@pytest.mark.parametrize('shapes, flags, fragment', [
    (((2, 3), (2, 3, 4)), (0, 0), 'a must have 3 axes, got shape (2, 3)'),
    (((2, 3, 4), (4, 5)), (0, 0), 'b must have 3 axes, got shape (4, 5)'),
    (((2, 3, 4, 5), (2, 3, 4, 5)), (0, 0), 'a must have 3 axes, got shape (2, 3, 4, 5)'),
    (((2, 3, 4), (2, 3, 5)), (0, 0), 'b must have shape (2, 4, 5), got (2, 3, 5)'),
    (((2, 3, 4), (3, 4, 5)), (0, 0), 'b must have shape (2, 4, 5), got (3, 4, 5)'),
    (((2, 3, 4), (1, 4, 5)), (0, 0), 'b must have shape (2, 4, 5), got (1, 4, 5)'),
    (((2, 3, 4), (2, 4, 5)), (1, 0), 'b must have shape (2, 3, 5), got (2, 4, 5)'),
    (((2, 3, 4), (2, 4, 5)), (0, 1), 'b must have shape (2, 4, 4), got (2, 4, 5)'),
    (((2, 3, 4), (2, 5, 4)), (1, 1), 'b must have shape (2, 5, 3), got (2, 5, 4)'),
    (((2, 3, 4), (2, 4, 5)), (2, 0), 'transpose_a must be True or False, got 2'),
    (((2, 3, 4), (2, 4, 5)), (0, 'x'), 'transpose_b must be True or False, got x'),
], ids=str)
def test_bad_calls(shapes, flags, fragment):
    with pytest.raises(MXNetError, match='batch_dot: ') as error:
        ops.batch_dot(*(np.ones(s) for s in shapes), transpose_a=flags[0], transpose_b=flags[1])
    assert fragment in str(error.value)


def test_bad_dtypes():
    with pytest.raises(MXNetError, match='a must have dtype float16, float32 or float64, got int'):
        ops.batch_dot(np.ones((2, 3, 4), dtype='int32'), np.ones((2, 4, 5)))
    with pytest.raises(MXNetError, match='b must have the dtype of a, float32, got float64'):
        ops.batch_dot(np.ones((2, 3, 4)), np.ones((2, 4, 5), dtype='float64'))
    with pytest.raises(TypeError, match='b must be an MXNet array or symbol, got list'):
        ops.batch_dot(np.ones((2, 3, 4)), [1])
