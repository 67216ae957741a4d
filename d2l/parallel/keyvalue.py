"""A key-value store in one process, to read: what parameter servers do (section 12.7)."""
from mxnet import autograd, np

from d2l.parallel import reduce


class KeyValueStore:
    """Values by their keys, which devices push to and pull from.

    A push adds up what the devices give, over their gradients for example.  Without an updater
    the sum becomes the value; with one, ``updater(key, sum, value)`` changes the value in place:

        store = KeyValueStore()
        store.init('w', w)
        store.set_updater(lambda key, grad, w: sgd_step(w, grad))
        store.push('w', [grad_0, grad_1])
        store.pull('w', [w_0, w_1])

    MXNet's own stores, which `d2l.Trainer` uses, behave the same; they also order the work by
    priority and reach other processes.
    """

    def __init__(self):
        self._values = {}
        self._updater = None

    def init(self, key, value):
        """Begin with a copy of an MXNet array, on its device; ValueError for a known key."""
        if key in self._values:
            raise ValueError('KeyValueStore: key must be a new one, {!r} is known'.format(key))
        self._values[key] = value.copy()

    def set_updater(self, updater):
        """Set a function of (key, sum of what was pushed, value), which changes the value."""
        self._updater = updater

    def push(self, key, arrays):
        """Push one array, or a list with one of each device, of the shape and dtype of the value.

        The arrays keep their values.  Raises KeyError for an unknown key, ValueError for arrays
        that do not fit.
        """
        value, arrays = self._value(key), _as_list(arrays)
        reduce._check('KeyValueStore.push', [value, *arrays])
        with autograd.pause():
            merged = arrays[0].copyto(value.ctx)
            for array in arrays[1:]:
                merged += np.ndarray.as_in_ctx(array, value.ctx)
            if self._updater is None:
                merged.copyto(value)
            else:
                self._updater(key, merged, value)

    def pull(self, key, out):
        """Write the value into one array, or into each of a list; errors as for `push`."""
        value = self._value(key)
        reduce.broadcast([value, *_as_list(out)])

    def _value(self, key):
        if key not in self._values:
            raise KeyError('KeyValueStore: key {!r} must be initialized, known are {}'.format(
                key, sorted(self._values, key=str)))
        return self._values[key]


def _as_list(arrays):
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]
