"""d2l.Trainer in one process: devices, arguments, states; its stores are in test_server.py."""
import io
import pickle

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l.parallel import stores
from d2l.parallel.trainer import Trainer
from tests.parallel import _training

DEVICES = [mx.cpu(0), mx.cpu(1)]
SGD = {'learning_rate': 0.5, 'momentum': 0.5}


def dense(devices=DEVICES, weight=1.0, **arguments):
    net = nn.Dense(1, use_bias=False, in_units=2, **arguments)
    net.initialize(init.Constant(weight), ctx=devices)
    return net


def backward(net, *rows):
    """Each device's gradient becomes its row."""
    with autograd.record():
        outputs = [net(np.array([row], ctx=device)) for row, device in
                   zip(rows, net.weight.list_ctx())]
    autograd.backward(outputs)


def weights(net):
    found = [data.asnumpy().ravel().tolist() for data in net.weight.list_data()]
    assert all(values == found[0] for values in found)
    return found[0]


@pytest.mark.parametrize('name', [
    name for name, case in _training.CASES.items()
    if not {'update_on_kvstore', 'compression_params'} & set(case['options'])])
def test_two_devices_compute_what_one_does(name):
    one, two = (_training.on_devices([name], count)[name] for count in (1, 2))
    for parameter, (value,) in one.items():
        first, second = two[parameter]
        onp.testing.assert_array_equal(first, second)
        onp.testing.assert_allclose(first, value, 0, 1e-6)


def test_gluon_computes_the_same():
    results = []
    for make in (Trainer, gluon.Trainer):
        net = dense()
        trainer = make(net.collect_params(), 'adam', {'learning_rate': 0.1})
        for row in ([1., 2.], [3., -1.]):
            backward(net, row, row)
            trainer.step(2)
        results.append(weights(net))
    assert results[0] == results[1]


@pytest.mark.parametrize('make', [
    lambda net: net, lambda net: net.collect_params(), lambda net: dict(net.collect_params()),
    lambda net: list(net.collect_params().values())])
def test_what_params_may_be(make):
    net = dense()
    trainer = Trainer(make(net), 'sgd', SGD, batch_size=2)
    backward(net, [1, 0], [0, 1])
    trainer.step()
    assert weights(net) == [0.75, 0.75]


def test_learning_rates_take_effect():
    net = dense()
    trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=1)
    backward(net, [1, 0], [0, 0])
    trainer.step()
    trainer.set_learning_rate(0.25)
    assert trainer.learning_rate == 0.25
    backward(net, [0, 1], [0, 0])
    trainer.step()
    net.weight.lr_mult = 2.0
    backward(net, [0, 1], [0, 0])
    trainer.step(2)
    assert weights(net) == [0, 0.5]


def test_clipping_sees_the_sum():
    """Each device's gradient has norm 3 or 4, their mean 2.5; grad_norm is that of the mean."""
    net = dense()
    trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=2, clip_global_norm=1.0)
    assert trainer.grad_norm is None
    backward(net, [3, 0], [0, 4])
    trainer.step()
    onp.testing.assert_allclose(weights(net), [1 - 0.6, 1 - 0.8], 1e-6)
    onp.testing.assert_allclose(trainer.grad_norm.asnumpy(), [2.5])
    backward(net, [0.3, 0], [0, 0.4])
    trainer.step()
    onp.testing.assert_allclose(weights(net), [0.4 - 0.15, 0.2 - 0.2], 1e-6, 1e-7)


@pytest.mark.parametrize('grad_req', ['write', 'add'])
def test_accumulation_is_the_mean_over_all_examples(grad_req):
    net = dense()
    net.weight.grad_req = grad_req
    trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=2, accumulate=3)
    for cycle in range(2):
        for row, size in (([1, 2], 2), ([3, 4], 1), ([5, 6], 5)):
            assert weights(net) == ([1, 1] if cycle == 0 else [1 - 18 / 8, 1 - 24 / 8])
            assert trainer.pending == {1: 0, 3: 1, 5: 2}[row[0]]
            backward(net, row, row)
            trainer.step(size)
    assert weights(net) == [1 - 36 / 8, 1 - 48 / 8]
    with pytest.raises(RuntimeError, match='call step instead of update'):
        trainer.update(2)
    backward(net, row, row)
    trainer.step()
    with pytest.raises(RuntimeError, match='not between the 3 steps of one; 1 are done'):
        trainer.get_states()


def test_stale_gradients():
    net = dense()
    trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=1)
    backward(net, [1, 0], [1, 0])
    trainer.step()
    with pytest.raises(UserWarning, match='has not been updated'):
        trainer.step()
    trainer.step(ignore_stale_grad=True)
    assert weights(net) == [-1, 1]
    backward(net, [0, 1])  # the other device still has its first gradient
    trainer.step(ignore_stale_grad=True)
    assert weights(net) == [-1, 0]


def test_two_bits_on_devices():
    net = dense()
    trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=1,
                      compression_params={'type': '2bit', 'threshold': 0.5})
    backward(net, [0.7, 0.2], [0.1, 0.2])
    trainer.step()
    assert weights(net) == [0.5, 1]
    for _ in range(2):
        backward(net, [0, 0.2], [0, 0.2])
        trainer.step()
    assert weights(net) == [0.5, 0]  # what was held back has come


@pytest.mark.parametrize('optimizer', ['sgd', 'adam', 'nadam', 'd2l_lamb', 'rmsprop', 'sgld'])
@pytest.mark.parametrize('counts', [(1, 2), (2, 1)])
def test_states_go_on_elsewhere(tmp_path, optimizer, counts):
    """From one device to two and back, with counts, schedule and what Nadam keeps in itself."""
    if optimizer == 'sgld':  # adds noise: only that it has no states matters here
        return Trainer(dense(), 'sgld').set_states(Trainer(dense(), 'sgld').get_states())
    rows = [[1., 2.], [3., -1.], [0., 1.], [2., 2.]]

    def trainer_of(net):
        schedule = mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.5)
        return Trainer(net, optimizer, {'lr_scheduler': schedule}, batch_size=1)

    def step(net, trainer, row):
        backward(net, row, [0., 0.])
        trainer.step()

    straight = dense(DEVICES[:1])
    trainer = trainer_of(straight)
    for row in rows:
        step(straight, trainer, row)
    net = dense(DEVICES[:counts[0]])
    trainer = trainer_of(net)
    for row in rows[:2]:
        step(net, trainer, row)
    trainer.save_states(str(tmp_path / 'states'))
    other = dense(DEVICES[:counts[1]])
    other.weight.set_data(net.weight.list_data()[0])
    trainer = trainer_of(other)
    trainer.load_states(str(tmp_path / 'states'))
    for row in rows[2:]:
        step(other, trainer, row)
    onp.testing.assert_allclose(weights(other), weights(straight), 1e-6)


def test_states_are_no_pickles_and_none_are_taken():
    net = dense()
    trainer = Trainer(net, 'adam')
    backward(net, [1, 0], [1, 0])
    trainer.step(1)
    states = trainer.get_states()
    with onp.load(io.BytesIO(states), allow_pickle=False) as archive:
        assert all(archive[name].dtype.kind in 'uf' for name in archive.files)
    plain = gluon.Trainer(net.collect_params(), 'adam')
    for bad in (b'', states[:100], states[:-40], b'x' * 500, pickle.dumps({}),
                plain._updaters[0].get_states(True)):
        with pytest.raises(ValueError, match='no states that d2l.Trainer has saved, or they are'):
            trainer.set_states(bad)
    with pytest.raises(ValueError, match='must be those of the optimizer SGD, got Adam'):
        Trainer(net, 'sgd').set_states(states)
    with pytest.raises(ValueError, match=r'must have its shape, \[1, 3\], got \[1, 2\]'):
        wide = nn.Dense(1, use_bias=False, in_units=3)
        wide.initialize()
        Trainer(wide, 'adam').set_states(states)
    with pytest.raises(ValueError, match='must be those of 2 parameters, got 1'):
        biased = nn.Dense(1, in_units=2)
        biased.initialize()
        Trainer([biased.weight, biased.bias], 'adam').set_states(states)


@pytest.mark.parametrize('error, match, arguments', [
    (ValueError, 'local, device, dist_sync, dist_async, ring, horovod, got .lcoal',
     {'kvstore': 'lcoal'}),
    (ValueError, 'kvstore must be a name, a store or None, got int', {'kvstore': 3}),
    (ValueError, 'batch_size must be positive, got 0', {'batch_size': 0}),
    (ValueError, 'clip_global_norm must be positive, got -1', {'clip_global_norm': -1}),
    (ValueError, 'accumulate must be positive, got 0', {'accumulate': 0}),
    (TypeError, 'float', {'accumulate': 1.5}),
    (ValueError, 'update_on_kvstore must be None or False', {'update_on_kvstore': True}),
    (ValueError, 'store local: gradients cannot be compressed',
     {'kvstore': 'local', 'compression_params': {'type': '2bit'}}),
    (ValueError, 'store device: compression must be', {'compression_params': {'type': 'fp16'}}),
    (ValueError, 'threshold must be positive, got -1',
     {'compression_params': {'type': '2bit', 'threshold': -1}})])
def test_bad_arguments(error, match, arguments):
    with pytest.raises(error, match=match):
        Trainer(dense(), 'sgd', SGD, **arguments)


def test_bad_calls():
    with pytest.raises(RuntimeError, match='weight must be initialized before'):
        Trainer(nn.Dense(1), 'sgd')
    net = dense()
    trainer = Trainer(net, 'sgd')
    backward(net, [1, 0], [0, 0])
    with pytest.raises(ValueError, match='batch_size must be given'):
        trainer.step()
    with pytest.raises(ValueError, match='batch_size must be positive, got -1'):
        trainer.step(-1)
    with pytest.raises(TypeError, match='it has no options, got exact'):
        stores.create('local', exact=True)


class Counting(stores.Store):
    """A store of one worker that notes when it is asked to broadcast."""

    type, rank, num_workers = 'dist_counting', 0, 1

    def __init__(self):
        self.broadcasts, self.barriers = [], 0

    def broadcast(self, key, value, out, priority=0):
        self.broadcasts.append(key)
        for array in out if isinstance(out, list) else [out]:
            array[:] = 7.0  # what rank 0 has

    def pushpull(self, key, value, out=None, priority=0):
        pass

    def barrier(self):
        self.barriers += 1


def test_broadcast_before_the_first_forward_pass():
    """Also of shapes that this pass tells, by it: nothing is computed from other values."""
    net = nn.HybridSequential()
    net.add(nn.Dense(1, in_units=2), nn.Dense(1))
    net.initialize()
    store = Counting()
    trainer = Trainer(net, 'sgd', kvstore=store, batch_size=1)
    assert net[0].weight.data().asnumpy().tolist() == [[7, 7]] and store.barriers == 1
    with autograd.record():
        y = net(np.ones((1, 2)))
    assert y.item() == 7 * (7 + 7 + 7) + 7
    assert len(store.broadcasts) == 4 and trainer._params_to_init == []
    other = Counting()
    Trainer(net, 'sgd', kvstore=other)
    assert len(other.broadcasts) == 4


@pytest.mark.parametrize('name, value', [('rank', 1), ('num_workers', 2)])
def test_the_place_is_that_of_the_job(monkeypatch, name, value):
    """Else each worker would train on the examples of worker 0, and write its checkpoints."""
    monkeypatch.setattr(Counting, name, value)
    with pytest.raises(RuntimeError, match='store dist_counting: it says rank . of . workers, the '
                                           'job rank 0 of 1, .* set D2L_RANK and D2L_NUM_WORKERS'):
        Trainer(dense(), 'sgd', kvstore=Counting())
    monkeypatch.setenv('HOROVOD_RANK', str(Counting.rank))
    monkeypatch.setenv('HOROVOD_SIZE', str(Counting.num_workers))
    assert Trainer(dense(), 'sgd', kvstore=Counting()).rank == Counting.rank


@pytest.mark.filterwarnings('ignore')
def test_sparse_gradients_need_devices():
    from mxnet import npx
    npx.reset_np()
    try:
        net = nn.Embedding(4, 2, sparse_grad=True)
        net.initialize(ctx=DEVICES)
        with pytest.raises(ValueError, match='must be dense for the store dist_counting'):
            Trainer(net, 'sgd', kvstore=Counting())
        trainer = Trainer(net, 'sgd', {'learning_rate': 1.0}, batch_size=1)
        before = net.weight.data(DEVICES[0]).asnumpy()
        with autograd.record():
            outputs = [net(mx.nd.array([1], ctx=device)) for device in DEVICES]
        autograd.backward(outputs)
        trainer.step()
        for device in DEVICES:
            change = before - net.weight.data(device).asnumpy()
            onp.testing.assert_allclose(change, [[0, 0], [2, 2], [0, 0], [0, 0]], 1e-6)
    finally:
        npx.set_np()
