"""Stores: what carries gradients between the devices and the processes of a job.

``create(name)`` makes one.  All are key-value stores of MXNet, so gluon.Trainer takes them, too.
"""
import importlib

import mxnet as mx
from mxnet.kvstore import KVStoreBase

# name -> 'module:class', imported when it is asked for; the first two are MXNet's own.
STORES = {
    'local': None,
    'device': None,
    'dist_sync': 'd2l.parallel.stores.parameter_server:DistSync',
    'dist_async': 'd2l.parallel.stores.parameter_server:DistAsync',
    'ring': 'd2l.parallel.stores.ring:Ring',
    'horovod': 'd2l.parallel.stores.horovod:Horovod'}


class Store(KVStoreBase):
    """Base of the stores that connect processes.

    Keys are int or str.  All workers make the same calls in the same order.
    """

    def broadcast(self, key, value, out, priority=0):
        """Copy rank 0's value, an array (or a list of equal ones), into all arrays of out.

        It comes once for each key, before its first pushpull, and returns when out is written.
        """
        raise NotImplementedError

    def pushpull(self, key, value, out=None, priority=0):
        """Write the sum of value, an array or a list, over all workers into out, or into value."""
        raise NotImplementedError

    def pushpull_all(self, keys, values, outs=None):
        """`pushpull` for lists of keys, values and outs; the first keys are the most urgent."""
        for i, key in enumerate(keys):
            self.pushpull(key, values[i], None if outs is None else outs[i], priority=-i)

    def sum(self, numbers):
        """Return the sums of a few numbers over all workers: a list, or vector, to one of float64.

        It waits for all workers, and compresses nothing.
        """
        raise NotImplementedError

    def set_gradient_compression(self, compression_params):
        """Compress gradients on their way from now on.  Raises ValueError where that cannot be."""
        raise ValueError(f'store {self.type}: gradients cannot be compressed, got '
                         f'{compression_params}')

    def barrier(self):
        """Wait for all workers."""
        raise NotImplementedError

    def close(self):
        """Leave the job in good order; a second call does nothing.  It also happens at exit."""
        raise NotImplementedError

    @staticmethod
    def is_capable(capability):
        """Whether the store can update weights by an optimizer (capability 'optimizer'): no."""
        if capability.lower() != KVStoreBase.OPTIMIZER:
            raise ValueError(f'store: capability must be optimizer, got {capability!r}')
        return False


def create(name, compression_params=None, **options):
    """Return a new store.

    Parameters
    ----------
    name : str
        'local' or 'device': between the devices of this process, summed on the CPU or the devices.
        'dist_sync' or 'dist_async': between processes, by MXNet's parameter server.
        'ring' or 'horovod': between processes, without servers.
    compression_params : dict, optional
        {'type': '2bit', 'threshold': 0.5} for device and dist_sync, {'type': 'fp16'} for dist_sync
        and ring.
    options
        What else the store takes; see its class.

    Raises
    ------
    ValueError
        For another name (MXNet would quietly make a local store of it) and for a compression that
        the store cannot do.
    TypeError
        For options that the store does not have.
    RuntimeError
        Where the process has not been started as a part of a job, or belongs to one of another
        store.
    """
    if not isinstance(name, str) or name not in STORES:
        raise ValueError(f'store: name must be one of {", ".join(STORES)}, got {name!r}')
    if STORES[name] is None:
        if options:
            raise TypeError(f'store {name}: it has no options, got {", ".join(options)}')
        if compression_params:
            _check_compression_of_mxnet(name, compression_params)
        store = mx.kv.create(name)
    else:
        module, _, attribute = STORES[name].partition(':')
        store = getattr(importlib.import_module(module), attribute)(**options)
    if compression_params:
        store.set_gradient_compression(compression_params)
    return store


def _check_compression_of_mxnet(name, params):
    if name != 'device':
        raise ValueError(f'store {name}: gradients cannot be compressed, got {params}')
    check_two_bits(name, params)


def check_two_bits(name, params):
    """Raise ValueError unless params is what MXNet knows of 2bit compression."""
    if params.get('type') != '2bit' or set(params) - {'type', 'threshold'}:
        raise ValueError(f"store {name}: compression must be {{'type': '2bit', 'threshold': "
                         f'a number}}, got {params}')
    if not float(params.get('threshold', 0.5)) > 0:
        raise ValueError(f'store {name}: the threshold must be positive, got {params["threshold"]}')
