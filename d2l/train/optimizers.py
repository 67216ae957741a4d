"""Optimizers for gluon.Trainer that update all parameters of a device in one call.

``gluon.Trainer(params, 'd2l_adam', {'learning_rate': 0.01})``: the names are d2l_sgd, d2l_adam,
d2l_adamw and d2l_lamb, the arguments those of MXNet's SGD, Adam and LAMB.  They are registered
when this module is imported, as d2l.mxnet does.

Multipliers and schedulers of the learning rate, weight decay, rescaling and clipping of gradients,
mixed precision and the form of the states are MXNet's.
"""
import mxnet as mx
import numpy
from mxnet.ndarray.sparse import BaseSparseNDArray

from d2l import ops
from d2l.train import _updater

_ALL_AT_ONCE = 1 << 20


def fused(name):
    """Return 'd2l_' + name ('sgd', 'adam', 'lamb') where its kernel is loaded, otherwise name."""
    return 'd2l_' + name if 'multi_' + name in ops.available() else name


class _Together:
    """Before an optimizer of MXNet among the bases: what both of its update methods do.

    A subclass has _bind(weights, grads, states, rounded), which returns a function of the numbers
    of the step and of the attributes that all optimizers have; rounded is None but for mixed
    precision, where the weights are the float32 copies.  Sparse arrays are left to MXNet.
    """

    _master = 0  # where, in the state of a float16 weight, its float32 copy is

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.aggregate_num = _ALL_AT_ONCE

    def update(self, index, weight, grad, state):
        """Update one weight, or a list of weights, from gradients and states of their dtype."""
        self._update_all(index, weight, grad, state, False)

    def update_multi_precision(self, index, weight, grad, state):
        """Like update; with multi_precision, float16 weights from their float32 copies."""
        self._update_all(index, weight, grad, state, self.multi_precision)

    def _update_all(self, index, weight, grad, state, mixed):
        if not isinstance(index, (list, tuple)):
            index, weight, grad, state = [index], [weight], [grad], [state]
        if any(issubclass(kind, BaseSparseNDArray) for kind in set(map(type, [*weight, *grad]))):
            for one in zip(index, weight, grad, state):
                self._update_sparse(*one, mixed)
            return
        self.step_of(index, weight, grad, state, mixed)()

    def step_of(self, index, weights, grads, states, mixed):
        """A function of no arguments that makes a step of these dense arrays of one dtype."""
        rounded = None
        if mixed and weights[0].dtype == numpy.float16:
            rounded, weights = weights, [s[self._master] for s in states]
            states = [s[1 - self._master] for s in states]
        update = self._bind(weights, grads, states, rounded)

        def step():
            self._update_count(index)
            counts = self._index_update_count
            update([counts[i] for i in index],
                   {'lrs': self._get_lrs(index), 'wds': self._get_wds(index),
                    'rescale_grad': float(self.rescale_grad),
                    'clip_gradient': max(self.clip_gradient or 0.0, 0.0)})
        return step

    def _update_sparse(self, index, weight, grad, state, mixed):
        if mixed and weight.dtype == numpy.float16:
            master = state[self._master]
            super().update(index, master, grad.astype('float32'), state[1 - self._master])
            mx.nd.cast(master, dtype='float16', out=weight)
        else:
            super().update(index, weight, grad, state)


class SGD(_Together, mx.optimizer.SGD):
    """Stochastic gradient descent with momentum; arguments as of mxnet.optimizer.SGD."""

    _master = 1

    def _bind(self, weights, grads, states, rounded):
        momenta = None if states[0] is None else states
        update = ops.multi_sgd.bind(weights, grads, momenta, rounded)
        return lambda steps, attributes: update(momentum=self.momentum, **attributes)


class Adam(_Together, mx.optimizer.Adam):
    """Adam (Kingma and Ba, 2015); arguments as of mxnet.optimizer.Adam."""

    _decoupled = False

    def _bind(self, weights, grads, states, rounded):
        update = ops.multi_adam.bind(weights, grads, *zip(*states), rounded)
        return lambda steps, attributes: update(
            steps=steps, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon,
            decoupled=self._decoupled, **attributes)


class AdamW(Adam):
    """AdamW (Loshchilov and Hutter, 2019); arguments as of mxnet.optimizer.Adam.

    The weight decay wd, times the learning rate, is taken from the weights and has no part in the
    gradient.
    """

    _decoupled = True

    def _update_sparse(self, index, weight, grad, state, mixed):
        # MXNet has only Adam for sparse gradients.
        if isinstance(weight, BaseSparseNDArray):
            raise TypeError('d2l_adamw: weights must be dense, number {} is {}'.format(
                index, weight.stype))
        self._update_all(index, weight, grad.tostype('default'), state, mixed)


class LAMB(_Together, mx.optimizer.LAMB):
    """LAMB (You et al., 2020); arguments as of mxnet.optimizer.LAMB."""

    def _bind(self, weights, grads, states, rounded):
        update = ops.multi_lamb.bind(weights, grads, *zip(*states), rounded)
        return lambda steps, attributes: update(
            steps=steps, beta1=self.beta1, beta2=self.beta2, epsilon=self.epsilon,
            lower_bound=self.lower_bound or 0.0, upper_bound=self.upper_bound or 0.0,
            bias_correction=self.bias_correction, **attributes)


# mxnet.optimizer.register would take the name of the class, which is that of MXNet's.
_updater.install(_Together)
mx.optimizer.Optimizer.opt_registry.update(
    d2l_sgd=SGD, d2l_adam=Adam, d2l_adamw=AdamW, d2l_lamb=LAMB)
