"""Convolutions with few channels against MXNet's (oneDNN) and PyTorch's, forward and training.

d2l and mxnet are hybridized blocks (static), torch is eager.  A case is batch x in_channels x
height x width, channels, kernel and padding.  The first two are the book's LeNet; of the first
layer of a net the pictures have no gradient, which only MXNet and PyTorch take advantage of.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import check_equal, mxnet_calls, to_numpy, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

# The last: whether the pictures have a gradient.
CASES = [((256, 1, 28, 28), 6, 5, 2, False), ((256, 6, 14, 14), 16, 5, 0, True),
         ((8, 3, 64, 64), 8, 3, 1, True), ((32, 4, 16, 16), 8, 1, 0, True),
         ((1, 1, 28, 28), 6, 5, 2, False)]


class Convolution(gluon.HybridBlock):
    def __init__(self, op, **attrs):
        super().__init__()
        self._op, self._attrs = op, attrs

    def hybrid_forward(self, F, x, w, b):
        return self._op(F, x, w, b, **self._attrs)


def ours(F, x, w, b, **attrs):
    return ops.conv2d(x, w, b, **attrs)


def mxnet_provider(op, arrays, dy, train, with_data, attrs):
    net = Convolution(op, **attrs)
    net.hybridize(static_alloc=True, static_shape=True)
    arrays, dy = [np.array(a) for a in arrays], np.array(dy)
    leaves = arrays[0 if with_data else 1:]
    for leaf in leaves:
        leaf.attach_grad()
    return mxnet_calls(lambda: net(*arrays), dy, leaves, train)


def torch_provider(arrays, dy, train, with_data, padding):
    arrays, dy = [torch.tensor(a) for a in arrays], torch.tensor(dy)
    leaves = arrays[0 if with_data else 1:]
    for leaf in leaves:
        leaf.requires_grad_()
    return torch_calls(lambda: torch.nn.functional.conv2d(*arrays, padding=padding), dy, leaves,
                       train)


def check(results):
    check_equal(to_numpy(results))


def cases():
    rng = onp.random.RandomState(0)
    for shape, channels, kernel, padding, with_data in CASES:
        out = [n + 2 * padding - kernel + 1 for n in shape[2:]]
        shapes = shape, (channels, shape[1], kernel, kernel), (channels,)
        arrays = [rng.standard_normal(s).astype('float32') for s in shapes]
        dy = rng.standard_normal((shape[0], channels, *out)).astype('float32')
        attrs = {'channels': channels, 'kernel_size': kernel, 'padding': padding}
        for train in (False, True):
            providers = {name: mxnet_provider(op, arrays, dy, train, with_data, attrs)
                         for name, op in (('d2l', ours), ('mxnet', ops.conv2d.body))}
            if torch is not None:
                providers['torch'] = torch_provider(arrays, dy, train, with_data, padding)
            flops = 2 * dy.size * arrays[1][0].size * (2 + with_data if train else 1)
            yield Case('{} {}x{}x{}x{}, {} of {}x{}'.format(
                'train' if train else 'forward', *shape, channels, kernel, kernel),
                providers, check, flops=flops)
