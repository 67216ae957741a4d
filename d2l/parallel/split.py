"""Splitting a batch over devices."""
from mxnet import np
from mxnet.context import Context
from mxnet.ndarray import NDArray


def split_batch(X, y, devices):
    """Split a batch over devices: return (list of shards of X, list of shards of y) (section 12.5).

    X and y are arrays with the examples along their first axis; devices is a list, or one device.
    Shard i lies on devices[i].  The lengths of the shards differ by at most one, the longer ones
    come first.  A batch with fewer examples than there are devices gives one shard for each
    example, so that no shard is empty and the last devices have none: loop over
    zip(X_shards, y_shards, devices).

    A shard that stays on its device shares the memory of the batch.

    Raises ValueError when X and y are not equally long or have no examples, and without devices.
    """
    X, y = _as_array('split_batch', 'X', X), _as_array('split_batch', 'y', y)
    ranges = _ranges('split_batch', [X], y, devices)
    return _shards(X, ranges), _shards(y, ranges)


def split_batch_multi_inputs(X, y, devices):
    """Split a batch of several inputs over devices (section 15.5).

    X is a list or tuple of arrays.  Returns (list of tuples with a shard of each, list of shards
    of y), split as in `split_batch`, with its errors.
    """
    name = 'split_batch_multi_inputs'
    if not isinstance(X, (list, tuple)):
        raise ValueError(f'{name}: X must be a list or tuple of arrays, got {type(X).__name__}')
    if not X:
        raise ValueError(f'{name}: X must hold at least one array, got none')
    X = [_as_array(name, f'X[{i}]', array) for i, array in enumerate(X)]
    y = _as_array(name, 'y', y)
    ranges = _ranges(name, X, y, devices)
    return list(zip(*[_shards(array, ranges) for array in X])), _shards(y, ranges)


def _as_array(name, argument, value):
    if not isinstance(value, NDArray):
        value = np.array(value, dtype=getattr(value, 'dtype', None))
    if value.ndim == 0:
        raise ValueError(f'{name}: {argument} must have the examples along its first axis, got a '
                         'scalar')
    return value


def _ranges(name, arrays, y, devices):
    """Return (begin, end, device) of each shard."""
    lengths = [array.shape[0] for array in arrays]
    length = y.shape[0]
    if any(other != length for other in lengths):
        found = lengths[0] if len(lengths) == 1 else lengths
        raise ValueError(f'{name}: X and y must be equally long, got {found} and {length} examples')
    if length == 0:
        raise ValueError(f'{name}: X and y must have at least one example, got none')
    devices = [devices] if isinstance(devices, Context) else list(devices)
    if not devices:
        raise ValueError(f'{name}: devices must hold at least one device, got none')
    count = min(len(devices), length)
    share, rest = divmod(length, count)
    ends = [share * (i + 1) + min(i + 1, rest) for i in range(count)]
    return list(zip([0] + ends, ends, devices))


def _shards(array, ranges):
    # Called as a function since the classic arrays of mx.nd know it by an older name only.
    move = np.ndarray.as_in_ctx
    if len(ranges) == 1:
        return [move(array, ranges[0][2])]
    return [move(array[begin:end], device) for begin, end, device in ranges]
