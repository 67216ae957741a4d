"""The checks of dense and multi_dense, as those in checks.py."""
import numpy as np
from checks import TOLERANCES, activation_truth, assert_close, random
from driver import Call


def check_dense(library, backend, target, shape, dtype='float32', units=5, act_type='tanh',
                bias=True):
    """shape: of the data."""
    rng = np.random.default_rng([*shape, units])
    x, w, b = (random(rng, s, dtype) for s in (shape, (units, shape[-1]), (units,)))
    dy = random(rng, shape[:-1] + (units,), dtype)
    rows = int(np.prod(shape[:-1]))
    if act_type == 'relu':  # numbers that no dtype rounds: the side of the kink is certain
        x, w, b = (np.round(2 * a) / 4 for a in (x, w, b))
        b += np.array(1 / 32, dtype)
    call = Call(library, backend, 'dense', [x, w, b if bias else None],
                {'units': units, 'act_type': act_type}, target)
    got = call.forward(), call.backward([dy])
    assert (got[1][2] is None) == (not bias)
    x, w, b, dy = (a.astype(np.float64) for a in (x, w, b, dy))
    z = x @ w.T + (b if bias else 0)
    y, slope = (z, 1) if act_type is None else activation_truth(z, act_type)
    assert_close('y', got[0][0], y, 4 * TOLERANCES[dtype], max(shape[-1], 1) ** 0.5)
    g = (dy * slope).reshape(rows, units)
    truths = g @ w, g.T @ x.reshape(rows, shape[-1]), g.sum(0)
    for name, a, truth, terms in zip(('dx', 'dw', 'db'), got[1], truths, (units, rows, rows)):
        if a is not None:
            assert_close(name, a.reshape(truth.shape), truth, 4 * TOLERANCES[dtype],
                         max(terms, 1) ** 0.5)
    return got


def check_multi_dense(library, backend, target, shape, dtype='float32', units=5, layers=3,
                      biases=(0, 1, 2)):
    """shape: of the data; biases: the layers that have one."""
    rng = np.random.default_rng([*shape, units])
    rows, depth = int(np.prod(shape[:-1])), shape[-1]
    x = random(rng, shape, dtype)
    weights = [random(rng, (units, depth), dtype) for _ in range(layers)]
    bs = [random(rng, (units,), dtype) if i in biases else None for i in range(layers)]
    dys = [random(rng, shape[:-1] + (units,), dtype) for _ in range(layers)]
    absent = [None] * (3 - layers)
    call = Call(library, backend, 'multi_dense', [x, *weights, *absent, *bs, *absent],
                {'units': units}, target)
    got = call.forward(), call.backward(dys + [np.zeros(1, dtype)] * (3 - layers))
    ys, grads = got

    def close(name, a, truth, terms):
        assert_close(name, a.reshape(truth.shape), truth, 4 * TOLERANCES[dtype],
                     max(terms, 1) ** 0.5)
    assert layers == 3 or (ys[2].shape == (1,) and ys[2] == 0)
    x, dx = x.astype(np.float64), 0
    for i, (w, b, dy) in enumerate(zip(weights, bs, dys)):
        w, g = w.astype(np.float64), dy.astype(np.float64).reshape(rows, units)
        close(f'y_{i}', ys[i], x @ w.T + (0 if b is None else b.astype(np.float64)), depth)
        close(f'dw_{i}', grads[1 + i], g.T @ x.reshape(rows, depth), rows)
        assert (grads[4 + i] is None) == (b is None)
        if b is not None:
            close(f'db_{i}', grads[4 + i], g.sum(0), rows)
        dx = dx + g @ w
    close('dx', grads[0], dx, layers * units)
    return got
