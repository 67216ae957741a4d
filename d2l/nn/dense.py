"""Gluon's dense layer on d2l's kernel."""
from mxnet.gluon import nn
from mxnet.ndarray import NDArray
from mxnet.util import is_np_array

from d2l import ops
from d2l.nn._block import does_just, parameter_of_child

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


def dense_layers(X, layers):
    """Return [layer(X) for layer in layers], by one operator where that does the same.

    layers: two or three blocks, such as those of attention; `d2l.ops.multi_dense` stands in for
    `Dense` without an activation function, of equal units, that leaves the leading axes alone.
    """
    units = layers[0]._units if isinstance(layers[0], Dense) else None
    if not all(does_just(layer, Dense) and layer.act is None and not layer._flatten
               and layer._units == units for layer in layers):
        return [layer(X) for layer in layers]
    weights = [_parameter(layer.weight, X, (units, -1)) for layer in layers]
    biases = [_parameter(layer.bias, X, (units,)) for layer in layers]
    weights += [None] * (3 - len(layers))
    return ops.multi_dense(X, *weights, *biases, *weights[len(layers):], units=units)


def _parameter(parameter, X, shape):
    """A layer's parameter, which nobody calls, so that its shape, the last axis of X where it is
    -1, has to be told; None if there is none."""
    if parameter is not None and isinstance(X, NDArray) and parameter._deferred_init:
        parameter.shape = tuple(X.shape[-1] if size < 0 else size for size in shape)
        parameter._finish_deferred_init()
    return parameter and parameter_of_child(parameter, X)
