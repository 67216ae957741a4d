"""Additive attention of projected queries and keys against MXNet's composition and PyTorch's.

All providers take the same arrays: queries and keys (batch, steps, units), values (batch, keys,
units), v and, with lengths, the examples' valid lengths.  d2l and mxnet are hybridized blocks
(static); mxnet takes the product with v as a dense layer does and masks by softmax's use_length,
its fastest form.  torch is the same composition, eagerly.
"""
import numpy as onp
from mxnet import gluon

from benchmarks.calls import hybridized_calls, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

# batch, queries, keys, units, mask: the book's decoder, a step at a time and all steps at once,
# and larger ones
SHAPES = [(64, 1, 10, 32, 'lengths'), (64, 10, 10, 32, 'all'), (32, 64, 64, 64, 'all'),
          (8, 128, 128, 256, 'all'), (32, 64, 64, 64, 'lengths')]


class Ours(gluon.HybridBlock):
    def hybrid_forward(self, F, query, key, value, v, valid_len=None):
        return ops.additive_attention(query, key, value, v, valid_len)


class Composed(gluon.HybridBlock):
    """valid_len (batch, queries), int32."""

    def hybrid_forward(self, F, query, key, value, v, valid_len=None):
        features = F.np.tanh(F.np.expand_dims(query, 2) + F.np.expand_dims(key, 1))
        scores = F.np.squeeze(F.npx.fully_connected(
            features, F.np.expand_dims(v, 0), num_hidden=1, no_bias=True, flatten=False), axis=-1)
        if valid_len is None:
            weights = F.npx.softmax(scores, axis=-1)
        else:
            weights = F.npx.softmax(scores, axis=-1, length=valid_len, use_length=True)
        return F.npx.batch_dot(weights, value)


def mxnet_provider(net, arrays, valid_len, dy, train):
    return hybridized_calls(net, arrays, dy, train, [] if valid_len is None else [valid_len])


def torch_provider(arrays, valid_len, dy, train):
    arrays, dy = [torch.tensor(a, requires_grad=True) for a in arrays], torch.tensor(dy)
    query, key, value, v = arrays
    masked = None
    if valid_len is not None:
        masked = torch.arange(key.shape[1]) >= torch.tensor(valid_len)[:, None, None]

    def attend():
        scores = torch.tanh(query[:, :, None] + key[:, None]) @ v
        if masked is not None:
            scores = scores.masked_fill(masked, float('-inf'))
        return torch.softmax(scores, -1) @ value

    return torch_calls(attend, dy, arrays, train)


def exact(arrays, valid_len, dy):
    """Result and gradients in float64."""
    query, key, value, v, dy = (a.astype('float64') for a in (*arrays, dy))
    t = onp.tanh(query[:, :, None] + key[:, None])
    s = t @ v
    if valid_len is not None:
        s = onp.where(onp.arange(s.shape[2]) < valid_len[:, None, None], s, -onp.inf)
    p = onp.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dy @ value.swapaxes(1, 2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    u = ds[..., None] * (1 - t * t) * v
    return [p @ value, u.sum(2), u.sum(1), p.swapaxes(1, 2) @ dy,
            (ds[..., None] * t).sum((0, 1, 2))]


def cases():
    rng = onp.random.RandomState(0)
    for batch, queries, keys, units, mask in SHAPES:
        query, dy = rng.standard_normal((2, batch, queries, units)).astype('float32')
        key, value = rng.standard_normal((2, batch, keys, units)).astype('float32')
        arrays = [query, key, value, (rng.standard_normal(units) / units ** 0.5).astype('float32')]
        lengths = per_query = None
        if mask == 'lengths':
            lengths = rng.randint(1, keys + 1, batch).astype('float32')
            per_query = onp.repeat(lengths[:, None], queries, 1).astype('int32')
        truth = exact(arrays, lengths, dy)

        def check(results, truth=truth):
            for name, found in results.items():
                for got, want in zip(found, truth):
                    got = got.numpy() if name == 'torch' else got.asnumpy()
                    # The gradient of v is a sum over all pairs, which cancel.
                    bound = (3e-5 if want.ndim == 1 else 1e-5) * max(1, onp.abs(want).max())
                    assert onp.abs(got - want).max() <= bound, name

        for train in (False, True):
            providers = {'d2l': mxnet_provider(Ours(), arrays, lengths, dy, train),
                         'mxnet': mxnet_provider(Composed(), arrays, per_query, dy, train)}
            if torch is not None:
                providers['torch'] = torch_provider(arrays, lengths, dy, train)
            yield Case('{} B{} {}x{} h{} {}'.format('train' if train else 'forward', batch, queries,
                                                    keys, units, mask), providers, check)
