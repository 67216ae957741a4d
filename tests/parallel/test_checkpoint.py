"""Checkpoints: a restored run is the undisturbed one; damage, full disks and kills lose nothing."""
import errno
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx
from mxnet.gluon import nn

from d2l.parallel import _checkpoint_file, _states, checkpoint
from d2l.parallel.checkpoint import Checkpoint, CheckpointError
from d2l.parallel.data_parallel import forward_backward
from d2l.parallel.sampler import DistributedSampler
from d2l.parallel.split import split_batch
from d2l.parallel.trainer import Trainer

TWO = [mx.cpu(0), mx.cpu(1)]
X = onp.random.RandomState(0).randn(50, 6).astype('float32')
Y = (X[:, :1] > 0).astype('float32')


def model(devices, start=0):
    mx.random.seed(start)
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=6), nn.BatchNorm(in_channels=5), nn.Dropout(0.5),
            nn.Dense(1, in_units=5))
    net.initialize(ctx=devices)
    return net


def adam(net, **kwargs):
    scheduler = mx.lr_scheduler.FactorScheduler(3, 0.7, base_lr=0.05)
    return gluon.Trainer(net.collect_params(), 'adam', {'lr_scheduler': scheduler}, **kwargs)


class Run:
    """A training with all that a checkpoint holds."""

    def __init__(self, folder, devices=TWO, start=0, make_trainer=adam, steps=4, **kwargs):
        self.net, self.devices = model(devices, start), devices
        self.trainer = make_trainer(self.net)
        self.sampler = DistributedSampler(50, 16)
        self.checkpoint = Checkpoint(folder, steps=steps, seed=3, **kwargs)
        self.parts = {'net': self.net, 'trainer': self.trainer, 'sampler': self.sampler}
        self.step = self.checkpoint.restore(**self.parts) or 0
        self.noise = []

    def train(self, end):
        while self.step < end:
            for rows, labels in self.sampler.batches(X, Y):
                self.noise.append(onp.random.rand())
                rows = rows + np.random.normal(0, 0.1, rows.shape)
                shards = split_batch(rows, labels, self.devices)
                forward_backward(self.net, gluon.loss.L2Loss(), *shards)
                self.trainer.step(self.sampler.global_size, ignore_stale_grad=True)
                self.step += 1
                self.checkpoint.maybe_save(self.step, **self.parts)
                if self.step == end:
                    break
        self.checkpoint.wait()
        return self

    def values(self):
        return {(name, str(array.ctx)): array.asnumpy()
                for name, param in self.net._collect_params_with_prefix().items()
                for array in param.list_data()}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key in expected:
        onp.testing.assert_array_equal(got[key], expected[key], err_msg=str(key))


def ours(net):
    module = pytest.importorskip('d2l.parallel.trainer')
    scheduler = mx.lr_scheduler.FactorScheduler(3, 0.7, base_lr=0.05)
    return module.Trainer(net, 'adam', {'lr_scheduler': scheduler})


@pytest.mark.parametrize('make_trainer', [
    lambda net: adam(net, update_on_kvstore=True), lambda net: adam(net, update_on_kvstore=False),
    ours])
def test_a_restored_run_is_the_undisturbed_one(tmp_path, make_trainer):
    """Bit for bit, on each device, with dropout, BatchNorm, a schedule and shuffled batches."""
    whole = Run(tmp_path / 'a', make_trainer=make_trainer, steps=6).train(14)
    Run(tmp_path / 'b', make_trainer=make_trainer, steps=6).train(9)
    # Nothing is there but the folder: other parameters, other random numbers.
    again = Run(tmp_path / 'b', make_trainer=make_trainer, start=7, steps=6)
    assert again.step == 6 and (again.sampler.epoch, again.sampler.batch) == (1, 2)
    again.train(14)
    assert_same(again.values(), whole.values())
    assert again.noise == whole.noise[6:]
    assert again.trainer.learning_rate == whole.trainer.learning_rate < 0.05


def test_counted_in_seconds_random_numbers_do_not_depend_on_the_clock(tmp_path):
    drawn = []
    for seconds in (0, 1000):  # a checkpoint at each step, and none
        one = Checkpoint(tmp_path / str(seconds), seconds=seconds, seed=3)
        for step in (1, 2):
            one.maybe_save(step)
            drawn.append((np.random.normal(0, 1, ()).item(), onp.random.rand()))
        one.wait()
    assert drawn[:2] == drawn[2:] and drawn[0] != drawn[1]


def test_without_a_seed_python_and_numpy_go_on(tmp_path):
    import random
    one = Checkpoint(tmp_path)
    one.save(1)
    one.wait()
    expected = onp.random.normal(size=3).tolist(), random.random()
    assert Checkpoint(tmp_path).restore() == 1
    assert (onp.random.normal(size=3).tolist(), random.random()) == expected


@pytest.mark.parametrize('devices', [[mx.cpu(0)], [mx.cpu(0), mx.cpu(1), mx.cpu(2)]])
def test_other_devices(tmp_path, devices):
    def here(net):
        return adam(net, update_on_kvstore=False)
    one = Run(tmp_path, make_trainer=here).train(4)
    saved = one.values()
    other = Run(tmp_path, devices, 7, here)
    assert other.step == 4
    for name, param in other.net._collect_params_with_prefix().items():
        replicas = [saved[name, str(device)] for device in TWO]
        for array in param.list_data():
            onp.testing.assert_array_equal(
                array.asnumpy(), onp.mean(replicas, 0, dtype='float64').astype('float32'))
    other.train(6)
    replicas = [param.list_data() for param in other.net.collect_params('.*weight').values()]
    for arrays in replicas:
        for array in arrays[1:]:
            onp.testing.assert_array_equal(array.asnumpy(), arrays[0].asnumpy())


def dense(value=0.0, **kwargs):
    net = nn.Dense(2, in_units=3, **kwargs)
    net.initialize(mx.init.Constant(value))
    return net


def test_names_extra_and_containers(tmp_path):
    nets = {'generator': dense(1), 'critic': dense(2)}
    trainers = {name: gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': i + 1})
                for i, (name, net) in enumerate(nets.items())}
    one = Checkpoint(tmp_path)
    one.save(7, net=nets, trainer=trainers, extra={'best': 0.25, 'history': [1, 2]})
    one.wait()
    with onp.load(tmp_path / 'step-00000007.npz') as file:
        onp.testing.assert_array_equal(file['net/critic/weight'], onp.full((2, 3), 2))
    others = {'generator': dense(), 'critic': dense()}
    new = {name: gluon.Trainer(net.collect_params(), 'sgd') for name, net in others.items()}
    assert one.restore(net=others, trainer=new) == 7
    assert one.extra == {'best': 0.25, 'history': [1, 2]}
    assert [new[name].learning_rate for name in nets] == [1, 2]
    assert [net.weight.data()[0, 0] for net in others.values()] == [1, 2]
    with pytest.raises(ValueError, match='net lacks critic/bias, critic/weight, generator/bias'):
        one.restore(net=nets['critic'])
    # A dict and a list of parameters, one of which waits for its shape.
    params = dense(3).collect_params()
    one.save(8, net=params)
    one.wait()
    late = nn.Dense(2, prefix=params.prefix)
    late.initialize()
    assert one.restore(net=list(late.collect_params().values())) == 8
    assert late.weight.data().sum() == 18


def test_classic_arrays(tmp_path):
    mx.npx.reset_np()
    net = dense(4)
    one = Checkpoint(tmp_path)
    one.save(1, net=net)
    other = dense()
    assert one.restore(net=other) == 1 and other.weight.data().asnumpy().tolist() == [[4] * 3] * 2


def test_last_ones_are_kept(tmp_path):
    (tmp_path / 'step-00000002.npz.part').write_bytes(b'of a writer that was killed')
    one = Checkpoint(tmp_path, keep=3, steps=2)
    for step in range(1, 12):
        assert one.maybe_save(step, net=dense(step)) == (step % 2 == 0)
    one.wait()
    assert sorted(os.listdir(tmp_path)) == ['step-{:08d}.npz'.format(n) for n in (6, 8, 10)]
    one = Checkpoint(tmp_path, keep=1)
    with pytest.raises(ValueError, match='checkpoints of later steps .the last is 10'):
        one.save(5, net=dense())
    assert one.restore() == 10
    one.save(11, net=dense())
    one.wait()
    assert one.steps() == [11]


def test_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, 'monotonic', lambda: now[0])
    one, saved = Checkpoint(tmp_path, seconds=10), []
    for step in range(1, 9):
        now[0] += 4
        if one.maybe_save(step):
            saved.append(step)
            one.wait()
    assert saved == [3, 6]


# Damage.

def three(folder):
    one = Checkpoint(folder, keep=4)
    for step in (1, 2, 3):
        one.save(step, net=dense(step), extra='x' * 50)
    one.wait()
    return one, _checkpoint_file.path_of(str(folder), 3)


def same_content(file, expected):
    """Whether a file is read as what was written; False when it is refused."""
    try:
        state, members, _ = _checkpoint_file.read(file)
    except _checkpoint_file.DamagedError:
        return False
    assert state == expected[0] and members.keys() == expected[1].keys()
    for name, value in members.items():
        assert value.dtype == expected[1][name].dtype
        onp.testing.assert_array_equal(value, expected[1][name])
    return True


def test_any_damage_is_seen(tmp_path):
    """Cut off anywhere, or with any byte changed, a file is refused or read as it was written."""
    _, path = three(tmp_path)
    expected, content = _checkpoint_file.read(path), open(path, 'rb').read()
    for length in range(0, len(content), 3):
        assert not same_content(io.BytesIO(content[:length]), expected), length
    harmless = 0
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 1 << offset % 8
        harmless += same_content(io.BytesIO(flipped), expected)
    assert harmless < len(content) // 3  # dates and versions, which zip writes and nobody reads


@pytest.mark.parametrize('damage, left', [
    (lambda path: os.truncate(path, 200), 'BadZipFile'), (lambda path: os.truncate(path, 0), ''),
    (lambda path: os.rename(path.replace('03.npz', '02.npz'), path), 'it holds step 2')])
def test_the_one_before_a_damaged_one_is_used(tmp_path, damage, left):
    one, path = three(tmp_path)
    damage(path)
    net = dense()
    with pytest.warns(RuntimeWarning, match='step-00000003.npz is damaged .' + left):
        step = Checkpoint(tmp_path).restore(net=net)
    assert step == net.weight.data()[0, 0] == one.steps()[-1] and step in (1, 2)
    assert os.path.exists(path + '.damaged') and not os.path.exists(path)
    # The damaged one does not count among those that are kept.
    again = Checkpoint(tmp_path, keep=1)
    again.restore()
    again.save(step + 1, net=net)
    again.wait()
    assert again.steps() == [step + 1]


def test_none_is_whole(tmp_path):
    assert Checkpoint(tmp_path).restore() is None
    three(tmp_path)
    for name in os.listdir(tmp_path):
        os.truncate(tmp_path / name, 100)
    with pytest.warns(RuntimeWarning), pytest.raises(CheckpointError, match='none of the check'):
        Checkpoint(tmp_path).restore()


def test_a_member_that_is_missing(tmp_path):
    path = str(tmp_path / 'x')
    _checkpoint_file.write(path, {}, {'a.npy': onp.arange(3), 'b': b'bytes'})
    content = open(path, 'rb').read()
    with open(path, 'wb') as file:
        file.write(re.sub(b'(?<!")a.npy', b'c.npy', content))
    with pytest.raises(_checkpoint_file.DamagedError, match="no item named 'a.npy'"):
        _checkpoint_file.read(path)


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    """Whenever a writer is killed, the newest checkpoint is whole, and not behind what was done."""
    folder = str(tmp_path)
    Checkpoint(folder)
    rng, last = onp.random.RandomState(0), 0
    state = {'trainers': [], 'sampler': None, 'random': None, 'extra': None}
    for delay in rng.uniform(0.001, 0.06, 20):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # writes until it is killed; NumPy only, so that a fork is enough
            try:
                for step in range(last + 1, last + 1000):
                    _checkpoint_file.write(_checkpoint_file.path_of(folder, step),
                                           dict(state, step=step), {'a.npy': onp.full(20000, step)})
                    os.write(write, b'.')
                    _checkpoint_file.prune(folder, step, 3)
            finally:
                os._exit(1)
        os.close(write)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done = last + len(os.read(read, 1 << 16))
        os.close(read)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            step = Checkpoint(folder).restore() or 0
        assert step in (done, done + 1)
        if step:
            _, members, _ = _checkpoint_file.read(_checkpoint_file.path_of(folder, step))
            assert (members['a.npy'] == step).all()
        assert not [name for name in os.listdir(folder) if 'part' in name]
        last = step
    assert last > 3


# Writing.

@pytest.fixture
def gate(monkeypatch):
    """Writers wait for it."""
    opened, write = threading.Event(), _checkpoint_file.write

    def slow(*args):
        assert opened.wait(20)
        write(*args)
    monkeypatch.setattr(_checkpoint_file, 'write', slow)
    yield opened
    opened.set()


def test_training_goes_on_while_a_thread_writes(tmp_path, gate):
    one, net = Checkpoint(tmp_path, seconds=0), dense(1)
    one.save(1, net=net)
    net.weight.set_data(np.zeros((2, 3)))  # what the training does next
    assert not one.maybe_save(2, net=net) and one.steps() == []
    threading.Timer(0.05, gate.set).start()
    one.save(3, net=net)  # waits for the first
    assert one.steps()[0] == 1
    one.wait()
    other = dense(5)
    assert one.restore(net=other) == 3 and other.weight.data().sum() == 0
    os.unlink(_checkpoint_file.path_of(str(tmp_path), 3))
    assert one.restore(net=other) == 1 and other.weight.data().sum() == 6


def test_states_are_those_of_the_save(tmp_path, monkeypatch):
    """They are packed by the thread, though steps and a new learning rate have come since."""
    gate, pack = threading.Event(), _states._pack

    def late(*args):
        assert gate.wait(20) and threading.current_thread().name == 'd2l-checkpoint'
        return pack(*args)
    net = dense(1)
    trainer, one = Trainer(net, 'adam', batch_size=1), Checkpoint(tmp_path)

    def step():
        forward_backward(net, gluon.loss.L2Loss(), [np.ones((1, 3))], [np.ones((1, 2))])
        trainer.step()
    step()
    expected = trainer.get_states()
    monkeypatch.setattr(_states, '_pack', late)
    one.save(1, net=net, trainer=trainer)
    step()
    npx.waitall()
    trainer.set_learning_rate(7)
    gate.set()
    one.wait()
    monkeypatch.undo()
    _, members, _ = _checkpoint_file.read(_checkpoint_file.path_of(str(tmp_path), 1))
    saved, meant = (onp.load(io.BytesIO(data)) for data in (members['trainer/trainer.states'],
                                                            expected))
    assert saved.files == meant.files and len(saved.files) > 4
    for name in meant.files:
        onp.testing.assert_array_equal(saved[name], meant[name])
    assert trainer.get_states() != expected


def test_a_fork_waits_for_the_writer(tmp_path, gate):
    one = Checkpoint(tmp_path)
    one.save(1, net=dense())
    threading.Timer(0.05, gate.set).start()
    child = os.fork()
    if child == 0:
        os._exit(0 if one.steps() == [1] else 1)
    assert os.waitpid(child, 0)[1] == 0


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_cannot_be_written(tmp_path, monkeypatch):
    one, net = Checkpoint(tmp_path, steps=1), dense()
    one.save(1, net=net)
    one.wait()
    with monkeypatch.context() as patch:
        patch.setattr(_checkpoint_file, 'replace_synced', full)
        one.save(2, net=net)
        with pytest.raises(CheckpointError, match='nothing was saved in .*No space left'):
            one.wait()
        one.wait()  # said once
        one.save(3, net=net)
        one._join()
        with pytest.raises(CheckpointError, match='No space left'):
            one.maybe_save(4, net=net)
        assert os.listdir(tmp_path) == ['step-00000001.npz']
        patch.undo()
        usage = type('usage', (), {'free': 10})
        patch.setattr(_checkpoint_file.shutil, 'disk_usage', lambda path: usage)
        one.save(5, net=net)
        with pytest.raises(CheckpointError, match='the disk has 0.0 MB left'):
            one.wait()
    lenient = Checkpoint(tmp_path, steps=1, on_error='warn')
    lenient.restore()
    with monkeypatch.context() as patch:
        patch.setattr(_checkpoint_file, 'replace_synced', full)
        lenient.maybe_save(6, net=net)
        lenient._join()
        with pytest.warns(RuntimeWarning, match='No space left'):
            lenient.wait()
    assert lenient.maybe_save(7, net=net)
    lenient.wait()
    assert lenient.steps() == [1, 7]


AT_THE_END = """
import os, sys, time
import d2l
from mxnet import npx
from mxnet.gluon import nn
from d2l.parallel import _checkpoint_file
from d2l.parallel.checkpoint import Checkpoint
npx.set_np()
write = _checkpoint_file.write
def slow(path, *args):
    time.sleep(0.3)
    if path.endswith('2.npz'):
        raise OSError('no such disk')
    write(path, *args)
_checkpoint_file.write = slow
net = nn.Dense(2, in_units=3)
net.initialize()
for folder, step in (('a', 1), ('b', 2)):
    Checkpoint(os.path.join(sys.argv[1], folder)).save(step, net=net)
raise SystemExit(3)
"""


def test_the_end_of_the_program_waits_and_reports(tmp_path):
    done = subprocess.run([sys.executable, '-c', AT_THE_END, str(tmp_path)], timeout=60,
                          stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert Checkpoint(tmp_path / 'a').restore(net=dense()) == 1
    assert 'nothing was saved in {}: no such disk'.format(tmp_path / 'b') in done.stderr


def test_bad_arguments(tmp_path):
    for kwargs, message in (({'keep': 0}, 'keep must be at least 1'),
                            ({'steps': 0}, 'steps must be at least 1'),
                            ({'steps': 1, 'seconds': 1}, 'must not both be given'),
                            ({'on_error': 'ignore'}, "must be 'raise' or 'warn', got 'ignore'")):
        with pytest.raises(ValueError, match=message):
            Checkpoint(tmp_path, **kwargs)
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='the folder cannot be made'):
        Checkpoint(tmp_path / 'file')
    one, net = Checkpoint(tmp_path), dense()
    with pytest.raises(TypeError, match='JSON'):
        one.save(1, net=net, extra=object())
    one.save(1, net=net)
    one.wait()
    trainer = gluon.Trainer(net.collect_params(), 'sgd')
    for parts, message in (
            ({'trainer': trainer}, 'step 1 holds no trainer'),
            ({'sampler': DistributedSampler(4, 2)}, 'step 1 holds no sampler'),
            ({'net': nn.Dense(2, in_units=3)}, 'must be initialized'),
            ({'net': dense(dtype='float64')}, 'shape and dtype')):
        with pytest.raises((ValueError, RuntimeError), match=message):
            one.restore(**parts)


def test_nothing_is_recorded(tmp_path):
    one, net = Checkpoint(tmp_path), dense()
    with autograd.record():
        one.save(1, net=net)
        one.restore(net=net)
    one.wait()
