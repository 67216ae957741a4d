"""Optimizers that update all parameters at once do what MXNet's do, however a Trainer uses them."""
import pickle

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, init, lr_scheduler, np

from d2l import ops
from d2l.train import optimizers

PAIRS = [('d2l_sgd', 'sgd', {}), ('d2l_sgd', 'sgd', {'momentum': 0.9}), ('d2l_adam', 'adam', {}),
         ('d2l_lamb', 'lamb', {}), ('d2l_lamb', 'lamb', {'lower_bound': 0.1, 'upper_bound': 0.5})]
COMMON = {'learning_rate': 0.05, 'wd': 0.1, 'clip_gradient': 0.2}


class Net(gluon.nn.Block):
    """Weights of several shapes, one of them frozen; only what a CPU also has for float16."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            for name, shape in zip('abcde', ((5,), (1, 5), (8, 1), (1,), (5,))):
                setattr(self, name, self.params.get(name, shape=shape))

    def forward(self, X):
        hidden = np.tanh(X * self.a.data(X.ctx) + self.b.data(X.ctx))
        return hidden * self.c.data(X.ctx)[:len(X)] * self.d.data(X.ctx) + self.e.data(X.ctx)


def make_net(devices=None, dtype='float32'):
    net = Net()
    mx.random.seed(0)
    onp.random.seed(0)
    net.initialize(init.Normal(0.5), ctx=devices or mx.cpu())
    net.cast(dtype)
    net.a.lr_mult, net.c.wd_mult, net.e.grad_req = 0.5, 2.0, 'null'
    return net


def train(net, trainer, steps=5, seed=0, dtype='float32', devices=None):
    rng = onp.random.RandomState(seed)
    for _ in range(steps):
        X = rng.standard_normal((8, 5)).astype(dtype)
        parts = onp.split(X, len(devices)) if devices else [X]
        with autograd.record():
            losses = [(net(np.array(part, dtype=dtype, ctx=device)) ** 2).sum()
                      for part, device in zip(parts, devices or [mx.cpu()])]
        autograd.backward(losses)
        trainer.step(8)
    return net


def values(net):
    return [p.data(p.list_ctx()[0]).asnumpy() for p in net.collect_params().values()]


def assert_equal(a, b, tolerance=1e-5):
    for x, y in zip(values(a), values(b)):
        onp.testing.assert_allclose(x.astype('float64'), y, rtol=tolerance, atol=tolerance)


def trained(name, more=(), devices=None, dtype='float32', **trainer):
    net = make_net(devices, dtype)
    arguments = {**COMMON, **dict(more)}
    return train(net, gluon.Trainer(net.collect_params(), name, arguments, **trainer),
                 dtype=dtype, devices=devices)


@pytest.mark.parametrize('ours, theirs, more', PAIRS)
def test_the_same_as_mxnets(ours, theirs, more):
    assert_equal(trained(ours, more), trained(theirs, more))


def adam_w(w, grads, lr, wd, beta1=0.9, beta2=0.999, eps=1e-8):
    """Algorithm 2 of Loshchilov and Hutter in float64."""
    m = v = 0
    for t, g in enumerate(grads, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g ** 2
        w = w - lr * (m / (1 - beta1 ** t) / (onp.sqrt(v / (1 - beta2 ** t)) + eps) + wd * w)
    return w


def test_adamw():
    rng = onp.random.RandomState(0)
    grads = rng.standard_normal((4, 6))
    weight = gluon.Parameter('weight', shape=6)
    weight.initialize(init.One())
    trainer = gluon.Trainer([weight], 'd2l_adamw', {'learning_rate': 0.1, 'wd': 0.3})
    for g in grads:
        with autograd.record():
            loss = (weight.data() * np.array(g)).sum()
        loss.backward()
        trainer.step(1)
    want = adam_w(onp.ones(6), grads.astype('float32').astype('float64'), 0.1, 0.3)
    # MXNet, which computes it without the library, rounds 1 - beta to float32.
    onp.testing.assert_allclose(weight.data().asnumpy(), want, rtol=1e-5)


@pytest.mark.parametrize('name', ['d2l_sgd', 'd2l_adam', 'd2l_adamw', 'd2l_lamb'])
def test_one_call_for_all_parameters(name, monkeypatch):
    kernel, calls = {'d2l_adamw': 'multi_adam'}.get(name, name.replace('d2l_', 'multi_')), []
    operator = getattr(ops, kernel)

    class Counted:
        @staticmethod
        def bind(*args):
            update = operator.bind(*args)
            return lambda **attrs: (calls.append(len(args[0])), update(**attrs))
    monkeypatch.setattr(ops, kernel, Counted)
    trained(name)
    assert calls == [4] * 5


def test_fused_where_there_is_a_kernel(monkeypatch):
    assert [optimizers.fused(name) for name in ('sgd', 'adam', 'lamb')] == [
        'd2l_sgd', 'd2l_adam', 'd2l_lamb']
    monkeypatch.setattr(ops, 'available', lambda: ['multi_sgd'])
    assert [optimizers.fused(name) for name in ('sgd', 'adam')] == ['d2l_sgd', 'adam']


@pytest.mark.parametrize('name', ['d2l_sgd', 'd2l_adam', 'd2l_adamw', 'd2l_lamb'])
@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_without_the_library(name, dtype):
    more = {'multi_precision': dtype == 'float16'}
    with ops.composed():
        other = trained(name, more, dtype=dtype)
    assert_equal(trained(name, more, dtype=dtype), other, 1e-5 if dtype == 'float32' else 5e-3)


@pytest.mark.parametrize('ours, theirs, more', PAIRS)
def test_mixed_precision(ours, theirs, more):
    more = {**more, 'multi_precision': True}
    # Gradients are float16, in which both nets compute: one rounding apart they drift.
    assert_equal(trained(ours, more, dtype='float16'), trained(theirs, more, dtype='float16'), 1e-2)


def test_mixed_precision_keeps_small_steps():
    weight = gluon.Parameter('weight', shape=4, dtype='float16')
    weight.initialize(init.One())
    trainer = gluon.Trainer([weight], 'd2l_sgd', {'learning_rate': 1e-4, 'multi_precision': True})
    for _ in range(100):
        with autograd.record():
            loss = weight.data().sum()
        loss.backward()
        trainer.step(1)
    onp.testing.assert_allclose(weight.data().asnumpy(), 0.99, rtol=1e-3)


@pytest.mark.parametrize('ours, theirs, more', PAIRS)
@pytest.mark.parametrize('on_kvstore', [False, True])
def test_several_devices(ours, theirs, more, on_kvstore):
    devices = [mx.cpu(0), mx.cpu(1)]
    two = trained(ours, more, devices, update_on_kvstore=on_kvstore)
    assert_equal(two, trained(theirs, more, devices, update_on_kvstore=on_kvstore))
    for p in two.collect_params().values():
        if p.grad_req != 'null':
            onp.testing.assert_array_equal(*[d.asnumpy() for d in p.list_data()])


@pytest.mark.parametrize('name', ['d2l_sgd', 'd2l_adam', 'd2l_adamw', 'd2l_lamb'])
@pytest.mark.parametrize('mixed', [False, True])
def test_states_are_saved_and_loaded(name, mixed, tmp_path):
    arguments = {**COMMON, 'multi_precision': mixed}
    if name == 'd2l_sgd':
        arguments['momentum'] = 0.9
    dtype = 'float16' if mixed else 'float32'
    net, path = make_net(dtype=dtype), str(tmp_path / 'states')
    trainer = gluon.Trainer(net.collect_params(), name, arguments)
    train(net, trainer, dtype=dtype)
    trainer.save_states(path)
    start = values(net)
    train(net, trainer, seed=1, dtype=dtype)
    other = make_net(dtype=dtype)
    for p, value in zip(other.collect_params().values(), start):
        p.set_data(np.array(value, dtype=dtype))
    fresh = gluon.Trainer(other.collect_params(), name, arguments)
    fresh.load_states(path)
    assert type(fresh.optimizer) is type(trainer.optimizer)
    train(other, fresh, seed=1, dtype=dtype)
    assert_equal(net, other, 1e-6)


def test_a_pickle_holds_the_arguments():
    optimizer = pickle.loads(pickle.dumps(mx.optimizer.create('d2l_adam', beta1=0.5, wd=0.2)))
    assert type(optimizer) is optimizers.Adam
    assert (optimizer.beta1, optimizer.wd, optimizer.lr) == (0.5, 0.2, 0.001)


def test_schedulers_and_rates_that_change():
    nets = []
    for name in ('d2l_adam', 'adam'):
        net = make_net()
        trainer = gluon.Trainer(net.collect_params(), name, {
            'learning_rate': 0.1,
            'lr_scheduler': lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1)})
        nets.append(train(net, trainer))
        assert trainer.learning_rate == 0.025
        trainer = gluon.Trainer(net.collect_params(), name)
        trainer.set_learning_rate(0.03)
        train(net, trainer, steps=1)
    assert_equal(*nets)


def test_steps_are_counted_for_each_parameter():
    """With ignore_stale_grad some have had more steps than others."""
    nets = []
    for name in ('d2l_adam', 'adam'):
        net = make_net()
        trainer = gluon.Trainer(net.collect_params(), name, {'learning_rate': 0.1})
        for part in (net.a, net.b, net.a, net.a, net.b):
            with autograd.record():
                loss = (part.data() ** 2).sum()
            loss.backward()
            trainer.step(2, ignore_stale_grad=True)
        nets.append(net)
    assert_equal(*nets)


def test_batch_sizes_of_any_kind():
    """The book gives step() an array of one number."""
    nets = []
    for batch_size in (8, np.array(8), onp.float32(8)):
        net = make_net()
        trainer = gluon.Trainer(net.collect_params(), 'd2l_sgd', {'learning_rate': 0.1})
        with autograd.record():
            loss = (net(np.ones((8, 5)) * np.arange(8).reshape(8, 1)) ** 2).sum()
        loss.backward()
        trainer.step(batch_size)
        nets.append(net)
    assert_equal(nets[0], nets[1])
    assert_equal(nets[0], nets[2])


@pytest.mark.parametrize('ours, theirs, more', PAIRS[:3])
def test_sparse_gradients_are_left_to_mxnet(ours, theirs, more):
    found = []
    for name in (ours, theirs):
        optimizer = mx.optimizer.create(name, learning_rate=0.1, **more)
        updater = mx.optimizer.get_updater(optimizer)
        weight = mx.nd.ones((4, 3)).tostype('row_sparse')
        grad = mx.nd.sparse.row_sparse_array(
            (onp.ones((2, 3), 'float32'), [0, 2]), shape=(4, 3))
        for _ in range(2):
            updater([0], [grad], [weight])
        found.append(weight.asnumpy())
    onp.testing.assert_allclose(*found, rtol=1e-6)
    assert (found[0][1] == 1).all() and (found[0][0] < 1).all()


def test_sparse_gradients_in_mixed_precision():
    updater = mx.optimizer.get_updater(
        mx.optimizer.create('d2l_sgd', learning_rate=1e-4, multi_precision=True))
    weight = mx.nd.ones((4, 3), dtype='float16')
    grad = mx.nd.sparse.row_sparse_array((onp.ones((2, 3), 'float16'), [0, 2]), shape=(4, 3))
    for _ in range(100):
        updater([0], [grad], [weight])
    onp.testing.assert_allclose(weight.asnumpy()[:, 0], [0.99, 1, 0.99, 1], rtol=1e-3)


def test_adamw_takes_sparse_gradients_of_dense_weights():
    optimizer = mx.optimizer.create('d2l_adamw', learning_rate=0.1)
    updater = mx.optimizer.get_updater(optimizer)
    weight = mx.nd.ones((4, 3))
    grad = mx.nd.sparse.row_sparse_array(
            (onp.ones((2, 3), 'float32'), [0, 2]), shape=(4, 3))
    updater([0], [grad], [weight])
    onp.testing.assert_allclose(weight.asnumpy()[:, 0], [0.9, 1, 0.9, 1], rtol=1e-6)
    with pytest.raises(TypeError, match='d2l_adamw: weights must be dense, number 1 is row_sparse'):
        updater([1], [grad], [weight.tostype('row_sparse')])


def test_single_updates():
    """As a KVStore makes them: one parameter at a time, without a list."""
    found = []
    for name in ('d2l_adam', 'adam'):
        updater = mx.optimizer.get_updater(mx.optimizer.create(name))
        weight = mx.nd.ones(3)
        for _ in range(3):
            updater(0, mx.nd.array([1, -2, 0.5]), weight)
        found.append(weight.asnumpy())
    onp.testing.assert_allclose(*found, rtol=1e-6)


def slow_calls(monkeypatch):
    """A list that gets an entry for each call of MXNet's own Updater."""
    calls, slow = [], mx.optimizer.Updater.__call__
    monkeypatch.setattr(mx.optimizer.Updater, '__call__', lambda self, *args: (
        calls.append(1), slow(self, *args)))
    return calls


def test_only_the_first_step_looks_at_the_arrays(monkeypatch):
    calls = slow_calls(monkeypatch)
    trained('d2l_adam')
    assert len(calls) == 1
    trained('adam')
    assert len(calls) == 6


def changed(name, change, path):
    """A net that is trained, changed somehow, and trained on; the last steps are prepared ones."""
    net = make_net()
    trainer = gluon.Trainer(net.collect_params(), name, dict(COMMON))
    train(net, trainer, steps=3)
    trainer.save_states(path)
    train(net, trainer, steps=2, seed=1)
    change(net, trainer, path)
    return train(net, trainer, steps=3, seed=2)


def freeze(net, trainer, path):
    net.b.grad_req = 'null'


def new_arrays(net, trainer, path):
    for parameter in net.collect_params().values():
        value = parameter.data()
        parameter.initialize(init.One(), force_reinit=True)
        parameter.set_data(value * 2)


def new_gradients(net, trainer, path):
    net.a.grad_req = 'add'
    net.a.grad_req = 'write'


def load(net, trainer, path):
    trainer.load_states(path)


def multiply(net, trainer, path):
    net.a.lr_mult, net.b.wd_mult = 3.0, 0.0
    trainer.optimizer.beta1 = 0.5


def as_float64(net, trainer, path):
    net.cast('float64')
    net.cast('float32')


@pytest.mark.parametrize('change', [freeze, new_arrays, new_gradients, load, multiply, as_float64])
def test_a_prepared_step_notices_changes(change, tmp_path):
    path = str(tmp_path / 'states')
    assert_equal(changed('d2l_adam', change, path), changed('adam', change, path))


def test_a_prepared_step_of_a_convolution_that_predicts():
    """Between the steps MXNet rearranges the weights; the step must not go to a copy of them."""
    found, X = [], np.array(onp.random.RandomState(0).standard_normal((8, 64, 8, 8)), 'float32')
    for name in ('d2l_sgd', 'sgd'):
        net = gluon.nn.Conv2D(64, 3, in_channels=64)
        mx.random.seed(0)
        net.initialize(init.Normal(0.1))
        trainer = gluon.Trainer(net.collect_params(), name, {'learning_rate': 0.5})
        for _ in range(4):
            net(X).wait_to_read()
            with autograd.record():
                loss = (net(X) ** 2).mean()
            loss.backward()
            trainer.step(1)
        found.append(net.weight.data().asnumpy())
    onp.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


def test_weights_of_two_dtypes_in_one_step():
    found = []
    for name in ('d2l_adam', 'adam'):
        updater = mx.optimizer.get_updater(mx.optimizer.create(name))
        weights = [np.ones(3), np.ones(2, dtype='float64'), np.ones(4)]
        grads = [np.full(w.shape, 0.5, dtype=w.dtype) for w in weights]
        for _ in range(3):
            updater([0, 1, 2], grads, weights)
        found.append(onp.concatenate([w.asnumpy() for w in weights]))
    onp.testing.assert_allclose(*found, rtol=1e-6)
