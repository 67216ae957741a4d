"""What calls the optimizers of d2l for gluon.Trainer, without asking every array in every step.

MXNet's Updater converts each array, asks for its dtype and looks up its state, whatever the
optimizer then does; for small nets that takes longer than the step.
"""
import functools
import operator

import mxnet as mx
from mxnet import base as _base
from mxnet.ndarray.sparse import BaseSparseNDArray

from d2l.ops import _library


class Updater(mx.optimizer.Updater):
    """MXNet's Updater, which prepares a step when it is asked twice for the same arrays.

    A step that is prepared is made as long as optimizer, arrays and states are the same objects.
    """

    _index = _seen = _steps = None

    def __call__(self, index, grad, weight):
        if not isinstance(index, (list, tuple)):
            super().__call__(index, grad, weight)
            return
        index = tuple(index)
        if index != self._index or not self._is_seen(grad, weight):
            super().__call__(index, grad, weight)
            self._index, self._seen, self._steps = index, self._objects(index, grad, weight), None
            return
        if self._steps is None:
            self._steps = self._prepared(grad, weight)
        if not self._steps:
            super().__call__(index, grad, weight)
            return
        self.optimizer._set_current_context(self._device_id)
        for step in self._steps:
            step()

    def _objects(self, index, grad, weight):
        return [self.optimizer, *grad, *weight, *map(self.states.get, index)]

    def _is_seen(self, grad, weight):
        return _same(self._objects(self._index, grad, weight), self._seen)

    def _prepared(self, grad, weight):
        """A step for each dtype; none where an array is sparse or a state not yet on its device."""
        if any(isinstance(a, BaseSparseNDArray) for a in (*grad, *weight)) \
                or not all(self.states_synced.get(i) for i in self._index):
            return []
        self._device_id = weight[0].context.device_id
        groups = {}
        for one in zip(self._index, weight, grad, map(self.states.get, self._index)):
            groups.setdefault(one[1].dtype, []).append(one)
        return [self.optimizer.step_of(*zip(*group), self.optimizer.multi_precision)
                for group in groups.values()]


def _same(objects, others):
    return len(objects) == len(others) and all(map(operator.is_, objects, others))


class _Arrays:
    """What a trainer updates: weights and gradients by device, with the numbers of parameters."""

    def __init__(self, params, seen, devices):
        self.seen, self.is_plain = seen, all(
            p._stype == p._grad_stype == 'default' and p._data and p._grad
            and len(p._data) == len(p._grad) == devices for _, p in params)
        if self.is_plain:
            self._index = tuple(i for i, _ in params)
            self._weights = list(zip(*(p._data for _, p in params)))
            self._grads = list(zip(*(p._grad for _, p in params)))
            self._handles = _base.c_handle_array([a for group in self._weights for a in group])

    def take(self, lib):
        """Note that no gradient is fresh any more; False, with no note made, if one is not."""
        return lib.c.d2l_take_fresh(self._handles, len(self._handles)) == 0

    def update(self, updaters):
        for updater, grads, weights in zip(updaters, self._grads, self._weights):
            updater(self._index, grads, weights)


def _update_at_once(trainer):
    """Do what Trainer._update does if every gradient is fresh; False where that has to do it.

    It asks each array in a call of its own whether its gradient is fresh, and notes in another that
    it is no more.
    """
    updaters = trainer._updaters
    if (trainer._kvstore and trainer._update_on_kvstore) or hasattr(trainer, '_amp_loss_scaler') \
            or any(type(updater) is not Updater for updater in updaters):
        return False
    lib = _library.library()
    params = [(i, p) for i, p in enumerate(trainer._params) if p._grad_req != 'null']
    seen = [a for _, p in params for group in (p._data, p._grad) if group for a in group]
    known = vars(trainer).get('_d2l_arrays')
    if known is None or not _same(seen, known.seen):
        known = trainer._d2l_arrays = _Arrays(params, seen, len(updaters))
    if lib is None or not known.is_plain or not params or not known.take(lib):
        return False
    known.update(updaters)
    return True


def install(kind):
    """Let gluon.Trainer update at once, by updaters of ours for the optimizers of a class."""
    theirs = mx.optimizer.Updater

    def get_updater(optimizer):
        """Return a function (index, gradient, weight) that updates the weight."""
        return (Updater if isinstance(optimizer, kind) else theirs)(optimizer)
    for module in (mx.optimizer, mx.optimizer.optimizer):
        module.get_updater = get_updater
    update = mx.gluon.Trainer._update

    @functools.wraps(update)
    def _update(self, ignore_stale_grad=False):
        if not _update_at_once(self):
            update(self, ignore_stale_grad)
    mx.gluon.Trainer._update = _update
