"""The Transformer learns to translate, and its kernels as MXNet's operators do."""
import contextlib
import math

import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, init, npx

from d2l import ops
from d2l.data.translation import load_data_nmt
from d2l.models.sequence import transformer
from d2l.nn.encoder_decoder import GreedySearch
from d2l.nn.loss import MaskedSoftmaxCELoss
from d2l.train import optimizers  # noqa: F401  (d2l_adam)
from d2l.train.language_model import clip_and_divide

STEPS = 8
SOURCE = onp.array([[4, 5, 3, 1], [6, 3, 1, 1]], 'int32')
TARGET = onp.array([[2, 7, 8, 3, 1], [2, 5, 3, 1, 1]], 'int32')

# Rows of tests/nn/test_modes.py.
MODES = {'transformer': [
    (lambda: transformer(7, 9, 6, 8, 3, 2, 0.0), [SOURCE, TARGET, onp.array([3, 2], 'float32')])]}


def sentences(hub_data):
    """(src_vocab, tgt_vocab, batches) of the sample that ships with the package."""
    hub_data(real=False)
    npx.random.seed(0)
    src_vocab, tgt_vocab, data = load_data_nmt(64, STEPS, num_examples=640)
    return src_vocab, tgt_vocab, list(data)


def train(net, data, epochs):
    """Perplexities, one of each batch, before it is learned from."""
    trainer = gluon.Trainer(net.collect_params(), 'd2l_adam', {'learning_rate': 0.005})
    loss, curve = MaskedSoftmaxCELoss(), []
    for _ in range(epochs):
        for X, X_len, Y, Y_len in data:
            count = Y_len.sum() - len(Y_len)
            with autograd.record():
                scores, _ = net(X, Y[:, :-1], X_len)
                l = loss(scores, Y[:, 1:], Y_len - 1)
            l.backward()
            clip_and_divide(net, 1, count)
            trainer.step(1)
            curve.append((l.sum() * (STEPS - 1) / count).item())
    return onp.exp(curve)


def test_kernels_learn_as_their_definitions(hub_data):
    """The same start: the same perplexities, as long as rounding does not tell."""
    src_vocab, tgt_vocab, data = sentences(hub_data)
    curves = []
    for compiled in (True, False):
        mx.random.seed(1)
        net = transformer(len(src_vocab), len(tgt_vocab), dropout=0.0)
        net.initialize(init.Xavier())
        net(*data[0][::2])  # MXNet's own operators do not infer the parameters' shapes
        net.hybridize(compiled)
        with contextlib.nullcontext() if compiled else ops.composed():
            curves.append(train(net, data, 2))
    assert curves[0][0] > 2 * curves[0][-1]
    onp.testing.assert_allclose(curves[0], curves[1], rtol=1e-3)


def test_learns_to_translate(hub_data):
    src_vocab, tgt_vocab, data = sentences(hub_data)
    npx.random.seed(2)
    net = transformer(len(src_vocab), len(tgt_vocab), dropout=0.1)
    net.initialize(init.Xavier())
    net.hybridize()
    curve = train(net, data, 30)
    assert curve[0] > math.sqrt(len(tgt_vocab)) and curve[-len(data):].mean() < 3
    search, eos = GreedySearch(net, tgt_vocab['<bos>'], STEPS - 1), tgt_vocab['<eos>']
    search.hybridize()
    right = total = 0
    for X, X_len, Y, _ in data:
        for row, words in zip(search(X, X_len).asnumpy().tolist(), Y.asnumpy().tolist()):
            row = row[:row.index(eos)] if eos in row else row
            words = [int(word) for word in words[1:words.index(eos)]]
            right, total = right + (row == words), total + 1
    assert right > 0.3 * total
