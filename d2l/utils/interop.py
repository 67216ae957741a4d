"""Let NumPy, and with it matplotlib, take MXNet arrays.

MXNet 1.9 arrays say nothing to NumPy about how to convert them: ``numpy.array(x)`` walks over
the elements one by one and ends with an array of objects, or fails when ``npx.set_np()`` was
not called, and NumPy functions refuse MXNet and NumPy arrays side by side.  Importing this
module adds what is missing to MXNet's two array classes, once:

* ``__array__`` and ``to_numpy``: a whole array becomes a NumPy array in one copy.
  ``__float__`` for legacy arrays of one element; mxnet.np has it already.
* a last resort behind MXNet's own dispatch of NumPy functions and ufuncs.  MXNet is always
  asked first, and whatever it can do it still does, with MXNet arrays as the result.  Only a
  call that it refuses is computed by NumPy on copies, and the result is then a NumPy array.

Gradients do not pass through NumPy.  Inside ``autograd.record()`` the last resort therefore
does nothing: calls that MXNet refuses stay errors.  An explicit conversion such as
``numpy.asarray(x)`` works there like ``x.asnumpy()``: its result is a constant.
"""
import functools

import numpy
from mxnet import autograd, np
from mxnet.ndarray import NDArray

_MARK = '_d2l_interop'


def to_numpy(value):
    """Return ``value`` with MXNet arrays replaced by NumPy copies.

    Lists and tuples are searched, dictionaries too; everything else is returned as it is.
    """
    if isinstance(value, NDArray):
        return value.asnumpy()
    if isinstance(value, tuple) and hasattr(value, '_fields'):
        return type(value)(*(to_numpy(item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(to_numpy(item) for item in value)
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    return value


def install():
    """Add the conversions to MXNet's array classes.  A second call does nothing."""
    if getattr(NDArray, _MARK, False):
        return
    NDArray.__array__ = _array
    NDArray.to_numpy = _to_numpy_method
    NDArray.__iter__ = _iter
    if not hasattr(NDArray, '__float__'):
        NDArray.__float__ = _float
    np.ndarray.__array_function__ = _with_numpy_function(np.ndarray.__array_function__)
    np.ndarray.__array_ufunc__ = _with_numpy_ufunc(np.ndarray.__array_ufunc__)
    setattr(NDArray, _MARK, True)


def _array(self, dtype=None, copy=None):
    """Convert to a NumPy array; ``copy`` is NumPy 2's argument."""
    # NumPy 2 passes copy=False for "no copy or an error".  The values may be on a GPU or still
    # be computed, so there is no memory that could be shared.
    if copy is False:
        raise ValueError('an MXNet array cannot become a NumPy array without a copy; '
                         'use copy=None')
    values = self.asnumpy()
    return values if dtype is None else values.astype(dtype, copy=False)


def _to_numpy_method(self):
    """Return the values as a NumPy array; the name that matplotlib looks for first."""
    return self.asnumpy()


def _iter(self):
    """Iterate over the first axis; an array without axes refuses at once.

    MXNet refuses only at the first element, so that numpy.iterable and with it matplotlib take
    a number for a sequence.
    """
    if not self.shape:
        raise TypeError('iteration over a 0-d array')
    return (self[i] for i in range(len(self)))


def _float(self):
    """Convert an array of one element to a Python number."""
    return float(self.asscalar())


def _with_numpy_function(dispatch):
    """Return ``__array_function__`` that asks ``dispatch`` first and NumPy last."""
    @functools.wraps(dispatch)
    def array_function(self, func, types, args, kwargs):
        try:
            result = dispatch(self, func, types, args, kwargs)
            if result is not NotImplemented:
                return result
        except (TypeError, ValueError):
            # ValueError too: MXNet raises it when its arrays are among the keywords only.
            if autograd.is_recording():
                raise
        _refuse(func.__name__, kwargs.get('out'))
        return func(*to_numpy(args), **to_numpy(kwargs))
    return array_function


def _with_numpy_ufunc(dispatch):
    """Return ``__array_ufunc__`` that asks ``dispatch`` first and NumPy last."""
    @functools.wraps(dispatch)
    def array_ufunc(self, ufunc, method, *inputs, **kwargs):
        try:
            result = dispatch(self, ufunc, method, *inputs, **kwargs)
            if result is not NotImplemented:
                return result
        except (AssertionError, AttributeError, TypeError, ValueError):
            # A refusal of MXNet's arrays alone is MXNet's answer; NumPy steps in only where
            # NumPy arrays, or lists, which only NumPy takes for arrays, are involved as well.
            operands = (*inputs, *kwargs.get('out', ()), kwargs.get('where'))
            if autograd.is_recording() or not any(isinstance(a, (numpy.ndarray, list, tuple))
                                                  for a in operands):
                raise
        _refuse(ufunc.__name__, kwargs.get('out'))
        return getattr(ufunc, method)(*to_numpy(inputs), **to_numpy(kwargs))
    return array_ufunc


def _refuse(name, out):
    """Raise TypeError where an answer from NumPy would silently be a wrong one."""
    if autograd.is_recording():
        raise TypeError(f'numpy.{name} on these arrays needs NumPy itself, and gradients do not '
                        'pass through NumPy: use the function of mxnet.np, or call it outside of '
                        'autograd.record()')
    outs = out if isinstance(out, tuple) else (out,)
    if any(isinstance(item, NDArray) for item in outs):
        raise TypeError(f'numpy.{name}: out must be a NumPy array where MXNet cannot compute the '
                        'result, got an MXNet array')


install()
