"""Batches of whole arrays: slices, not single examples that are put together again."""
import numbers

import mxnet as mx
import numpy as onp
from mxnet import autograd, np
from mxnet.util import is_np_array

# Rows are gathered for several batches at once while these take no more memory than this.
_BLOCK_BYTES = 4 << 20

_DTYPES = ('float16', 'float32', 'float64', 'int8', 'int32', 'int64', 'uint8', 'bool')


class ArrayLoader:
    """Batches of one array, or of several arrays of equal length.

    ``arrays`` is a tuple or list of MXNet arrays, numpy arrays or nested lists, each with the
    examples along its first axis.  Iterating gives, as gluon's ``DataLoader`` does, a list with
    one MXNet array for each array, or just the array if there is one; the last batch may be
    smaller.  Batches keep the dtype.  They do not share memory with the arrays.  MXNet arrays
    stay on their device.

    With ``shuffle`` every pass has a new order.  It is drawn from MXNet's random numbers, so
    ``mx.random.seed`` (the same as ``npx.random.seed``), which also fixes the parameters' first
    values, makes it reproducible.  numpy's seed has no influence.

    ``transform`` takes and returns a list of gathered rows, one entry for each array.  numpy
    arrays come to it as they are.  It must treat each row by itself, since it gets the rows of
    one or several batches.  ``row_bytes`` says how much memory it needs for a row.

    ``len()`` is the number of batches.  Several passes may run at the same time.

    Raises ``TypeError`` and ``ValueError`` for arrays that do not fit together, have no examples,
    and for a ``batch_size`` that is not a positive integer.
    """

    def __init__(self, arrays, batch_size, shuffle=False, transform=None, row_bytes=None):
        self._arrays = _checked_arrays(arrays)
        self.batch_size = positive_int('batch_size', batch_size)
        self.shuffle = bool(shuffle)
        self._transform = transform
        self._length = len(self._arrays[0])
        if row_bytes is None:
            row_bytes = sum(_row_bytes(array) for array in self._arrays)
        batches = max(1, _BLOCK_BYTES // max(1, row_bytes * self.batch_size))
        self._block = batches * self.batch_size

    def __len__(self):
        return (self._length + self.batch_size - 1) // self.batch_size

    def __iter__(self):
        # The order is drawn here and not at the first batch: passes that are started one after
        # the other get their orders in that sequence.
        return self._batches(_random_order(self._length) if self.shuffle else None)

    def _batches(self, order):
        for begin in range(0, self._length, self._block):
            end = min(begin + self._block, self._length)
            rows = slice(begin, end) if order is None else order[begin:end]
            with autograd.pause():
                block = [_gather(array, rows) for array in self._arrays]
                if self._transform is not None:
                    block = self._transform(block)
                block = [_to_mxnet(array) for array in block]
            for first in range(0, end - begin, self.batch_size):
                batch = [array[first:first + self.batch_size] for array in block]
                yield batch if len(batch) > 1 else batch[0]


def load_array(data_arrays, batch_size, is_train=True):
    """A loader over a tuple of equally long arrays, shuffled if ``is_train``.

    Returns an ``ArrayLoader``, which see for the batches, the order and the errors.  Book
    section 3.3.
    """
    return ArrayLoader(data_arrays, batch_size, shuffle=is_train)


def synthetic_data(w, b, num_examples):
    """Examples of a linear model with noise, y = Xw + b + e.

    ``w`` has shape (d,) or (d, 1).  Returns X of shape (num_examples, d), standard normal, and y
    of shape (num_examples, 1); e is normal with standard deviation 0.01.  Both are float32.
    Raises ``ValueError`` for another shape of ``w`` or a ``num_examples`` below 1.  Book
    section 3.2.
    """
    num_examples = positive_int('num_examples', num_examples)
    w = w if isinstance(w, np.ndarray) else np.array(w)
    if w.ndim == 0 or w.size != w.shape[0]:
        raise ValueError(f'synthetic_data: w must have shape (d,) or (d, 1), got {w.shape}')
    w = w.reshape(-1).astype('float32')
    X = np.random.normal(0, 1, (num_examples, len(w)))
    y = np.dot(X, w) + b
    y = y + np.random.normal(0, 0.01, y.shape)
    return X, y.reshape(-1, 1)


def positive_int(name, value):
    """``value`` as an int.  Raises unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f'{name} must be an integer, got {value!r}')
    if value < 1:
        raise ValueError(f'{name} must be at least 1, got {value}')
    return int(value)


def ranges(begins, lengths):
    """begin, begin + 1, ... for each begin, as many as its length says, one after the other.

    Both are numpy arrays of integers, of shape (n,).  Returns one of shape (sum(lengths),).
    """
    before = onp.cumsum(lengths) - lengths
    return onp.repeat(begins - before, lengths) + onp.arange(lengths.sum())


def _checked_arrays(arrays):
    if not isinstance(arrays, (tuple, list)):
        raise TypeError('arrays must be a tuple or list of arrays, '
                        f'got {type(arrays).__name__}; for one array write (array,)')
    if not arrays:
        raise ValueError('arrays must hold at least one array, got none')
    checked = [_checked_array(array, number) for number, array in enumerate(arrays)]
    lengths = [len(array) for array in checked]
    if len(set(lengths)) > 1:
        raise ValueError(f'arrays must be equally long, got the lengths {lengths}')
    if lengths[0] == 0:
        raise ValueError('arrays must have at least one example, got none')
    return checked


def _checked_array(array, number):
    if isinstance(array, mx.nd.NDArray):
        if array.stype != 'default':
            raise TypeError(f'arrays[{number}] must be dense, got storage type {array.stype!r}')
    elif isinstance(array, mx.gluon.data.Dataset):
        raise TypeError(f'arrays[{number}] must be an array, got {type(array).__name__}; '
                        'gluon.data.DataLoader takes data sets')
    else:
        array = onp.asarray(array)
        if array.dtype.name not in _DTYPES:
            raise TypeError(f'arrays[{number}] must have one of the dtypes {", ".join(_DTYPES)}, '
                            f'got {array.dtype}')
    if array.ndim == 0:
        raise ValueError(f'arrays[{number}] must have at least one axis, got a scalar')
    return array


def _row_bytes(array):
    return array.size // max(1, len(array)) * onp.dtype(array.dtype).itemsize


def _random_order(length):
    seeds = mx.nd.random.randint(0, 2 ** 31 - 1, shape=(4,), ctx=mx.cpu()).asnumpy()
    # RandomState, not the newer Generator: its numbers are the same in every numpy.
    return onp.random.RandomState([int(seed) for seed in seeds]).permutation(length)


def _gather(array, rows):
    """The rows, a slice or an array of indices, in memory of their own."""
    if not isinstance(array, mx.nd.NDArray):
        return array[rows]
    if isinstance(rows, slice):
        return array[rows].copy()
    if isinstance(array, np.ndarray):
        return np.take(array, np.array(rows, dtype='int64', ctx=array.ctx), axis=0)
    return mx.nd.take(array, mx.nd.array(rows, dtype='int64', ctx=array.context), axis=0)


def _to_mxnet(array):
    if isinstance(array, mx.nd.NDArray):
        return array
    make = np.array if is_np_array() else mx.nd.array
    return make(array, dtype=array.dtype)
