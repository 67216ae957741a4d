"""Attention with 8 heads of 64 against MXNet's composition and PyTorch's fused operator.

All providers take and give (batch, steps, heads * 64), as the dense layers around them do.  d2l and
mxnet are hybridized blocks (static); mxnet folds the heads into the batch and, with lengths, masks
by softmax's use_length, its fastest form.  torch is scaled_dot_product_attention on transposed
views, with a mask for lengths, eagerly.
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

HEADS, DIM = 8, 64
# batch, steps, mask
SHAPES = [(32, 128, 'all'), (4, 512, 'all'), (1, 2048, 'all'), (32, 128, 'lengths'),
          (4, 512, 'lengths'), (1, 2048, 'causal')]


class Ours(gluon.HybridBlock):
    def __init__(self, mask):
        super().__init__()
        self._causal = mask == 'causal'

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        return ops.attention(query, key, value, valid_len, num_heads=HEADS, causal=self._causal)


class Composed(gluon.HybridBlock):
    """valid_len (batch * heads, steps), int32: of every row of scores."""

    def hybrid_forward(self, F, query, key, value, valid_len=None):
        query, key, value = (self.fold(F, X) for X in (query, key, value))
        scores = F.npx.batch_dot(query / DIM ** 0.5, key, transpose_b=True)
        if valid_len is None:
            weights = F.npx.softmax(scores, axis=-1)
        else:
            weights = F.npx.softmax(scores, axis=-1, length=valid_len, use_length=True)
        output = F.npx.reshape(F.npx.batch_dot(weights, value), (-6, -1, HEADS, -4))
        return F.npx.reshape(F.np.transpose(output, (0, 2, 1, 3)), (-2, -2, -5))

    @staticmethod
    def fold(F, X):
        X = F.np.transpose(F.npx.reshape(X, (-2, -2, HEADS, -1)), (0, 2, 1, 3))
        return F.npx.reshape(X, (-5, -4))


def mxnet_provider(net, arrays, valid_len, dy, train):
    return hybridized_calls(net, arrays, dy, train, [] if valid_len is None else [valid_len])


def torch_provider(arrays, mask, valid_len, dy, train):
    arrays, dy = [torch.tensor(a, requires_grad=True) for a in arrays], torch.tensor(dy)
    allowed = None
    if mask == 'lengths':
        allowed = torch.arange(dy.shape[1]) < torch.tensor(valid_len)[:, None, None, None]

    def attend():
        heads = [a.unflatten(-1, (HEADS, DIM)).transpose(1, 2) for a in arrays]
        y = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=allowed,
                                                             is_causal=mask == 'causal')
        return y.transpose(1, 2).flatten(2)

    return torch_calls(attend, dy, arrays, train)


def exact(arrays, counts, dy):
    """Result and gradients in float64; counts (batch, steps): the keys that a query sees."""
    q, k, v, dy = (a.reshape(a.shape[:2] + (HEADS, DIM)).swapaxes(1, 2).astype('float64')
                   for a in (*arrays, dy))
    s = q @ k.swapaxes(2, 3) / DIM ** 0.5
    s[onp.broadcast_to(onp.arange(s.shape[-1]) >= counts[:, None, :, None], s.shape)] = -onp.inf
    p = onp.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = dy @ v.swapaxes(2, 3)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / DIM ** 0.5
    results = [p @ v, ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ dy]
    return [r.swapaxes(1, 2).reshape(arrays[0].shape) for r in results]


def cases():
    rng = onp.random.RandomState(0)
    for batch, steps, mask in SHAPES:
        *arrays, dy = rng.standard_normal((4, batch, steps, HEADS * DIM)).astype('float32')
        counts, lengths = onp.full((batch, steps), steps, 'int32'), None
        if mask == 'lengths':
            lengths = rng.randint(1, steps + 1, batch).astype('float32')
            counts = onp.repeat(lengths[:, None], steps, 1).astype('int32')
        elif mask == 'causal':
            counts[:] = onp.arange(1, steps + 1)
        per_row = onp.repeat(counts, HEADS, 0) if mask != 'all' else None
        truth = exact(arrays, counts, dy)

        def check(results, truth=truth):
            for name, found in results.items():
                for got, want in zip(found, truth):
                    got = got.numpy() if name == 'torch' else got.asnumpy()
                    assert onp.abs(got - want).max() <= 1e-5 * max(1, onp.abs(want).max()), name

        flops = 4 * HEADS * DIM * int(counts.sum())
        for train in (False, True):
            providers = {'d2l': mxnet_provider(Ours(mask), arrays, lengths, dy, train),
                         'mxnet': mxnet_provider(Composed(), arrays, per_row, dy, train)}
            if torch is not None:
                providers['torch'] = torch_provider(arrays, mask, lengths, dy, train)
            yield Case('{} B{} T{} {}'.format('train' if train else 'forward', batch, steps, mask),
                       providers, check, flops=flops * 7 // 2 if train else flops)
