"""Dropout against MXNet's and PyTorch's: in predict mode, and in training.

d2l and mxnet are hybridized blocks (static), d2l_eager is ours called imperatively, as PyTorch.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, to_numpy, torch_calls
from benchmarks.run import Case
from d2l.nn import Dropout

try:
    import torch
except ImportError:
    torch = None

CASES = [((4096, 1024), 0.5), ((4096, 1024), 0.1), ((2048, 512), 0.1), ((4096, 256), 0.1),
         ((64, 512), 0.5)]


def mxnet_provider(net, x, dy, train, hybridize=True):
    """Predict mode, or forward and backward in train mode."""
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    x, dy = np.array(x), np.array(dy)
    x.attach_grad()

    return mxnet_calls(lambda: net(x), dy, [x], train)


def torch_provider(x, dy, p, train):
    x, dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    return torch_calls(lambda: torch.nn.functional.dropout(x, p, training=train), dy, [x], train)


def check_masks(results, x, dy, p):
    """Every provider draws a mask of its own: its rate is p, and the gradient has the same."""
    for name, (y, dx) in results.items():
        kept = y != 0
        assert abs(kept.mean() - (1 - p)) < 6 * (p * (1 - p) / kept.size) ** 0.5, name
        for got, given in ((y, x), (dx, dy)):
            onp.testing.assert_allclose(got, kept * given / (1 - p), rtol=1e-5, err_msg=name)


def cases():
    rng = onp.random.RandomState(0)
    for shape, p in CASES:
        x, dy = rng.standard_normal((2,) + shape).astype('float32')
        for train in (False, True):
            providers = {name: mxnet_provider(make(p), x, dy, train, name != 'd2l_eager')
                         for name, make in (('d2l', Dropout), ('d2l_eager', Dropout),
                                            ('mxnet', gluon.nn.Dropout))}
            if torch is not None:
                providers['torch'] = torch_provider(x, dy, p, train)

            def check(results, x=x, dy=dy, p=p, train=train):
                results = to_numpy(results)
                if train:
                    check_masks(results, x, dy, p)
                for name, arrays in results.items():
                    assert train or (arrays[0] == x).all(), name
            yield Case('{} {}x{} p={}'.format('train' if train else 'predict', *shape, p),
                       providers, check, nbytes=x.nbytes * (4 if train else 2))
