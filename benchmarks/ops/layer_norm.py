"""Layer normalization against MXNet's operator and PyTorch's, forward and training.

d2l and mxnet are hybridized blocks (static), d2l_eager is ours called imperatively, as PyTorch.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l.nn import LayerNorm

try:
    import torch
except ImportError:
    torch = None

SHAPES = [(4096, 256), (4096, 1024), (2048, 768), (64, 512)]
EPS = 1e-5


def block(make, shape, gamma, beta, hybridize=True):
    """A block with given parameters."""
    net = make(in_channels=shape[-1])
    net.initialize()
    net.gamma.set_data(np.array(gamma))
    net.beta.set_data(np.array(beta))
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    return net


def mxnet_provider(net, x, dy, train):
    """forward, or forward and backward: a function returning numpy-able arrays."""
    x, dy = np.array(x), np.array(dy)
    x.attach_grad()

    return mxnet_calls(lambda: net(x), dy, [x, net.gamma, net.beta], train)


def torch_provider(x, gamma, beta, dy, train):
    x, gamma, beta, dy = (torch.tensor(a) for a in (x, gamma, beta, dy))
    layer = torch.nn.LayerNorm(x.shape[-1], eps=EPS)
    with torch.no_grad():
        layer.weight.copy_(gamma)
        layer.bias.copy_(beta)
    x.requires_grad_()

    return torch_calls(lambda: layer(x), dy, [x, layer.weight, layer.bias], train)


def exact(x, gamma, beta, dy):
    """Output and gradients in float64."""
    x, gamma, beta, dy = (a.astype('float64') for a in (x, gamma, beta, dy))
    rstd = 1 / onp.sqrt(x.var(-1, keepdims=True) + EPS)
    xhat = (x - x.mean(-1, keepdims=True)) * rstd
    h = dy * gamma
    dx = rstd * (h - h.mean(-1, keepdims=True) - xhat * (h * xhat).mean(-1, keepdims=True))
    return [xhat * gamma + beta, dx, (dy * xhat).sum(0), dy.sum(0)]


def cases():
    rng = onp.random.RandomState(0)
    for shape in SHAPES:
        x, dy = rng.standard_normal((2,) + shape).astype('float32')
        gamma, beta = rng.standard_normal((2, shape[-1])).astype('float32')
        truth = exact(x, gamma, beta, dy)
        for train in (False, True):
            providers = {}
            for name, make in (('d2l', LayerNorm), ('d2l_eager', LayerNorm),
                               ('mxnet', gluon.nn.LayerNorm)):
                net = block(make, shape, gamma, beta, hybridize=name != 'd2l_eager')
                providers[name] = mxnet_provider(net, x, dy, train)
            if torch is not None:
                providers['torch'] = torch_provider(x, gamma, beta, dy, train)

            def check(results, truth=truth):
                for name, arrays in results.items():
                    for got, want in zip(arrays, truth):
                        got = got.numpy() if name == 'torch' else got.asnumpy()
                        assert onp.abs(got - want).max() <= 2e-5 * onp.abs(want).max(), name
            yield Case('{} {}x{}'.format('train' if train else 'forward', *shape), providers,
                       check, nbytes=x.nbytes * (5 if train else 2))
