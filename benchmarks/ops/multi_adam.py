"""A step of Adam and AdamW for all parameters, against MXNet's optimizer and PyTorch's."""
from benchmarks.ops import _optimizers
from d2l import ops
from d2l.train import optimizers  # noqa: F401  (registers d2l_adam and d2l_adamw)


def step(weights, grads, means, variances, decoupled=False):
    ops.multi_adam(weights, grads, means, variances, lrs=_optimizers.RATE, wds=_optimizers.DECAY,
                   decoupled=decoupled)


def step_decoupled(*lists):
    step(*lists, decoupled=True)


def exact(w, g):
    """In the first step the quotient of the moments is the sign of the gradient."""
    g = g + _optimizers.DECAY * w
    return w - _optimizers.RATE * g / abs(g)


def exact_decoupled(w, g):
    return w - _optimizers.RATE * (g / abs(g) + _optimizers.DECAY * w)


def cases():
    for case in _optimizers.cases('d2l_adam', step, 2, exact, 'Adam', 'adam'):
        yield case
    # MXNet 1.9.1 has no AdamW for gluon.Trainer.
    for case in _optimizers.cases('d2l_adamw', step_decoupled, 2, exact_decoupled, 'AdamW'):
        yield case._replace(name='AdamW ' + case.name)
