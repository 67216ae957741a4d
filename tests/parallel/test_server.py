"""The parameter server: its commands in this process, and whole jobs of several processes."""
import json
import os
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as onp
import pytest

from d2l import ops
from d2l.parallel import server, stores
from d2l.parallel._serving import Updates
from tests.parallel import _cluster, _training

TRAINING = str(Path(__file__).parent / '_training.py')


def command(updates, **values):
    updates.command(json.dumps(values).encode())


def push(updates, key, pushed, stored):
    stored = mx.nd.array(stored)
    updates(key, mx.nd.array(pushed), stored)
    return stored.asnumpy().tolist()


@pytest.fixture
def updates():
    """A server with key 0, whose mailbox is 1, of a trainer with momentum, and a plain key 2."""
    updates = Updates()
    command(updates, op='optimizer', group=7, name='sgd', arguments={'momentum': 0.5})
    command(updates, op='own', group=7, key=0, mailbox=1)
    command(updates, op='configure', group=7, learning_rate=1.0, multipliers=[[0, 1.0, 1.0]])
    return updates


def test_updates(updates):
    assert push(updates, 0, [1, 2], [10, 10]) == [9, 8]
    assert push(updates, 0, [0, 0], [9, 8]) == [8.5, 7]
    command(updates, op='configure', group=7, learning_rate=0.5, multipliers=[[0, 2.0, 1.0]])
    assert push(updates, 0, [1, 1], [0, 0]) == [-1.25, -1.5]
    assert push(updates, 2, [5, 6], [0, 0]) == [5, 6]
    command(updates, op='assign', keys=[0])
    assert push(updates, 0, [5, 6], [0, 0]) == [5, 6]


def test_states_travel_through_the_mailbox(updates):
    push(updates, 0, [1, 2], [10, 10])
    command(updates, op='read', group=7, slot=0)
    assert push(updates, 1, [0, 0], [0, 0]) == [-1, -2]
    command(updates, op='read', group=7, slot='count')
    assert push(updates, 1, [0, 0], [0, 0]) == [1, 1]
    other = Updates()
    command(other, op='optimizer', group=1, name='sgd', arguments={'momentum': 0.5})
    command(other, op='own', group=1, key=4, mailbox=5)
    command(other, op='configure', group=1, learning_rate=1.0, multipliers=[])
    command(other, op='write', group=1, slot=0)
    push(other, 5, [-1, -2], [0, 0])
    command(other, op='write', group=1, slot='count')
    push(other, 5, [3, 3], [0, 0])
    assert push(other, 4, [0, 0], [9, 8]) == [8.5, 7]
    assert other.groups[1].optimizer.num_update == 4


@pytest.mark.parametrize('body, message', [
    (b'not JSON', 'unknown command'), (b'[]', 'unknown command'), (b'{}', 'unknown command'),
    (b'{"op": "run"}', 'unknown command'), (b'{"op": 3}', 'unknown command'),
    (b'\x80\x04.', 'unknown command'), (b' ' * (1 << 24) + b'{}', 'at most'),
    (b'{"op": "optimizer", "group": 1, "name": "mine", "arguments": {}}',
     "'mine' is not registered here; name the module that registers it in D2L_SERVER_IMPORTS")])
def test_bad_commands(updates, body, message):
    with pytest.raises(ValueError, match=message):
        updates.command(body)


def test_only_its_roles(monkeypatch, capsys):
    for role in (None, 'worker'):
        monkeypatch.delenv('DMLC_ROLE', raising=False)
        if role:
            monkeypatch.setenv('DMLC_ROLE', role)
        assert server.main() == 2
        assert 'DMLC_ROLE must be server or scheduler' in capsys.readouterr().err


def test_a_process_outside_of_a_job(monkeypatch):
    for name in [name for name in os.environ if name.startswith('DMLC_')]:
        monkeypatch.delenv(name)
    with pytest.raises(RuntimeError, match='dist_sync: this process is no worker of a job .*'
                                           'DMLC_PS_ROOT_URI.* start it by d2l launch'):
        stores.create('dist_sync')


@pytest.mark.slow
def test_two_workers_compute_what_two_devices_do(tmp_path):
    """Fourteen trainers in one process, whose steps take turns: bit-identical weights."""
    names = list(_training.CASES)
    _cluster.check(_cluster.run([TRAINING, 'dist_sync', str(tmp_path)] + names, workers=2,
                                servers=1))
    expected = _training.on_devices(names, 2)
    results = _training.results_of(tmp_path, 2)
    _training.assert_same(results, {'fp16': expected.pop('fp16')}, 1e-3)
    for name in ('servers', 'servers_restarted'):
        # The sum is scaled before the update there, and in it here.
        _training.assert_same(results, {name: expected.pop(name)}, 1e-6)
    _training.assert_same(results, expected)


@pytest.mark.slow
def test_asynchronous_servers_compute_what_one_device_does(tmp_path):
    """One worker, two servers, among which arrays of more than 20 elements are cut."""
    names = ['sgd', 'adam', 'd2l_adam', 'schedule', 'changing', 'restarted', 'adding']
    _cluster.check(_cluster.run([TRAINING, 'dist_async', str(tmp_path)] + names, workers=1,
                                servers=2, env={'MXNET_KVSTORE_BIGARRAY_BOUND': '20'}))
    results = _training.results_of(tmp_path, 1)
    _training.assert_same(results, _training.on_devices(names, 1, 1), 1e-6)


ASYNCHRONOUS = '''
import d2l, time
import mxnet as mx
from mxnet import autograd, init, np, npx
from d2l.parallel.trainer import Trainer
npx.set_np()
net = mx.gluon.nn.Dense(1, use_bias=False)
net.initialize(init.Constant(3.0))
trainer = Trainer(net, 'sgd', {'learning_rate': 0.25}, 'dist_async', batch_size=2)
rank = trainer.rank
assert trainer.num_workers == 2
X = np.ones((1, 1))
net(X)
def step():
    with autograd.record():
        y = net(X)
    y.backward()
    trainer.step()
    assert net.weight.grad().item() == 1.0, 'the gradient is as it was'
def settled():
    trainer._kvstore.barrier()
    trainer._kvstore.pull(0, net.weight.list_data())
    trainer._kvstore.barrier()
    return net.weight.data().item()
time.sleep(rank == 0)  # the other's steps are made with rank 0's learning rate all the same
for _ in range(4):
    step()
assert settled() == 3.0 - 8 * 0.25 / 2, settled()
trainer.set_learning_rate(0.0)
settled()
step()
assert settled() == 2.0, settled()
try:
    trainer.sum_workers([1])
except ValueError as error:
    assert 'numbers can be summed by dist_sync, without 2bit' in str(error)
else:
    raise AssertionError('asynchronous workers cannot wait for each other')
states = trainer.get_states()
net.weight.set_data(np.full((1, 1), 5.0 + rank))
trainer.set_learning_rate(0.5)
trainer._kvstore.barrier()
step()
assert settled() == 4.5, settled()
print('as expected')
'''


@pytest.mark.slow
def test_asynchronous_workers(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(ASYNCHRONOUS)
    processes = _cluster.run([str(script)], workers=2)
    _cluster.check(processes)
    assert all('as expected' in processes[f'worker {i}'].output for i in range(2))


EXACT = '''
import d2l, sys
import mxnet as mx
import numpy as onp
from d2l.parallel import stores
shards = onp.load(sys.argv[1])
store = stores.create('dist_sync', exact=True)
share = len(shards) // store.num_workers
mine = shards[store.rank * share:][:share]
devices = [mx.cpu(i) for i in range(share)]
def arrays(*columns):
    return [[mx.nd.array(mine[i, slice(*columns)], ctx=device)
             for i, device in enumerate(devices)]]
store.broadcast(0, mx.nd.zeros(500), mx.nd.zeros(500))
store.broadcast('two', mx.nd.zeros((2, 250)), mx.nd.zeros((2, 250)))
for _ in range(2):
    first, second = arrays(500), [[a.reshape((2, 250)) for a in arrays(500, 1000)[0]]]
    store.pushpull_all([0, 'two'], first + second)
for a in first[0] + second[0]:
    assert (a == (first + second)[a.ndim - 1][0].as_in_context(a.context)).asnumpy().all()
alone = [mx.nd.zeros(500, ctx=device) for device in devices]
store.pushpull(0, arrays(500)[0], alone)
assert (alone[-1].asnumpy() == first[0][0].asnumpy()).all()
numbers = store.sum([16777217, 1e-3 * (store.rank + 1), float('inf')]).tolist()
assert numbers == [16777217 * store.num_workers,
                   sum(1e-3 * (i + 1) for i in range(store.num_workers)), float('inf')], numbers
if store.rank == 0:
    onp.save(sys.argv[2], onp.concatenate([first[0][0].asnumpy(), second[0][0].asnumpy().ravel()]))
try:
    store.set_gradient_compression({'type': 'fp16'})
except ValueError as error:
    assert 'exact sums cannot be compressed' in str(error)
else:
    raise AssertionError('half as exact')
'''


@pytest.mark.slow
def test_exact_sums(tmp_path):
    """Of eight shards: the same bits whoever has them, and those of the true sum, rounded once."""
    source = onp.random.RandomState(0)
    shards = source.randn(8, 1000) * 10.0 ** source.uniform(-4, 0, (8, 1000))
    shards[:, 900:] *= 1e-30
    shards = shards.astype('float32')
    onp.save(str(tmp_path / 'shards.npy'), shards)
    (tmp_path / 'script.py').write_text(EXACT)
    true = shards.astype('float64').sum(axis=0).astype('float32')
    assert (shards.sum(axis=0) != true).any() and (shards[::-1].sum(axis=0) != true).any()
    for workers in (1, 2, 4):
        output = tmp_path / f'{workers}.npy'
        _cluster.check(_cluster.run(
            [str(tmp_path / 'script.py'), str(tmp_path / 'shards.npy'), str(output)], workers))
        found = onp.load(str(output))
        onp.testing.assert_array_equal(found[:900], true[:900], err_msg=f'{workers} workers')
        # Beside greater terms, what is smaller than their last place times 2^-20 is lost.
        assert not found[900:].any()


REFUSED = '''
import d2l
import mxnet as mx
from d2l.parallel import stores
def refused(call, sentence):
    try:
        call()
    except RuntimeError as error:
        assert sentence in str(error), error
    else:
        raise AssertionError(sentence)
def store_with(threshold):
    return stores.create('dist_sync', {'type': '2bit', 'threshold': threshold})
first, alike, other = store_with(0.5), store_with(0.5), store_with(0.25)
refused(lambda: stores.create('dist_async'), 'is in a job of dist_sync, and the servers know one '
        'kind only')
for store in (first, alike, other):
    store.broadcast('key', mx.nd.ones(3), mx.nd.zeros(3))
for store in (first, alike):
    value = mx.nd.full(3, 0.75)
    store.pushpull('key', value)
    assert value.asnumpy().tolist() == [0.5] * 3
refused(lambda: other.pushpull('key', mx.nd.ones(3)), 'all stores of a process must compress alike')
refused(lambda: first.broadcast('late', mx.nd.ones(3), mx.nd.zeros(3)),
        'broadcasts must come before the first 2bit gradient')
first.close()
refused(lambda: stores.create('dist_sync'), 'this process has left the job')
print('as expected')
'''


@pytest.mark.slow
def test_what_stores_of_a_process_cannot_do(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(REFUSED)
    processes = _cluster.run([str(script)], workers=1)
    _cluster.check(processes)
    assert 'as expected' in processes['worker 0'].output


PICKLED = '''
import d2l, os, pickle, sys
import mxnet as mx
class Harmful:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)
kv = mx.kv.create('dist_sync')
kv._send_command_to_servers(0, pickle.dumps(Harmful(), 0).decode())
'''


@pytest.mark.parametrize('server', ['ours', pytest.param('MXNet', marks=pytest.mark.slow)])
def test_pickles_are_not_executed(tmp_path, server):
    """By our server, which ends with a sentence; MXNet's own does what they say."""
    script, made = tmp_path / 'script.py', tmp_path / 'made'
    script.write_text(PICKLED)
    processes = _cluster.run([str(script), str(made)], workers=1, timeout=20,
                             server=_cluster.SERVER if server == 'ours' else _cluster.PLAIN_SERVER)
    assert made.exists() == (server == 'MXNet')
    if server == 'ours':
        assert processes['server 0'].status == 1
        assert 'is a pickle, and refused: use d2l.Trainer' in processes['server 0'].output


IMPORTED = '''
import d2l
import mxnet as mx
from d2l import ops
@mx.optimizer.register
class Doubling(mx.optimizer.SGD):
    def update_multi_precision(self, indices, weights, grads, states):
        assert 'multi_sgd' in ops.available(), 'the library is not loaded'
        for index, weight, grad in zip(indices, weights, grads):
            weight[:] = weight - 2 * self._get_lr(index) * self.rescale_grad * grad
'''
IMPORTING = '''
import d2l
import doubling
import mxnet as mx
from mxnet import autograd, init, np, npx
from d2l.parallel.trainer import Trainer
npx.set_np()
net = mx.gluon.nn.Dense(1, use_bias=False, in_units=1)
net.initialize(init.Constant(3.0))
trainer = Trainer(net, 'doubling', {'learning_rate': 0.25}, 'dist_sync', batch_size=2,
                  update_on_kvstore=True)
with autograd.record():
    y = net(np.ones((1, 1)))
y.backward()
trainer.step()
assert net.weight.data().item() == 3.0 - 2 * 0.25, net.weight.data()
'''


@pytest.mark.slow
def test_an_optimizer_of_the_users_own_on_the_server(tmp_path):
    """By D2L_SERVER_IMPORTS; it finds the operator library loaded there."""
    if 'multi_sgd' not in ops.available():
        pytest.skip('the operator library is not built')
    (tmp_path / 'doubling.py').write_text(IMPORTED)
    (tmp_path / 'script.py').write_text(IMPORTING)
    _cluster.check(_cluster.run([str(tmp_path / 'script.py')], workers=2, env={
        'D2L_SERVER_IMPORTS': 'doubling',
        'PYTHONPATH': os.pathsep.join([str(tmp_path), str(_cluster.ROOT)] + sys.path)}))


FAILING = '''
import d2l
import mxnet as mx
@mx.optimizer.register
class Fragile(mx.optimizer.SGD):
    def update_multi_precision(self, index, weight, grad, state):
        raise ArithmeticError('the update failed')
'''
BESIDE_IT = '''
import d2l, sys
import fragile
import mxnet as mx
from mxnet import autograd, np, npx
from d2l.parallel.trainer import Trainer
npx.set_np()
net = mx.gluon.nn.Dense(1, in_units=1)
net.initialize()
if sys.argv[1] == 'command':
    mx.optimizer.Optimizer.opt_registry['unheard'] = mx.optimizer.SGD
trainer = Trainer(net, 'unheard' if sys.argv[1] == 'command' else 'fragile', {},
                  'dist_async', batch_size=1)
with autograd.record():
    y = net(np.ones((1, 1)))
y.backward()
trainer.step()
mx.nd.waitall()
'''


@pytest.mark.slow
@pytest.mark.parametrize('where, message', [
    ('update', 'ArithmeticError: the update failed'),
    ('command', "ValueError: server: optimizer 'unheard' is not registered here")])
def test_an_exception_ends_the_server(tmp_path, where, message):
    (tmp_path / 'fragile.py').write_text(FAILING)
    (tmp_path / 'script.py').write_text(BESIDE_IT)
    began = time.monotonic()
    processes = _cluster.run(
        [str(tmp_path / 'script.py'), where], workers=1, env={
            'D2L_SERVER_IMPORTS': 'fragile',
            'PYTHONPATH': os.pathsep.join([str(tmp_path), str(_cluster.ROOT)] + sys.path)})
    assert processes['server 0'].status == 1, processes['server 0'].output
    output = processes['server 0'].output
    assert 'Traceback' in output and message in output
    assert time.monotonic() - began < 40
