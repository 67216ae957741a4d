"""Pretraining BERT: losses by a plain loop, any number of devices, real text, bad input."""
import random

import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, cpu, gluon, np, npx
from mxnet.gluon import nn

from d2l import ops
from d2l.data.arrays import ArrayLoader
from d2l.data.pretraining import load_data_wiki
from d2l.nn.bert import BERTModel
from d2l.train.pretraining import _get_batch_loss_bert, _train_step, train_bert
from d2l.utils import animator as animator_module
from d2l.utils.animator import Animator

VOCAB, STEPS, PREDS = 12, 6, 3
LOSS = gluon.loss.SoftmaxCrossEntropyLoss()


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close('all')


class SmallNet(nn.Block):
    """The calls of BERTModel, with one hidden layer and without dropout."""

    def __init__(self):
        super().__init__()
        self.tokens, self.segments = nn.Embedding(VOCAB, 8), nn.Embedding(2, 8)
        self.mlm, self.nsp = nn.Dense(VOCAB, flatten=False), nn.Dense(2)
        self.shapes = []

    def forward(self, tokens, segments, valid_lens=None, pred_positions=None):
        self.shapes.append((tokens.shape, valid_lens.shape))
        X = self.tokens(tokens) + self.segments(segments)
        X = npx.sequence_mask(X, valid_lens, use_sequence_length=True, axis=1)
        mean = X.sum(axis=1) / valid_lens.reshape(-1, 1)
        at = npx.one_hot(pred_positions, STEPS)
        return X, self.mlm(np.tanh(npx.batch_dot(at, X) + np.expand_dims(mean, 1))), self.nsp(mean)


def small_net(devices):
    npx.random.seed(3)
    net = SmallNet()
    net.initialize(ctx=devices[0])
    net(*(np.array(array) for array in examples(2)[:4]))
    net.collect_params().reset_ctx(devices)
    net.shapes.clear()
    return net


def examples(n, seed=0):
    """The seven arrays of n pairs; the numbers of masked tokens differ widely, one has none."""
    rng = onp.random.RandomState(seed)
    weights = onp.arange(PREDS) < onp.array([3, 0, 1])[onp.arange(n) % 3][:, onp.newaxis]
    return (rng.randint(0, VOCAB, (n, STEPS)).astype('int32'),
            rng.randint(0, 2, (n, STEPS)).astype('int32'),
            rng.randint(1, STEPS + 1, n).astype('float32'),
            rng.randint(0, STEPS, (n, PREDS)).astype('int32'), weights.astype('float32'),
            rng.randint(0, VOCAB, (n, PREDS)).astype('int32'),
            rng.randint(0, 2, n).astype('float32'))


def values(net):
    return [param.data(param.list_ctx()[0]).asnumpy().copy()
            for _, param in sorted(net._collect_params_with_prefix().items())]


def pretrain(n, batch_size, devices, num_steps, net=None, loss=LOSS):
    """Losses of each step (num_steps, 2), and the net."""
    net = small_net(devices) if net is None else net
    animator = Animator()
    train_bert(ArrayLoader(examples(n), batch_size), net, loss, VOCAB, devices, 1, num_steps,
               animator=animator)
    sums = onp.array(animator.Y).T * onp.arange(1, num_steps + 1)[:, onp.newaxis]
    return onp.diff(sums, axis=0, prepend=onp.zeros((1, 2))), net


def plain_losses(net, arrays):
    """MLM and NSP loss in NumPy float64, one example after the other."""
    _, mlm_y_hat, nsp_y_hat = net(*(np.array(array) for array in arrays[:4]))
    weights, mlm_y, nsp_y = arrays[4:]
    mlm = nsp = 0.0
    for b in range(len(nsp_y)):
        for n in range(PREDS):
            mlm += weights[b, n] * minus_log_softmax(mlm_y_hat[b, n].asnumpy(), mlm_y[b, n])
        nsp += minus_log_softmax(nsp_y_hat[b].asnumpy(), int(nsp_y[b]))
    return mlm / max(weights.sum(), 1), nsp / len(nsp_y)


def minus_log_softmax(scores, label):
    scores = scores.astype('float64')
    return onp.log(onp.exp(scores).sum()) - scores[label]


def shards_of(arrays, bounds, devices):
    return [[np.array(array[begin:end], ctx=device, dtype=array.dtype)
             for begin, end, device in zip(bounds, bounds[1:], devices)] for array in arrays]


# The losses of a batch

def test_losses_of_one_device():
    net, arrays = small_net([cpu()]), examples(5)
    losses = _get_batch_loss_bert(net, LOSS, VOCAB, *shards_of(arrays, [0, 5], [cpu()]))
    assert all(isinstance(ls, list) and len(ls) == 1 for ls in losses)
    mlm, nsp = plain_losses(net, arrays)
    onp.testing.assert_allclose([ls[0].item() for ls in losses], [mlm, nsp, mlm + nsp], rtol=1e-5)


def test_parts_have_their_own_means_and_add_up():
    devices = [cpu(0), cpu(1), cpu(2)]
    # The second part has no masked token.
    net, arrays, bounds = small_net(devices), examples(5), [0, 1, 2, 5]
    mlm_ls, nsp_ls, ls = _get_batch_loss_bert(net, LOSS, VOCAB,
                                              *shards_of(arrays, bounds, devices))
    for i, device in enumerate(devices):
        part = [array[bounds[i]:bounds[i + 1]] for array in arrays]
        onp.testing.assert_allclose([mlm_ls[i].item(), nsp_ls[i].item()],
                                    plain_losses(net, part), rtol=1e-5)
        assert [l.ctx for l in (mlm_ls[i], nsp_ls[i], ls[i])] == [device] * 3
    assert mlm_ls[1].item() == 0
    onp.testing.assert_allclose(sum(l.item() for l in ls), sum(plain_losses(net, arrays)),
                                rtol=1e-5)


def test_valid_lengths_in_columns():
    """The book's call flattens them."""
    net, arrays = small_net([cpu()]), list(examples(4))
    arrays[2] = arrays[2].reshape(-1, 1)
    _get_batch_loss_bert(net, LOSS, VOCAB, *shards_of(arrays, [0, 4], [cpu()]))
    assert net.shapes == [((4, STEPS), (4,))]


def test_nothing_is_weighed_away_without_masked_tokens():
    net, arrays = small_net([cpu()]), list(examples(4))
    arrays[4] = onp.zeros_like(arrays[4])
    for bounds in ([0, 4], [0, 2, 4]):
        devices = [cpu(i) for i in range(len(bounds) - 1)]
        net = small_net(devices)
        losses = _get_batch_loss_bert(net, LOSS, VOCAB, *shards_of(arrays, bounds, devices))
        onp.testing.assert_allclose([sum(l.item() for l in losses[0]), sum(
            l.item() for l in losses[2])], [0, plain_losses(net, arrays)[1]], rtol=1e-5)


# The loop

def test_one_device_is_the_plain_loop():
    losses, net = pretrain(8, 3, [cpu()], 5)
    plain, expected = small_net([cpu()]), []
    trainer = gluon.Trainer(plain.collect_params(), 'adam', {'learning_rate': 0.001})
    arrays = examples(8)
    for begin in (0, 3, 6, 0, 3):
        batch = [np.array(array[begin:begin + 3], dtype=array.dtype) for array in arrays]
        with autograd.record():
            _, mlm_y_hat, nsp_y_hat = plain(*batch[:4])
            mlm = -(npx.pick(npx.log_softmax(mlm_y_hat), batch[5]) * batch[4]).sum()
            mlm = mlm / batch[4].sum()
            nsp = -npx.pick(npx.log_softmax(nsp_y_hat), batch[6]).mean()
            l = mlm + nsp
        l.backward()
        trainer.step(1)
        expected.append([mlm.item(), nsp.item()])
    onp.testing.assert_allclose(losses, expected, rtol=1e-4)
    for mine, other in zip(values(net), values(plain)):
        onp.testing.assert_allclose(mine, other, atol=2e-6)
    assert [shape[0][0] for shape in net.shapes] == [3, 3, 2, 3, 3]


def test_a_hybridized_loss():
    """Gluon compiles it for weights or for none, and refuses the other."""
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    loss.hybridize()
    losses, _ = pretrain(8, 3, [cpu()], 2, loss=loss)
    onp.testing.assert_allclose(losses, pretrain(8, 3, [cpu()], 2)[0], rtol=1e-5)


@pytest.mark.parametrize('optimizer', ['d2l_adam', 'adam'])
def test_adam_is_fused_where_its_kernel_is_loaded(monkeypatch, optimizer):
    made, make = [], gluon.Trainer.__init__
    monkeypatch.setattr(gluon.Trainer, '__init__',
                        lambda self, *args: made.append(args[1:]) or make(self, *args))
    monkeypatch.setattr(ops, 'available', lambda: ['multi_adam'] * (optimizer != 'adam'))
    pretrain(8, 3, [cpu()], 1)
    assert made == [(optimizer, {'learning_rate': 1e-3})]


@pytest.mark.parametrize('n, batch_size, number', [
    (8, 4, 2), (9, 5, 2), (7, 7, 3), (7, 3, 4), (4, 3, 2), (2, 1, 3)])
def test_devices_make_no_difference(n, batch_size, number):
    """Batches that do not divide, a last batch of one, fewer examples than devices."""
    devices = [cpu(i) for i in range(number)]
    one, several = pretrain(n, batch_size, [cpu()], 6), pretrain(n, batch_size, devices, 6)
    onp.testing.assert_allclose(several[0], one[0], rtol=2e-5)
    for mine, other in zip(values(several[1]), values(one[1])):
        onp.testing.assert_allclose(mine, other, atol=5e-6)
    for param in several[1].collect_params().values():
        copies = [data.asnumpy() for data in param.list_data()]
        assert len(copies) == number
        for copy in copies[1:]:
            onp.testing.assert_array_equal(copy, copies[0])


def test_a_bert_model_on_two_devices():
    """Losses only: Adam makes whole steps of the rounding errors of gradients that are zero."""
    results = []
    for devices in ([cpu()], [cpu(0), cpu(1)]):
        npx.random.seed(0)
        net = BERTModel(VOCAB, 8, 16, 2, 2, 0.0, STEPS)
        net.initialize(ctx=cpu())
        net(*(np.array(array) for array in examples(2)[:4]))
        net.collect_params().reset_ctx(devices)
        net.hybridize()
        results.append(pretrain(7, 5, devices, 4, net)[0])
    onp.testing.assert_allclose(results[1], results[0], rtol=1e-4)


class Worker:
    """A trainer of one of two workers, which has been told what the sums over both are."""

    num_workers = 2

    def __init__(self, sums):
        self.sums, self.asked = sums, []

    def sum_workers(self, numbers):
        self.asked.append(tuple(numbers))
        return onp.array(self.sums)

    def step(self, batch_size):
        assert batch_size == 1


def gradients(arrays, trainer):
    """Of one step: losses, and gradients of all parameters."""
    net, batch = small_net([cpu()]), [np.array(array, dtype=array.dtype) for array in arrays]
    losses = _train_step(batch, net, LOSS, VOCAB, [cpu()], trainer)
    return [array.asnumpy() for array in [*losses, *(
        param.grad() for _, param in sorted(net._collect_params_with_prefix().items()))]]


@pytest.mark.parametrize('cut', [1, 2, 4])
def test_parts_of_workers_add_up_to_the_whole_batch(cut):
    """Losses and gradients, however many tokens are masked in each part: 3, 0, 1, 3, 0."""
    arrays = examples(5)
    plain = gluon.Trainer(small_net([cpu()]).collect_params(), 'sgd', {'learning_rate': 0.0})
    plain.step = lambda batch_size: None
    workers = [Worker([7.0, 5.0]), Worker([7.0, 5.0])]
    parts = [gradients([array[rows] for array in arrays], worker)
             for rows, worker in zip((slice(0, cut), slice(cut, 5)), workers)]
    assert [sum(numbers) for numbers in zip(*(worker.asked[0] for worker in workers))] == [7, 5]
    for whole, one, other in zip(gradients(arrays, plain), *parts):
        onp.testing.assert_allclose(one + other, whole, rtol=1e-4, atol=1e-6)


@pytest.fixture
def events(monkeypatch):
    """What is read or waited for, forward passes and steps, in their order."""
    seen = []

    def spied(owner, name, event):
        original = getattr(owner, name)

        def spy(*args, **kwargs):
            seen.append(event)
            return original(*args, **kwargs)
        monkeypatch.setattr(owner, name, spy)
    for name in ('asnumpy', 'wait_to_read', 'item', 'asscalar'):
        spied(np.ndarray, name, 'wait')
    spied(npx, 'waitall', 'wait')
    spied(mx.nd, 'waitall', 'wait')
    spied(SmallNet, 'forward', 'forward')
    spied(gluon.Trainer, 'step', 'step')
    return seen


def test_devices_are_not_waited_for(events):
    """All parts of a step are computed before anything is read."""
    devices = [cpu(0), cpu(1)]
    net = small_net(devices)
    arrays = examples(5)
    batch = [np.array(array, dtype=array.dtype) for array in arrays]
    shards = shards_of(arrays, [0, 2, 5], devices)
    events.clear()
    _get_batch_loss_bert(net, LOSS, VOCAB, *shards)
    assert events == ['forward', 'forward']
    events.clear()
    train_bert([batch] * 3, net, LOSS, VOCAB, devices, 10, 3)
    last = len(events) - events[::-1].index('step')
    assert events[:last] == ['forward', 'forward', 'step'] * 3
    assert 'wait' in events[last:]


def test_losses_are_read_after_a_step_only(events):
    """At no other point, and of a step that is four steps old."""
    devices = [cpu(0), cpu(1)]
    net = small_net(devices)
    batch = [np.array(array, dtype=array.dtype) for array in examples(5)]
    events.clear()
    train_bert([batch] * 8, net, LOSS, VOCAB, devices, 10, 8)
    issued = ['forward', 'forward', 'step']
    read = ['wait', 'wait']  # the two losses
    last = len(events) - events[::-1].index('step')
    assert events[:last] == issued * 4 + (issued + read) * 3 + issued


def test_steps_go_on_over_several_passes_and_stop_within_one(capsys):
    animator = Animator()
    train_bert(ArrayLoader(examples(5), 2), small_net([cpu()]), LOSS, VOCAB, [cpu()], 3, 7,
               animator=animator)
    assert animator.X == [[3, 6, 7]] * 2
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'MLM loss {:.3f}, NSP loss {:.3f}'.format(*(y[-1] for y in animator.Y))
    assert out[1].endswith(' sentence pairs/sec on [cpu(0)]') and float(out[1].split()[0]) > 0
    assert len(out) == 2


def test_what_comes_after_a_step_sees_its_result():
    """after_step, with a trainer of the caller's."""
    net = small_net([cpu()])
    trainer = gluon.Trainer(net.collect_params(), 'sgd', {'learning_rate': 0.5})
    seen = [(0, values(net))]
    train_bert(ArrayLoader(examples(6), 3), net, LOSS, VOCAB, [cpu()], 2, 3, trainer=trainer,
               after_step=lambda step: seen.append((step, values(net))))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    for (_, before), (_, after) in zip(seen, seen[1:]):
        assert any((a != b).any() for a, b in zip(before, after))
    for mine, last in zip(values(net), seen[-1][1]):
        onp.testing.assert_array_equal(mine, last)
    assert trainer._optimizer.num_update == 3


def test_rate_counts_pairs(monkeypatch, capsys):
    from d2l.train import pretraining

    class OneSecond:
        def start(self):
            pass

        def stop(self):
            pass

        def sum(self):
            return 1.0
    monkeypatch.setattr(pretraining, 'Timer', OneSecond)
    train_bert(ArrayLoader(examples(5), 2), small_net([cpu()]), LOSS, VOCAB, [cpu()], 3, 7)
    assert '12.0 sentence pairs/sec' in capsys.readouterr().out


def test_the_figure(monkeypatch):
    """The book's: both lines over the steps; one step has no range."""
    made = []
    monkeypatch.setattr('d2l.train.pretraining.Animator',
                        lambda **kwargs: made.append(kwargs) or animator_module.Animator(**kwargs))
    for num_steps in (1, 4):
        train_bert(ArrayLoader(examples(4), 2), small_net([cpu()]), LOSS, VOCAB, [cpu()], 2,
                   num_steps)
    assert [kwargs['xlim'] for kwargs in made] == [None, [1, 4]]
    assert made[0]['legend'] == ['mlm', 'nsp'] and made[0]['xlabel'] == 'step'


@pytest.mark.parametrize('change, message', [
    ({'num_steps': 0}, 'train_bert: num_steps must be a whole number of at least 1, got 0'),
    ({'num_steps': 2.5}, 'train_bert: num_steps .* got 2.5'),
    ({'num_steps': True}, 'train_bert: num_steps .* got True'),
    ({'log_interval': 0}, 'train_bert: log_interval must be a whole number of at least 1, got 0'),
    ({'devices': []}, 'train_bert: devices must have at least one device, got none'),
    ({'train_iter': []}, 'train_bert: train_iter must give 3 batches .* got 0'),
    ({'train_iter': iter(ArrayLoader(examples(4), 2))}, 'must give 3 .* none more after 2')])
def test_bad_arguments(change, message):
    arguments = {'train_iter': ArrayLoader(examples(4), 2), 'devices': [cpu()],
                 'log_interval': 1, 'num_steps': 3}
    arguments.update(change)
    with pytest.raises(ValueError, match=message):
        train_bert(net=small_net([cpu()]), loss=LOSS, vocab_size=VOCAB, **arguments)


# Real text

def losses_of_steps(train_iter, vocab_size, num_steps, num_hiddens):
    """Of a small BERT without dropout: (2, num_steps)."""
    npx.random.seed(0)
    net = BERTModel(vocab_size, num_hiddens, 2 * num_hiddens, 2, 1, 0.0, 64)
    net.initialize()
    net.hybridize()
    animator = Animator()
    train_bert(train_iter, net, LOSS, vocab_size, [cpu(0)], 1, num_steps, animator=animator)
    sums = onp.array(animator.Y) * onp.arange(1, num_steps + 1)
    return onp.diff(sums, axis=1, prepend=onp.zeros((2, 1)))


@pytest.mark.slow
def test_bert_learns_real_text(hub_data):
    """WikiText-2's valid text: the mean MLM loss of steps 136 to 150 is below 6.3.

    A guess among all words has ln(4271) = 8.36, and who knows how often each is hidden, but not
    where, has 5.80; so far a model must come before it can learn more.
    """
    hub_data('wikitext-2')
    random.seed(0)
    train_iter, vocab = load_data_wiki(32, 64)
    mlm, _ = losses_of_steps(train_iter, len(vocab), 150, 64)
    assert mlm[0] > 8
    assert mlm[-15:].mean() < 6.3


@pytest.mark.slow
@pytest.mark.parametrize('real', [True, False])
def test_bert_learns_a_few_examples_by_heart(hub_data, real):
    """48 pairs: MLM loss below half the entropy of the hidden words, NSP loss below 0.2.

    Knowing how often each word is hidden gives the entropy, and guessing whether a sentence
    follows gives ln(2) = 0.69; to be so far below, the model must look at its input.
    """
    hub_data('wikitext-2', real=real)
    random.seed(0)
    train_iter, vocab = load_data_wiki(48, 64)
    npx.random.seed(0)
    batch = next(iter(train_iter))
    counts = onp.bincount(batch[5].asnumpy()[batch[4].asnumpy() > 0])
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * onp.log(shares)).sum()
    mlm, nsp = losses_of_steps([batch], len(vocab), 100, 64)
    assert mlm[-1] < entropy / 2 and nsp[-1] < 0.2
