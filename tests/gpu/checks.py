"""The check of each operator: a call and its gradient on fresh arrays against numpy's float64."""
import math
import sys
from pathlib import Path

import numpy as np
from driver import Call, Guarded

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


_ERF = np.vectorize(math.erf, otypes=['float64'])


def activation_truth(z, act_type):
    """y and its derivative."""
    if act_type == 'gelu':
        cdf = 0.5 * (1 + _ERF(z / 2**0.5))
        return z * cdf, cdf + z * np.exp(-z * z / 2) / (2 * np.pi)**0.5
    y = {'exp': np.exp, 'relu': lambda v: np.maximum(v, 0), 'tanh': np.tanh,
         'sigmoid': lambda v: 1 / (1 + np.exp(-v))}[act_type](z)
    return y, {'exp': y, 'relu': y > 0, 'tanh': 1 - y * y, 'sigmoid': y * (1 - y)}[act_type]


def check_activation(library, backend, target, shape, dtype='float32', act_type='gelu', seed=0):
    rng = np.random.default_rng([seed, *shape])
    x, dy = random(rng, shape, dtype, 2), random(rng, shape, dtype)
    call = Call(library, backend, 'activation', [x], {'act_type': act_type}, target)
    got = call.forward(), call.backward([dy])
    y, slope = activation_truth(x.astype(np.float64), act_type)
    assert_close('y', got[0][0], y, TOLERANCES[dtype])
    assert_close('dx', got[1][0], slope * dy, 4 * TOLERANCES[dtype], np.abs(dy) + np.abs(y * dy))
    return got


def check_bias_activation(library, backend, target, shape, dtype='float32', act_type='gelu',
                          seed=0):
    rng = np.random.default_rng([seed, *shape])
    spread = 0.5 if act_type == 'exp' else 2
    x, dy = random(rng, shape, dtype, spread), random(rng, shape, dtype)
    bias = random(rng, shape[-1:], dtype)
    call = Call(library, backend, 'bias_activation', [x, bias], {'act_type': act_type}, target)
    got = call.forward(), call.backward([dy])
    y, slope = activation_truth(x.astype(np.float64) + bias, act_type)
    assert_close('y', got[0][0], y, TOLERANCES[dtype])
    size = np.abs(dy.astype(np.float64)) * (1 + np.abs(y))
    rows = tuple(range(x.ndim - 1))
    tolerance = 4 * TOLERANCES[dtype]
    assert_close('dx', got[1][0], slope * dy, tolerance, size)
    assert_close('dbias', got[1][1], (slope * dy).sum(rows), tolerance, (size**2).sum(rows)**0.5)
    return got


def check_batch_dot(library, backend, target, sizes, dtype='float32', transpose_a=False,
                    transpose_b=False, seed=0):
    """sizes: batch, rows, depth and cols."""
    batch, rows, depth, cols = sizes
    rng = np.random.default_rng([seed, *sizes])
    shapes = [(batch, depth, rows) if transpose_a else (batch, rows, depth),
              (batch, cols, depth) if transpose_b else (batch, depth, cols), (batch, rows, cols)]
    a, b, dy = (random(rng, shape, dtype) for shape in shapes)
    attrs = {'transpose_a': transpose_a, 'transpose_b': transpose_b}
    call = Call(library, backend, 'batch_dot', [a, b], attrs, target)
    got = call.forward(), call.backward([dy])
    left, right, g = (x.astype(np.float64) for x in (a, b, dy))
    left = left.swapaxes(1, 2) if transpose_a else left
    right = right.swapaxes(1, 2) if transpose_b else right
    da, db = g @ right.swapaxes(1, 2), left.swapaxes(1, 2) @ g
    truth = [left @ right, da.swapaxes(1, 2) if transpose_a else da,
             db.swapaxes(1, 2) if transpose_b else db]
    for name, x, y, terms in zip(('out', 'da', 'db'), [got[0][0], *got[1]], truth,
                                 (depth, cols, rows)):
        assert_close(name, x, y, 4 * TOLERANCES[dtype], max(terms, 1) ** 0.5)
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


def indices_of(rng, shape, count, dtype):
    """Indices into a table of count rows, some out of range, and the rows that they count as."""
    low, high = (0, 255) if dtype == 'uint8' else (-3, 127 if dtype == 'int8' else count + 2)
    index = rng.integers(low, min(high, count + 2) + 1, size=shape).astype(np.float64)
    if dtype.startswith('float'):
        flat = index.reshape(-1)
        special = [-0.5, count - 0.5, 0.75, np.inf, -np.inf, np.nan][:flat.size]
        flat[rng.permutation(flat.size)[:len(special)]] = special
    index = index.astype(dtype)
    rows = np.nan_to_num(index.astype(np.float64), nan=0, posinf=count, neginf=0)
    return index, np.clip(np.trunc(rows), 0, count - 1).astype(np.int64)


def check_masked_softmax_ce(library, backend, target, shape, dtype='float32', smoothing=0.1,
                            number_dtype='int32', seed=0):
    rng = np.random.default_rng([seed, *shape])
    batch, steps, vocab = shape
    x, dloss = random(rng, shape, dtype, 3), random(rng, shape[:1], dtype)
    lengths = lengths_of(rng, (batch,), steps, number_dtype)
    label, rows = indices_of(rng, (batch, steps), vocab, number_dtype)
    valid = np.arange(steps) < whole_lengths(lengths, steps)[:, None]
    exact = x.astype(np.float64)
    m = np.where(valid, exact.max(-1), 0)
    e = np.exp(exact - exact.max(-1, keepdims=True))
    target_row = (1 - smoothing) * np.eye(vocab)[rows] + smoothing / vocab
    z = np.where(valid, e.sum(-1), 0)
    losses = np.log(e.sum(-1)) - (target_row * (exact - exact.max(-1, keepdims=True))).sum(-1)
    loss = np.where(valid, losses, 0).sum(-1) / max(steps, 1)
    g = (dloss.astype(np.float64)[:, None] * valid / max(steps, 1))[..., None]
    dx = g * (e / e.sum(-1, keepdims=True) - target_row)
    # What does not count must not matter, whatever it is.
    x[~valid] = rng.choice([np.nan, np.inf, -np.inf])
    call = Call(library, backend, 'masked_softmax_ce', [x, label, lengths],
                {'smoothing': smoothing}, target)
    got = call.forward(), call.backward([dloss])
    accurate = TOLERANCES['float64' if dtype == 'float64' else 'float32']
    for name, a, b, t in zip(('loss', 'm', 'z'), got[0], (loss, m, z),
                             (TOLERANCES[dtype], accurate, accurate)):
        assert_close(name, a, b, t)
    assert_close('dx', got[1][0], dx, 4 * TOLERANCES[dtype], np.abs(g))
    assert not got[1][0][~valid].any(), 'the gradient of a step that does not count is not 0'
    assert not any(a.any() for a in got[1][1:]), 'the gradient of label or valid_len is not 0'
    return got


def check_embedding(library, backend, target, shape, dtype='float32', vocab=300, cols=40,
                    scale=2.5, extra=3, without=(), number_dtype='int32', seed=0):
    """without: the numbers of inputs that are not given."""
    rng = np.random.default_rng([seed, *shape, vocab, cols])
    steps, rows = shape[-1], int(np.prod(shape))
    tables = [random(rng, s, dtype) for s in ((vocab, cols), (1, steps + extra, cols), (3, cols))]
    data, at = indices_of(rng, shape, vocab, number_dtype)
    segments, segment_at = indices_of(rng, shape, 3, number_dtype)
    dy = random(rng, shape + (cols,), dtype)
    inputs = [tables[0], data, tables[1], tables[2], segments]
    inputs = [None if i in without else a for i, a in enumerate(inputs)]
    call = Call(library, backend, 'embedding', inputs, {'scale': scale}, target)
    got = call.forward(), call.backward([dy])
    weight, position, segment_weight = (t.astype(np.float64) for t in tables)
    y, exact = weight[at] * scale, dy.astype(np.float64)
    grads = [np.zeros(t.shape) for t in tables]
    np.add.at(grads[0], at, exact * scale)
    if inputs[2] is not None:
        y = y + position[0, :steps]
        grads[1][0, :steps] = exact.reshape(rows // max(steps, 1), steps, cols).sum(0)
    if inputs[3] is not None:
        y = y + segment_weight[segment_at]
        np.add.at(grads[2], segment_at, exact)
    assert_close('y', got[0][0], y, TOLERANCES[dtype])
    for i, truth in zip((0, 2, 3), grads):
        if inputs[i] is not None:
            assert_close('gradient {}'.format(i), got[1][i], truth, TOLERANCES[dtype])
            assert not got[1][i][truth == 0].any(), 'the gradient of a row not used is not 0'
    assert not any(got[1][i].any() for i in (1, 4) if inputs[i] is not None)
    assert [a is None for a in got[1]] == [a is None for a in inputs]
    return got


def check_conv2d(library, backend, target, shape, dtype='float32', channels=3, kernel=3,
                 padding=1, bias=True):
    """shape: of the pictures."""
    rng, shapes = np.random.default_rng(shape), (shape, (channels, shape[1], kernel, kernel))
    x, w, b = (random(rng, s, dtype) for s in (*shapes, (channels,)))
    inputs = [x, w, b if bias else None]
    attrs = {'channels': channels, 'kernel_size': kernel, 'padding': padding}
    call = Call(library, backend, 'conv2d', inputs, {**attrs, 'given': '11' + '01'[bias]}, target)
    rows, cols = (n + 2 * padding - kernel + 1 for n in shape[2:])
    dy = random(rng, (shape[0], channels, rows, cols), dtype)
    got = call.forward(), call.backward([dy])
    exact, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    exact = np.pad(exact, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    y = np.zeros(dy.shape) + (b.astype(np.float64)[:, None, None] if bias else 0)
    dx, dw = np.zeros(exact.shape), np.zeros(w.shape)
    for a, e in np.ndindex(kernel, kernel):
        part = (slice(None), slice(None), slice(a, a + rows), slice(e, e + cols))
        y += np.einsum('oc,ncij->noij', w[:, :, a, e], exact[part])
        dx[part] += np.einsum('oc,noij->ncij', w[:, :, a, e], dy)
        dw[:, :, a, e] = np.einsum('noij,ncij->oc', dy, exact[part])
    dx = dx[:, :, padding:padding + shape[2], padding:padding + shape[3]]
    truths = y, dx, dw, dy.sum((0, 2, 3))
    for name, a, truth in zip(('y', 'dx', 'dw', 'db'), (got[0][0], *got[1]), truths):
        if a is not None:
            assert_close(name, a, truth, TOLERANCES[dtype])
    return got


# For each operator that updates lists: how many lists of the weights' dtype there are (gradients
# are the second), and attributes with other values than their defaults.
UPDATES = {
    'multi_sgd': (3, {'momentum': 0.9, 'rescale_grad': 0.5, 'clip_gradient': 0.4}),
    'multi_adam': (4, {'beta1': 0.8, 'beta2': 0.99, 'epsilon': 1e-3, 'rescale_grad': 0.5,
                       'clip_gradient': 0.4, 'bias_correction': True, 'decoupled': True}),
    'multi_lamb': (4, {'beta1': 0.8, 'beta2': 0.99, 'epsilon': 1e-3, 'rescale_grad': 0.5,
                       'clip_gradient': 0.4, 'lower_bound': 2.0, 'upper_bound': 5.0,
                       'bias_correction': True})}


def check_update(library, backend, target, op, sizes, dtype='float32', mixed=False, attrs=True,
                 seed=0):
    """As the CPU kernel of the same library does, which tests/ops holds against float64."""
    rng, n = np.random.default_rng([seed, *sizes]), len(sizes)
    num_lists, all_attrs = UPDATES[op]
    lists = [[random(rng, (size,), dtype) for size in sizes] for _ in range(num_lists)]
    lists[-1] = [np.abs(a) for a in lists[-1]]
    if mixed:
        lists[1] = [a.astype('float16') for a in lists[1]]
    lists.append([np.zeros(size, 'float16') if mixed else None for size in sizes])
    values = {'lrs': rng.uniform(0.01, 0.1, n), 'wds': rng.uniform(0, 0.5, n)}
    if op != 'multi_sgd':
        values['steps'] = rng.integers(1, 9, n)
    given = dict({k: ','.join(map(str, v.tolist())) for k, v in values.items()}, num_weights=n,
                 given='1' * num_lists + '01'[mixed], **(all_attrs if attrs else {}))
    flat = [a for group in lists for a in group]
    ours, done = Call(library, backend, op, flat, given, target).update()
    theirs, _ = Call(library, Guarded(), op, flat, given, 'v2').update()
    assert not done[0].any()
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a is not None:
            assert_close('{} {}'.format(i // n, i % n), a, b, 2 * TOLERANCES[a.dtype.name], 1)
    return ours, done


def check_global_norm_clip(library, backend, target, sizes, theta=1.0, divisor=True, bad=None,
                           seed=0):
    """Arrays of all dtypes in turn, against float64."""
    rng, dtypes = np.random.default_rng([seed, *sizes]), ('float32', 'float16', 'float64')
    grads = [random(rng, (size,), dtypes[i % 3]) for i, size in enumerate(sizes)]
    if bad is not None:
        grads[0][0] = bad
    inputs = grads + [np.array([2.5]) if divisor else None]
    call = Call(library, backend, 'global_norm_clip', inputs, {
        'num_weights': len(sizes), 'theta': theta, 'given': '1' + '01'[divisor]}, target)
    got, (norm,) = call.update()
    truth = np.sqrt(sum((g.astype(np.float64)**2).sum() for g in grads))
    factor = min(1, theta / truth) if 0 < truth < np.inf else 1
    np.testing.assert_allclose(norm, [truth], rtol=1e-12)
    for i, (a, g) in enumerate(zip(got, grads)):
        want = g.astype(np.float64) * factor / (2.5 if divisor else 1)
        finite = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(a), finite)
        assert_close('gradient {}'.format(i), a[finite], want[finite], TOLERANCES[g.dtype.name])
    return got, [norm]
