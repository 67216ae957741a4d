import numpy as onp
import pytest
from mxnet import autograd, np
from mxnet.base import MXNetError

from d2l import ops
from d2l.testing import EPS, Case, check_op, run_kernel


def truth(pred, label, valid_len, smoothing=0.0):
    batch, steps, vocab = pred.shape
    n = onp.ceil(onp.nan_to_num(onp.clip(valid_len, 0, steps)))
    loss = onp.zeros(batch)
    for b, t in onp.ndindex(batch, steps):
        if t < n[b]:
            x = pred[b, t]
            target = onp.full(vocab, smoothing / vocab)
            target[int(onp.clip(onp.nan_to_num(label[b, t]), 0, vocab - 1))] += 1 - smoothing
            top = x.max()
            loss[b] += onp.log(onp.exp(x - top).sum()) - (target * (x - top)).sum()
    return loss / max(steps, 1)


def case(shape, dtype='float32', label_dtype='int32', len_dtype='int32', seed=0, **attrs):
    rng = onp.random.RandomState(seed)
    batch, steps, vocab = shape
    label = rng.randint(0, min(vocab, 127), shape[:2]).astype(label_dtype)
    valid_len = rng.randint(0, steps + 2, batch).astype(len_dtype)
    return Case(ops.masked_softmax_ce, [3 * rng.standard_normal(shape), label, valid_len], truth,
                dtype=dtype, wrt=[0], grad_scale=1 / max(steps, 1), **attrs)


SHAPES = [(1, 1, 1), (2, 3, 2), (3, 4, 31), (2, 5, 32), (4, 2, 33), (1, 7, 1023), (13, 3, 17),
          (3, 1, 64)]


@pytest.mark.parametrize('smoothing', [0, 0.1])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_battery(shape, dtype, smoothing):
    check_op(case(shape, dtype, smoothing=smoothing), modes=dtype == 'float32')


@pytest.mark.parametrize('dtype', ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64',
                                   'float16'])
def test_dtypes_of_label_and_valid_len(dtype):
    pred = np.array(onp.random.RandomState(0).standard_normal((3, 2, 5)), dtype='float32')
    label, valid_len = onp.array([[0, 1], [4, 2], [3, 3]]), onp.array([0, 1, 2])
    loss = ops.masked_softmax_ce(pred, np.array(label, dtype=dtype),
                                 np.array(valid_len, dtype=dtype))
    assert loss.dtype == 'float32'
    want = truth(pred.asnumpy().astype('float64'), label, valid_len)
    assert onp.abs(loss.asnumpy() - want).max() < 1e-6


def losses_and_gradient(pred, label, valid_len, **attrs):
    pred = np.array(pred, dtype='float32')
    pred.attach_grad()
    with autograd.record():
        loss = ops.masked_softmax_ce(pred, np.array(label, dtype=label.dtype),
                                     np.array(valid_len, dtype=valid_len.dtype), **attrs)
    loss.backward()
    return loss.asnumpy(), pred.grad.asnumpy()


@pytest.mark.parametrize('label, counts_as', [
    (onp.array([-1, -2 ** 40, 3, 2 ** 40]), [0, 0, 2, 2]),
    (onp.array([-0.5, 1.9, 1e30, onp.nan], 'float32'), [0, 1, 2, 0])])
def test_label_out_of_range_counts_as_the_nearest(label, counts_as):
    pred, full = onp.random.RandomState(0).standard_normal((1, 4, 3)), onp.array([4])
    loss, grad = losses_and_gradient(pred, label[None], full)
    want, want_grad = losses_and_gradient(pred, onp.array([counts_as]), full)
    assert onp.array_equal(loss, want) and onp.array_equal(grad, want_grad)


def test_fractions_negatives_and_nan_of_valid_len():
    valid_len = onp.array([2.5, -1, onp.nan, 1e30, 0.1], 'float32')
    loss, grad = losses_and_gradient(onp.zeros((5, 4, 2)), onp.zeros((5, 4)), valid_len)
    steps = onp.array([3, 0, 0, 4, 1])
    assert onp.abs(loss - steps / 4 * onp.log(2)).max() < 1e-6
    assert onp.array_equal((grad != 0).all(-1), onp.arange(4) < steps[:, None])


@pytest.mark.parametrize('smoothing', [0, 0.3])
def test_masked_steps_have_no_influence(smoothing):
    rng = onp.random.RandomState(0)
    pred, n = rng.standard_normal((2, 4, 6)), onp.array([1, 3])
    label = rng.randint(0, 6, (2, 4)).astype('float32')
    dirty, wrong = pred.copy(), label.copy()
    for b in range(2):
        dirty[b, n[b]:] = onp.array([onp.nan, onp.inf, -onp.inf])[:4 - n[b], None]
        wrong[b, n[b]:] = [onp.nan, onp.inf, -9][:4 - n[b]]
    clean = losses_and_gradient(pred, label, n, smoothing=smoothing)
    other = losses_and_gradient(dirty, wrong, n, smoothing=smoothing)
    assert all(onp.array_equal(a, b) for a, b in zip(clean, other))
    assert all((other[1][b, n[b]:] == 0).all() for b in range(2))
    with ops.composed():
        body = losses_and_gradient(dirty, wrong, n, smoothing=smoothing)
    assert all(onp.abs(a - b).max() < 1e-6 for a, b in zip(other, body))


def test_infinities_among_the_scores():
    pred = onp.array([[[1, -onp.inf, 2]], [[1, -onp.inf, 2]], [[onp.inf, 1, 2]]])
    label, full = onp.array([[2], [1], [1]]), onp.array([1, 1, 1])
    loss, grad = losses_and_gradient(pred, label, full)
    assert abs(loss[0] - onp.log(1 + onp.exp(-1))) < 1e-6
    assert loss[1] == onp.inf and onp.isnan(loss[2])  # as in NumPy
    assert onp.abs(grad[:2, 0] - [[0.26894142, 0, -0.26894142], [0.26894142, -1, 0.73105858]]
                   ).max() < 1e-6


@pytest.mark.parametrize('scale', [1e3, 1e4])
def test_large_scores(scale):
    rng = onp.random.RandomState(0)
    pred = scale + rng.standard_normal((2, 3, 9))
    check_op(Case(ops.masked_softmax_ce, [pred, rng.randint(0, 9, (2, 3)), onp.array([3, 2])],
                  truth, wrt=[0], grad_scale=1 / 3, smooth=False, smoothing=0.2), modes=False)


@pytest.mark.parametrize('shape', [(0, 3, 5), (2, 0, 5)], ids=str)
def test_no_elements(shape):
    loss = ops.masked_softmax_ce(np.zeros(shape), np.zeros(shape[:2]), np.zeros(shape[:1]))
    assert onp.array_equal(loss.asnumpy(), onp.zeros(shape[0]))


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
def test_every_instruction_set_and_thread_count(target, dtype, runs_target):
    runs_target(target)
    many = case((30, 20, 193), dtype, smoothing=0.1)
    loss, grads = run_kernel(many, target, threads=1)
    assert onp.abs(loss.astype('float64') - many.expected).max() < 20 * EPS[dtype]
    assert (grads[1] == 0).all() and (grads[2] == 0).all()
    for threads in (2, 3):
        loss_n, grads_n = run_kernel(many, target, threads)
        assert onp.array_equal(loss, loss_n) and onp.array_equal(grads[0], grads_n[0])


@pytest.mark.parametrize('shapes, fragment', [
    (((2, 3, 5), (3, 2), (2,)), 'label must have shape (2, 3), got (3, 2)'),
    (((2, 3, 5), (2, 3, 5), (2,)), 'label must have shape (2, 3), got (2, 3, 5)'),
    (((2, 3, 5), (2, 3), (3,)), 'valid_len must have shape (2,), got (3,)'),
    (((2, 3, 5), (2, 3), (2, 3)), 'valid_len must have shape (2,), got (2, 3)'),
    (((2, 5), (2,), (2,)), 'pred must have shape (batch, steps, vocab) with a vocab of at least '
                           '1, got (2, 5)'),
    (((2, 3, 0), (2, 3), (2,)), 'with a vocab of at least 1, got (2, 3, 0)'),
], ids=str)
def test_bad_shapes(shapes, fragment):
    with pytest.raises(MXNetError, match='masked_softmax_ce: ') as error:
        ops.masked_softmax_ce(*(np.ones(s) for s in shapes))
    assert fragment in str(error.value)


@pytest.mark.parametrize('smoothing', [-0.1, 1, 1.5, float('nan'), float('inf'), 'much'])
def test_bad_smoothing(smoothing):
    with pytest.raises(MXNetError) as error:
        ops.masked_softmax_ce(np.ones((2, 3, 5)), np.ones((2, 3)), np.ones(2), smoothing=smoothing)
    assert 'masked_softmax_ce: smoothing must be a number >= 0 and < 1, got {}'.format(
        smoothing) in str(error.value)


@pytest.mark.parametrize('position, dtype, fragment', [
    (0, 'int32', 'pred must have dtype float16, float32 or float64, got int32'),
    (1, 'bool', 'label must have a floating-point or integer dtype'),
    (2, 'bool', 'valid_len must have a floating-point or integer dtype')])
def test_bad_dtypes(position, dtype, fragment):
    arrays = [np.ones((2, 3, 5)), np.ones((2, 3)), np.ones(2)]
    arrays[position] = arrays[position].astype(dtype)
    with pytest.raises(MXNetError) as error:
        ops.masked_softmax_ce(*arrays)
    assert fragment in str(error.value)
