"""What benchmarks share: calls to time, forward or forward and backward, and comparing results."""
import numpy as onp
from mxnet import autograd, gluon, np

try:
    import torch
except ImportError:
    torch = None


def mxnet_calls(call, dy, leaves, train):
    """A function of no arguments for one call: [y], or with train [y, gradients of the leaves].

    call() returns y; dy is its gradient; leaves are arrays with gradients and parameters.
    """
    def forward():
        return [call()]

    def training():
        with autograd.record():
            y = call()
        y.backward(dy)
        return [y] + [leaf.grad() if isinstance(leaf, gluon.Parameter) else leaf.grad
                      for leaf in leaves]
    return training if train else forward


def hybridized_calls(net, arrays, dy, train, constants=()):
    """mxnet_calls of a hybridized net with NumPy arrays; constants get no gradients."""
    net.hybridize(static_alloc=True, static_shape=True)
    leaves, constants = ([np.array(a, dtype=a.dtype) for a in group]
                         for group in (arrays, constants))
    for leaf in leaves:
        leaf.attach_grad()
    dy = np.array(dy, dtype=dy.dtype)
    return mxnet_calls(lambda: net(*leaves, *constants), dy, leaves, train)


def torch_calls(call, dy, leaves, train):
    """The same of PyTorch; leaves are tensors that require gradients."""
    def forward():
        with torch.no_grad():
            return [call()]

    def training():
        for leaf in leaves:
            leaf.grad = None
        y = call()
        y.backward(dy)
        return [y.detach()] + [leaf.grad for leaf in leaves]
    return training if train else forward


def to_numpy(results):
    """name of provider -> its arrays, as numpy arrays."""
    return {name: [a.detach().numpy() if name == 'torch' else a.asnumpy() for a in arrays]
            for name, arrays in results.items()}


def check_equal(results, tolerance=1e-4, least=0.0):
    """Raise AssertionError unless all providers have the numbers of the provider mxnet.

    results as `to_numpy` returns them.  The tolerance is relative to the largest number of an
    array, or to least, for arrays that are nothing but rounding errors.
    """
    for name, arrays in results.items():
        for got, want in zip(arrays, results['mxnet']):
            error, size = onp.abs(got - want).max(), max(least, onp.abs(want).max())
            assert error <= tolerance * size, f'{name}: {error} from {size}'
