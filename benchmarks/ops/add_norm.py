"""Residual connection, dropout and layer normalization: ours in one pass, MXNet's and PyTorch's
operators one after the other; in predict mode, and in training.

d2l and mxnet are hybridized blocks (static), d2l_eager is ours called imperatively, as PyTorch.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import mxnet_calls, torch_calls
from benchmarks.run import Case
from d2l.nn import AddNorm

try:
    import torch
except ImportError:
    torch = None

CASES = [((4096, 256), 0.1), ((2048, 256), 0.1), ((4096, 1024), 0.1), ((4096, 256), 0.5),
         ((64, 512), 0.1)]
EPS = 1e-5


class Composed(gluon.HybridBlock):
    """AddNorm of Gluon's own layers, as in the book."""

    def __init__(self, dropout):
        super().__init__()
        self.dropout, self.ln = gluon.nn.Dropout(dropout), gluon.nn.LayerNorm()

    def hybrid_forward(self, F, X, Y):
        return self.ln(self.dropout(Y) + X)


def block(make, p, arrays, hybridize=True):
    net = make(p)
    net.initialize()
    X, Y, gamma, beta = map(np.array, arrays)
    net(X, Y)
    net.ln.gamma.set_data(gamma)
    net.ln.beta.set_data(beta)
    if hybridize:
        net.hybridize(static_alloc=True, static_shape=True)
    return net


def mxnet_provider(net, arrays, dout, train):
    X, Y, dout = np.array(arrays[0]), np.array(arrays[1]), np.array(dout)
    X.attach_grad()
    Y.attach_grad()

    return mxnet_calls(lambda: net(X, Y), dout, [X, Y, net.ln.gamma, net.ln.beta], train)


def torch_provider(p, arrays, dout, train):
    given = [torch.tensor(a, requires_grad=True) for a in arrays]
    dout = torch.tensor(dout)

    def run():
        X, Y, gamma, beta = given
        Y = torch.nn.functional.dropout(Y, p, training=train)
        return torch.nn.functional.layer_norm(X + Y, gamma.shape, gamma, beta, EPS)

    return torch_calls(run, dout, given, train)


def exact(arrays, factors, dout):
    """Output and gradients in float64, factors being the mask's."""
    X, Y, gamma, beta, dout = (a.astype('float64') for a in arrays + [dout])
    z = X + Y * factors
    rstd = 1 / onp.sqrt(z.var(-1, keepdims=True) + EPS)
    xhat = (z - z.mean(-1, keepdims=True)) * rstd
    h = dout * gamma
    dz = rstd * (h - h.mean(-1, keepdims=True) - xhat * (h * xhat).mean(-1, keepdims=True))
    return [xhat * gamma + beta, dz, dz * factors, (dout * xhat).sum(0), dout.sum(0)]


def cases():
    rng = onp.random.RandomState(0)
    for shape, p in CASES:
        X, Y, dout = rng.standard_normal((3,) + shape).astype('float32')
        arrays = [X, Y, *rng.standard_normal((2, shape[-1])).astype('float32')]
        for train in (False, True):
            providers = {}
            for name, make in (('d2l', AddNorm), ('d2l_eager', AddNorm), ('mxnet', Composed)):
                net = block(make, p, arrays, hybridize=name != 'd2l_eager')
                providers[name] = mxnet_provider(net, arrays, dout, train)
            if torch is not None:
                providers['torch'] = torch_provider(p, arrays, dout, train)

            def check(results, arrays=arrays, dout=dout, p=p, train=train):
                """Every provider draws a mask of its own, which the gradient of Y shows."""
                for name, got in results.items():
                    got = [a.numpy() if name == 'torch' else a.asnumpy() for a in got]
                    factors = (got[2] != 0) / (1 - p) if train else onp.ones(dout.shape)
                    assert not train or abs((got[2] == 0).mean() - p) < 0.01, name
                    for a, want in zip(got, exact(arrays, factors, dout)):
                        assert onp.abs(a - want).max() <= 2e-5 * onp.abs(want).max(), name
            yield Case('{} {}x{} p={}'.format('train' if train else 'predict', *shape, p),
                       providers, check, nbytes=X.nbytes * (8 if train else 3))
