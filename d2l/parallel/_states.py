"""An optimizer's states as bytes: a NumPy archive with a description in JSON, no pickle."""
import functools
import io
import json
import zipfile

import mxnet as mx
import numpy
from mxnet import autograd
from mxnet.ndarray import NDArray

_FORMAT = 'd2l.Trainer 1'
# Not the optimizer's own: they follow from the call, the process or the build.
_NOT_SAVED = ('rescale_grad', 'aggregate_num', 'allow_np_array')


def facts_of(optimizer, counts, params):
    """Return the facts about states: whose they are, and what the optimizer has in attributes.

    counts maps indices of parameters to their numbers of updates.
    """
    return {'optimizer': type(optimizer).__name__, 'values': plain_values(optimizer),
            'schedule': plain_values(optimizer.lr_scheduler), 'counts': sorted(counts.items()),
            'shapes': [list(param.shape or ()) for param in params]}


def check_facts(facts, optimizer, params):
    """Raise ValueError for the facts about states of another optimizer or other parameters."""
    name = type(optimizer).__name__
    if facts['optimizer'] != name:
        raise ValueError(f'Trainer: the states must be those of the optimizer {name}, got '
                         f'{facts["optimizer"]}')
    shapes = [list(param.shape or ()) for param in params]
    for param, ours, saved in zip(params, shapes, facts['shapes']):
        if param._data is not None and ours != saved:
            raise ValueError(f'Trainer: the state of {param.name} must have its shape, {ours}, '
                             f'got {saved}')
    if len(shapes) != len(facts['shapes']):
        raise ValueError(f'Trainer: the states must be those of {len(shapes)} parameters, got '
                         f'{len(facts["shapes"])}')


def capture(facts, states):
    """Return a function that makes bytes of facts and of states as they are at this moment.

    facts is a dict of what JSON has, states maps indices to states: an array, a plain value, or a
    tuple or list of states.  The arrays are copied by MXNet's engine, which lets nobody write to
    them before; the function, which any thread may call, waits for that.
    """
    arrays = []

    def describe(state):
        if isinstance(state, NDArray):
            arrays.append(state.copyto(mx.cpu()))
            return {'array': len(arrays) - 1, 'stype': state.stype}
        if isinstance(state, (tuple, list)):
            return {type(state).__name__: [describe(item) for item in state]}
        if state is None or isinstance(state, (bool, int, float, str)):
            return {'value': state}
        raise TypeError(f'Trainer: states can be saved of arrays and plain values, got a '
                        f'{type(state).__name__}')

    with autograd.pause():
        description = [[index, describe(state)] for index, state in states.items()]
    text = json.dumps(dict(facts, format=_FORMAT, states=description))
    return functools.partial(_pack, text, arrays)


def _pack(text, arrays):
    file = io.BytesIO()
    numpy.savez(file, description=numpy.frombuffer(text.encode(), 'uint8'),
                **{f'array{i}': array.asnumpy() for i, array in enumerate(arrays)})
    return file.getvalue()


def unpack(data):
    """Return (facts, states) of what `capture` returned made; the arrays are NumPy's.

    Raises ValueError for other bytes, and damaged ones.
    """
    try:
        with numpy.load(io.BytesIO(data), allow_pickle=False) as archive:
            facts = json.loads(archive['description'].tobytes().decode())
            if facts.pop('format') != _FORMAT:
                raise ValueError('another format')
            states = {index: _restored(archive, state) for index, state in facts.pop('states')}
    except (ValueError, KeyError, OSError, AttributeError, TypeError, EOFError,
            zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise ValueError('Trainer: these are no states that d2l.Trainer has saved, or they are '
                         f'damaged: {error}') from error
    return facts, states


class _Array:
    """An array that was saved, and its storage type."""

    def __init__(self, value, stype):
        self.value, self.stype = value, stype


def _restored(archive, state):
    (kind, content), *rest = state.items()
    if kind == 'array':
        return _Array(archive[f'array{content}'], rest[0][1])
    if kind in ('tuple', 'list'):
        return (tuple if kind == 'tuple' else list)(_restored(archive, item) for item in content)
    return content


def on_device(state, device):
    """A state that `unpack` returned, with its arrays on a device, as updaters have them."""
    if isinstance(state, _Array):
        array = mx.nd.empty(state.value.shape, ctx=device, dtype=state.value.dtype)
        array._sync_copyfrom(numpy.ascontiguousarray(state.value).reshape(state.value.shape))
        return array if state.stype == 'default' else array.tostype(state.stype)
    if isinstance(state, (tuple, list)):
        return type(state)(on_device(item, device) for item in state)
    return state


def arrays_of(state):
    """The arrays of a state, which is None, an array or a nested tuple, in order."""
    if isinstance(state, NDArray):
        return [state]
    if isinstance(state, (list, tuple)):
        return [array for item in state for array in arrays_of(item)]
    return []


def plain_values(thing):
    """The attributes of an optimizer or a scheduler that are numbers, words, True, False, None."""
    values = {}
    for name, value in vars(thing).items() if thing is not None else ():
        if isinstance(value, numpy.generic):
            value = value.item()
        if name not in _NOT_SAVED and (value is None
                                       or isinstance(value, (bool, int, float, str))):
            values[name] = value
    return values


def set_plain_values(thing, values):
    """Set what `plain_values` returned, as far as thing has it."""
    for name, value in values.items():
        if thing is not None and name in vars(thing) and name not in _NOT_SAVED:
            setattr(thing, name, value)
