"""The checks of the CUDA kernels, for the emulator and for a GPU alike: truth is numpy's float64.

A check runs an operator forward and backward on fresh arrays and raises when something is wrong.
``quick()`` lists enough of them to find planted faults, ``full()`` all.

    python tests/gpu/battery.py LIBRARY [--fault N] quick shifted    # with emulated kernels
"""
import argparse
import ctypes
import sys
from pathlib import Path

import numpy as np
from driver import Call, Guarded, Library

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests import philox  # noqa: E402

# Errors are measured against |truth| + a scale: its root mean square, if nothing better is known.
TOLERANCES = {'float16': 1.5e-3, 'float32': 4e-6, 'float64': 1e-12}


def assert_close(name, got, truth, tolerance, scale=None):
    truth = np.asarray(truth, np.float64)
    step = float(np.finfo(got.dtype).smallest_subnormal)
    got = got.astype(np.float64)
    assert got.shape == truth.shape, '{} has shape {}, not {}'.format(name, got.shape, truth.shape)
    if not truth.size:
        return
    with np.errstate(invalid='ignore', over='ignore'):
        scale = np.sqrt(np.mean(truth**2)) if scale is None else scale
        error = np.maximum(np.abs(got - truth) - step, 0) / (np.abs(truth) + scale + 1e-300)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
    assert error[worst] <= tolerance, '{}{} is {}, not {}'.format(
        name, list(worst), got[worst], truth[worst])


def random(rng, shape, dtype, scale=1.0, mean=0.0):
    return (rng.standard_normal(shape) * scale + mean).astype(dtype)


def layer_norm_truth(x, gamma, beta, dy, eps):
    x, gamma, beta, dy = (a.astype(np.float64) for a in (x, gamma, beta, dy))
    rows = tuple(range(x.ndim - 1))
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    xhat = (x - mean) * rstd
    h = dy * gamma
    terms = [h, h.mean(-1, keepdims=True), xhat * (h * xhat).mean(-1, keepdims=True)]
    dx = rstd * (terms[0] - terms[1] - terms[2])
    size = rstd * sum(np.abs(t) for t in terms)
    statistics = x.shape[:-1] or (1,)
    return ((xhat * gamma + beta, mean.reshape(statistics), rstd.reshape(statistics)),
            (dx, (dy * xhat).sum(rows), dy.sum(rows)), size)


def check_layer_norm(library, backend, target, shape, dtype='float32', eps=1e-5, mean=0.5,
                     seed=0):
    rng = np.random.default_rng([seed, *shape])
    x, dy = random(rng, shape, dtype, 2, mean), random(rng, shape, dtype)
    gamma, beta = random(rng, shape[-1:], dtype), random(rng, shape[-1:], dtype)
    call = Call(library, backend, 'layer_norm', [x, gamma, beta], {'eps': eps}, target)
    got = call.forward(), call.backward([dy])
    if x.size:
        truth = layer_norm_truth(x, gamma, beta, dy, eps)
    else:  # no mean over nothing; sums over nothing are 0
        nothing = np.full(shape[:-1] or (1,), np.nan)
        truth = ((x, nothing, nothing), (x, np.zeros(shape[-1:]), np.zeros(shape[-1:])), 0)
    accurate = TOLERANCES['float64' if dtype == 'float64' else 'float32']
    # Where the mean is far above the spread, its last bit is what counts.
    lost = 1 + abs(mean) / 2
    tolerance = max(TOLERANCES[dtype], accurate * lost)
    if x.size:
        for name, a, b, t in zip(('y', 'mean', 'rstd'), got[0], truth[0],
                                 (tolerance, accurate * 2, accurate * 2)):
            assert_close(name, a, b, t)
    else:
        assert all(np.isnan(a).all() for a in got[0][1:])
    for name, a, b, s in zip(('dx', 'dgamma', 'dbeta'), got[1], truth[1], (truth[2], None, None)):
        assert_close(name, a, b, 4 * tolerance, s)
    return got


def seed_of(train):
    return philox.new_seed(5) if train else np.ones(64, 'float32')


def check_dropout(library, backend, target, shape, dtype='float32', p=0.3, train=True):
    rng = np.random.default_rng(list(shape))
    x, dy, seed = random(rng, shape, dtype), random(rng, shape, dtype), seed_of(train)
    call = Call(library, backend, 'dropout', [x, seed], {'p': p}, target)
    got = call.forward(), call.backward([dy])
    factors = philox.flat_factors(seed, shape, p)
    for name, a, given in (('y', got[0][0], x), ('dx', got[1][0], dy)):
        assert_close(name, a, given * factors, TOLERANCES[dtype], 0)
    assert not got[1][1].any(), 'the gradient of seed is not 0'
    return got


def check_add_norm(library, backend, target, shape, dtype='float32', p=0.3, eps=1e-3, train=True):
    rng = np.random.default_rng(list(shape))
    X = random(rng, shape, dtype, 2, 0.5)
    Y, dy = random(rng, shape, dtype), random(rng, shape, dtype)
    gamma, beta = random(rng, shape[-1:], dtype), random(rng, shape[-1:], dtype)
    seed = seed_of(train)
    call = Call(library, backend, 'add_norm', [X, Y, gamma, beta, seed], {'p': p, 'eps': eps},
                target)
    got = call.forward(), call.backward([dy])
    assert not got[1][4].any(), 'the gradient of seed is not 0'
    if not X.size:
        assert not any(a.any() for a in got[1])
        return got
    factors = philox.row_factors(seed, shape, p)
    out, (dz, dgamma, dbeta), size = layer_norm_truth(X + Y * factors, gamma, beta, dy, eps)
    tolerance = TOLERANCES[dtype]
    accurate = TOLERANCES['float64' if dtype == 'float64' else 'float32']
    for name, a, b, t in zip(('y', 'mean', 'rstd'), got[0], out,
                             (tolerance, accurate * 2, accurate * 2)):
        assert_close(name, a, b, t)
    for name, a, b, s in zip(('dX', 'dY', 'dgamma', 'dbeta'), got[1],
                             (dz, dz * factors, dgamma, dbeta), (size, size * factors, None, None)):
        assert_close(name, a, b, 4 * tolerance, s)
    return got


def lengths_of(rng, shape, cols, dtype):
    """Valid lengths with every special case: none, all, one, more than there are, fractions."""
    special = [0, cols, 1, cols + 3, cols // 2, max(cols - 1, 0)]
    floats = [0.25, cols - 0.5, -2.5, np.nan, np.inf, -np.inf] if dtype.startswith('float') else []
    signed = [-1] if dtype in ('int8', 'int32', 'int64') else []
    values = special + floats + signed
    lengths = rng.integers(0, cols + 1, size=shape).astype(np.float64)
    flat = lengths.reshape(-1)
    chosen = values[:max(1, flat.size)]
    flat[rng.permutation(flat.size)[:len(chosen)]] = chosen[:flat.size]
    if dtype in ('int8', 'uint8'):
        flat[:] = np.minimum(flat, np.iinfo(dtype).max)
    return lengths.astype(dtype)


def whole_lengths(lengths, cols):
    n = np.ceil(lengths.astype(np.float64))
    return np.clip(np.where(np.isnan(n), 0, n), 0, cols).astype(np.int64)


def masked_softmax_truth(x, lengths):
    """Which entries are valid, and y."""
    cols = x.shape[-1]
    n = whole_lengths(lengths, cols)
    n = n.reshape(n.shape + (1,) * (x.ndim - n.ndim))
    valid = np.broadcast_to(np.arange(cols) < n, x.shape)
    scores = np.where(valid, x, -np.inf).astype(np.float64)
    with np.errstate(invalid='ignore'):
        most = scores.max(-1, keepdims=True, initial=-np.inf)
        e = np.where(valid, np.exp(scores - most), 0)
        y = np.where(n == 0, 1 / max(cols, 1), e / e.sum(-1, keepdims=True))
    return valid, y


def check_masked_softmax(library, backend, target, shape, dtype='float32', len_ndim=1,
                         len_dtype='int32', seed=0):
    rng = np.random.default_rng([seed, *shape])
    x, dy = random(rng, shape, dtype, 3), random(rng, shape, dtype)
    lengths = lengths_of(rng, shape[:len_ndim], shape[-1], len_dtype)
    valid, truth = masked_softmax_truth(x, lengths)
    # What is masked must not matter, whatever it is.
    x[~valid], dy[~valid] = rng.choice([np.nan, np.inf, -np.inf], size=2)
    call = Call(library, backend, 'masked_softmax', [x, lengths], target=target)
    got = call.forward(), call.backward([dy])
    assert_close('y', got[0][0], truth, TOLERANCES[dtype])
    # The gradient is that at the saved y, which is rounded.
    kept, dy = np.where(valid, got[0][0], 0).astype(np.float64), np.where(valid, dy, 0)
    dx = kept * (dy - (kept * dy).sum(-1, keepdims=True))
    assert_close('dx', got[1][0], dx, 4 * TOLERANCES[dtype], kept)
    empty = valid.any(-1, keepdims=True)
    assert not got[0][0][~valid & empty].any(), 'a masked entry is not 0'
    assert not got[1][0][~valid].any(), 'the gradient of a masked entry is not 0'
    assert not got[1][1].any(), 'the gradient of valid_len is not 0'
    return got


def heads_of(x, num_heads):
    """(batch, heads, steps, d) in float64."""
    shape = x.shape[:2] + (num_heads, x.shape[2] // num_heads)
    return x.reshape(shape).swapaxes(1, 2).astype(np.float64)


def attention_truth(arrays, lengths, num_heads, causal, scale, factors, dy):
    """Output and gradients (batch, heads, steps, d), and the size of the scores' gradients."""
    q, k, v, g = (heads_of(a, num_heads) for a in (*arrays, dy))
    n = whole_lengths(lengths, k.shape[2])
    n = np.broadcast_to(n.reshape(n.shape + (1,) * (2 - n.ndim)), (len(q), q.shape[2]))
    if causal:
        n = np.minimum(n, np.arange(1, q.shape[2] + 1))
    valid = (np.arange(k.shape[2]) < n[..., None])[:, None]
    scores = np.where(valid, scale * (q @ k.swapaxes(2, 3)), -1e300)
    e = np.exp(scores - scores.max(-1, keepdims=True, initial=-1e300))
    p = e / e.sum(-1, keepdims=True)
    dp = (g @ v.swapaxes(2, 3)) * factors
    delta = (p * dp).sum(-1, keepdims=True)
    ds = np.where(valid, scale * p * (dp - delta), 0)
    size = np.where(valid, scale * p * (np.abs(dp) + np.abs(delta)), 0)
    weights = p * factors
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
    state = philox.new_seed(5) if dropout else np.ones(64, 'float32')
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


def check_special_rows(library, backend, target, dtype='float32', cols=40):
    """Infinities and NaN among the valid entries: as the CPU kernel of the same library does."""
    x = random(np.random.default_rng(0), (6, cols), dtype)
    x[0, :] = -np.inf
    x[1, 3] = np.inf
    x[2, 5] = np.nan
    x[3, :7] = -np.inf
    x[4, :] = -np.inf
    lengths = np.array([cols, cols, cols, cols, 5, 0], 'int32')
    dy = random(np.random.default_rng(1), x.shape, dtype)
    results = []
    for where, t in ((backend, target), (Guarded(), 'v2')):
        calls = [Call(library, where, 'masked_softmax', [x, lengths], target=t),
                 Call(library, where, 'layer_norm', [x, x[5], x[5]], target=t)]
        results.append([a for call in calls for a in call.forward() + call.backward([dy])])
    for ours, theirs in zip(*results):
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        finite = ~np.isnan(theirs)
        np.testing.assert_allclose(ours[finite].astype(np.float64),
                                   theirs[finite].astype(np.float64),
                                   rtol=4 * TOLERANCES[dtype], atol=4 * TOLERANCES[dtype])


class Check:
    """A check with its arguments; shift: how many elements past their alignment arrays start."""

    def __init__(self, function, shift=0, **arguments):
        self.function, self.shift, self.arguments = function, shift, arguments

    def __str__(self):
        words = [self.function.__name__.replace('check_', '')]
        words += [str(v).replace(' ', '') for v in self.arguments.values()]
        return ' '.join(words + ['shifted'] * self.shift)

    def run(self, library, backend, target='cuda'):
        """backend: a class, or function, that takes the shift."""
        return self.function(library, backend(shift=self.shift), target, **self.arguments)


def norm(shape, dtype='float32', **kwargs):
    return Check(check_layer_norm, shape=shape, dtype=dtype, **kwargs)


def softmax(shape, dtype='float32', **kwargs):
    return Check(check_masked_softmax, shape=shape, dtype=dtype, **kwargs)


def drop(shape, dtype='float32', **kwargs):
    return Check(check_dropout, shape=shape, dtype=dtype, **kwargs)


def sum_norm(shape, dtype='float32', **kwargs):
    return Check(check_add_norm, shape=shape, dtype=dtype, **kwargs)


def attention(sizes, dtype='float32', **kwargs):
    return Check(check_attention, sizes=sizes, dtype=dtype, **kwargs)


# One length for each way in which a row is spread over threads (see run_by_row in cuda.h).
PLAN_COLS = (100, 256, 512, 1024, 2048, 4096, 8192, 8193)


def quick():
    """Every kernel and plan once, in packs and in scalars."""
    checks = []
    for cols in PLAN_COLS:
        rows = 29 if cols <= 512 else 7
        for dtype, c in (('float32', cols), ('float16', cols), ('float32', cols - 1)):
            checks += [norm((rows, c), dtype), softmax((rows, c), dtype),
                       sum_norm((rows // 4 + 1, c), dtype)]
    for dtype in ('float32', 'float16'):
        checks += [norm((5, 256), dtype, shift=1), softmax((5, 256), dtype, shift=1),
                   sum_norm((5, 256), dtype, shift=1), drop((3, 1500), dtype, shift=1)]
    for train in (True, False):
        checks += [drop((9000,), 'float64', train=train), drop((5, 100), 'float16', train=train),
                   drop((2, 5, 333), train=train), sum_norm((5, 130), 'float64', train=train),
                   sum_norm((5, 130), train=train)]
    return checks + [norm((67, 130), 'float64'), softmax((5, 130), 'float64'),
                     Check(check_special_rows, cols=40),
                     softmax((3, 5, 33), len_ndim=2, len_dtype='float32'),
                     norm((0, 33)), softmax((2, 0, 33)), sum_norm((0, 33)), drop((0, 33)),
                     attention((2, 2, 37, 70, 40, 70), len_ndim=2, causal=True, dropout=0.25),
                     attention((1, 3, 33, 40, 5, 3), 'float64', dropout=0.5),
                     attention((2, 1, 3, 65, 33, 32), 'float16')]


def shifted():
    """Arrays that are not aligned for packs, of lengths that would allow them."""
    return [make((5, cols), dtype, shift=1) for make in (norm, softmax, sum_norm, drop)
            for dtype in ('float32', 'float16', 'float64')
            for cols in (1, 33, 128, 256, 512, 1024, 2048, 8192)] + [
        attention((1, 2, 33, 34, 8, 8), dtype, causal=True, shift=1)
        for dtype in ('float32', 'float16', 'float64')]


def full():
    """quick(), shifted(), and the sizes and values that bite."""
    checks = quick() + shifted()
    for dtype in ('float32', 'float16', 'float64'):
        for cols in (0, 1, 2, 31, 32, 33, 127, 128, 129, 255, 257, 511, 513, 1000, 1023, 1025):
            checks += [norm((5, cols), dtype), softmax((5, cols), dtype)]
        for cols in (0, 1, 31, 33, 127, 128, 129, 1000, 1025):
            checks += [sum_norm((5, cols), dtype), drop((5, cols), dtype)]
    checks += [drop((70000,), p=p) for p in (0.0, 0.1, 0.999)]
    checks += [drop((4095,)), drop((4097,)), sum_norm((64,)), sum_norm((300, 33), p=0.0),
               sum_norm((2, 3, 5, 24), p=0.9), sum_norm((61, 1000), 'float16')]
    for cols in (2047, 2052, 4095, 4100, 8191, 9000):
        checks += [norm((4, cols)), softmax((4, cols))]
        checks += [norm((2, cols), 'float16'), softmax((2, cols), 'float16')]
    for rows in (1, 2, 11, 12, 13, 61):
        checks += [norm((rows, 96)), softmax((rows, 96)), norm((rows, 1000), 'float16')]
    checks += [softmax((70001, 1)), norm((300, 33), 'float64')]
    checks += [norm((64,)), norm((2, 3, 5, 24)), norm((3, 0)), norm((0, 0)), norm((0,)),
               norm((9, 300), eps=0.1), norm((9, 300), mean=1000.0),
               norm((9, 2000), mean=-1000.0), norm((5, 8200), mean=1000.0),
               norm((9, 2000), 'float64', mean=1e6)]
    checks += [softmax((0, 5)), softmax((0, 3, 5)), softmax((3, 0)), softmax((2, 3, 0)),
               softmax((2, 0, 3, 7)), softmax((2, 4, 3, 17)), softmax((4, 7, 31)),
               softmax((3, 7, 9000), len_ndim=2)]
    for len_dtype in ('float16', 'float32', 'float64', 'uint8', 'int8', 'int32', 'int64'):
        checks += [softmax((16, 100), len_dtype=len_dtype),
                   softmax((4, 5, 21), len_ndim=2, len_dtype=len_dtype)]
    for sizes in ((1, 1, 1, 1, 1, 1), (2, 3, 32, 32, 32, 64), (1, 2, 31, 33, 65, 1),
                  (1, 1, 64, 128, 3, 130), (3, 2, 5, 0, 4, 4), (2, 2, 0, 5, 4, 4),
                  (0, 2, 5, 5, 4, 4), (2, 2, 5, 6, 0, 4), (2, 2, 5, 6, 4, 0)):
        for dtype in ('float32', 'float16', 'float64'):
            for len_ndim in (1, 2):
                checks.append(attention(sizes, dtype, len_ndim=len_ndim, causal=len_ndim == 1,
                                        dropout=0.5 * (len_ndim == 2)))
    for dtype in ('float32', 'float16', 'float64'):
        for cols in (40, 400, 1500, 9000):
            checks.append(Check(check_special_rows, dtype=dtype, cols=cols))
    return checks


def main(argv=None):
    parser = argparse.ArgumentParser(description='Checks emulated kernels.')
    parser.add_argument('library')
    parser.add_argument('sets', nargs='+', choices=['quick', 'shifted', 'full'])
    parser.add_argument('--fault', type=int, default=0, help='of a library with planted faults')
    args = parser.parse_args(argv)
    library = Library(args.library)
    if args.fault:
        ctypes.c_int.in_dll(library.c, 'd2l_fault').value = args.fault
    checks = [check for name in args.sets for check in globals()[name]()]
    for check in checks:
        check.run(library, Guarded)
    print(len(checks), 'checks passed')


if __name__ == '__main__':
    main()
