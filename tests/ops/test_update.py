"""Operators that change lists of arrays in place: what is refused, and what MXNet must not undo."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx

from d2l import ops
from d2l.ops import _library, _update


def step(weight, grad):
    ops.multi_sgd([weight], [grad], lrs=1.0)


@pytest.mark.parametrize('args, error, text', [
    (([], []), TypeError, 'multi_sgd: weights must be a list of at least one array, got []'),
    ((np.ones(3), np.ones(3)), TypeError,
     'weights must be a list of at least one array, got ndarray'),
    (([np.ones(3)], [np.ones(3)] * 2), ValueError,
     'multi_sgd: grads must have as many arrays as weights, 1, got 2'),
    (([np.ones(3)], [onp.ones(3)]), TypeError,
     'multi_sgd: grads must be dense arrays, got ndarray'),
    (([mx.nd.ones((3, 1))], [mx.nd.ones((3, 1)).tostype('row_sparse')]), TypeError,
     'grads must be dense arrays, got RowSparseNDArray'),
    (([np.ones(3)], None), TypeError, 'grads must be a list of at least one array, got NoneType'),
    (([np.ones(3)],), TypeError, "multi_sgd: missing a required argument: 'grads'")])
def test_bad_lists(args, error, text):
    with pytest.raises(error) as caught:
        ops.multi_sgd(*args)
    assert text in str(caught.value)


def test_bound_to_arrays():
    weight, grad = np.ones(3), np.full(3, 2.0)
    step_of = ops.multi_sgd.bind([weight], [grad])
    step_of(lrs=0.5)
    assert (weight.asnumpy() == 0).all()
    grad[:] = 1
    step_of(lrs=0.25)
    with ops.composed():
        step_of(lrs=0.25)
    assert (weight.asnumpy() == -0.5).all()
    with pytest.raises(TypeError, match='multi_sgd: .*nesterov'):
        step_of(nesterov=True)
    with pytest.raises(TypeError, match='grads must be dense arrays, got ndarray'):
        ops.multi_sgd.bind([weight], [onp.ones(3)], None, None)


def test_unknown_attributes_and_single_arrays():
    with pytest.raises(TypeError, match='multi_sgd: .*nesterov'):
        ops.multi_sgd([np.ones(3)], [np.ones(3)], nesterov=True)
    with pytest.raises(TypeError, match='divisor must be a dense array, got float'):
        ops.global_norm_clip([np.ones(3)], 2.0)


def test_arguments_are_those_of_the_definition():
    with pytest.raises(TypeError, match='wrong: the first arguments must be weights, grads'):
        @_update.update('weights', 'grads')
        def wrong(grads, weights):
            pass


def test_lists_of_equal_numbers_are_one():
    assert _update.text([0.5, 0.5]) == 0.5 and _update.text([0.5, 1]) == '0.5,1.0'
    assert _update.text([]) == ''  # which the kernel refuses
    assert _update.text(onp.float64(0.1)) == 0.1 and _update.text([onp.float32(2)] * 2) == 2


@pytest.mark.parametrize('make', [np.ones, mx.nd.ones])
def test_numpy_and_legacy_arrays(make):
    weight, grad = make((3,)), make((3,))
    step(weight, grad)
    assert (weight.asnumpy() == 0).all() and (grad.asnumpy() == 1).all()


def test_nothing_is_recorded():
    weight = np.ones(3)
    weight.attach_grad()
    with autograd.record():
        y = (weight * 2).sum()
        step(weight, np.ones(3))
    y.backward()
    assert (weight.grad == 2).all() and (weight == 0).all()


@pytest.mark.parametrize('make, shape', [
    (lambda: gluon.nn.Conv2D(64, 3, in_channels=64), (8, 64, 16, 16)),
    (lambda: gluon.nn.Conv2DTranspose(64, 3, in_channels=64), (8, 64, 16, 16)),
    (lambda: gluon.nn.Dense(512, in_units=512), (64, 512))])
@pytest.mark.parametrize('wait', [False, True])
def test_weights_in_the_layout_of_a_convolution(make, shape, wait):
    """A net that predicts rearranges its weights; the update must not go to a copy of them."""
    net = make()
    net.initialize()
    x = np.random.normal(size=shape)
    for _ in range(4):
        y = net(x)
        if wait:
            y.wait_to_read()
            npx.waitall()
        weight = net.weight.data()
        step(weight, np.full(weight.shape, 0.5))
    assert onp.abs(net.weight.data().asnumpy() + 2).max() < 0.5


def test_a_part_of_an_array():
    whole = np.ones((4, 3))
    step(whole[1:3], np.ones((2, 3)))
    assert whole.asnumpy()[:, 0].tolist() == [1, 0, 0, 1]


def test_the_layout_is_recognised():
    """Without MXNet's function nothing could be undone, and the test above would pass by luck."""
    assert hasattr(mx.base._LIB, _library._REORDER)


def test_gradients_of_a_convolution_are_clipped():
    net = gluon.nn.Sequential()
    net.add(gluon.nn.Conv2D(64, 3, in_channels=64), gluon.nn.BatchNorm(in_channels=64),
            gluon.nn.Conv2D(32, 1, in_channels=64))
    net.initialize()
    x = np.random.normal(size=(8, 64, 16, 16))
    for _ in range(2):
        net(x)
        with autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        grads = [p.grad() for p in net.collect_params().values() if p.grad_req != 'null']
        ops.global_norm_clip(grads, theta=0.5)
        norm = onp.sqrt(sum((g.asnumpy().astype('float64') ** 2).sum() for g in grads))
        assert abs(norm - 0.5) < 1e-5
