"""Dense layers against MXNet's and PyTorch's, forward and training.

d2l and mxnet are hybridized blocks (static) with the same parameters; mxnet is gluon.nn.Dense,
torch functional.linear and relu, eagerly.
"""
import mxnet as mx
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, to_numpy, torch_calls
from benchmarks.run import Case
from d2l import ops

try:
    import torch
except ImportError:
    torch = None

# rows, in, units, activation: both layers of a feed-forward network, the projections of attention
# for a batch and for 64 of its rows, a small encoder, a perceptron, one step of decoding, the
# logits of a batch, and a large layer
SIZES = [(2048, 256, 512, 'relu'), (512, 256, 256, None), (64, 256, 256, None), (320, 32, 32, None),
         (10, 32, 64, 'relu'), (1, 256, 256, None), (32, 256, 2000, None), (4096, 1024, 1024, None)]


class Dense(gluon.HybridBlock):
    def __init__(self, in_units, units, activation):
        super().__init__()
        self._attrs = {'units': units, 'act_type': activation}
        self.weight = self.params.get('weight', shape=(units, in_units))
        self.bias = self.params.get('bias', shape=(units,))

    def hybrid_forward(self, F, x, weight, bias):
        return ops.dense(x, weight, bias, **self._attrs)


def mxnet_provider(net, x, w, b, dy, train):
    net.initialize(mx.init.Zero())
    net.weight.set_data(np.array(w))
    net.bias.set_data(np.array(b))
    net.hybridize(static_alloc=True, static_shape=True)
    x, dy = np.array(x), np.array(dy)
    x.attach_grad()
    return mxnet_calls(lambda: net(x), dy, [x, net.weight, net.bias], train)


def torch_provider(activation, x, w, b, dy, train):
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]

    def layer():
        y = torch.nn.functional.linear(*leaves)
        return y if activation is None else torch.nn.functional.relu(y)
    return torch_calls(layer, torch.tensor(dy), leaves, train)


def exact(activation, x, w, b, dy):
    """Result and gradients in float64."""
    x, w, b, dy = (a.astype('float64') for a in (x, w, b, dy))
    y, g = x @ w.T + b, dy
    if activation is not None:
        y, g = onp.maximum(y, 0), dy * (y > 0)
    return [y, g @ w, g.T @ x, g.sum(0)]


def cases():
    rng = onp.random.RandomState(0)
    for rows, in_units, units, activation in SIZES:
        # Products are multiples of 1/16 and no sum is near 0: all are on one side of the kink.
        x, w = (rng.randint(-4, 5, s).astype('float32') / 4
                for s in ((rows, in_units), (units, in_units)))
        b = (rng.randint(-4, 5, units) / 4 + 1 / 32).astype('float32')
        dy = rng.standard_normal((rows, units)).astype('float32')
        truth = exact(activation, x, w, b, dy)

        def check(results, truth=truth):
            for name, found in to_numpy(results).items():
                for got, want in zip(found, truth):
                    assert onp.abs(got - want).max() <= 2e-5 * onp.abs(want).max(), name

        flops = 2 * rows * in_units * units
        for train in (False, True):
            nets = {'d2l': Dense(in_units, units, activation),
                    'mxnet': gluon.nn.Dense(units, activation, flatten=False, in_units=in_units)}
            providers = {name: mxnet_provider(net, x, w, b, dy, train)
                         for name, net in nets.items()}
            if torch is not None:
                providers['torch'] = torch_provider(activation, x, w, b, dy, train)
            yield Case('{} {}x{} to {}{}'.format('train' if train else 'forward', rows, in_units,
                                                 units, activation and ' ' + activation or ''),
                       providers, check, flops=3 * flops if train else flops)
