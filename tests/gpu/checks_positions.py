"""The check of positional_encoding, as those in checks.py."""
import numpy as np
from checks import TOLERANCES, assert_close
from driver import Call


def check_positional_encoding(library, backend, target, shape, dtype='float32', past=None,
                              num_hiddens=40, data_dtype='int32'):
    """shape: of the data; past: of what came before it, or None."""
    data = np.ones(shape, data_dtype)
    before = None if past is None else np.ones(past, 'float16')
    attrs = {'num_hiddens': num_hiddens, 'dtype': dtype}
    call = Call(library, backend, 'positional_encoding', [data, before], attrs, target)
    steps, first = shape[1], 0 if past is None else past[1]
    dy = np.ones((1, steps, num_hiddens), dtype)
    got = call.forward(), call.backward([dy])
    pairs = np.arange(0, num_hiddens, 2)
    angles = (first + np.arange(steps))[:, None] / 10000.0 ** (pairs / num_hiddens)
    y = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(steps, 2 * len(pairs))
    # An angle is as exact as float64 can hold it, and its sine no more.
    tolerance = max(TOLERANCES[dtype], 1e-15 * (first + steps))
    assert_close('y', got[0][0], y[None, :, :num_hiddens], tolerance, 1)
    assert not any(a.any() for a in got[1] if a is not None), 'a gradient is not 0'
    assert [a is None for a in got[1]] == [False, past is None]
    return got
