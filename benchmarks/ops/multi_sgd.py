"""A step of SGD with momentum for all parameters, against MXNet's optimizer and PyTorch's."""
from benchmarks.ops import _optimizers
from d2l import ops
from d2l.train import optimizers  # noqa: F401  (registers d2l_sgd)

MOMENTUM = 0.9


def step(weights, grads, momenta):
    ops.multi_sgd(weights, grads, momenta, lrs=_optimizers.RATE, wds=_optimizers.DECAY,
                  momentum=MOMENTUM)


def exact(w, g):
    return w - _optimizers.RATE * (g + _optimizers.DECAY * w)


def cases():
    return _optimizers.cases('d2l_sgd', step, 1, exact, 'SGD', 'sgd', {'momentum': MOMENTUM},
                             {'momentum': MOMENTUM})
