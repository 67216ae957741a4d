import re

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import np

from d2l.data.arrays import load_array
from d2l.data.tabular import get_data_ch11
from d2l.train import optimization
from d2l.train.optimization import show_trace_2d, train_2d, train_ch11, train_concise_ch11
from d2l.utils.animator import Animator


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '0')
    plt.switch_backend('Agg')
    yield
    plt.close('all')


def valley(x1, x2):
    return x1 ** 2 + 2 * x2 ** 2


def descend(x1, x2, s1, s2):
    return x1 - 0.2 * x1, x2 - 0.4 * x2, s1 + 1, s2 + 2


@pytest.mark.parametrize('steps', [0, 1, 20])
def test_train_2d(steps, capsys):
    results = train_2d(descend, steps)
    expected = [(-5 * 0.8 ** i, -2 * 0.6 ** i) for i in range(steps + 1)]
    onp.testing.assert_allclose(results, expected)
    assert capsys.readouterr().out == 'epoch {}, x1 {:f}, x2 {:f}\n'.format(steps, *expected[-1])


def test_train_2d_remembers_the_state_and_takes_arrays():
    seen = []

    def trainer(x1, x2, s1, s2):
        seen.append((s1, s2))
        return np.array(x1) * 0.5, np.array(x2) * 0.5, s1 + 1, s2 + 2
    results = train_2d(trainer, 3)
    assert seen == [(0, 0), (1, 2), (2, 4)]
    show_trace_2d(valley, results)
    assert plt.gca().lines[0].get_xdata().tolist() == [-5, -2.5, -1.25, -0.625]


@pytest.mark.parametrize('steps', [-1, 1.5, None])
def test_steps(steps):
    with pytest.raises(ValueError, match='train_2d: steps must be a whole number'):
        train_2d(descend, steps)


def contour(monkeypatch, f, results):
    calls = []
    draw = plt.contour
    monkeypatch.setattr(plt, 'contour', lambda *args, **kw: calls.append(args) or draw(*args, **kw))
    dtypes = []
    show_trace_2d(lambda x1, x2: dtypes.append((x1.dtype, x2.dtype)) or f(x1, x2), results)
    assert dtypes == [('float32', 'float32')]
    plt.gcf().canvas.draw()
    (x1, x2, heights), = calls
    # matplotlib would read MXNet arrays element by element.
    assert [type(values) for values in (x1, x2, heights)] == [onp.ndarray] * 3
    onp.testing.assert_allclose(heights, x1 ** 2 + 2 * x2 ** 2, rtol=1e-5, atol=1e-5)
    return x1, x2


def test_show_trace_2d(monkeypatch):
    x1, x2 = contour(monkeypatch, valley, train_2d(descend))
    assert x1.min() == -5.5 and 0.8 < x1.max() <= 1 and x2.min() == -3 and 0.8 < x2.max() <= 1
    assert plt.gca().get_xlabel() == 'x1' and plt.gca().get_ylabel() == 'x2'


def test_show_trace_2d_covers_points_outside(monkeypatch):
    x1, x2 = contour(monkeypatch, valley, [(-5, -2), (30, 4), (float('nan'), 1), (1e3, -5)])
    assert x1.min() <= -5.5 and x1.max() > 1e3 and x2.min() < -5 and x2.max() > 4
    assert x1.size < 100000


def test_show_trace_2d_without_points():
    with pytest.raises(ValueError, match='show_trace_2d: results must hold at least one point'):
        show_trace_2d(valley, [])


def sgd(params, states, hyperparams):
    for p in params:
        p[:] = p - hyperparams['lr'] * p.grad


def lines(n):
    rng = onp.random.RandomState(0)
    X = rng.normal(size=(n, 3)).astype('float32')
    return X, (X @ [1, -2, 0.5] + 3).astype('float32')


def plain_losses(X, y, w, batch_size, epochs, lr):
    """Linear regression in float64; the loss after every 200 examples and every epoch."""
    X, y, w, b, losses, count = X.astype('float64'), y.astype('float64'), w, 0.0, [], 0
    for _ in range(epochs):
        for begin in range(0, len(X), batch_size):
            rows, labels = X[begin:begin + batch_size], y[begin:begin + batch_size]
            error = rows @ w + b - labels
            w, b = w - lr * rows.T @ error / len(rows), b - lr * error.mean()
            count += len(rows)
            if count % 200 == 0 or begin + batch_size >= len(X):
                losses.append((((X @ w + b) - y) ** 2 / 2).mean())
    return losses


@pytest.mark.parametrize('n, batch_size', [(600, 50), (33, 7), (190, 30), (450, 10), (5, 8)])
def test_losses_are_those_of_a_plain_loop(n, batch_size, capsys):
    """Most of these never reach a multiple of 200 examples."""
    X, y = lines(n)
    data = load_array((X, y), batch_size, is_train=False)
    mx.random.seed(1)
    times, losses = train_ch11(sgd, None, {'lr': 0.05}, data, 3)
    assert re.fullmatch(r'loss: \d+\.\d{3}, \d+\.\d{3} sec/epoch\n', capsys.readouterr().out)
    mx.random.seed(1)
    w = np.random.normal(scale=0.01, size=(3, 1)).asnumpy().astype('float64')[:, 0]
    expected = plain_losses(X, y, w, batch_size, 2, 0.05)
    onp.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert len(times) == len(losses) and times == sorted(times)
    animator = Animator()
    assert train_concise_ch11('sgd', {'learning_rate': 0.05}, data, animator=animator) is None
    assert len(animator.Y[0]) == len(expected)
    # The first weights, of size 0.01, hardly matter.
    onp.testing.assert_allclose(animator.Y[0], expected, rtol=0.1, atol=1e-3)
    assert animator.X[0][-1] == 2


@pytest.mark.parametrize('train', [
    lambda data: train_ch11(sgd, None, {'lr': 0.05}, data, 3),
    lambda data: train_concise_ch11('sgd', {'learning_rate': 0.05}, data)])
def test_only_finished_training_is_timed(monkeypatch, capsys, train):
    log = []

    def spy(owner, name):
        call = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: log.append(name) or call(*args))
    spy(np.ndarray, 'wait_to_read')
    for name in ('start', 'stop'):
        spy(optimization.Timer, name)
    spy(optimization, 'evaluate_loss')
    monkeypatch.setattr(optimization.Timer, 'sum', lambda self: 3.0)
    # After 200 and 400 examples, and after the epochs of 300.
    train(load_array(lines(300), 50, is_train=False))
    del log[:log.index('start')]  # what initialization waited for
    assert log == ['start'] + ['wait_to_read', 'stop', 'evaluate_loss', 'start'] * 4
    assert capsys.readouterr().out.endswith(', 1.500 sec/epoch\n')


def test_figure_of_the_book():
    """All epochs and the book's range of losses; larger ones are not cut off."""
    train_ch11(sgd, None, {'lr': 0.05}, load_array(lines(50), 10), 3, 4)
    axes, = plt.gcf().axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xlim()) == ('epoch', 'loss', (0, 4))
    low, high = axes.get_ylim()
    assert low <= 0.22 and high >= max(0.35, *axes.lines[0].get_ydata())


@pytest.mark.parametrize('train, name', [
    (lambda data, epochs: train_ch11(sgd, None, {'lr': 0.1}, data, 3, epochs), 'train_ch11'),
    (lambda data, epochs: train_concise_ch11('sgd', {}, data, epochs), 'train_concise_ch11')])
def test_bad_input(train, name):
    for epochs, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match=f'{name}: num_epochs must be .* got {epochs}'):
            train(load_array(lines(5), 5), epochs)
    with pytest.raises(ValueError, match=name + ': data_iter must give at least one example'):
        train([], 1)


def test_they_learn_on_real_data(hub_data):
    """Predicting the mean has loss 0.5, the best linear model 0.242: below 0.26 in two epochs."""
    hub_data()
    data, dim = get_data_ch11(10)
    _, losses = train_ch11(sgd, None, {'lr': 0.05}, data, dim)
    assert losses[0] > losses[-1] and losses[-1] < 0.26
    animator = Animator()
    train_concise_ch11('adam', {'learning_rate': 0.05}, data, animator=animator)
    assert animator.Y[0][-1] < 0.27
