"""What a checkpoint holds of a run: parameters, states of trainers, random numbers.

The functions capture_* turn it into arrays, bytes and what JSON can say, check_parameters
compares, and those named apply_* put it back.
"""
import hashlib
import os
import random
import struct
import tempfile

import mxnet as mx
import numpy
from mxnet import autograd, gluon
from mxnet.util import is_np_array


def parameters_of(net):
    """Return name -> Parameter, each parameter once.

    net is a Block, something with the items of a dict of parameters, a list of them, or a dict
    from names to Blocks.  The names are those of ``save_parameters``, where there is a Block.
    """
    if net is None:
        return {}
    if isinstance(net, gluon.Block):
        found = net._collect_params_with_prefix()
    elif isinstance(net, (list, tuple)):
        found = {param.name: param for param in net}
    else:
        found = {}
        for name, value in net.items():
            if isinstance(value, gluon.Block):
                inner = parameters_of(value)
                found.update({'{}/{}'.format(name, key): inner[key] for key in inner})
            else:
                found[name] = value
    once, seen = {}, set()
    for name, param in found.items():
        if not isinstance(param, gluon.Parameter):
            raise TypeError('Checkpoint: net must hold Blocks or Parameters, {} is a {}'.format(
                name, type(param).__name__))
        if id(param) not in seen:
            seen.add(id(param))
            once[name] = param
    return once


def capture_parameters(net):
    """Return member name -> copy on the host, which MXNet may still be making.

    The replicas of what can be trained are equal, so that one is taken.  What a layer gathers by
    itself, such as the running mean of BatchNorm, differs from device to device, and all are.
    """
    members = {}
    with autograd.pause():
        for name, param in parameters_of(net).items():
            arrays = param.list_data()
            for i, array in enumerate(arrays[:1] if param._differentiable else arrays):
                # The engine lets nobody write to the parameter before the copy is made.
                members[_parameter_member(name, i)] = array.copyto(mx.cpu())
    return members


def _parameter_member(name, device):
    return 'net/{}.npy'.format(name) if device == 0 else 'net@{}/{}.npy'.format(device, name)


def check_parameters(net, members):
    """Return [(parameter, saved array for each of its devices)]; raise where they do not fit."""
    params = parameters_of(net)
    saved = {name[len('net/'):-len('.npy')] for name in members if name.startswith('net/')}
    if set(params) != saved:
        raise ValueError(
            'Checkpoint: net and the checkpoint must have the same parameters; net lacks {}, the '
            'checkpoint {}'.format(*(', '.join(sorted(names)) or 'none' for names in (
                saved - set(params), set(params) - saved))))
    pairs = []
    for name, param in params.items():
        values = [members[_parameter_member(name, 0)]]
        while _parameter_member(name, len(values)) in members:
            values.append(members[_parameter_member(name, len(values))])
        if not (param._data or param._deferred_init):
            raise RuntimeError('Checkpoint: net must be initialized, {} is not'.format(name))
        known = param.shape is not None and numpy.prod(param.shape) > 0
        shape, dtype = values[0].shape, values[0].dtype
        if numpy.dtype(param.dtype) != dtype or (known and tuple(param.shape) != shape):
            raise ValueError('Checkpoint: {} must have the shape and dtype of the checkpoint, {} '
                             '{}, got {} {}'.format(name, shape, dtype, param.shape,
                                                    numpy.dtype(param.dtype)))
        pairs.append((param, _for_devices(values, len(param.list_ctx()))))
    return pairs


def _for_devices(values, count):
    """Give every device its own value back, or where their number is another one, the mean."""
    if len(values) in (1, count):
        return values
    return [numpy.mean(values, axis=0, dtype='float64').astype(values[0].dtype)]


def apply_parameters(pairs):
    """Give parameters the values that `check_parameters` returned, that of the first device."""
    make = mx.np.array if is_np_array() else mx.nd.array
    with autograd.pause():
        for param, values in pairs:
            # Also tells a trainer whose store has weights of its own.
            param.set_data(make(values[0], dtype=values[0].dtype))
            if param._deferred_init:
                param._finish_deferred_init()


def apply_replicas(pairs):
    """Give devices the values of their own; after the trainers, which send the first one's."""
    make = mx.np.array if is_np_array() else mx.nd.array
    with autograd.pause():
        for param, values in pairs:
            for array, value in zip(param.list_data()[1:], values[1:]):
                array[:] = make(value, dtype=value.dtype)


def named(trainer):
    """Return name -> trainer; a single one has the name 'trainer'."""
    if trainer is None:
        return {}
    return dict(trainer) if isinstance(trainer, dict) else {'trainer': trainer}


def capture_trainer(trainer):
    """Return the states of a trainer's optimizer, learning rate and schedule included.

    They are bytes, or a function that makes the bytes of this moment later, in any thread.
    """
    if hasattr(trainer, 'capture_states'):
        return trainer.capture_states()
    if hasattr(trainer, 'get_states'):
        return trainer.get_states()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'states')
        trainer.save_states(path)
        with open(path, 'rb') as file:
            return file.read()


def apply_trainer(trainer, data):
    """Give a trainer the bytes of `capture_trainer`."""
    if hasattr(trainer, 'set_states'):
        trainer.set_states(data)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'states')
        with open(path, 'wb') as file:
            file.write(data)
        trainer.load_states(path)
    _count_for_all_devices(trainer)


def _count_for_all_devices(trainer):
    """Let a gluon.Trainer count on from the same number of steps on each device.

    Those that the saved run did not have would begin at 0, Adam would correct their bias anew,
    and the replicas would drift apart.
    """
    all_counts = trainer.optimizer._all_index_update_counts
    counts = max(all_counts.values(), key=lambda of_device: sum(of_device.values()))
    for param in trainer._params:
        for device in param.list_ctx():
            all_counts[device.device_id] = dict(counts)
    # One of these dicts, as the optimizer expects; it takes that of a device at each update.
    trainer.optimizer._set_current_context(param.list_ctx()[0].device_id)


def seed_all(seed, step, rank):
    """Seed the generators of MXNet, NumPy and Python from three integers."""
    digest = hashlib.sha256('{}/{}/{}'.format(seed, step, rank).encode()).digest()
    first, second, third = struct.unpack('<3I', digest[:12])
    mx.random.seed(first >> 1)
    numpy.random.seed(second)
    random.seed(third)


def capture_random():
    """Return the states of Python's and NumPy's global generators, as JSON can say them."""
    name, keys, *rest = numpy.random.get_state()
    return {'python': random.getstate(), 'numpy': [name, keys.tolist(), *rest]}


def apply_random(saved):
    """Put back what `capture_random` returned."""
    version, keys, gauss = saved['python']
    random.setstate((version, tuple(keys), gauss))
    numpy.random.set_state(tuple(saved['numpy']))
