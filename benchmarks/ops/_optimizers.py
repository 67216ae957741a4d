"""What the benchmarks of the optimizers share: parameters, and a step of every provider.

d2l and mxnet are the whole step of MXNet's Updater, as gluon.Trainer makes it for one device; the
row d2l_operator is our operator alone.  PyTorch takes its fused optimizer and its own choice,
which is not fused on a CPU.
"""
import mxnet as mx
import numpy as onp
from mxnet import np

from benchmarks.run import Case

try:
    import torch
except ImportError:
    torch = None

RATE, DECAY = 0.01, 0.1


def resnet18():
    """The shapes of the parameters of the book's ResNet-18 for grey pictures, 11.2 million."""
    shapes = [(64, 1, 3, 3), (64,), (64,), (64,)]
    for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
        for channels in (before, after):
            shapes += [(after, channels, 3, 3), (after,), (after,), (after,)]
            shapes += [(after, after, 3, 3), (after,), (after,), (after,)]
        if before != after:
            shapes += [(after, before, 1, 1), (after,)]
    return shapes + [(10, 512), (10,)]


PARAMETERS = {'ResNet-18': resnet18(), '62 tiny': [(4, 4), (4,)] * 31}


def updater(name, weights, grads, **attributes):
    """A step of an optimizer of MXNet's registry."""
    step = mx.optimizer.get_updater(mx.optimizer.create(
        name, learning_rate=RATE, wd=DECAY, **attributes))
    indices = list(range(len(weights)))

    def run():
        step(indices, grads, weights)
        return weights
    return run


def torch_step(make, weights, grads):
    weights = [torch.tensor(w, requires_grad=True) for w in weights]
    for w, g in zip(weights, grads):
        w.grad = torch.tensor(g)
    optimizer = make(weights)

    def run():
        optimizer.step()
        return [w.detach() for w in weights]
    return run


def cases(name, operator, num_states, truth, torch_class=None, theirs=None, torch_args=None,
          more=None):
    """name: d2l's optimizer; theirs: MXNet's.

    operator(weights, grads, *states) is our operator alone; truth(weight, grad) is one step from
    states of 0 in float64; more: further attributes.
    """
    more, rng = more or {}, onp.random.RandomState(0)
    for title, shapes in PARAMETERS.items():
        weights, grads = [[rng.standard_normal(s).astype('float32') for s in shapes]
                          for _ in range(2)]
        # None near 0, where the providers differ in how they count epsilon.
        grads = [g + onp.copysign(onp.float32(1), g) for g in grads]
        want = [truth(w.astype('float64'), g.astype('float64')) for w, g in zip(weights, grads)]

        def arrays(values):
            return [np.array(v) for v in values]

        def alone():
            lists = [arrays(weights), arrays(grads)] + [  # noqa: B023
                [np.zeros(s) for s in shapes] for _ in range(num_states)]  # noqa: B023

            def run():
                operator(*lists)
                return lists[0]
            return run
        providers = {'d2l': updater(name, arrays(weights), arrays(grads), **more),
                     'd2l_operator': alone()}
        if theirs:
            providers['mxnet'] = updater(theirs, arrays(weights), arrays(grads), **more)
        if torch is not None and torch_class:
            make = getattr(torch.optim, torch_class)
            for provider, fused in (('torch', {}), ('torch_fused', {'fused': True})):
                providers[provider] = torch_step(
                    lambda w, f=fused: make(w, lr=RATE, weight_decay=DECAY,  # noqa: B023
                                            **(torch_args or {}), **f), weights, grads)

        def check(results, want=want):
            for provider, found in results.items():
                for a, b in zip(found, want):
                    a = a.numpy() if provider.startswith('torch') else a.asnumpy()
                    assert onp.abs(a - b).max() <= 1e-5 * max(1, onp.abs(b).max()), provider
        size = sum(w.nbytes for w in weights)
        yield Case(title, providers, check, nbytes=size * (3 + 2 * num_states))
