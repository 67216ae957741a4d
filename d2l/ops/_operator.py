"""Turns a composed definition into an operator that runs as a kernel where it can.

An operator is written as a function of ``F`` (``mxnet.ndarray`` or ``mxnet.symbol``), its arrays
and its attributes; the body composes it from MXNet's own operators::

    @operator('data', 'gamma', 'beta')
    def layer_norm(F, data, gamma, beta, eps=1e-5):
        ...

The public function takes no ``F``.  It calls the kernel of the same name when the library is
loaded and has one for the device, and the body otherwise.  An array may default to None; a call
without it runs the body, unless the kernel does without it, too.
"""
import functools
import inspect

import mxnet as mx
from mxnet import autograd
from mxnet.ndarray._internal import NDArrayBase, _imperative_invoke
from mxnet.ndarray.sparse import BaseSparseNDArray
from mxnet.symbol._internal import SymbolBase, _symbol_creator

from d2l.ops import _grad_req, _library, _native

_NumpyArray = mx.np.ndarray
_NumpySymbol = mx.sym.np._Symbol
_grad_req.install()
_HAS_GPU = mx.runtime.Features().is_enabled('CUDA')  # else no array needs to be asked
# A build for CUDA has cuDNN and cuBLAS, which our twins of these do not beat; a graph does not know
# on which device it will run.
_LEFT_TO_CUDA = {'batch_dot', 'conv2d', 'dense', 'multi_dense'}


def operator(*inputs, results=None, **ndim):
    """Decorator: the named arguments are arrays, the ones after them attributes with defaults.

    ndim gives the number of axes of those inputs for which it is fixed, such as ``gamma=1``.  An
    operator with several results says how many, as a function of its arrays; it returns a list.
    """
    def decorate(body):
        return _build(body, inputs, ndim, results)
    return decorate


def _build(body, inputs, ndim, results):
    name = body.__name__
    parameters = list(inspect.signature(body).parameters.values())[1:]
    signature = inspect.Signature(parameters)
    defaults = {p.name: p.default for p in parameters[len(inputs):]}
    optional = {p.name for p in parameters[:len(inputs)] if p.default is None}
    if tuple(p.name for p in parameters[:len(inputs)]) != inputs:
        raise TypeError('{}: the first arguments must be F, {}'.format(name, ', '.join(inputs)))

    def call(*args, **kwargs):
        if len(args) != len(inputs) or not defaults.keys() >= kwargs.keys():
            values = _bind(name, signature, args, kwargs)
            args, kwargs = values[:len(inputs)], dict(zip(defaults, values[len(inputs):]))
        attrs = {**defaults, **kwargs}
        complete = _check_types(name, inputs, optional, args)
        lib = None if _HAS_GPU and name in _LEFT_TO_CUDA else _library.library()
        if lib is not None and not complete:
            if any(value is None for value in args[:lib.required.get(name)]):
                lib = None
        if isinstance(args[0], SymbolBase):
            if lib is None:
                return _compose(body, args, attrs, mx.sym, _NumpySymbol)
            for argument, axes in ndim.items():
                _hint_ndim(args[inputs.index(argument)], axes)
            outputs = _symbol(lib.handle(name), name, *_present(args, attrs, complete))
        elif lib is None or (_HAS_GPU and not lib.runs_on(args[0].context.device_type)):
            return _compose(body, args, attrs, mx.nd, _NumpyArray)
        else:
            outputs = _invoke(lib.handle(name), *_present(args, attrs, complete))
        # Those after the results are saved for backward.
        return outputs[0] if results is None else [outputs[i] for i in range(results(*args))]

    functools.update_wrapper(call, body)
    del call.__wrapped__  # its signature has F
    call.__signature__ = signature
    call.body, call.kernel, call.inputs, call.defaults = body, name, inputs, defaults
    return call


def _bind(name, signature, args, kwargs):
    """The values of all parameters, in order."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError('{}: {}'.format(name, error)) from None
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def _check_types(name, inputs, optional, args):
    """Refuse what is neither array nor symbol; False if an optional array is missing."""
    kind = SymbolBase if isinstance(args[0], SymbolBase) else NDArrayBase
    complete = True
    for argument, value in zip(inputs, args):
        if isinstance(value, kind) and not isinstance(value, BaseSparseNDArray):
            continue
        if value is not None or argument not in optional:
            wanted = 'a symbol, as the first argument is' if kind is SymbolBase \
                else 'a dense array' if isinstance(value, BaseSparseNDArray) \
                else 'an MXNet array or symbol'
            raise TypeError('{}: {} must be {}, got {}'.format(
                name, argument, wanted, type(value).__name__))
        complete = False
    return complete


def _present(args, attrs, complete):
    """Arrays and attributes as the kernel takes them: without those that are None."""
    if complete:
        return args, attrs
    return [a for a in args if a is not None], {**attrs, **_native.given(args)}


def _invoke(handle, args, attrs):
    if autograd.is_recording():
        args = [_grad_req.gate(a) for a in args]
    return _imperative_invoke(handle, args, attrs.keys(), attrs.values(), None,
                              isinstance(args[0], _NumpyArray), True)


def _symbol(handle, name, args, attrs):
    return _symbol_creator(handle, args, None, attrs.keys(), attrs.values(), _node_name(name),
                           isinstance(args[0], _NumpySymbol), True)


def _node_name(name):
    current = mx.name.NameManager._current  # of this thread; the public name is deprecated
    if not hasattr(current, 'value'):
        current.value = mx.name.NameManager()
    return current.value.get(None, name)


def _hint_ndim(symbol, ndim):
    """Give a variable of unknown shape its number of axes.

    MXNet 1.9.1 sizes a buffer by the axes of an extension operator's inputs, an unknown shape
    counting as minus one, and writes past its end.
    """
    if symbol is not None and symbol.get_children() is None and symbol.attr('__shape__') is None:
        unknown = -1 if isinstance(symbol, _NumpySymbol) else 0
        symbol._set_attr(__shape__=str((unknown,) * ndim))


def _compose(body, args, attrs, F, numpy_type):
    if isinstance(args[0], numpy_type):
        return body(F, *args, **attrs)
    # Legacy arrays and symbols: the same body, in a NumPy scope.
    with mx.util.np_shape(True), mx.util.np_array(True):
        converted = [a if a is None else a.as_np_ndarray() for a in args]
        outputs = body(F, *converted, **attrs)
        if isinstance(outputs, list):
            return [output.as_nd_ndarray() for output in outputs]
        return outputs.as_nd_ndarray()
