"""The loops of chapter 16 against plain ones that read every batch at once, and on real ratings."""
import re

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np, npx
from mxnet.base import _LIB
from mxnet.gluon import nn

from d2l.data.arrays import ArrayLoader
from d2l.data.recommender import split_and_load_ml100k
from d2l.nn.loss import BPRLoss, HingeLossbRec
from d2l.train import ranking, recommender
from d2l.train.ranking import evaluate_ranking
from d2l.train.recommender import train_ranking, train_recsys_rating
from d2l.utils.animator import Animator

CPUS = [mx.cpu(0), mx.cpu(1), mx.cpu(2)]
DEVICES = pytest.mark.parametrize('devices', [CPUS[:1], CPUS[:2], CPUS])


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '0')
    plt.switch_backend('Agg')
    yield
    plt.close('all')


class MF(nn.Block):
    """Matrix factorisation with biases, as a reader writes it (section 16.3)."""

    def __init__(self, num_factors, num_users, num_items):
        super().__init__()
        self.P = nn.Embedding(num_users, num_factors)
        self.Q = nn.Embedding(num_items, num_factors)
        self.user_bias = nn.Embedding(num_users, 1)
        self.item_bias = nn.Embedding(num_items, 1)

    def forward(self, user, item):
        biases = np.squeeze(self.user_bias(user)) + np.squeeze(self.item_bias(item))
        return (self.P(user) * self.Q(item)).sum(axis=1) + biases.reshape(-1)


def mf(num_users=6, num_items=9, factors=3, devices=None, seed=1):
    mx.random.seed(seed)
    net = MF(factors, num_users, num_items)
    net.initialize(init.Normal(0.3), ctx=devices, force_reinit=True)
    return net


def parameters(net):
    return [p.data(p.list_ctx()[0]).asnumpy() for p in net.collect_params().values()]


def same(net, other, rtol=1e-5, atol=1e-6):
    for a, b in zip(parameters(net), parameters(other)):
        onp.testing.assert_allclose(a, b, rtol, atol)


def triples(n, batch_size, seed=0, third=lambda source, n: source.randint(1, 6, n), items=9):
    source = onp.random.RandomState(seed)
    data = (source.randint(0, 6, n).astype('int32'), source.randint(0, items, n).astype('int32'),
            third(source, n).astype('float32'))
    return ArrayLoader(data, batch_size)


def pairs(n, batch_size, seed=0):
    """User, preferred item, other item."""
    loader = triples(n, batch_size, seed, lambda source, n: source.randint(0, 9, n))
    return [[user, item, other.astype('int32')] for user, item, other in loader]


def printed(capsys):
    return capsys.readouterr().out.splitlines()


def rmse_of(net, data):
    total = [((net(u, i) - r) ** 2).asnumpy().astype('float64') for u, i, r in data]
    return onp.concatenate(total).mean() ** 0.5


# Training, on one device and on several

def plain_epochs(net, data, loss, num_epochs, optimizer='sgd', lr=0.3):
    """Reads every loss at once; returns the mean loss of each epoch.  loss: of a batch's arrays."""
    trainer = gluon.Trainer(net.collect_params(), optimizer, {'learning_rate': lr})
    losses = []
    for _ in range(num_epochs):
        total, count = 0.0, 0
        for batch in data:
            with autograd.record():
                l = loss(*batch)
            l.backward()
            trainer.step(len(batch[0]))
            total += l.asnumpy().astype('float64').sum()
            count += len(batch[0])
        losses.append(total / count)
    return losses


def run_rating(data, devices, num_epochs=2, net=None, lr=0.3, **kwargs):
    net = mf(devices=devices) if net is None else net
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': lr})
    kwargs = {'animator': Animator(), **kwargs}
    train_recsys_rating(net, data, triples(11, 4, seed=3), gluon.loss.L2Loss(), trainer,
                        num_epochs, devices, **kwargs)
    return net, kwargs['animator']


@DEVICES
# 46 = 5 * 9 + 1: the last batch is for one device alone.
@pytest.mark.parametrize('n, batch_size', [(46, 9), (46, 8), (1, 5), (48, 12)])
def test_rating_is_that_of_a_plain_loop(capsys, devices, n, batch_size):
    data = triples(n, batch_size)
    net, animator = run_rating(data, devices)
    plain = mf(devices=CPUS[0])
    losses = plain_epochs(plain, data, lambda user, item, rating: (
        plain(user, item) - rating) ** 2 / 2, 2)
    same(net, plain)
    for device in devices:
        for p in net.collect_params().values():
            onp.testing.assert_array_equal(p.data(device).asnumpy(),
                                           p.data(devices[0]).asnumpy())
    onp.testing.assert_allclose(animator.Y[0], losses, 1e-5)
    rmse = rmse_of(plain, triples(11, 4, seed=3))
    assert animator.Y[1][-1] == pytest.approx(rmse, rel=1e-5)
    assert animator.X == [[1, 2], [1, 2]]
    first, second = printed(capsys)
    assert first == f'train loss {losses[-1]:.3f}, test RMSE {rmse:.3f}'
    assert re.fullmatch(r'\d+\.\d examples/sec on ' + re.escape(str(devices)), second)


def test_only_training_is_timed(monkeypatch):
    log = []
    for name in ('start', 'stop'):
        monkeypatch.setattr(recommender.Timer, name,
                            lambda self, name=name: (log.append(name), self.times.append(1)))
    monkeypatch.setattr(recommender.Timer, '__init__', lambda self: setattr(self, 'times', []))
    run_rating(triples(9, 9), CPUS[:1], evaluator=lambda *args: log.append('evaluate') or 1.0)
    assert log == ['start', 'stop', 'evaluate'] * 2
    del log[:]
    run_ranking(pairs(9, 9), CPUS[:1], evaluator=lambda *args: log.append('evaluate') or (0, 0))
    assert log == ['start', 'stop', 'evaluate'] * 2


@pytest.mark.parametrize('run', [lambda data: run_rating(data, CPUS[:2], 1),
                                 lambda data: run_ranking(data, CPUS[:2], 1)])
def test_one_wait_a_step_at_most(monkeypatch, run):
    waits = []
    asnumpy = np.ndarray.asnumpy
    monkeypatch.setattr(np.ndarray, 'asnumpy', lambda self: waits.append(self) or asnumpy(self))
    for name in ('wait_to_read', 'item', '__float__'):
        monkeypatch.setattr(np.ndarray, name, None)
    source = pairs(100, 5)
    # The test set of the rating loop, three batches, is read with the same accumulator.
    run(source)
    assert len(waits) <= len(source) + 8


@pytest.mark.parametrize('run, make, calls', [('rating', triples, '01'),
                                              ('ranking', pairs, '0011')])
def test_devices_are_not_waited_for(monkeypatch, run, make, calls):
    """All of a step is on its way before the loss of a step that is four steps old is read."""
    seen, forward = [], MF.forward

    def spy(owner, name, letter):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name,
                            lambda *args, **kw: seen.append(letter) or call(*args, **kw))
    net, data = mf(devices=CPUS[:2]), list(make(45, 5))
    monkeypatch.setattr(MF, 'forward', lambda self, user, item: seen.append(
        str(user.ctx.device_id)) or forward(self, user, item))
    # Whatever waits ends in these functions of MXNet's library.
    for name in ('MXNDArraySyncCopyToCPU', 'MXNDArrayWaitToRead', 'MXNDArrayWaitToWrite',
                 'MXNDArrayWaitAll'):
        spy(_LIB, name, 'w')
    spy(gluon.Trainer, 'step', 's')
    step = calls + 's'
    if run == 'rating':
        run_rating(data, CPUS[:2], 1, net=net, evaluator=lambda *args: 1.0)
    else:
        run_ranking(data, CPUS[:2], 1, net=net)
    # One wait at the end of the epoch, and the losses that are still unread.
    assert ''.join(seen) == step * 4 + (step + 'w') * 5 + 'w' + 'w' * 4


@pytest.mark.parametrize('extra', [{}, {'inter_mat': 'matrix'}])
def test_what_the_evaluator_is_called_with(extra):
    calls = []

    def evaluator(*args):
        calls.append(args)
        return np.array(len(calls))
    net, animator = run_rating(triples(9, 9), CPUS[:2], 3, evaluator=evaluator, **extra)
    assert animator.Y[1] == [1, 2, 3]
    for args in calls:
        assert args[0] is net and len(args) == 3 + len(extra)
        assert args[2:] == (*extra.values(), CPUS[:2])


def test_default_devices_are_asked_for_at_the_call(monkeypatch, capsys):
    monkeypatch.setattr(ranking, 'try_all_gpus', lambda: CPUS[1:])
    net = mf(devices=CPUS[1:])
    run_rating(triples(9, 9), None, net=net)
    assert printed(capsys)[1].endswith('on [cpu(1), cpu(2)]')


class AutoRec(nn.Block):
    """Section 16.4: one array is input and target."""

    def __init__(self, num_hidden, num_users):
        super().__init__()
        self.encoder = nn.Dense(num_hidden, activation='sigmoid')
        self.decoder = nn.Dense(num_users)

    def forward(self, X):
        y_hat = self.decoder(self.encoder(X))
        return y_hat * np.sign(X) if autograd.is_training() else y_hat


def autorec(devices, num_users=6):
    mx.random.seed(3)
    net = AutoRec(4, num_users)
    net.initialize(init.Normal(0.1), ctx=devices)
    return net


def rated(shape, share, seed):
    source = onp.random.RandomState(seed)
    return np.array(source.randint(1, 6, shape) * (source.uniform(size=shape) < share),
                    dtype='float32')


@DEVICES
@pytest.mark.parametrize('as_list', [False, True])
def test_autoencoder(capsys, devices, as_list):
    train, test = rated((13, 6), 0.6, 0), rated((13, 6), 0.4, 1)
    batches = [[train[i:i + 4]] for i in range(0, 13, 4)]  # of 4, 4, 4 and 1
    data = batches if as_list else [X for X, in batches]
    test_iter = [train[:6], train[6:12], train[12:]]
    net = autorec(devices)
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.1})
    animator = Animator()
    train_recsys_rating(net, data, test_iter, gluon.loss.L2Loss(), trainer, 3, devices,
                        inter_mat=test, animator=animator)
    plain = autorec(CPUS[:1])
    losses = plain_epochs(plain, batches, lambda X: gluon.loss.L2Loss()(plain(X), X), 3, 'adam',
                          0.1)
    same(net, plain, 1e-3, 1e-4)
    onp.testing.assert_allclose(animator.Y[0], losses, 1e-4)
    error = (plain(train) - test).asnumpy().astype('float64')[test.asnumpy() > 0]
    assert animator.Y[1][-1] == pytest.approx((error ** 2).mean() ** 0.5, rel=1e-3)
    # Examples are rows, not entries.
    assert losses[-1] < losses[0]


def test_autoencoder_counts_rows(monkeypatch, capsys):
    monkeypatch.setattr(recommender.Timer, 'sum', lambda self: 1.0)
    net, X = autorec(CPUS[:1]), rated((10, 6), 0.6, 0)
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1})
    train_recsys_rating(net, [X], [X], gluon.loss.L2Loss(), trainer, 2, CPUS[:1])
    first, second = printed(capsys)
    assert second.startswith('20.0 examples/sec')
    error = (net(X) - X).asnumpy()
    assert first.endswith(f'test RMSE {(error ** 2).mean() ** 0.5:.3f}')


# Ranking

def run_ranking(data, devices, num_epochs=2, evaluator=lambda *args: (0.5, 0.25), lr=0.5,
                loss=None, net=None, **kwargs):
    net = mf(devices=devices) if net is None else net
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': lr})
    kwargs = {'animator': Animator(), **kwargs}
    train_ranking(net, data, {0: [1]}, loss or BPRLoss(), trainer, None, 6, 9, num_epochs, devices,
                  evaluator, {0: [2]}, **kwargs)
    return net, kwargs['animator']


@DEVICES
@pytest.mark.parametrize('loss', [BPRLoss(), HingeLossbRec(), lambda p, n: npx.relu(1 - p + n)])
@pytest.mark.parametrize('n, batch_size', [(46, 9), (48, 12)])
def test_ranking_is_that_of_a_plain_loop(capsys, devices, loss, n, batch_size):
    data = pairs(n, batch_size)
    net, animator = run_ranking(data, devices, loss=loss)
    plain = mf(devices=CPUS[0])
    losses = plain_epochs(plain, data, lambda user, item, other: loss(
        plain(user, item), plain(user, other)), 2, lr=0.5)
    same(net, plain)
    first, second = printed(capsys)
    assert first == f'train loss {losses[-1]:.3f}, test hit rate 0.500, test AUC 0.250'
    assert re.fullmatch(r'\d+\.\d examples/sec on ' + re.escape(str(devices)), second)
    assert animator.X == [[1, 2]] * 2 and animator.Y == [[0.5, 0.5], [0.25, 0.25]]


def test_ranking_with_sequences():
    """Section 16.7: what stands before the two items goes to the net both times."""
    inner, calls = mf(), []

    def net(user, seq, item):
        calls.append((user, seq, item))
        return inner(user, item) + inner(user, seq[:, 0])
    user, item, other = pairs(5, 5)[0]
    seq = np.array([[1, 2]] * 5, dtype='int32')
    trainer = gluon.Trainer(inner.collect_params(), 'sgd', {'learning_rate': 0.1})
    results = []

    def evaluator(*args):
        results.append(args)
        return 0.5, 0.5
    test_iter, test_seq, candidates = {0: [1]}, np.ones((6, 2)), {0: [2]}
    train_ranking(net, [(user, seq, item, other)], test_iter, BPRLoss(), trainer, test_seq, 6, 9,
                  1, CPUS[:1], evaluator, candidates)
    (u, s, i), (v, t, j) = calls
    assert u is v and s is t and s.shape == (5, 2)
    onp.testing.assert_array_equal(i.asnumpy(), item.asnumpy())
    onp.testing.assert_array_equal(j.asnumpy(), other.asnumpy())
    assert len(results) == 1
    assert results[0] == (net, test_iter, test_seq, candidates, 6, 9, CPUS[:1])


@pytest.mark.parametrize('num_epochs, eval_step, expected', [
    (5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 1, [1, 2, 3]), (2, 9, [2])])
def test_eval_step(num_epochs, eval_step, expected):
    _, animator = run_ranking(pairs(9, 9), CPUS[:1], num_epochs, eval_step=eval_step)
    assert animator.X[0] == expected


class Sampled(gluon.data.Dataset):
    """Numbers of Python, as the data set of section 16.6 gives them."""

    def __len__(self):
        return 5

    def __getitem__(self, idx):
        return idx, idx + 1, idx + 2


def test_ranking_of_fewer_examples_than_a_batch_of_gluons_loader(capsys):
    data = gluon.data.DataLoader(Sampled(), 8, shuffle=True, last_batch='rollover')
    _, animator = run_ranking(data, CPUS[:2], 4)
    # 5 examples, 10, 7 and 12: no batch in the first and the third pass.
    assert animator.X[0] == [2, 3, 4]
    assert printed(capsys)[0].startswith('train loss 0.')
    with pytest.raises(ValueError, match='train_iter must give at least one batch, got none'):
        run_ranking(gluon.data.DataLoader(Sampled(), 8, last_batch='rollover'), CPUS[:2], 1)


def test_ranking_without_evaluator_is_evaluated_by_evaluate_ranking():
    net, animator = run_ranking(pairs(20, 9), CPUS[:1], evaluator=None)
    hit_rate, auc = evaluate_ranking(net, {0: [1]}, None, {0: [2]}, 6, 9, CPUS[:1])
    assert [values[-1] for values in animator.Y] == [hit_rate, auc]


# Both loops

RUNS = pytest.mark.parametrize('run, make, name', [
    (run_rating, triples, 'train_recsys_rating'), (run_ranking, pairs, 'train_ranking')])


@RUNS
def test_examples_a_second(monkeypatch, capsys, run, make, name):
    monkeypatch.setattr(recommender.Timer, 'sum', lambda self: 0.5 * len(self.times))
    run(make(46, 9), CPUS[:2], num_epochs=3)
    # One interval an epoch.
    assert printed(capsys)[1].startswith('92.0 examples/sec')


@RUNS
def test_figure_of_the_book(run, make, name):
    run(make(9, 9), CPUS[:1], 3, animator=None)
    axes = plt.gca()
    assert axes.get_xlim() == (1, 3)
    assert axes.get_ylim() == ((0, 2) if name == 'train_recsys_rating' else (0, 1))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == (
        ['train loss', 'test RMSE'] if name == 'train_recsys_rating'
        else ['test hit rate', 'test AUC'])


@pytest.mark.filterwarnings('error')
@RUNS
def test_one_epoch_has_no_empty_axis(run, make, name):
    run(make(9, 9), CPUS[:1], 1, animator=None)


class Epochs:
    """A loader with batches in some passes only, as a rollover loader of few examples has."""

    def __init__(self, *passes):
        self.passes = iter(passes)

    def __iter__(self):
        return iter(next(self.passes))


@RUNS
def test_epochs_without_a_batch(capsys, run, make, name):
    data = make(9, 9)
    net, animator = run(Epochs([], data, [], data), CPUS[:2], 4)
    same(net, run(data, CPUS[:2], 2)[0])
    points = [2, 4] if name == 'train_recsys_rating' else [2, 3, 4]
    assert animator.X[0] == points
    lines = printed(capsys)
    assert lines[0].split(',')[0] == lines[2].split(',')[0]
    net, animator = run(Epochs(data, []), CPUS[:2], 2)
    assert printed(capsys)[0].startswith('train loss ')


@RUNS
@pytest.mark.parametrize('change, error, message', [
    ({'data': []}, ValueError, 'train_iter must give at least one batch, got none'),
    ({'num_epochs': 0}, ValueError, 'num_epochs must be at least 1, got 0'),
    ({'num_epochs': 1.5}, TypeError, 'num_epochs must be an integer, got 1.5'),
    ({'devices': []}, ValueError, 'devices must name at least one device, got none')])
def test_wrong_arguments(run, make, name, change, error, message):
    arguments = {'data': make(9, 9), 'devices': CPUS[:1], 'net': mf(), **change}
    with pytest.raises(error, match=f'{name}: {message}'):
        run(**arguments)


@RUNS
def test_arrays_of_unequal_length(run, make, name):
    data = [[np.ones(3), np.ones(3), np.ones(2)]]
    with pytest.raises(ValueError, match=name + r': .* equally long, got the lengths \[3, 3, 2\]'):
        run(data, CPUS[:1])


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match='keywords must be inter_mat or animator, got matrix'):
        run_rating(triples(9, 9), CPUS[:1], matrix=1)
    with pytest.raises(ValueError, match='a batch must have at least 3 arrays, got 2'):
        run_ranking([[np.ones(3), np.ones(3)]], CPUS[:1])
    with pytest.raises(ValueError, match='eval_step must be at least 1, got 0'):
        run_ranking(pairs(9, 9), CPUS[:1], eval_step=0)
    net = mf()
    with pytest.raises(ValueError, match='test_iter must give at least one rating, got none'):
        train_recsys_rating(net, triples(9, 9), [], gluon.loss.L2Loss(),
                            gluon.Trainer(net.collect_params(), 'sgd'), 1, CPUS[:1])


# Learning

def learn_ratings(devices, num_epochs, batch_size=512, **adam):
    npx.random.seed(0)
    num_users, num_items, train_iter, test_iter = split_and_load_ml100k(
        'random', batch_size=batch_size)
    net = mf(num_users, num_items, 20, devices)
    net.initialize(init.Normal(0.01), ctx=devices, force_reinit=True)
    trainer = gluon.Trainer(net.collect_params(), 'adam', adam)
    animator = Animator()
    train_recsys_rating(net, train_iter, test_iter, gluon.loss.L2Loss(), trainer, num_epochs,
                        devices, animator=animator)
    onp.testing.assert_allclose(animator.Y[1][-1], rmse_of(net, test_iter), 1e-4)
    ratings = [onp.concatenate([batch[2].asnumpy() for batch in data])
               for data in (train_iter, test_iter)]
    constant = onp.mean((ratings[1] - ratings[0].mean()) ** 2) ** 0.5
    return animator.Y[1][-1], constant


@pytest.mark.slow
def test_matrix_factorisation_learns_real_ratings(hub_data):
    hub_data('ml-100k')
    rmse, constant = learn_ratings(CPUS[:2], 8, learning_rate=0.004, wd=1e-5)
    # 0.87; the mean of all ratings has 1.02.
    assert rmse < 0.9 and constant > 1


def test_matrix_factorisation_learns_sound_levels(hub_data):
    hub_data('ml-100k', real=False)
    rmse, constant = learn_ratings(CPUS[:1], 15, 64, learning_rate=0.02)
    # 0.44; the mean of all has 1.36.
    assert rmse < 0.6 and constant > 1.2
