"""Products of batches of matrices against MXNet's batch_dot and PyTorch's.

d2l and mxnet are hybridized blocks (static).  mxnet is npx.batch_dot with the OpenBLAS in MXNet's
wheel (--bare: with the kernels that it takes by itself), mxnet_redirected the same with the newer
one to which d2l hands MXNet's products (see d2l/_blas.py); both alternate in one process.  torch is
the product @, eagerly.
"""
import ctypes
import os

import mxnet as mx
import numpy as onp
from mxnet import gluon

from benchmarks.calls import hybridized_calls, to_numpy, torch_calls
from benchmarks.run import Case
from d2l import _blas, ops

try:
    import torch
except ImportError:
    torch = None

# batch, rows, depth, cols, transpose_b: weights by values and queries by keys of 64 x 4 heads, the
# book's decoder with attention, skip-gram with 60 context words, and larger ones
SHAPES = [(64, 128, 64, 128, False), (64, 128, 64, 128, True), (256, 128, 128, 64, False),
          (512, 10, 32, 10, True), (512, 1, 100, 60, True), (4, 512, 512, 512, False)]


class Product(gluon.HybridBlock):
    def __init__(self, form, transpose_b):
        super().__init__()
        self._form, self._transpose_b = form, transpose_b

    def hybrid_forward(self, F, a, b):
        return self._form(F)(a, b, transpose_b=self._transpose_b)


def mxnet_provider(form, transpose_b, arrays, dy, train):
    return hybridized_calls(Product(form, transpose_b), arrays, dy, train)


def torch_provider(transpose_b, arrays, dy, train):
    a, b = arrays = [torch.tensor(x, requires_grad=True) for x in arrays]

    return torch_calls(lambda: a @ (b.mT if transpose_b else b), torch.tensor(dy), arrays, train)


def after(step, call):
    def stepped():
        step()
        return call()
    return stepped


def mxnet_providers(make):
    """MXNet's batch_dot with its own OpenBLAS and, where there is one, with the newer; make()
    returns a new provider."""
    # benchmarks/run.py --bare: a redirection here would leave its mark on what it measures.
    if os.environ.get('D2L_COMPAT') == '0':
        return {'mxnet': make()}
    if _blas.redirect(mx.base._LIB)['products'] == 'bundled':
        return {'mxnet': make()}
    own, handle = _blas._open_own(), ctypes.c_void_p(mx.base._LIB._handle)
    return {'mxnet': after(own.d2l_blas_unbind, make()),
            'mxnet_redirected': after(lambda: own.d2l_blas_bind(handle), make())}


def exact(a, b, dy, transpose_b):
    """Result and gradients in float64."""
    a, b, dy = (x.astype('float64') for x in (a, b, dy))
    if transpose_b:
        return [a @ b.swapaxes(1, 2), dy @ b, dy.swapaxes(1, 2) @ a]
    return [a @ b, dy @ b.swapaxes(1, 2), a.swapaxes(1, 2) @ dy]


def cases():
    rng = onp.random.RandomState(0)
    for batch, rows, depth, cols, transpose_b in SHAPES:
        shapes = [(batch, rows, depth), (batch, cols, depth) if transpose_b else
                  (batch, depth, cols), (batch, rows, cols)]
        *arrays, dy = (rng.standard_normal(s).astype('float32') for s in shapes)
        truth = exact(*arrays, dy, transpose_b)

        def check(results, truth=truth):
            for name, found in to_numpy(results).items():
                for got, want in zip(found, truth):
                    assert onp.abs(got - want).max() <= 2e-5 * onp.abs(want).max(), name

        flops = 2 * batch * rows * depth * cols
        for train in (False, True):
            providers = {'d2l': mxnet_provider(lambda _: ops.batch_dot, transpose_b, arrays, dy,
                                               train)}
            providers.update(mxnet_providers(lambda train=train, t=transpose_b, x=arrays, dy=dy:
                                             mxnet_provider(lambda F: F.npx.batch_dot, t, x, dy,
                                                            train)))
            if torch is not None:
                providers['torch'] = torch_provider(transpose_b, arrays, dy, train)
            yield Case('{} {}{}'.format('train' if train else 'forward', 'x'.join(map(
                str, (batch, rows, depth, cols))), ' transposed' * transpose_b), providers, check,
                flops=3 * flops if train else flops)
