import re

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

from d2l import ops
from d2l.data.arrays import load_array
from d2l.data.vision import load_data_fashion_mnist
from d2l.train import classification
from d2l.train.classification import (
    accuracy,
    evaluate_accuracy,
    evaluate_accuracy_gpu,
    predict_ch3,
    train_ch3,
    train_ch6,
    train_epoch_ch3,
)
from d2l.train.regression import sgd
from d2l.utils.animator import Animator


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '0')
    plt.switch_backend('Agg')
    yield
    plt.close('all')


SCORES = [[0.1, 0.3, 0.6], [0.3, 0.2, 0.5], [0.9, 0.1, 0.0]]


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'int8', 'uint8', 'int32', 'int64'])
@pytest.mark.parametrize('shape', [(3,), (3, 1), (1, 3)])
def test_accuracy_counts(dtype, shape):
    y = np.array([0, 2, 0], dtype=dtype).reshape(shape)
    count = accuracy(np.array(SCORES), y)
    assert count == 2
    assert type(count) is float


def test_accuracy_of_many_classes_and_small_labels():
    # 300 as an unsigned byte would be 44.
    y_hat = np.zeros((1, 400))
    y_hat[0, 300] = 1
    assert accuracy(y_hat, np.array([44], dtype='uint8')) == 0


@pytest.mark.parametrize('shape', [(4,), (4, 1)])
@pytest.mark.parametrize('labels', [(4,), (4, 1)])
def test_accuracy_of_a_single_column(shape, labels):
    y = np.array([0, 1, 1, 0], dtype='int32').reshape(labels)
    probabilities = np.array([0.2, 0.9, 0.4, 0.51]).reshape(shape)
    assert accuracy(probabilities, y) == 2
    for dtype in ('float32', 'float16', 'int32', 'int8', 'bool'):
        classes = np.array([0, 1, 1, 1], dtype=dtype).reshape(shape)
        assert accuracy(classes, y) == 3
    assert accuracy(probabilities > 0.5, y.astype('bool')) == 2
    assert accuracy(np.array([5.0, 7.0]), np.array([5, 6])) == 1
    assert accuracy(npx.sigmoid(np.array([-3.0, 2.0])), np.array([0, 1])) == 2


def test_accuracy_of_pixels():
    y_hat = np.zeros((2, 3, 4, 5))
    y_hat[:, 1] = 1
    y = np.zeros((2, 4, 5), dtype='int32')
    y[0] = 1
    assert accuracy(y_hat, y) == 20


@pytest.mark.parametrize('y_hat, y', [((3, 2), (2,)), ((3, 2), (3, 2)), ((4,), (2, 2)),
                                      ((3, 1), (2,)), ((2, 3, 4, 5), (2, 20))])
def test_accuracy_of_other_shapes(y_hat, y):
    message = f'got the shape {y} for y_hat of shape {y_hat}'
    with pytest.raises(ValueError, match=re.escape(message)):
        accuracy(np.zeros(y_hat), np.zeros(y))


def classify(X):
    """A net that is right where the first feature is the label."""
    return npx.one_hot(X[:, 0].astype('int32'), 3)


@pytest.mark.parametrize('evaluate', [
    evaluate_accuracy, lambda net, data: evaluate_accuracy_gpu(net, data, mx.cpu())])
def test_evaluate_accuracy(evaluate):
    X, y = np.array([[0], [1], [2], [0], [1]]), np.array([0, 1, 1, 1, 1])
    share = evaluate(classify, load_array((X, y), 2, is_train=False))
    assert share == 3 / 5
    assert type(share) is float


@pytest.mark.parametrize('call, name', [
    (lambda: evaluate_accuracy(classify, []), 'evaluate_accuracy: data_iter'),
    (lambda: evaluate_accuracy_gpu(classify, [], mx.cpu()), 'evaluate_accuracy_gpu: data_iter'),
    (lambda: train_epoch_ch3(classify, [], None, None), 'train_epoch_ch3: train_iter'),
    (lambda: train_ch6(dense(), [], [], 1, 0.1), 'train_ch6: train_iter')])
def test_no_examples(call, name):
    with pytest.raises(ValueError, match=name + ' must give at least one example, got none'):
        call()


def test_evaluate_accuracy_gpu_goes_to_the_device_of_the_net():
    net = dense()
    net.initialize(ctx=mx.cpu(1))
    seen = []

    class Net(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, X):
            seen.append(X.ctx)
            return self.net(X)
    data = load_array((np.ones((4, 2)), np.zeros(4)), 2)
    assert 0 <= evaluate_accuracy_gpu(Net(), data) <= 1
    assert seen == [mx.cpu(1)] * 2
    # Without parameters the current device is as good as any.
    assert 0 <= evaluate_accuracy_gpu(nn.Flatten(), data) <= 1


def dense(outputs=3):
    net = nn.HybridSequential()
    net.add(nn.Dense(outputs))
    return net


def blobs(n=240):
    """Three well separated groups of points in eight dimensions."""
    rng = onp.random.RandomState(0)
    y = onp.arange(n) % 3
    X = rng.normal(size=(n, 8)) * 0.3
    X[onp.arange(n), y] += 3
    return np.array(X, dtype='float32'), np.array(y, dtype='int32')


def test_train_epoch_ch3_with_a_trainer():
    net, loss = dense(), gluon.loss.SoftmaxCrossEntropyLoss()
    net.initialize(init=init.Xavier())
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.5})
    data = load_array(blobs(), 20)
    results = [train_epoch_ch3(net, data, loss, trainer) for _ in range(3)]
    assert results[2][0] < results[0][0]
    assert results[2][1] == 1.0
    assert all(type(value) is float for result in results for value in result)


def test_train_epoch_ch3_from_scratch_counts_exactly():
    """Against the same epoch that reads every batch at once."""
    X, y = blobs(50)
    loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def fresh():
        W, b = np.ones((8, 3)) * 0.1, np.zeros(3)
        W.attach_grad()
        b.attach_grad()
        return W, b, lambda X: np.dot(X, W) + b

    W, b, net = fresh()
    data = load_array((X, y), 8, is_train=False)
    result = train_epoch_ch3(net, data, loss, lambda batch_size: sgd([W, b], 0.1, batch_size))
    W, b, net = fresh()
    total, right = 0.0, 0
    for features, labels in data:
        with autograd.record():
            y_hat = net(features)
            l = loss(y_hat, labels)
        l.backward()
        sgd([W, b], 0.1, features.shape[0])
        total += float(l.sum())
        right += int((y_hat.asnumpy().argmax(axis=1) == labels.asnumpy()).sum())
    assert result == (total / 50, right / 50)


def run_ch3(num_epochs=3, lr=0.5, **kwargs):
    net = dense()
    net.initialize(init=init.Xavier())
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': lr})
    data = load_array(blobs(), 20)
    train_ch3(net, data, data, gluon.loss.SoftmaxCrossEntropyLoss(), num_epochs, trainer, **kwargs)


def test_train_ch3_gives_its_points_to_the_animator():
    animator = Animator()
    assert run_ch3(animator=animator) is None
    assert animator.X == [[1, 2, 3]] * 3
    assert animator.Y[2][-1] == 1.0


def test_train_ch3_shows_the_range_of_the_book(monkeypatch):
    monkeypatch.setattr(classification, 'train_epoch_ch3', lambda *args: (0.45, 0.75))
    monkeypatch.setattr(classification, '_share', lambda *args: 0.75)
    run_ch3()
    low, high = plt.gca().get_ylim()
    assert 0.2 < low <= 0.3 and 0.9 <= high < 1


def test_train_ch3_shows_points_outside_that_range():
    run_ch3()
    axes = plt.gca()
    low, high = axes.get_ylim()
    points = [y for line in axes.lines for y in line.get_ydata()]
    assert len(points) == 9
    assert low <= min(points) and max(points) <= high
    assert axes.get_xlim() == (1, 3)


@pytest.mark.filterwarnings('error')
def test_train_ch3_of_one_epoch_has_no_empty_axis():
    run_ch3(1)


def test_train_ch3_says_what_was_not_reached():
    with pytest.raises(AssertionError, match=r'the training loss should be below 0.5, got \d'):
        run_ch3(1, lr=1e-6)


@pytest.mark.parametrize('train', [
    lambda epochs: run_ch3(epochs), lambda epochs: train_ch6(dense(), [], [], epochs, 0.1)])
@pytest.mark.parametrize('epochs', [0, -1, 1.5, None])
def test_number_of_epochs(train, epochs):
    with pytest.raises(ValueError, match='num_epochs must be a whole number of at least 1, got '
                                         + re.escape(repr(epochs))):
        train(epochs)


@pytest.mark.parametrize('shape', [(8, 9), (1, 8, 9), (3, 8, 9)])
@pytest.mark.parametrize('n, shown', [(2, 2), (6, 4)])
def test_predict_ch3(shape, n, shown):
    X = np.random.uniform(size=(4, *shape))
    y = np.array([0, 1, 2, 9], dtype='int32')
    predict_ch3(lambda X: npx.one_hot(np.zeros(X.shape[0]), 10), [(X, y)], n)
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == [name + '\nt-shirt' for name in (
        't-shirt', 'trouser', 'pullover', 'ankle boot')[:shown]]
    picture = onp.asarray(axes[1].get_images()[0].get_array())
    expected = X[1].asnumpy()
    if len(shape) == 3:
        expected = expected.transpose(1, 2, 0).squeeze()
    onp.testing.assert_array_equal(picture, expected)


def test_predict_ch3_without_pictures():
    with pytest.raises(ValueError, match='predict_ch3: test_iter must give at least one batch'):
        predict_ch3(None, [])


def run_ch6(net=None, num_epochs=3, **kwargs):
    net = dense() if net is None else net
    data = load_array(blobs(), 20, is_train=False)
    train_ch6(net, data, data, num_epochs, 0.5, **kwargs)
    return net


def test_train_ch6_prints_the_result(capsys):
    animator = Animator()
    net = run_ch6(animator=animator)
    loss, train_acc, test_acc = (values[-1] for values in animator.Y)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f'loss {loss:.3f}, train acc {train_acc:.3f}, test acc {test_acc:.3f}'
    assert re.fullmatch(r'\d+\.\d examples/sec on cpu\(0\)', second)
    assert test_acc == evaluate_accuracy_gpu(net, load_array(blobs(), 50)) == 1.0


def test_train_ch6_prints_after_the_progress_line(capsys, monkeypatch):
    monkeypatch.setattr(Animator, 'close', lambda self: print('closed'))
    run_ch6(num_epochs=1)
    assert capsys.readouterr().out.startswith('closed\nloss ')


def test_train_ch6_points():
    animator = Animator()
    run_ch6(num_epochs=2, animator=animator)
    # 12 batches an epoch: a point after each batch, 24 in all, and the test accuracies.
    assert animator.X[0] == animator.X[1]
    onp.testing.assert_allclose(animator.X[0], onp.arange(1, 25) / 12)
    assert animator.X[2] == [1, 2]


def test_train_ch6_always_shows_the_end_of_an_epoch():
    X, y = blobs(35 * 2)
    data, animator = load_array((X, y), 2), Animator()
    train_ch6(dense(), data, data, 1, 0.1, animator=animator)
    # 35 batches, a point after every third: 11 and the last one.
    assert len(animator.X[0]) == 12
    assert animator.X[0][-1] == 1.0


def test_train_ch6_draws_into_a_figure_of_its_own():
    run_ch6()
    axes = plt.gca()
    assert axes.get_xlim() == (0, 3)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        'train loss', 'train acc', 'test acc']
    assert [len(line.get_xdata()) for line in axes.lines] == [36, 36, 3]


def test_train_ch6_is_that_of_a_loop_that_reads_every_batch():
    X, y = blobs()
    mx.random.seed(3)
    animator = Animator()
    net = run_ch6(num_epochs=1, animator=animator)
    mx.random.seed(3)
    again, loss = dense(), gluon.loss.SoftmaxCrossEntropyLoss()
    again.initialize(init=init.Xavier(), ctx=mx.cpu())
    trainer = gluon.Trainer(again.collect_params(), 'sgd', {'learning_rate': 0.5})
    total, right, losses, accuracies = 0.0, 0.0, [], []
    for i in range(0, 240, 20):
        with autograd.record():
            y_hat = again(X[i:i + 20])
            l = loss(y_hat, y[i:i + 20])
        l.backward()
        trainer.step(20)
        total += float(l.sum())
        right += accuracy(y_hat, y[i:i + 20])
        losses.append(total / (i + 20))
        accuracies.append(right / (i + 20))
    assert animator.Y[:2] == [losses, accuracies]
    onp.testing.assert_array_equal(net[0].weight.data().asnumpy(),
                                   again[0].weight.data().asnumpy())


def test_train_ch6_computes_convolutions_with_kernels(monkeypatch):
    """And has the numbers of Gluon's own."""
    rng = onp.random.RandomState(0)
    pictures = np.array(rng.normal(size=(40, 1, 6, 6)), dtype='float32')
    data, calls, results = load_array((pictures, blobs()[1][:40]), 20, is_train=False), [], []
    kernel = ops.conv2d
    monkeypatch.setattr(ops, 'conv2d',
                        lambda *args, **kwargs: calls.append(1) or kernel(*args, **kwargs))
    for available in (ops.available(), []):
        monkeypatch.setattr(ops, 'available', lambda available=available: available)
        mx.random.seed(3)
        net = nn.Sequential()
        net.add(nn.Conv2D(4, 3, padding=1, activation='sigmoid'), nn.AvgPool2D(2, 2), nn.Dense(3))
        train_ch6(net, data, data, 2, 0.5, mx.cpu())
        results.append([p.data().asnumpy() for p in net.collect_params().values()])
        # Two batches to train and two to test, twice; and once with symbols, for the shapes.
        assert len(calls) == 9 and type(net[0]) is nn.Conv2D
    for ours, theirs in zip(*results):
        onp.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_train_ch6_initialises_anew_unless_told_otherwise(monkeypatch):
    net = dense()
    net.initialize(init.Constant(7))
    net(blobs()[0])
    before = net[0].weight.data().asnumpy()
    with pytest.warns(UserWarning, match='already initialized'):
        train_ch6(net, *[load_array(blobs(), 20)] * 2, 1, 0.0, force_reinit=False)
    onp.testing.assert_array_equal(net[0].weight.data().asnumpy(), before)
    train_ch6(net, *[load_array(blobs(), 20)] * 2, 1, 0.0)
    assert abs(net[0].weight.data()).max() < 2


def test_train_ch6_asks_for_the_device_at_the_call(monkeypatch, capsys):
    monkeypatch.setattr(classification, 'try_gpu', lambda: mx.cpu(1))
    net = run_ch6(num_epochs=1)
    assert net[0].weight.list_ctx() == [mx.cpu(1)]
    assert 'examples/sec on cpu(1)' in capsys.readouterr().out
    net = run_ch6(num_epochs=1, device=mx.cpu(2))
    assert net[0].weight.list_ctx() == [mx.cpu(2)]


@pytest.mark.parametrize('hybridize', [False, True])
def test_train_ch6_learns(hybridize):
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation='sigmoid'), nn.Dense(3))
    if hybridize:
        net.hybridize(static_alloc=True)
    animator = Animator()
    run_ch6(net, 6, animator=animator)
    assert animator.Y[2][-1] > 0.95


# Ten classes: guessing gives 0.1.  These small nets reach 0.75 or more on the pictures of the
# sample; 0.6 is far from both.
LEARNED = 0.6


def test_train_ch3_learns_real_pictures():
    mx.random.seed(3)
    train_iter, test_iter = load_data_fashion_mnist(64)
    net = nn.HybridSequential()
    net.add(nn.Dense(64, activation='relu'), nn.Dense(10))
    net.initialize(init.Xavier())
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.1})
    animator = Animator()
    # train_ch3 itself demands a loss below 0.5.
    train_ch3(net, train_iter, test_iter, gluon.loss.SoftmaxCrossEntropyLoss(), 8, trainer,
              animator=animator)
    assert animator.Y[2][-1] == evaluate_accuracy(net, test_iter) > LEARNED


def test_train_ch6_learns_real_pictures():
    mx.random.seed(3)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, kernel_size=5, padding=2, activation='relu'), nn.AvgPool2D(2, 2),
            nn.Dense(10))
    animator = Animator()
    train_iter, test_iter = load_data_fashion_mnist(128)
    train_ch6(net, train_iter, test_iter, 3, 0.1, animator=animator)
    assert animator.Y[2][-1] == evaluate_accuracy_gpu(net, test_iter) > LEARNED
