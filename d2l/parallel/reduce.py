"""Adding up arrays that lie on several devices: three ways to the same sum (section 12.7).

All change the arrays in place, so that each holds the sum.  Replicas are bit-identical after each
of them.  Floating-point sums depend on their order, which is fixed, but differs from function to
function: with two arrays, and with integers, all three give the same bits.  With three, ring
differs from the others; with more all differ, by rounding.

Nothing waits: MXNet does each piece as soon as what it needs is there.  A training takes these
sums from a key-value store, which does the same in C++; these are to read and to measure.
"""
import numpy
from mxnet import autograd, np
from mxnet.ndarray import NDArray


def allreduce(data):
    """Replace every array of a list by the sum of all (section 12.5).

    The first device adds up ``data[0] + data[1] + ...`` and sends the sum to the others: it
    handles n - 1 arrays in each direction, one after the other.

    data is a list of dense MXNet arrays of equal shape and dtype, each on its own device or not.
    Raises ValueError for a list that is empty or holds arrays which differ.
    """
    _check('allreduce', data)
    with autograd.pause():
        for other in data[1:]:
            _add(data[0], other)
        for other in data[1:]:
            data[0].copyto(other)


def broadcast(data):
    """Copy the first array of a list to all others, in place; arguments as for `allreduce`."""
    _check('broadcast', data)
    with autograd.pause():
        for other in data[1:]:
            data[0].copyto(other)


def tree_allreduce(data):
    """Like `allreduce`, in pairs: ``(data[0] + data[1]) + (data[2] + data[3])`` and so on.

    Neighbours add up at the same time, then neighbours of these, so that the sum is there after
    log2(n) rounds instead of n - 1; it comes back the same way.
    """
    _check('tree_allreduce', data)
    distances = []
    while 2 ** len(distances) < len(data):
        distances.append(2 ** len(distances))
    with autograd.pause():
        for distance in distances:
            for left, right in _pairs(data, distance):
                _add(left, right)
        for distance in reversed(distances):
            for left, right in _pairs(data, distance):
                left.copyto(right)


def ring_allreduce(data):
    """Like `allreduce`, in a ring: each device sends only to the next one.

    The arrays are cut into n pieces.  In n - 1 rounds each device passes a piece on, to which the
    next one adds its own; then each piece is complete on one device.  In another n - 1 rounds the
    complete pieces go around.  In all 2 (n - 1) / n of an array leaves each device, however many
    there are, and all of them send at the same time.
    """
    _check('ring_allreduce', data)
    n = len(data)
    with autograd.pause():
        # Arrays of their own: MXNet does not work on two parts of one array at the same time.
        pieces = [[part.copy() for part in _parts(array, n)] for array in data]
        for step in range(n - 1):
            for sender in range(n):
                _send(pieces, sender, (sender - step) % n, _add)
        for step in range(n - 1):
            for sender in range(n):
                _send(pieces, sender, (sender + 1 - step) % n, _replace)
        for array, of_array in zip(data, pieces):
            for part, piece in zip(_parts(array, n), of_array):
                piece.copyto(part)


def _send(pieces, sender, i, receive):
    """Hand piece i of a device to the next one, if there is a piece i."""
    if i < len(pieces[sender]):
        receive(pieces[(sender + 1) % len(pieces)][i], pieces[sender][i])


def _pairs(data, distance):
    """Return the arrays i and i + distance for i = 0, 2 distance, 4 distance, ..."""
    return [(data[i], data[i + distance])
            for i in range(0, len(data) - distance, 2 * distance)]


def _parts(array, n):
    """Return a flat array in n parts, or as many as it has elements; they share its memory."""
    # Of the classic arrays alone reshape returns the same memory.
    flat, n = array.as_nd_ndarray().reshape((-1,)), min(n, array.size)
    ends = [array.size * i // n for i in range(n + 1)] if n else []
    return [flat[begin:end] for begin, end in zip(ends, ends[1:])]


def _add(array, other):
    # Called as a function since the classic arrays of mx.nd know it by an older name only.
    array += np.ndarray.as_in_ctx(other, array.ctx)


def _replace(array, other):
    other.copyto(array)


def _check(name, data):
    if not isinstance(data, (list, tuple)) or not data:
        raise ValueError('{}: data must be a list of at least one array, got {!r}'.format(
            name, data if isinstance(data, (list, tuple)) else type(data).__name__))
    for i, array in enumerate(data):
        if not isinstance(array, NDArray) or array.stype != 'default':
            raise ValueError('{}: data[{}] must be a dense MXNet array, got {}'.format(
                name, i, type(array).__name__))
        if array.shape != data[0].shape or array.dtype != data[0].dtype:
            raise ValueError('{}: data[{}] must have the shape and dtype of data[0], {} {}, got {} '
                             '{}'.format(name, i, data[0].shape, numpy.dtype(data[0].dtype),
                                         array.shape, numpy.dtype(array.dtype)))
