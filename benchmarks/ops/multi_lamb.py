"""A step of LAMB for all parameters, against MXNet's optimizer; PyTorch has none."""
import numpy as onp

from benchmarks.ops import _optimizers
from d2l import ops
from d2l.train import optimizers  # noqa: F401  (registers d2l_lamb)


def step(weights, grads, means, variances):
    ops.multi_lamb(weights, grads, means, variances, lrs=_optimizers.RATE, wds=_optimizers.DECAY)


def exact(w, g):
    u = g / (abs(g) + 1e-6) + _optimizers.DECAY * w
    return w - _optimizers.RATE * onp.linalg.norm(w) / onp.linalg.norm(u) * u


def cases():
    return _optimizers.cases('d2l_lamb', step, 2, exact, theirs='lamb')
