"""Queries, keys and values of one array: three dense layers without a bias, forward and training.

d2l and mxnet are hybridized blocks (static) with the same parameters; mxnet is three of
gluon.nn.Dense, torch three of functional.linear, eagerly.
"""
import mxnet as mx
import numpy as onp
from mxnet import autograd, gluon, np

from benchmarks.calls import to_numpy
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

# rows, in, units: a short sentence and a batch of the small Transformer, a sentence and a batch of
# a larger one
SIZES = [(10, 32, 32), (320, 32, 32), (128, 256, 256), (2048, 256, 256)]


class MultiDense(gluon.HybridBlock):
    def __init__(self, in_units, units):
        super().__init__()
        self._units = units
        for i in range(3):
            setattr(self, f'weight_{i}', self.params.get(f'weight_{i}', shape=(units, in_units)))

    def weights(self):
        return [self.weight_0, self.weight_1, self.weight_2]

    def hybrid_forward(self, F, x, weight_0, weight_1, weight_2):
        return ops.multi_dense(x, weight_0, weight_1, weight_2, units=self._units)


class Layers(gluon.HybridBlock):
    def __init__(self, in_units, units):
        super().__init__()
        self.layers = [gluon.nn.Dense(units, use_bias=False, flatten=False, in_units=in_units)
                       for _ in range(3)]
        for layer in self.layers:
            self.register_child(layer)

    def weights(self):
        return [layer.weight for layer in self.layers]

    def hybrid_forward(self, F, x):
        return [layer(x) for layer in self.layers]


def mxnet_provider(net, x, weights, dys, train):
    net.initialize(mx.init.Zero())
    for parameter, weight in zip(net.weights(), weights):
        parameter.set_data(np.array(weight))
    net.hybridize(static_alloc=True, static_shape=True)
    x, dys = np.array(x), [np.array(dy) for dy in dys]
    x.attach_grad()

    def training():
        with autograd.record():
            ys = net(x)
        autograd.backward(ys, dys)
        return [*ys, x.grad, *(parameter.grad() for parameter in net.weights())]
    return training if train else lambda: net(x)


def torch_provider(x, weights, dys, train):
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, *weights)]
    dys = [torch.tensor(dy) for dy in dys]

    def layers():
        return [torch.nn.functional.linear(leaves[0], weight) for weight in leaves[1:]]

    def forward():
        with torch.no_grad():
            return layers()

    def training():
        for leaf in leaves:
            leaf.grad = None
        ys = layers()
        torch.autograd.backward(ys, dys)
        return [*(y.detach() for y in ys), *(leaf.grad for leaf in leaves)]
    return training if train else forward


def exact(x, weights, dys):
    """Results and gradients in float64."""
    x, *others = (a.astype('float64') for a in (x, *weights, *dys))
    weights, dys = others[:3], others[3:]
    return [*(x @ w.T for w in weights), sum(dy @ w for dy, w in zip(dys, weights)),
            *(dy.T @ x for dy in dys)]


def cases():
    rng = onp.random.RandomState(0)
    for rows, in_units, units in SIZES:
        x = rng.standard_normal((rows, in_units)).astype('float32')
        weights, dys = (list(rng.standard_normal((3, n, m)).astype('float32'))
                        for n, m in ((units, in_units), (rows, units)))
        truth = exact(x, weights, dys)

        def check(results, truth=truth):
            for name, found in to_numpy(results).items():
                for got, want in zip(found, truth):
                    assert onp.abs(got - want).max() <= 2e-5 * onp.abs(want).max(), name

        flops = 3 * 2 * rows * in_units * units
        for train in (False, True):
            providers = {name: mxnet_provider(net(in_units, units), x, weights, dys, train)
                         for name, net in (('d2l', MultiDense), ('mxnet', Layers))}
            if torch is not None:
                providers['torch'] = torch_provider(x, weights, dys, train)
            yield Case('{} {}x{} to three of {}'.format('train' if train else 'forward', rows,
                                                        in_units, units),
                       providers, check, flops=3 * flops if train else flops)
