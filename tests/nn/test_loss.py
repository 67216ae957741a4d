"""The losses against float64 formulas, far out, with weights, and in every dtype."""
import numpy as onp
import pytest
from mxnet import autograd, gluon, np

from d2l.nn.loss import BPRLoss, HingeLossbRec, MaskedSoftmaxCELoss

RNG = onp.random.RandomState(0)
PRED = RNG.normal(size=(3, 4, 5)).astype('float32')
LABEL = RNG.randint(0, 5, size=(3, 4)).astype('int32')
LENGTHS = onp.array([4, 2, 0], 'int32')
POSITIVE, NEGATIVE = (RNG.normal(size=(6, 2)).astype('float32') * 3 for _ in range(2))
MARGIN = onp.array([0.5, 2], 'float32')
MODES = {
    'MaskedSoftmaxCELoss': [
        (lambda: MaskedSoftmaxCELoss(), [PRED, LABEL, LENGTHS]),
        (lambda: MaskedSoftmaxCELoss(weight=3), [PRED, LABEL, LENGTHS.astype('float32')]),
        (lambda: MaskedSoftmaxCELoss(sparse_label=False),
         [PRED, onp.eye(5, dtype='float32')[LABEL], LENGTHS])],
    'BPRLoss': [(lambda: BPRLoss(), [POSITIVE, NEGATIVE]),
                (lambda: BPRLoss(weight=0.5), [POSITIVE[:, 0], NEGATIVE[:, 0]])],
    'HingeLossbRec': [(lambda: HingeLossbRec(), [POSITIVE, NEGATIVE]),
                      (lambda: HingeLossbRec(weight=0.5), [POSITIVE, NEGATIVE, MARGIN])]}


def run(loss, *arrays):
    """(loss, gradients of the arrays that are given as floats), as float64."""
    arrays = [np.array(a, dtype=a.dtype) for a in arrays]
    wrt = [a for a in arrays if a.dtype.kind == 'f']
    for a in wrt:
        a.attach_grad()
    with autograd.record():
        y = loss(*arrays)
    y.backward()
    assert y.dtype == arrays[0].dtype
    return y.asnumpy().astype('float64'), [a.grad.asnumpy().astype('float64') for a in wrt]


def masked_cross_entropy(pred, label, lengths):
    total = onp.zeros(len(pred))
    for b, t in onp.ndindex(label.shape):
        if t < lengths[b]:
            scores = pred[b, t].astype('float64')
            total[b] += onp.log(onp.exp(scores - scores.max()).sum()) + scores.max() \
                - scores[label[b, t]]
    return total / label.shape[1]


@pytest.mark.parametrize('label', ['float32', 'int32', 'int64'])
@pytest.mark.parametrize('lengths', ['float32', 'int32', 'int64'])
@pytest.mark.parametrize('dtype, rtol', [('float16', 5e-3), ('float32', 1e-5), ('float64', 1e-12)])
def test_masked_cross_entropy(dtype, rtol, label, lengths):
    pred = PRED.astype(dtype)
    y, _ = run(MaskedSoftmaxCELoss(), pred, LABEL.astype(label), LENGTHS.astype(lengths))
    onp.testing.assert_allclose(y, masked_cross_entropy(pred, LABEL, LENGTHS), rtol=rtol)


def test_masked_cross_entropy_of_the_book():
    y = MaskedSoftmaxCELoss()(np.ones((3, 4, 10)), np.ones((3, 4)), np.array([4, 2, 0]))
    onp.testing.assert_allclose(y.asnumpy(), onp.log(10) * onp.array([1, 0.5, 0]), rtol=1e-5)


def test_masked_cross_entropy_honours_its_weight():
    expected = masked_cross_entropy(PRED, LABEL, LENGTHS)
    for hybridize in (False, True):
        loss = MaskedSoftmaxCELoss(weight=3)
        loss.hybridize(hybridize)
        onp.testing.assert_allclose(run(loss, PRED, LABEL, LENGTHS)[0], 3 * expected, rtol=1e-5)


@pytest.mark.parametrize('scale', [1, 1000])
def test_gradient_of_masked_cross_entropy(scale):
    pred = scale * PRED.astype('float64')
    y, grads = run(MaskedSoftmaxCELoss(), pred, LABEL, LENGTHS)
    assert onp.isfinite(y).all()
    e = onp.exp(pred - pred.max(-1, keepdims=True))
    expected = (e / e.sum(-1, keepdims=True) - onp.eye(5)[LABEL]) / 4
    expected *= (onp.arange(4) < LENGTHS[:, None])[..., None]
    onp.testing.assert_allclose(grads[0], expected, rtol=1e-9, atol=1e-12)
    assert (grads[0][1, 2:] == 0).all() and (grads[0][2] == 0).all()
    _, (grad,) = run(MaskedSoftmaxCELoss(), (scale * PRED).astype('float32'), LABEL, LENGTHS)
    onp.testing.assert_allclose(grad, expected, atol=1e-4 if scale > 1 else 1e-6)


def test_masked_cross_entropy_is_gluons():
    loss = MaskedSoftmaxCELoss()
    assert isinstance(loss, gluon.loss.SoftmaxCELoss)
    full, _ = run(loss, PRED, LABEL, onp.full(3, 4))
    onp.testing.assert_allclose(full, run(gluon.loss.SoftmaxCELoss(), PRED, LABEL)[0], rtol=1e-6)


# Around the tie, where float32 rounds the sigmoid, and far out, where the original was NaN.
DIFFERENCES = onp.array([0, 1e-3, -1e-3, 1, -1, 19, -19, 21, -21, 50, -50, 88, -88, 104, -104,
                         1000, -1000])


@pytest.mark.parametrize('dtype, rtol', [('float16', 4e-3), ('float32', 1e-6), ('float64', 1e-12)])
@pytest.mark.parametrize('hybridize', [False, True])
def test_bpr(dtype, rtol, hybridize):
    positive = DIFFERENCES.astype(dtype).reshape(1, -1)
    d = positive.astype('float64')
    loss = BPRLoss()
    loss.hybridize(hybridize)
    y, (up, down) = run(loss, positive, onp.zeros_like(positive))
    tiny = float(onp.finfo(dtype).tiny)
    onp.testing.assert_allclose(y, onp.logaddexp(0, -d), rtol=rtol, atol=tiny)
    expected = -onp.exp(-onp.logaddexp(0, d))
    onp.testing.assert_allclose(up, expected, rtol=rtol, atol=tiny)
    onp.testing.assert_array_equal(down, -up)


def test_bpr_of_scores_that_overflow():
    big = onp.array([[3e38, -3e38]], 'float32')
    y, (up, down) = run(BPRLoss(), big, -big)
    assert y.tolist() == [[0, onp.inf]]
    assert up.tolist() == [[0, -1]] and down.tolist() == [[0, 1]]


def test_bpr_gradient_by_differences():
    p, n, step = POSITIVE.astype('float64'), NEGATIVE.astype('float64'), 1e-6
    _, (up, _) = run(BPRLoss(), p, n)
    for i, j in onp.ndindex(p.shape):
        moved = onp.zeros_like(p)
        moved[i, j] = step
        ends = [onp.logaddexp(0, n - (p + s * moved)).sum() for s in (1, -1)]
        assert up[i, j] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize('shape', [(6,), (6, 1), (6, 2)])
@pytest.mark.parametrize('weight', [None, 0.5])
def test_bpr_sums_the_first_axis(shape, weight):
    p, n = POSITIVE.ravel()[:onp.prod(shape)], NEGATIVE.ravel()[:onp.prod(shape)]
    y, _ = run(BPRLoss(weight), p.reshape(shape), n.reshape(shape))
    expected = onp.logaddexp(0, (n - p).astype('float64')).reshape(shape)
    onp.testing.assert_allclose(y, (weight or 1) * expected.sum(0, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize('dtype, rtol', [('float16', 4e-3), ('float32', 1e-6), ('float64', 1e-12)])
@pytest.mark.parametrize('weight', [None, 0.5])
@pytest.mark.parametrize('margin', [None, 0, 2.5])
def test_hinge(dtype, rtol, weight, margin):
    positive, negative = (5 * a.astype(dtype) for a in (POSITIVE, NEGATIVE))
    arguments = [] if margin is None else [margin]
    loss, factor = HingeLossbRec(weight), weight or 1
    y, (up, down) = run(lambda p, n: loss(p, n, *arguments), positive, negative)
    d = positive.astype('float64') - negative.astype('float64')
    left = (1 if margin is None else margin) - d
    assert y.shape == ()
    onp.testing.assert_allclose(y, factor * onp.maximum(0, left).sum(), rtol=rtol)
    onp.testing.assert_array_equal(up, -factor * (left > 0))
    onp.testing.assert_array_equal(down, -up)


def test_one_compiled_hinge_takes_every_margin():
    loss = HingeLossbRec()
    p, n = np.array(POSITIVE), np.array(NEGATIVE)
    margins = [1, 3, 0.5, np.array(MARGIN), 1, np.array(2.0)]
    expected = [onp.maximum(0, (m.asnumpy() if isinstance(m, np.ndarray) else m)
                            - (POSITIVE - NEGATIVE)).sum() for m in margins]
    loss.hybridize()
    got = [loss(p, n, m).item() for m in margins]
    assert got == pytest.approx(expected, rel=1e-5)


def test_signatures():
    """As a reader's cell makes them: weight and axis by position, prefix by name."""
    for cls in (BPRLoss, HingeLossbRec):
        loss = cls(0.5, 0, prefix='mine_')
        assert (loss._weight, loss._batch_axis, loss.prefix) == (0.5, 0, 'mine_')
        assert isinstance(loss, gluon.loss.Loss)
