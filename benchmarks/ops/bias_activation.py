"""Activation of data + bias against MXNet's and PyTorch's two steps, forward and training.

d2l and mxnet are hybridized blocks (static); mxnet is npx.activation(data + bias), gelu being
npx.leaky_relu, and torch the same, eagerly.  The rows "ffn" have a whole position-wise network,
two dense layers with the activation between: d2l takes the bias out of the first one, mxnet is
Dense with an activation, torch Linear.
"""
import math
from functools import partial

import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

CASES = [('relu', (4096, 1024)), ('gelu', (4096, 1024)), ('tanh', (4096, 1024)),
         ('sigmoid', (4096, 1024)), ('gelu', (64, 256))]
FFNS = [('relu', 2048, 256, 1024), ('gelu', 2048, 256, 1024)]  # rows, units in and out, hidden


class BiasActivation(gluon.HybridBlock):
    def __init__(self, form, act_type, units):
        super().__init__()
        self._form, self._act_type = form, act_type
        self.bias = self.params.get('bias', shape=(units,), init='zeros')

    def hybrid_forward(self, F, x, bias):
        return self._form(F, x, bias, self._act_type)


def ours(F, x, bias, act_type):
    return ops.bias_activation(x, bias, act_type=act_type)


def composed(F, x, bias, act_type):
    function = F.npx.leaky_relu if act_type == 'gelu' else F.npx.activation
    return function(x + bias, act_type=act_type)


def dense_network(fused, act_type, hidden, units):
    net = gluon.nn.HybridSequential()
    if fused:
        net.add(gluon.nn.Dense(hidden, flatten=False, use_bias=False),
                BiasActivation(ours, act_type, hidden))
    else:
        net.add(gluon.nn.Dense(hidden, flatten=False,
                               activation=None if act_type == 'gelu' else act_type))
        if act_type == 'gelu':
            net.add(gluon.nn.GELU())
    net.add(gluon.nn.Dense(units, flatten=False))
    return net


def mxnet_provider(net, values, x, dy, train):
    """values: of the parameters, in their order."""
    x, dy = np.array(x), np.array(dy)
    net.initialize()
    net(x)
    parameters = list(net.collect_params().values())
    for parameter, value in zip(parameters, values):
        parameter.set_data(np.array(value))
    net.hybridize(static_alloc=True, static_shape=True)
    x.attach_grad()

    return mxnet_calls(lambda: net(x), dy, [x] + parameters, train)


def torch_provider(act_type, values, x, dy, train):
    function = getattr(torch.nn.functional, act_type)
    x, dy = torch.tensor(x, requires_grad=True), torch.tensor(dy)
    values = [torch.tensor(v, requires_grad=True) for v in values]

    def network():
        if len(values) == 1:
            return function(x + values[0])
        h = function(torch.nn.functional.linear(x, values[0], values[1]))
        return torch.nn.functional.linear(h, values[2], values[3])

    return torch_calls(network, dy, [x] + values, train)


def activation_and_derivative(act_type, z):
    if act_type == 'gelu':
        cdf = 0.5 * (1 + onp.vectorize(math.erf, otypes=['float64'])(z / 2 ** 0.5))
        return z * cdf, cdf + z * onp.exp(-z * z / 2) / (2 * onp.pi) ** 0.5
    y = {'relu': lambda: onp.maximum(z, 0), 'tanh': lambda: onp.tanh(z),
         'sigmoid': lambda: 1 / (1 + onp.exp(-z))}[act_type]()
    return y, {'relu': y > 0, 'tanh': 1 - y * y, 'sigmoid': y * (1 - y)}[act_type]


def exact(act_type, values, x, dy):
    """Output and gradients in float64."""
    x, dy, *values = (a.astype('float64') for a in (x, dy, *values))
    if len(values) == 1:
        y, slope = activation_and_derivative(act_type, x + values[0])
        return [y, dy * slope, (dy * slope).sum(0)]
    h, slope = activation_and_derivative(act_type, x @ values[0].T + values[1])
    dz = dy @ values[2] * slope
    return [h @ values[2].T + values[3], dz @ values[0], dz.T @ x, dz.sum(0), dy.T @ h, dy.sum(0)]


def checker(truth):
    def check(results):
        for name, arrays in results.items():
            for got, want in zip(arrays, truth):
                got = got.numpy() if name == 'torch' else got.asnumpy()
                assert onp.abs(got - want).max() <= 1e-5 * onp.abs(want).max(), name
    return check


def build(label, act_type, values, x, dy, nets):
    """The rows of one case; nets: provider -> function that makes the network."""
    truth = exact(act_type, values, x, dy)
    for train in (False, True):
        providers = {name: mxnet_provider(make(), values, x, dy, train)
                     for name, make in nets.items()}
        if torch is not None:
            providers['torch'] = torch_provider(act_type, values, x, dy, train)
        yield Case('{} {}'.format('train' if train else 'forward', label), providers,
                   checker(truth),
                   nbytes=x.nbytes * (5 if train else 2) if len(values) == 1 else None)


def cases():
    rng = onp.random.RandomState(0)
    for act_type, shape in CASES:
        x, dy = rng.standard_normal((2,) + shape).astype('float32')
        bias = rng.standard_normal(shape[-1]).astype('float32')
        nets = {name: partial(BiasActivation, form, act_type, shape[-1])
                for name, form in (('d2l', ours), ('mxnet', composed))}
        yield from build('{} {}x{}'.format(act_type, *shape), act_type, [bias], x, dy, nets)
    for act_type, rows, units, hidden in FFNS:
        x, dy = rng.standard_normal((2, rows, units)).astype('float32')
        shapes = (hidden, units), (hidden,), (units, hidden), (units,)
        values = [(0.05 * rng.standard_normal(s)).astype('float32') for s in shapes]
        nets = {name: partial(dense_network, fused, act_type, hidden, units)
                for name, fused in (('d2l', True), ('mxnet', False))}
        label = 'ffn {} {}x{}, {}'.format(act_type, rows, units, hidden)
        yield from build(label, act_type, values, x, dy, nets)
