"""The checks of attention and additive_attention, as those in checks.py."""
import numpy as np
from checks import TOLERANCES, assert_close, lengths_of, random, seed_of, whole_lengths
from driver import Call

from tests import philox


def heads_of(x, num_heads):
    """(batch, heads, steps, d) in float64."""
    shape = x.shape[:2] + (num_heads, x.shape[2] // num_heads)
    return x.reshape(shape).swapaxes(1, 2).astype(np.float64)


def weights_truth(scores, valid, dp):
    """Weights, gradients of the scores and the size of what these are the difference of.

    dp: the gradients of the weights, dropout included.
    """
    scores = np.where(valid, scores, -1e300)
    e = np.exp(scores - scores.max(-1, keepdims=True, initial=-1e300))
    p = e / e.sum(-1, keepdims=True)
    delta = (p * dp).sum(-1, keepdims=True)
    return p, np.where(valid, p * (dp - delta), 0), np.where(
        valid, p * (np.abs(dp) + np.abs(delta)), 0)


def attention_truth(arrays, lengths, num_heads, causal, scale, factors, dy):
    """Output and gradients (batch, heads, steps, d), and the size of the scores' gradients."""
    q, k, v, g = (heads_of(a, num_heads) for a in (*arrays, dy))
    n = whole_lengths(lengths, k.shape[2])
    n = np.broadcast_to(n.reshape(n.shape + (1,) * (2 - n.ndim)), (len(q), q.shape[2]))
    if causal:
        n = np.minimum(n, np.arange(1, q.shape[2] + 1) + max(0, k.shape[2] - q.shape[2]))
    valid = (np.arange(k.shape[2]) < n[..., None])[:, None]
    p, ds, size = weights_truth(scale * (q @ k.swapaxes(2, 3)), valid,
                                (g @ v.swapaxes(2, 3)) * factors)
    ds, size, weights = scale * ds, scale * size, p * factors
    results = [weights @ v, ds @ k, ds.swapaxes(2, 3) @ q, weights.swapaxes(2, 3) @ g]
    return results, [np.abs(weights) @ np.abs(v), size @ np.abs(k),
                     size.swapaxes(2, 3) @ np.abs(q), weights.swapaxes(2, 3) @ np.abs(g)]


def check_attention(library, backend, target, sizes, dtype='float32', len_ndim=1, causal=False,
                    dropout=0.0, scale=0.25, seed=0):
    """sizes: batch, heads, queries, keys, d and v."""
    batch, num_heads, queries, keys, d, v = sizes
    rng = np.random.default_rng([seed, *sizes])
    shapes = [(batch, queries, num_heads * d), (batch, keys, num_heads * d),
              (batch, keys, num_heads * v), (batch, queries, num_heads * v)]
    *arrays, dy = (random(rng, shape, dtype) for shape in shapes)
    lengths = lengths_of(rng, (batch, queries)[:len_ndim], keys, 'int32')
    state = seed_of(dropout > 0)
    factors = philox.row_factors(state, (batch, num_heads, queries, keys), dropout)
    truth, scales = attention_truth(arrays, lengths, num_heads, causal, scale, factors, dy)
    inputs = arrays + [lengths, state]
    attrs = {'num_heads': num_heads, 'causal': causal, 'scale': scale, 'dropout': dropout}
    call = Call(library, backend, 'attention', inputs, attrs, target)
    got = call.forward(), call.backward([dy])
    for name, a, b, size in zip(('out', 'dq', 'dk', 'dv'), [got[0][0], *got[1][:3]], truth, scales):
        assert_close(name, heads_of(a, num_heads).astype(a.dtype), b, 8 * TOLERANCES[dtype],
                     size.max(initial=0))
    for grad in got[1][3:]:
        assert not grad.any(), 'the gradient of valid_len or seed is not 0'
    return got


def additive_truth(q, k, value, v, lengths, factors, g):
    """Output and gradients, and the sizes of what they are sums of."""
    n = whole_lengths(lengths, k.shape[1])
    valid = np.arange(k.shape[1]) < n.reshape(n.shape + (1,) * (3 - n.ndim))
    t = np.tanh(q[:, :, None] + k[:, None])
    p, ds, size = weights_truth(t @ v, valid, (g @ value.swapaxes(1, 2)) * factors)
    weights = p * factors
    u, sizes = (x[..., None] * (1 - t * t) * w for x, w in ((ds, v), (size, np.abs(v))))
    results = [weights @ value, u.sum(2), u.sum(1), weights.swapaxes(1, 2) @ g,
               (ds[..., None] * t).sum((0, 1, 2))]
    return results, [weights @ np.abs(value), sizes.sum(2), sizes.sum(1),
                     weights.swapaxes(1, 2) @ np.abs(g),
                     (size[..., None] * np.abs(t)).sum((0, 1, 2))]


def check_additive_attention(library, backend, target, sizes, dtype='float32', len_ndim=1,
                             dropout=0.0, seed=0):
    """sizes: batch, queries, keys, hidden and the length of a value."""
    batch, queries, keys, hidden, width = sizes
    rng = np.random.default_rng([seed, *sizes])
    shapes = [(batch, queries, hidden), (batch, keys, hidden), (batch, keys, width), (hidden,),
              (batch, queries, width)]
    *arrays, dy = (random(rng, shape, dtype) for shape in shapes)
    arrays[0][:, ::3] *= 20
    lengths = lengths_of(rng, (batch, queries)[:len_ndim], keys, 'int32')
    state = seed_of(dropout > 0)
    factors = philox.row_factors(state, (batch, queries, keys), dropout)
    truth, scales = additive_truth(*(a.astype(np.float64) for a in arrays), lengths, factors,
                                   dy.astype(np.float64))
    call = Call(library, backend, 'additive_attention', arrays + [lengths, state],
                {'dropout': dropout}, target)
    got = call.forward(), call.backward([dy])
    for name, a, b, size in zip(('out', 'dq', 'dk', 'dvalue', 'dv'), [got[0][0], *got[1][:4]],
                                truth, scales):
        assert_close(name, a, b, 8 * TOLERANCES[dtype], size.max(initial=0))
    for grad in got[1][4:]:
        assert not grad.any(), 'the gradient of valid_len or seed is not 0'
    return got
