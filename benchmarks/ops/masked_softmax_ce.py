"""Masked softmax cross entropy against what MXNet and PyTorch compose, forward and training.

The sizes are those of the book's translation (64 sentences of 10 steps), of a vocabulary of 10000
and of a language model.  d2l and mxnet are hybridized blocks (static): MXNet's weighs the steps of
Gluon's loss by a mask, as the book does.  torch multiplies cross_entropy by a mask, eagerly.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l.nn.loss import MaskedSoftmaxCELoss

try:
    import torch
except ImportError:
    torch = None

SHAPES = [(64, 10, 200), (112, 10, 10000), (32, 35, 5000)]


class WeightedLoss(gluon.loss.SoftmaxCELoss):
    def hybrid_forward(self, F, pred, label, valid_len):
        weights = F.np.expand_dims(F.np.ones_like(label), 2)
        weights = F.npx.sequence_mask(weights, valid_len, use_sequence_length=True, axis=1)
        return super().hybrid_forward(F, pred, label, weights)


def mxnet_provider(block, pred, label, valid_len, dy, train):
    block.hybridize(static_alloc=True, static_shape=True)
    pred, label, valid_len, dy = (np.array(a, dtype=a.dtype) for a in (pred, label, valid_len, dy))
    pred.attach_grad()

    return mxnet_calls(lambda: block(pred, label, valid_len), dy, [pred], train)


def torch_provider(pred, label, valid_len, dy, train):
    batch, steps, vocab = pred.shape
    pred, valid_len, dy = torch.tensor(pred), torch.tensor(valid_len), torch.tensor(dy)
    label, positions = torch.tensor(label).long().view(-1), torch.arange(steps)
    pred.requires_grad_()

    def loss():
        each = torch.nn.functional.cross_entropy(pred.view(-1, vocab), label, reduction='none')
        mask = positions < valid_len[:, None]
        return (each.view(batch, steps) * mask).mean(1)

    return torch_calls(loss, dy, [pred], train)


def exact(pred, label, valid_len, dy):
    steps = pred.shape[1]
    x = pred.astype('float64')
    x -= x.max(-1, keepdims=True)
    total = onp.exp(x).sum(-1, keepdims=True)
    valid = onp.arange(steps) < valid_len[:, None]
    index = label.astype('int64')[..., None]
    picked = onp.take_along_axis(x, index, -1)
    loss = ((onp.log(total) - picked)[..., 0] * valid).sum(1) / steps
    grad = onp.exp(x) / total
    onp.put_along_axis(grad, index, onp.take_along_axis(grad, index, -1) - 1, -1)
    return [loss, grad * (valid * dy[:, None] / steps)[..., None]]


def cases():
    rng = onp.random.RandomState(0)
    for shape in SHAPES:
        pred = rng.standard_normal(shape).astype('float32')
        label = rng.randint(0, shape[-1], shape[:2]).astype('float32')
        valid_len = rng.randint(1, shape[1] + 1, shape[0]).astype('float32')
        dy = rng.standard_normal(shape[0]).astype('float32')
        truth = exact(pred, label, valid_len, dy)
        for train in (False, True):
            arrays = pred, label, valid_len, dy, train
            providers = {'d2l': mxnet_provider(MaskedSoftmaxCELoss(), *arrays),
                         'mxnet': mxnet_provider(WeightedLoss(), *arrays)}
            if torch is not None:
                providers['torch'] = torch_provider(*arrays)

            def check(results, truth=truth):
                for name, arrays in results.items():
                    for got, want in zip(arrays, truth):
                        got = got.numpy() if name == 'torch' else got.asnumpy()
                        assert onp.abs(got - want).max() <= 1e-5 * onp.abs(want).max(), name
            yield Case('{} {}x{}x{}'.format('train' if train else 'forward', *shape), providers,
                       check, nbytes=pred.nbytes * (4 if train else 1))
