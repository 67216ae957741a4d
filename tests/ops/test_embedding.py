import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel


def rows_of(table, index):
    index = onp.clip(onp.nan_to_num(index, posinf=1e300), 0, len(table) - 1)
    return table[index.astype('int64')]


def truth(weight, data, position=None, segment_weight=None, segments=None, scale=1.0):
    out = rows_of(weight, data) * scale
    if position is not None:
        out = out + position[0, :data.shape[-1]]
    if segment_weight is not None:
        out = out + rows_of(segment_weight, segments)
    return out


def case(data_shape, vocab, cols, dtype='float32', position=True, segments=True, seed=0, **attrs):
    rng = onp.random.RandomState(seed)
    data = rng.randint(0, vocab, data_shape)
    arrays = [rng.standard_normal((vocab, cols)), data, None, None, None]
    if position:
        arrays[2] = rng.standard_normal((1, data_shape[-1] + 2, cols))
    if segments:
        arrays[3:] = [rng.standard_normal((3, cols)), rng.randint(0, 2, data_shape)]
    # The longest sum decides what rounding is to be expected.
    most = 3 * onp.sqrt(onp.bincount(data.ravel()).max(initial=1) * attrs.get('scale', 1) ** 2)
    return Case(ops.embedding, arrays, truth, dtype=dtype, grad_scale=most, **attrs)


GIVEN = [(False, False), (True, False), (False, True), (True, True)]
SHAPES = [((1, 1), 1, 1), ((2, 3), 5, 4), ((3, 5), 4, 31), ((2, 2, 7), 50, 33), ((9,), 3, 32),
          ((40, 3), 7, 129), ((2, 33), 1023, 17)]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_battery(shape, dtype):
    check_op(case(*shape, dtype=dtype, scale=1.5), modes=dtype == 'float32')


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('position, segments', GIVEN[:3])
def test_what_is_not_given(position, segments, dtype):
    few = case((4, 6), 10, 19, dtype, position, segments, scale=4.0)
    check_op(few, modes=dtype == 'float32')
    _, grads = run_kernel(few)
    assert [g is None for g in grads] == [False, False, not position, not segments, not segments]


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64',
                                   'float16'])
def test_dtypes_of_indices(dtype):
    weight = onp.random.RandomState(0).standard_normal((5, 4)).astype('float32')
    data, segments = onp.array([[0, 4, 2], [1, 1, 3]]), onp.array([[0, 0, 1], [1, 0, 1]])
    y = ops.embedding(np.array(weight), np.array(data, dtype=dtype), None, np.array(weight[:2]),
                      np.array(segments, dtype=dtype))
    assert y.dtype == 'float32' and onp.array_equal(y.asnumpy(), weight[data] + weight[segments])


@pytest.mark.parametrize('data, counts_as', [
    (onp.array([-1, -2 ** 40, 3, 2 ** 40]), [0, 0, 2, 2]),
    (onp.array([-0.5, 1.9, 1e30, onp.nan], 'float32'), [0, 1, 2, 0])])
def test_index_out_of_range_counts_as_the_nearest(data, counts_as):
    weight = np.arange(6).reshape(3, 2)
    weight.attach_grad()
    results = []
    for index in (data, onp.array(counts_as)):
        with autograd.record():
            y = ops.embedding(weight, np.array(index, dtype=index.dtype))
        y.backward(np.arange(8).reshape(4, 2))
        results.append((y.asnumpy(), weight.grad.asnumpy()))
    assert onp.array_equal(results[0][0], weight.asnumpy()[counts_as])
    assert all(onp.array_equal(a, b) for a, b in zip(*results))


def test_only_rows_that_occur_have_a_gradient():
    weight, position = np.ones((50, 3)), np.ones((1, 9, 3))
    weight.attach_grad()
    position.attach_grad()
    with autograd.record():
        y = ops.embedding(weight, np.array([[7, 9], [7, 30]]), position, scale=2)
    y.backward()
    want = onp.zeros((50, 3))
    want[[7, 9, 30]] = [[4], [2], [2]]
    assert onp.array_equal(weight.grad.asnumpy(), want)
    assert onp.array_equal(position.grad.asnumpy()[0, :, 0], [2, 2] + [0] * 7)


def test_long_sums_are_exact():
    """A token that occurs everywhere, as padding may: float32 and float16 cannot count that far."""
    for dtype, count in (('float32', 1 << 15), ('float16', 5000)):
        data, dy = onp.zeros((count, 3), 'int32'), onp.full((count, 3, 1), 0.1).astype(dtype)
        weight, position = np.zeros((2, 1), dtype=dtype), np.zeros((1, 3, 1), dtype=dtype)
        weight.attach_grad()
        position.attach_grad()
        with autograd.record():
            y = ops.embedding(weight, np.array(data), position)
        y.backward(np.array(dy))
        total = dy.astype('float64').sum()
        assert abs(weight.grad.asnumpy()[0, 0] - total) <= EPS[dtype] * total
        assert onp.abs(position.grad.asnumpy() - total / 3).max() <= EPS[dtype] * total / 3


@pytest.mark.parametrize('data_shape, cols', [((0, 3), 4), ((2, 0), 4), ((2, 3), 0)], ids=str)
def test_no_elements(data_shape, cols):
    tables = [np.ones((5, cols)), np.ones((1, 7, cols)), np.ones((2, cols))]
    for table in tables:
        table.attach_grad()
    with autograd.record():
        y = ops.embedding(tables[0], np.zeros(data_shape), tables[1], tables[2],
                          np.zeros(data_shape))
    y.backward()
    assert y.shape == data_shape + (cols,)
    assert all(onp.array_equal(t.grad.asnumpy(), 0 * t.asnumpy()) for t in tables)


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = case((32, 40), 700, 193, dtype, scale=3.0)
    y, grads = run_kernel(many, target, threads=1)
    assert onp.abs(y.astype('float64') - many.expected).max() < 32 * EPS[dtype]
    assert (grads[1] == 0).all() and (grads[4] == 0).all()
    for threads in (2, 3, 7):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n)
        assert all(onp.array_equal(a, b) for a, b in zip(grads, grads_n))


@pytest.mark.parametrize('shapes, fragment', [
    (((5,), (2, 3)), 'weight must have shape (rows, num_hiddens) with at least 1 row, got (5,)'),
    (((0, 4), (2, 3)), 'weight must have shape (rows, num_hiddens) with at least 1 row, got '
                       '(0, 4)'),
    (((5, 4), ()), 'data must have 1 to 11 axes, got shape ()'),
    (((5, 4), (1,) * 12), 'data must have 1 to 11 axes, got shape (1, 1, 1'),
    (((5, 4), (2, 3), (1, 2, 4)), 'position must have a row for each of 3 steps, got shape '
                                  '(1, 2, 4)'),
    (((5, 4), (2, 3), (1, 3, 5)), 'position must have shape (1, 3, 4), got (1, 3, 5)'),
    (((5, 4), (2, 3), (3, 4)), 'position must have shape (1, ?, 4), got (3, 4)'),
    (((5, 4), (2, 3), (2, 3, 4)), 'position must have shape (1, 3, 4), got (2, 3, 4)'),
    (((5, 4), (2, 3), None, (2, 5), (2, 3)), 'segment_weight must have shape (2, 4), got (2, 5)'),
    (((5, 4), (2, 3), None, (0, 4), (2, 3)), 'segment_weight must have shape (rows, num_hiddens) '
                                             'with at least 1 row, got (0, 4)'),
    (((5, 4), (2, 3), None, (2, 4), (3, 2)), 'segments must have shape (2, 3), got (3, 2)'),
    (((5, 4), (2, 3), None, (2, 4)), 'segments and segment_weight must both be given, or neither'),
    (((5, 4), (2, 3), None, None, (2, 3)), 'segments and segment_weight must both be given'),
], ids=str)
def test_bad_shapes(shapes, fragment):
    with pytest.raises(MXNetError, match='embedding: ') as error:
        ops.embedding(*(None if s is None else np.ones(s) for s in shapes))
    assert fragment in str(error.value)


@pytest.mark.parametrize('scale', [0, -1, float('nan'), 'large'])
def test_bad_scale(scale):
    with pytest.raises(MXNetError) as error:
        ops.embedding(np.ones((5, 4)), np.ones((2, 3)), scale=scale)
    assert 'embedding: scale must be a finite number > 0, got {}'.format(scale) in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'weight must have dtype float16, float32 or float64, got int32'),
    (1, 'bool', 'data must have a floating-point or integer dtype'),
    (2, 'float64', 'position must have the dtype of weight, float32, got float64'),
    (3, 'float16', 'segment_weight must have the dtype of weight, float32, got float16'),
    (4, 'bool', 'segments must have a floating-point or integer dtype')])
def test_bad_dtypes(position, dtype, fragment):
    arrays = [np.ones((5, 4)), np.ones((2, 3)), np.ones((1, 3, 4)), np.ones((2, 4)),
              np.ones((2, 3))]
    arrays[position] = arrays[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.embedding(*arrays)
    assert fragment in str(error.value)
