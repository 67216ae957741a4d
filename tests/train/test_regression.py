import math

import numpy as onp
import pytest
from mxnet import autograd, gluon, np
from mxnet.gluon import nn

from d2l.data.arrays import load_array, synthetic_data
from d2l.train.regression import evaluate_loss, linreg, sgd, squared_loss


def test_linreg():
    X, w = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 100.0])
    assert linreg(X, w, 1.0).tolist() == [211, 431]
    assert linreg(X, w.reshape(2, 1), np.array([1.0])).tolist() == [[211], [431]]


@pytest.mark.parametrize('shape', [(3,), (3, 1), (1, 3)])
def test_squared_loss_takes_the_shape_of_the_prediction(shape):
    y_hat = np.array([1.0, 2.0, 5.0]).reshape(shape)
    for y in (np.array([1.0, 4.0, 2.0]), np.array([[1.0], [4.0], [2.0]])):
        loss = squared_loss(y_hat, y)
        assert loss.shape == shape
        assert loss.reshape(-1).tolist() == [0, 2, 4.5]


def test_squared_loss_of_other_sizes():
    with pytest.raises(ValueError, match=r'squared_loss: .* got the shapes \(1,\) and \(3, 1\)'):
        squared_loss(np.ones((3, 1)), np.ones(1))


@pytest.mark.parametrize('grad_req, passes, expected', [('write', 2, [0.6, 1.2]),
                                                        ('add', 2, [0.2, 0.4])])
def test_sgd_is_in_place_and_leaves_the_gradient(grad_req, passes, expected):
    w = np.array([1.0, 2.0])
    w.attach_grad(grad_req)
    alias = w
    for _ in range(passes):
        with autograd.record():
            loss = (2 * w * np.array([1.0, 2.0])).sum()
        loss.backward()
    gradient = w.grad.asnumpy()
    sgd([w], lr=0.4, batch_size=2)
    onp.testing.assert_allclose(alias.asnumpy(), expected, rtol=1e-6)
    onp.testing.assert_array_equal(w.grad.asnumpy(), gradient)


def test_sgd_updates_every_array():
    params = [np.ones(2), np.ones((2, 3))]
    for param in params:
        param.attach_grad()
        with autograd.record():
            loss = (param * 3).sum()
        loss.backward()
    sgd(params, 1, 3)
    assert [float(param.sum()) for param in params] == [0, 0]


def test_sgd_without_gradient():
    w, b = np.ones(2), np.ones(1)
    w.attach_grad()
    with pytest.raises(ValueError, match=r'sgd: params\[1\] has no gradient'):
        sgd([w, b], 0.1, 10)


def test_linear_regression_from_scratch():
    true_w, true_b = np.array([2.0, -3.4]), 4.2
    X, y = synthetic_data(true_w, true_b, 500)
    w, b = np.random.normal(0, 0.01, (2, 1)), np.zeros(1)
    w.attach_grad()
    b.attach_grad()
    for _ in range(4):
        for features, labels in load_array((X, y), 10):
            with autograd.record():
                loss = squared_loss(linreg(features, w, b), labels)
            loss.backward()
            sgd([w, b], 0.05, 10)
    onp.testing.assert_allclose(w.reshape(-1).asnumpy(), true_w.asnumpy(), atol=0.02)
    assert math.isclose(float(b[0]), true_b, abs_tol=0.02)
    loss = evaluate_loss(lambda X: linreg(X, w, b), load_array((X, y), 64, False), squared_loss)
    assert loss < 1e-3


def test_evaluate_loss_weights_every_example_alike():
    X, y = np.arange(5).reshape(5, 1), np.zeros((5, 1))
    data = load_array((X, y), 2, is_train=False)
    assert evaluate_loss(lambda X: X, data, squared_loss) == (0 + 1 + 4 + 9 + 16) / 2 / 5
    net = nn.Dense(1)
    net.initialize()
    loss = evaluate_loss(net, data, gluon.loss.L2Loss())
    expected = float((net(X) ** 2).mean()) / 2
    assert math.isclose(loss, expected, rel_tol=1e-6)


def test_evaluate_loss_without_examples():
    with pytest.raises(ValueError, match='evaluate_loss: data_iter must give at least one'):
        evaluate_loss(lambda X: X, [], squared_loss)


def test_sgd_changes_nothing_when_it_fails():
    with_gradient, without = np.ones(2), np.ones(2)
    with_gradient.attach_grad()
    with autograd.record():
        l = with_gradient.sum()
    l.backward()
    for params, batch_size in (([with_gradient, without], 1), ([with_gradient], 0)):
        with pytest.raises(ValueError, match='sgd: '):
            sgd(params, 1, batch_size)
    assert (with_gradient == 1).all()
    sgd(iter([with_gradient]), 1, 1)
    assert (with_gradient == 0).all()
