"""Masked softmax against what MXNet and PyTorch compose, forward and training.

d2l and mxnet are hybridized blocks (static).  mxnet replaces masked scores (sequence_mask on a
transposed array, as hybridizable code must), mxnet_length is its softmax with use_length.  torch
masks with masked_fill, eagerly.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

SHAPES = [(256, 128, 128), (32, 512, 512), (64, 10, 10)]


class Masked(gluon.HybridBlock):
    def __init__(self, form):
        super().__init__()
        self._form = form

    def hybrid_forward(self, F, x, valid_len):
        return self._form(F, x, valid_len)


def ours(F, x, valid_len):
    return ops.masked_softmax(x, valid_len)


def replaced(F, x, valid_len):
    keys_second = F.np.swapaxes(x, 1, 2)
    scores = F.npx.sequence_mask(keys_second, valid_len, use_sequence_length=True, value=-1e6,
                                 axis=1)
    return F.npx.softmax(F.np.swapaxes(scores, 1, 2), axis=-1)


def with_length(F, x, valid_len):
    return F.npx.softmax(x, axis=-1, length=valid_len, use_length=True)


def mxnet_provider(form, x, valid_len, dy, train):
    net = Masked(form)
    net.hybridize(static_alloc=True, static_shape=True)
    x, valid_len, dy = np.array(x), np.array(valid_len), np.array(dy)
    x.attach_grad()

    return mxnet_calls(lambda: net(x, valid_len), dy, [x], train)


def torch_provider(x, valid_len, dy, train):
    x, valid_len, dy = torch.tensor(x), torch.tensor(valid_len), torch.tensor(dy)
    positions = torch.arange(x.shape[-1])
    x.requires_grad_()

    def softmax():
        masked = positions >= valid_len[:, None, None]
        return torch.softmax(x.masked_fill(masked, float('-inf')), -1)

    return torch_calls(softmax, dy, [x], train)


def exact(x, valid_len, dy):
    x, dy = x.astype('float64'), dy.astype('float64')
    z = onp.where(onp.arange(x.shape[-1]) < valid_len[:, None, None], x, -onp.inf)
    e = onp.exp(z - z.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    return [y, y * (dy - (y * dy).sum(-1, keepdims=True))]


def cases():
    rng = onp.random.RandomState(0)
    for shape in SHAPES:
        x, dy = rng.standard_normal((2,) + shape).astype('float32')
        valid_len = rng.randint(1, shape[-1] + 1, shape[0])
        truth = exact(x, valid_len, dy)
        per_row = onp.repeat(valid_len[:, None], shape[1], 1).astype('int32')
        for train in (False, True):
            providers = {
                'd2l': mxnet_provider(ours, x, valid_len.astype('float32'), dy, train),
                'mxnet': mxnet_provider(replaced, x, valid_len.astype('float32'), dy, train),
                'mxnet_length': mxnet_provider(with_length, x, per_row, dy, train)}
            if torch is not None:
                providers['torch'] = torch_provider(x, valid_len, dy, train)

            def check(results, truth=truth):
                for name, arrays in results.items():
                    for got, want in zip(arrays, truth):
                        got = got.numpy() if name == 'torch' else got.asnumpy()
                        assert onp.abs(got - want).max() <= 2e-6 * max(1, abs(want).max()), name
            yield Case('{} {}x{}x{}'.format('train' if train else 'forward', *shape), providers,
                       check, nbytes=x.nbytes * (5 if train else 2))
