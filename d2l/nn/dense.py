"""Gluon's dense layer on d2l's kernel."""
from mxnet.gluon import nn
from mxnet.util import is_np_array

from d2l import ops
from d2l.nn._block import does_just

_ACTIVATIONS = ('relu', 'sigmoid', 'tanh')


class Dense(nn.Dense):
    """Gluon's Dense as one kernel: product, bias, and relu, sigmoid or tanh (`d2l.ops.dense`).

    Arguments, parameters and results are those of Gluon's.  Made for graphs of many small layers,
    where MXNet's spends more on beginning than on the product; a single large product can be slower
    than MXNet's, see benchmarks/ops/dense.py.
    """

    def hybrid_forward(self, F, x, weight, bias=None):
        if self._flatten:
            x = F.npx.batch_flatten(x) if is_np_array() else F.Flatten(x)
        fused = (self.act is not None and does_just(self.act, nn.Activation)
                 and self.act._act_type in _ACTIVATIONS)
        out = ops.dense(x, weight, bias, units=self._units,
                        act_type=self.act._act_type if fused else None)
        return out if fused or self.act is None else self.act(out)
