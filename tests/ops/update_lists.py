"""What the tests of the optimizers' operators share: lists of arrays, and calls on them."""
import numpy as onp
from mxnet import np

from d2l import ops

SHAPES = [(3, 5), (1,), (0,), (33,), (17, 129), (2, 16384), (4, 1, 31)]


def lists(dtype, seed=0, shapes=SHAPES):
    """Weights, gradients, means and variances."""
    rng = onp.random.RandomState(seed)
    made = [[rng.standard_normal(s).astype(dtype) for s in shapes] for _ in range(4)]
    return made[:3] + [[onp.abs(v) for v in made[3]]]


def rates(count=7):
    return {'lrs': [0.01 * (i + 1) for i in range(count)],
            'wds': [0.1 * (i % 2) for i in range(count)],
            'steps': [1 + i // 2 * 3 for i in range(count)]}


def assert_lists_close(got, want, tolerance):
    for ours, theirs in zip(got, want):
        for a, b in zip(ours, theirs):
            scale = max(1, onp.abs(b).max(initial=0))
            assert a.shape == b.shape
            assert onp.abs(a.astype('float64') - b).max(initial=0) <= tolerance * scale


def upload(args):
    return [None if a is None else [np.array(x, dtype=x.dtype) for x in a] for a in args]


def run(op, args, composed=False, **attrs):
    """The lists after a call in MXNet."""
    arrays = upload(args)
    if composed:
        with ops.composed():
            op(*arrays, **attrs)
    else:
        op(*arrays, **attrs)
    return [None if a is None else [x.asnumpy() for x in a] for a in arrays]


def mixed(args):
    """The same for mixed precision: float16 gradients, and rounded weights to be written."""
    return [args[0], [g.astype('float16') for g in args[1]], *args[2:],
            [onp.full(w.shape, 7, 'float16') for w in args[0]]]
