"""Sines and cosines of positions against what MXNet and PyTorch compose.

Named by batch x steps, number of columns.  d2l and mxnet are hybridized blocks (static) whose
input are the tokens, torch runs eagerly.  All of them compute in each call, mxnet and torch in
float32, and torch with wavelengths known beforehand.  A model that knows its longest text may slice
a table made beforehand, as PyTorch's best form does for adding: that copies nothing, and compares
with none of these.
"""
import numpy as onp
from mxnet import gluon, np

from benchmarks.calls import to_numpy
from benchmarks.run import Case
from d2l import ops
from d2l.testing import OpBlock

try:
    import torch
except ImportError:
    torch = None

CASES = [((32, 64), 256), ((64, 10), 32)]


class Composed(gluon.HybridBlock):
    """The operator's definition in float32, which costs MXNet less than float64."""

    def __init__(self, num_hiddens):
        super().__init__()
        self._num_hiddens = num_hiddens

    def hybrid_forward(self, F, data):
        steps = F.npx.arange_like(F.npx.slice(data, (0, None), (1, None)), axis=1)
        lengths = F.np.power(10000, F.np.arange(0, self._num_hiddens, 2) / self._num_hiddens)
        angles = F.np.expand_dims(steps, 1) / F.np.expand_dims(lengths, 0)
        codes = F.np.stack([F.np.sin(angles), F.np.cos(angles)], axis=2)
        return F.np.expand_dims(F.npx.reshape(codes, (-2, -5)), 0)


def mxnet_provider(net, data):
    net.hybridize(static_alloc=True, static_shape=True)
    data = np.array(data)
    return lambda: [net(data)]


def torch_provider(steps, num_hiddens):
    lengths = 10000 ** (torch.arange(0, num_hiddens, 2) / num_hiddens)

    def codes():
        angles = torch.arange(steps).unsqueeze(1) / lengths
        return [torch.stack([angles.sin(), angles.cos()], dim=2).view(1, steps, num_hiddens)]
    return codes


def exact(steps, num_hiddens):
    angles = onp.arange(steps)[:, None] / 10000 ** (onp.arange(0, num_hiddens, 2) / num_hiddens)
    return onp.stack([onp.sin(angles), onp.cos(angles)], axis=2).reshape(1, steps, num_hiddens)


def cases():
    rng = onp.random.RandomState(0)
    for (batch, steps), num_hiddens in CASES:
        data = rng.randint(0, 200, (batch, steps)).astype('float32')
        ours = OpBlock(ops.positional_encoding, {'num_hiddens': num_hiddens})
        providers = {'d2l': mxnet_provider(ours, data),
                     'mxnet': mxnet_provider(Composed(num_hiddens), data)}
        if torch is not None:
            providers['torch'] = torch_provider(steps, num_hiddens)
        want = exact(steps, num_hiddens)

        def check(results, want=want):
            for name, (got,) in to_numpy(results).items():
                assert got.shape == want.shape and onp.abs(got - want).max() <= 1e-5, name
        yield Case('forward {}x{}, {}'.format(batch, steps, num_hiddens), providers, check,
                   nbytes=4 * want.size)
