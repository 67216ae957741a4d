import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.ops import _library, _native
from d2l.testing import EPS, Case, check_op, run_kernel


def truth(x, valid_len):
    keys = x.shape[-1]
    valid_len = onp.full(x.shape[:1], keys) if valid_len is None else valid_len
    n = onp.ceil(onp.nan_to_num(onp.clip(valid_len.astype('float64'), 0, keys)))
    n = n.reshape(n.shape + (1,) * (x.ndim - n.ndim))
    valid = onp.arange(keys) < n
    with onp.errstate(invalid='ignore', divide='ignore'):
        z = onp.where(valid, x, -onp.inf)
        e = onp.where(valid, onp.exp(z - z.max(-1, keepdims=True)), 0)
        y = e / e.sum(-1, keepdims=True)
    return onp.where(n == 0, onp.full_like(x, 1 / max(keys, 1)), y)


def case(shape, valid_len, dtype='float32', seed=0, **kwargs):
    rng = onp.random.RandomState(seed)
    return Case(ops.masked_softmax, [3 * rng.standard_normal(shape), valid_len],
                truth, dtype=dtype, wrt=[0], grad_scale=1.0, **kwargs)


def lengths(shape, keys, seed=1):
    """From no key to all of them, more than there are included."""
    return onp.random.RandomState(seed).randint(0, keys + 3, shape).astype('int32')


SHAPES = [((1, 1, 1), (1,)), ((2, 3, 5), (2,)), ((2, 3, 5), (2, 3)), ((3, 31), (3,)),
          ((4, 2, 32), (4, 2)), ((2, 3, 4, 33), (2,)), ((2, 5, 1023), (2, 5)), ((7, 13, 17), (7,))]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape, valid_shape', SHAPES, ids=str)
def test_battery(shape, valid_shape, dtype):
    check_op(case(shape, lengths(valid_shape, shape[-1]), dtype), modes=dtype == 'float32')


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64',
                                   'float16'])
def test_dtypes_of_valid_len(dtype):
    x = np.array(onp.random.RandomState(0).standard_normal((3, 2, 5)))
    y = ops.masked_softmax(x, np.array([0, 2, 5], dtype=dtype))
    want = truth(x.asnumpy().astype('float64'), onp.array([0, 2, 5]))
    assert onp.abs(y.asnumpy() - want).max() < 1e-6


def test_fractions_negatives_and_nan():
    x = np.zeros((5, 4))
    y = ops.masked_softmax(x, np.array([2.5, -1, onp.nan, 1e30, 0.1], dtype='float32')).asnumpy()
    third, quarter = 1 / 3, 1 / 4
    want = [[third] * 3 + [0], [quarter] * 4, [quarter] * 4, [quarter] * 4, [1, 0, 0, 0]]
    assert onp.abs(y - want).max() < 1e-7


def test_masked_entries_have_no_influence():
    rng = onp.random.RandomState(0)
    x, dy = rng.standard_normal((2, 3, 8)).astype('float32'), rng.standard_normal((2, 3, 8))
    n = onp.array([3, 6])
    dirty = x.copy()
    for b in range(2):
        dirty[b, :, n[b]:] = [onp.inf, -onp.inf, onp.nan, 1e30, 1, 2, 3, 4][:8 - n[b]]
    results = []
    for data in (x, dirty):
        data = np.array(data)
        data.attach_grad()
        with autograd.record():
            y = ops.masked_softmax(data, np.array(n))
        y.backward(np.array(dy))
        results.append((y.asnumpy(), data.grad.asnumpy()))
    for clean, other in zip(*results):
        assert onp.array_equal(clean, other)
        assert all((other[b, :, n[b]:] == 0).all() for b in range(2))


def test_infinities_among_the_valid():
    x = np.array([[[1, -onp.inf, 2, 9]], [[onp.inf, 1, 2, 9]], [[-onp.inf] * 4]])
    y = ops.masked_softmax(x, np.array([3, 3, 3])).asnumpy()
    assert onp.abs(y[0, 0] - [0.26894142, 0, 0.73105858, 0]).max() < 1e-6
    assert onp.isnan(y[1, 0, 0]) and onp.isnan(y[2, 0, :3]).all()  # as in NumPy
    assert (y[:, 0, 3] == 0).all()


def test_large_scores():
    x = onp.array([[1e4, 1e4 - 1, -1e4, 88, 5]])
    check_op(Case(ops.masked_softmax, [x, onp.array([4])], truth, wrt=[0], grad_scale=1.0))


def test_empty_row_is_uniform_and_has_no_gradient():
    x = np.array(onp.random.RandomState(0).standard_normal((2, 3, 5)), dtype='float32')
    x.attach_grad()
    with autograd.record():
        y = ops.masked_softmax(x, np.array([0, 4]))
    y.backward(np.arange(30).reshape(2, 3, 5))
    assert onp.array_equal(y.asnumpy()[0], onp.full((3, 5), 0.2, 'float32'))
    assert (x.grad.asnumpy()[0] == 0).all() and (x.grad.asnumpy()[1, :, :4] != 0).any()


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', [(2, 3, 5), (33,), (4, 3, 2, 129)], ids=str)
def test_without_valid_len_it_is_softmax(shape, dtype):
    check_op(case(shape, None, dtype), modes=dtype == 'float32')
    _, grads = run_kernel(case(shape, None, dtype))
    assert grads[1] is None


def test_softmax_of_a_number_is_one():
    assert ops.masked_softmax(np.array(3.0)).asnumpy() == 1


@pytest.mark.parametrize('given', ['', '1', '00', '01', '111', 'x1', '1x'])
def test_what_is_given_must_fit(given):
    kernel = _native.Kernel(_library.library().c, 'masked_softmax', _library.library().isa)
    tensor = _native.Tensor.of(None, 'float32', (2, 3))
    with pytest.raises(_native.NativeError, match='given must have 0 or 1 for each of 2 inputs, '
                                                  'and 1 for the first 1, got ' + given):
        kernel.infer([tensor, tensor], given=given)


@pytest.mark.parametrize('shape, valid_shape', [((0, 2, 5), (0,)), ((2, 0, 5), (2,)),
                                                ((2, 3, 0), (2, 3))], ids=str)
def test_no_elements(shape, valid_shape):
    assert ops.masked_softmax(np.zeros(shape), np.zeros(valid_shape)).shape == shape


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = case((30, 20, 193), lengths((30, 20), 193), dtype)
    y, grads = run_kernel(many, target, threads=1)
    assert onp.abs(y.astype('float64') - many.expected).max() < 4 * EPS[dtype]
    assert (grads[1] == 0).all()
    for threads in (2, 3):
        y_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(y, y_n) and onp.array_equal(grads[0], grads_n[0])


@pytest.mark.parametrize('shape, valid_shape, fragment', [
    ((2, 3, 5), (3,), 'valid_len must have shape (2,), got (3,)'),
    ((2, 3, 5), (2, 5), 'valid_len must have shape (2, 3), got (2, 5)'),
    ((2, 3, 5), (2, 3, 5), 'valid_len must have shape (batch,) or (batch, queries) for data of '
                           'shape (2, 3, 5), got (2, 3, 5)'),
    ((2, 5), (2, 1), 'valid_len must have shape (batch,) for data of shape (2, 5), got (2, 1)'),
    ((5,), (5,), 'data must have at least 2 axes, got shape (5,)'),
    ((2, 5), (), 'valid_len must have shape (batch,)'),
], ids=str)
def test_bad_shapes(shape, valid_shape, fragment):
    with pytest.raises(MXNetError) as error:
        ops.masked_softmax(np.ones(shape), np.ones(valid_shape))
    assert fragment in str(error.value)


def test_bad_calls():
    with pytest.raises(MXNetError, match='data must have dtype'):
        ops.masked_softmax(np.ones((2, 5), dtype='int32'), np.ones(2))
    with pytest.raises(MXNetError, match='valid_len must have a floating-point or integer dtype'):
        ops.masked_softmax(np.ones((2, 5)), np.ones(2, dtype='bool'))
    with pytest.raises(TypeError, match='valid_len must be an MXNet array or symbol, got list'):
        ops.masked_softmax(np.ones((2, 5)), [1, 2])
    with pytest.raises(TypeError, match='axis'):
        ops.masked_softmax(np.ones((2, 5)), np.ones(2), axis=1)
