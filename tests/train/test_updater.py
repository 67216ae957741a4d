"""gluon.Trainer with an optimizer of d2l: which gradients it takes for fresh, asked all at once."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l import ops
from d2l.train import optimizers  # noqa: F401  (d2l_adam)

NAMES = ['d2l_adam', 'adam']
DEVICES = [mx.cpu(0), mx.cpu(1)]


class TwoWays(nn.Block):
    """Uses one of its layers, or both."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Dense(2, in_units=3), nn.Dense(2, in_units=3)

    def forward(self, X, both=True):
        return self.a(X) + self.b(X) if both else self.a(X)


class Calls:
    """Counts how often an array is asked alone."""

    def __init__(self, monkeypatch):
        self.count, asked = 0, mx.nd.NDArray._fresh_grad

        def get(array):
            self.count += 1
            return asked.fget(array)
        monkeypatch.setattr(mx.nd.NDArray, '_fresh_grad', property(get, asked.fset))


def make(name, devices=None, **kwargs):
    net = TwoWays()
    mx.random.seed(0)
    net.initialize(init.Normal(0.5), ctx=devices or mx.cpu())
    kwargs = kwargs or {'update_on_kvstore': False}
    return net, gluon.Trainer(net.collect_params(), name, {'learning_rate': 0.1}, **kwargs)


def backward(net, both=True, devices=None):
    with autograd.record():
        losses = [(net(np.ones((2, 3), ctx=device), both) ** 2).sum()
                  for device in devices or [mx.cpu()]]
    autograd.backward(losses)


def values(net):
    return [p.data(p.list_ctx()[0]).asnumpy() for p in net.collect_params().values()]


def fresh(net):
    return [array._fresh_grad for p in net.collect_params().values() for array in p.list_data()]


def assert_same(nets):
    for a, b in zip(*map(values, nets)):
        onp.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('devices', [None, DEVICES])
@pytest.mark.parametrize('ignore', [False, True])
def test_all_are_asked_at_once(devices, ignore, monkeypatch):
    nets = []
    for name in NAMES:
        net, trainer = make(name, devices)
        for _ in range(4):
            backward(net, devices=devices)
            trainer.step(2, ignore_stale_grad=ignore)
            assert not any(fresh(net))
        nets.append(net)
        if name == 'd2l_adam':
            calls = Calls(monkeypatch)
            backward(net, devices=devices)
            trainer.step(2, ignore_stale_grad=ignore)
            assert calls.count == (0 if ops.available() else len(fresh(net)))
            monkeypatch.undo()
        else:
            backward(net, devices=devices)
            trainer.step(2)
    assert_same(nets)


@pytest.mark.parametrize('devices', [None, DEVICES])
@pytest.mark.parametrize('before', [0, 3])
def test_a_gradient_that_is_not_fresh(before, devices):
    """MXNet's error, and nothing is updated; or that parameter is left out."""
    nets = []
    for name in NAMES:
        net, trainer = make(name, devices)
        for _ in range(before):
            backward(net, devices=devices)
            trainer.step(2)
        start = values(net)
        backward(net, both=False, devices=devices)
        with pytest.raises(UserWarning, match='has not been updated by backward'):
            trainer.step(2)
        assert all((a == b).all() for a, b in zip(start, values(net)))
        for both in (False, True, False, True):
            backward(net, both, devices)
            trainer.step(2, ignore_stale_grad=True)
        nets.append(net)
        stale = values(net)[2:]
        backward(net, False, devices)
        trainer.step(2, ignore_stale_grad=True)
        assert all((a == b).all() for a, b in zip(stale, values(net)[2:]))
    assert_same(nets)


def test_a_step_without_backward_is_refused():
    net, trainer = make('d2l_adam')
    for _ in range(3):
        backward(net)
        trainer.step(2)
    with pytest.raises(UserWarning, match='has not been updated by backward'):
        trainer.step(2)


@pytest.mark.parametrize('kwargs', [{'kvstore': 'local', 'update_on_kvstore': True},
                                    {'kvstore': 'device', 'update_on_kvstore': False},
                                    {'kvstore': None}])
def test_each_way_of_a_trainer(kwargs):
    nets = []
    for name in NAMES:
        net, trainer = make(name, DEVICES, **kwargs)
        for _ in range(4):
            backward(net, devices=DEVICES)
            trainer.step(4)
        nets.append(net)
    assert_same(nets)


def test_parameters_that_are_not_there_yet():
    net = nn.Dense(2)
    net.initialize()
    trainer = gluon.Trainer(net.collect_params(), 'd2l_adam')
    with pytest.raises(gluon.parameter.DeferredInitializationError):
        trainer.step(1)
    for _ in range(3):
        with autograd.record():
            loss = net(np.ones((2, 3))).sum()
        loss.backward()
        trainer.step(1)
    net.weight.grad_req = net.bias.grad_req = 'null'
    before = values(net)
    trainer.step(1)
    assert all((a == b).all() for a, b in zip(before, values(net)))


def test_sparse_gradients_beside_dense_ones():
    nets = []
    for name in NAMES:
        net = nn.HybridSequential()
        net.add(nn.Embedding(5, 4, sparse_grad=True), nn.Dense(2, flatten=False, in_units=4))
        mx.random.seed(0)
        with mx.util.np_array(False), mx.util.np_shape(False):
            net.initialize(init.Normal(0.5))
            trainer = gluon.Trainer(net.collect_params(), name, {'learning_rate': 0.1})
            for _ in range(4):
                with autograd.record():
                    loss = (net(mx.nd.array([[0, 1], [1, 3]])) ** 2).sum()
                loss.backward()
                trainer.step(1)
        nets.append(net)
    assert_same(nets)


def test_amp_still_scales():
    """Its loss scaler looks at gradients for an overflow, and then there is no step."""
    net, trainer = make('d2l_adam')

    class Overflow:
        def has_overflow(self, params):
            return True
    for _ in range(3):
        backward(net)
        trainer.step(2)
    trainer._amp_loss_scaler = Overflow()
    before = values(net)
    backward(net)
    trainer._update()
    assert all((a == b).all() for a, b in zip(before, values(net)))
