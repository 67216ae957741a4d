"""Activation functions against MXNet's and PyTorch's, forward and training.

d2l and mxnet are hybridized blocks (static).  mxnet is the function of that name (np.tanh,
npx.sigmoid, np.exp; gelu is npx.leaky_relu), mxnet_activation is npx.activation, which oneDNN
computes in float32.  torch is eager.
"""
import math

import numpy as onp
from mxnet import gluon

from benchmarks.calls import hybridized_calls, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

BIG, MIDDLE, SMALL = (4096, 1024), (2048, 512), (64, 256)
CASES = [('gelu', BIG, 'float32'), ('tanh', BIG, 'float32'), ('sigmoid', BIG, 'float32'),
         ('exp', BIG, 'float32'), ('relu', BIG, 'float32'), ('gelu', BIG, 'float16'),
         ('gelu', MIDDLE, 'float32'), ('tanh', MIDDLE, 'float32'),
         ('sigmoid', MIDDLE, 'float32'),
         ('gelu', SMALL, 'float32'), ('tanh', SMALL, 'float32')]


class Function(gluon.HybridBlock):
    def __init__(self, form):
        super().__init__()
        self._form = form

    def hybrid_forward(self, F, x):
        return self._form(F, x)


def forms(name, dtype):
    """Provider -> the function in MXNet's F."""
    found = {'d2l': lambda F, x: ops.activation(x, act_type=name),
             'mxnet': lambda F, x: ops.activation.body(F, x, act_type=name)}
    if name in ('tanh', 'sigmoid', 'relu') and dtype == 'float32':
        found['mxnet_activation'] = lambda F, x: F.npx.activation(x, act_type=name)
    return found


def mxnet_provider(form, x, dy, train):
    return hybridized_calls(Function(form), [x], dy, train)


def torch_provider(name, x, dy, train):
    function = torch.nn.functional.gelu if name == 'gelu' else getattr(torch, name)
    x, dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)

    return torch_calls(lambda: function(x), dy, [x], train)


def exact(name, x, dy):
    """Output and gradient in float64."""
    x, dy = x.astype('float64'), dy.astype('float64')
    if name == 'gelu':
        cdf = 0.5 * (1 + onp.vectorize(math.erf, otypes=['float64'])(x / 2 ** 0.5))
        return [x * cdf, dy * (cdf + x * onp.exp(-x * x / 2) / (2 * onp.pi) ** 0.5)]
    y = {'exp': onp.exp, 'tanh': onp.tanh, 'relu': lambda x: onp.maximum(x, 0),
         'sigmoid': lambda x: 1 / (1 + onp.exp(-x))}[name](x)
    return [y, dy * {'exp': y, 'tanh': 1 - y * y, 'relu': y > 0, 'sigmoid': y * (1 - y)}[name]]


def cases():
    for name, shape, dtype in CASES:
        x, dy = onp.random.RandomState(0).standard_normal((2,) + shape).astype(dtype)
        truth = exact(name, x, dy)
        bound = {'float32': 2e-6, 'float16': 2e-3}[dtype]
        for train in (False, True):
            providers = {provider: mxnet_provider(form, x, dy, train)
                         for provider, form in forms(name, dtype).items()}
            if torch is not None:
                providers['torch'] = torch_provider(name, x, dy, train)

            def check(results, truth=truth, bound=bound):
                for provider, arrays in results.items():
                    for got, want in zip(arrays, truth):
                        got = got.numpy() if provider == 'torch' else got.asnumpy()
                        error = onp.abs(got - want).max()
                        assert error <= bound * onp.abs(want).max(), (provider, error)
            kind = '' if dtype == 'float32' else ' ' + dtype
            yield Case('{} {}{} {}x{}'.format('train' if train else 'forward', name, kind, *shape),
                       providers, check, nbytes=x.nbytes * (5 if train else 2))
