"""The stores 'dist_sync' and 'dist_async': MXNet's parameter server, ps-lite.

The processes of the job are workers, which run the script, one scheduler and one server or more,
which run `d2l.parallel.server`.  What the engine leaves to its users is done here:

* a process connects once, and all stores of the process share the connection, with keys of their
  own; so several trainers work side by side;
* broadcast returns when all workers have the value, and the value is that of rank 0 of the job,
  whatever number the engine gave to that process;
* what is pushed is never written to behind the caller's back;
* commands to the servers are JSON, never pickles;
* servers add up in float32, whatever comes: left to itself, the engine reads from memory that
  nobody has set whether they do;
* at exit the process waits for its operations and for the others, and leaves; after an exception it
  ends at once, where the engine would wait for ever.

The engine adds gradients up in the order in which they arrive.  Of two workers every order gives
the same sum; with more, the last bits may differ from run to run, but with `exact`.
"""
import atexit
import json
import os
import sys

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call
from mxnet.kvstore import KVStoreBase

from d2l.parallel import job
from d2l.parallel.stores import Store, _exact, check_two_bits
from d2l.parallel.stores._fuse import plain

# The engine's numbers for commands: those that the server's own code handles, and that servers
# shall add up in float32.
_CONTROLLER, _MULTI_PRECISION = 0, 1
_NEEDED = ('DMLC_PS_ROOT_URI', 'DMLC_PS_ROOT_PORT', 'DMLC_NUM_WORKER', 'DMLC_NUM_SERVER')
# The engine multiplies a key by 9973 in 32 bits.
_MAX_KEY = (1 << 31) // 9973


class _Connection:
    """This process's connection to the servers."""

    current = None

    def __init__(self, kind):
        missing = [name for name in _NEEDED if not os.environ.get(name)]
        if missing or os.environ.get('DMLC_ROLE') != 'worker':
            what = f'{", ".join(missing)} not set' if missing else 'DMLC_ROLE is not worker'
            raise RuntimeError(f'store {kind}: this process is no worker of a job ({what}); start '
                               'it by d2l launch')
        self.kind, self.closed, self.compression = kind, False, None
        self.num_servers = int(os.environ['DMLC_NUM_SERVER'])
        self._next_key = self._next_group = 0
        self.kv = mx.kv.create(kind)
        # Between the engine's ranks and those that the environment says there is no relation.
        self.rank = job.rank() if job.placed() else self.kv.rank
        if self.rank == 0:
            self.kv._send_command_to_servers(_MULTI_PRECISION, '')
        self.kv._barrier()
        self._failed = False
        self._watch_for_exceptions()
        atexit.register(self._at_exit)

    @classmethod
    def get(cls, kind):
        if cls.current is None:
            cls.current = cls(kind)
        if cls.current.closed:
            raise RuntimeError(f'store {kind}: this process has left the job, which it cannot join '
                               'again')
        if cls.current.kind != kind:
            raise RuntimeError(f'store {kind}: this process is in a job of {cls.current.kind}, and '
                               'the servers know one kind only')
        return cls.current

    def new_keys(self):
        """Two keys for one array, of which the engine stores equally long arrays side by side."""
        row, server = divmod(self._next_key, self.num_servers)
        self._next_key += 1
        key = 2 * row * self.num_servers + server
        if key + self.num_servers > _MAX_KEY:
            raise RuntimeError(f'store {self.kind}: more arrays than the engine has keys for')
        return key, key + self.num_servers

    def new_group(self):
        self._next_group += 1
        return self._next_group

    def barrier(self):
        """Wait for the operations of this process, then for all workers."""
        mx.nd.waitall()
        self.kv._barrier()

    def command(self, **command):
        """Have all servers execute a command of rank 0; all workers wait for that."""
        if self.rank == 0:
            self.kv._send_command_to_servers(_CONTROLLER, json.dumps(command))
        self.kv._barrier()

    def close(self):
        if not self.closed:
            self.barrier()
            self.closed = True
            check_call(_LIB.MXKVStoreFree(self.kv.handle))
            self.kv.handle = type(self.kv.handle)()  # the Python object will free nothing more

    def _watch_for_exceptions(self):
        before = sys.excepthook

        def note(*args):
            self._failed = True
            before(*args)
        sys.excepthook = note

    def _at_exit(self):
        if self._failed:
            # The engine's own exit would wait for the others, who wait for this one's gradients.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        job.stop()  # ps-lite aborts beside a living thread of Python
        self.close()


class ParameterServer(Store):
    """What the two stores share.

    Raises RuntimeError where the process is no worker of such a job.
    """

    kind = None

    def __init__(self, exact=False):
        self._connection = _Connection.get(self.kind)
        self._keys, self._group = {}, self._connection.new_group()
        self._exact, self._half, self._compression = exact, False, None
        self._updates = False
        self._copies, self._gathered = {}, {}

    @property
    def type(self):
        """'dist_sync' or 'dist_async'."""
        return self.kind

    @property
    def rank(self):
        """This worker's number, from 0."""
        return self._connection.rank

    @property
    def num_workers(self):
        """The number of workers."""
        return self._connection.kv.num_workers

    @staticmethod
    def is_capable(capability):
        """True for 'optimizer': the servers can update."""
        return not Store.is_capable(capability)

    def set_gradient_compression(self, compression_params):
        """{'type': '2bit', 'threshold': t} or {'type': 'fp16'}, from the first pushpull on.

        2bit: a gradient travels to the server as -t, 0 or t, and the rest of it waits for the next
        step; float32 only.  It holds for all stores of the process, and broadcasts must come
        before it.  fp16: gradients travel as float16: sums beyond 65504 become infinite.
        Raises ValueError for other types and for exact sums, and RuntimeError where another store
        of the process has set another compression.
        """
        if self._exact:
            raise ValueError(f'store {self.kind}: exact sums cannot be compressed, got '
                             f'{compression_params}')
        if compression_params.get('type') == 'fp16' and len(compression_params) == 1:
            self._half = True
            return
        if compression_params.get('type') != '2bit':
            raise ValueError(f"store {self.kind}: compression must be {{'type': 'fp16'}} or "
                             f"{{'type': '2bit', 'threshold': a number}}, got {compression_params}")
        check_two_bits(self.kind, compression_params)
        self._compression = dict(compression_params)

    def broadcast(self, key, value, out, priority=0):
        """Copy rank 0's value into all arrays of out; see `Store.broadcast`."""
        if key in self._keys:
            raise ValueError(f'store {self.kind}: key {key!r} has been broadcast before')
        if self.kind == 'dist_async' and not self._updates:
            raise RuntimeError('store dist_async: the servers must know how to update before the '
                               'first broadcast: call update_by, as d2l.Trainer does')
        if self._connection.compression:
            raise RuntimeError(f'store {self.kind}: broadcasts must come before the first 2bit '
                               f'gradient of the process, that of {key!r} does not')
        value, outs = _listed(value)[0], _listed(out)
        if value.stype != 'default':
            raise ValueError(f'store {self.kind}: key {key!r} must hold dense arrays, got '
                             f'{value.stype}')
        value = plain(value)
        self._keys[key] = number, second = self._connection.new_keys()
        if self._updates:
            self._connection.command(op='own', group=self._group, key=number, mailbox=second)
        self._connection.kv.init(number, value)
        if self._updates:
            self._connection.kv.init(second, value)
        self.assign([key], [value], [outs])

    def assign(self, keys, values, outs):
        """Give keys rank 0's values, and write these to outs, lists of arrays, on all workers.

        Must be called by all workers, while none pushes.
        """
        connection, numbers = self._connection, [self._keys[key][0] for key in keys]
        kv = connection.kv
        if self._updates:
            connection.barrier()
            connection.command(op='assign', keys=numbers)
        self._push_from_root(numbers, values)
        connection.barrier()
        if self._updates:
            connection.command(op='assign', keys=[])
        for number, arrays in zip(numbers, outs):
            kv.pull(number, out=arrays)
        # The next push may not overtake the pulls of others.
        connection.barrier()

    def _push_from_root(self, numbers, values):
        """Push rank 0's values; where the servers wait for all workers, the others push zeros."""
        for number, value in zip(numbers, values):
            if self.rank == 0:
                self._connection.kv.push(number, plain(value))
            elif self.kind == 'dist_sync':
                self._connection.kv.push(number, mx.nd.zeros(value.shape, dtype=value.dtype))

    def pushpull(self, key, value, out=None, priority=0):
        """Push value, an array or a list, and write what the servers make of it to out, or value.

        It is the sum over all workers, or the updated weight where the servers update.
        """
        kv, values = self._connection.kv, _listed(value)
        outs = values if out is None else _listed(out)
        number = self._keys[key][0]
        if self._updates:
            self.update(key, values, outs, priority=priority)
        elif self._compression:
            self._start_compression()
            kv.push(number, values, priority=priority)
            kv.pull(number, out=outs, priority=priority)
        elif self._half and values[0].dtype == np.float32:
            self._pushpull_halves(key, values, outs, priority)
        elif self._exact and values[0].dtype == np.float32:
            self._pushpull_exact([key], [values], [outs])
        else:
            kv.pushpull(number, values, out=outs, priority=priority)

    def pushpull_all(self, keys, values, outs=None):
        """`pushpull` for lists; with `exact`, one question about all of them goes ahead."""
        rest = range(len(keys))
        if self._exact and not self._updates:
            values = [_listed(value) for value in values]
            outs = values if outs is None else [_listed(out) for out in outs]
            single = [i for i in rest if values[i][0].dtype == np.float32]
            rest = [i for i in rest if i not in single]
            self._pushpull_exact(*([group[i] for i in single] for group in (keys, values, outs)))
        for i in rest:
            self.pushpull(keys[i], values[i], None if outs is None else outs[i], priority=-i)

    def sum(self, numbers):
        """Sums of a few numbers over all workers; see `Store.sum`.

        Raises ValueError for dist_async, whose workers do not wait for each other, and where
        gradients are compressed to two bits, which the engine does to numbers, too.
        """
        connection = self._connection
        if self.kind == 'dist_async' or self._compression or connection.compression:
            raise ValueError(f'store {self.kind}: numbers can be summed by dist_sync, without 2bit '
                             'compression')
        return self._gather(numbers).sum(axis=0)

    def _gather(self, numbers):
        """The numbers of all workers, a row for each, as NumPy's float64.

        Three of the servers' float32 make a float64, and each worker adds to zeros.
        """
        numbers = np.array(numbers, 'float64')
        cells = np.zeros((self.num_workers, 3, len(numbers)), 'float32')
        with np.errstate(over='ignore', invalid='ignore'):
            for piece in cells[self.rank]:
                piece[:] = numbers
                numbers = np.where(np.isfinite(piece), numbers - piece, 0)
        connection, vector = self._connection, mx.nd.array(cells.ravel())
        if vector.size not in self._gathered:
            self._gathered[vector.size], _ = connection.new_keys()
            connection.kv.init(self._gathered[vector.size], vector)
            connection.barrier()
        connection.kv.pushpull(self._gathered[vector.size], vector)
        return vector.asnumpy().astype('float64').reshape(cells.shape).sum(axis=1)

    def update(self, key, value, out, scale=1.0, priority=0):
        """Have the servers update by scale times value, and write the weight to out.

        value and out are arrays or lists of them.
        """
        # Scaling makes a copy: on one CPU the engine writes the weight into what is pushed.
        scaled = [array * scale for array in _listed(value)]
        self._connection.kv.pushpull(self._keys[key][0], scaled, out=_listed(out),
                                     priority=priority)

    def _pushpull_halves(self, key, values, outs, priority):
        """pushpull in float16, by the second key."""
        kv, number = self._connection.kv, self._keys[key][1]
        if key not in self._copies:
            self._copies[key] = [array.astype('float16') for array in values]
            self._init_second([key], self._copies)
        copies = self._copies[key]
        for copy, array in zip(copies, values):
            copy[:] = array
        kv.pushpull(number, copies, priority=priority)
        for i, array in enumerate(outs):
            array[:] = copies[i if len(copies) == len(outs) else 0].as_in_context(array.context)

    def _pushpull_exact(self, keys, values, outs):
        """pushpull of float32, in any order to the same bits, by the second keys; see `_exact`."""
        new = [(key, group) for key, group in zip(keys, values) if key not in self._copies]
        self._copies.update((key, _exact.Pieces(group)) for key, group in new)
        self._init_second([key for key, _ in new],
                          {key: self._copies[key].vectors for key, _ in new})
        devices = len(values[0]) if values else 0
        known = self._gather([devices, *_exact.exponents(values)])
        terms, greatest = known[:, 0].sum(), known[:, 1:].max(axis=0)
        for i, key in enumerate(keys):
            pieces = self._copies[key]
            pieces.cut(values[i], greatest[i], terms)
            self._connection.kv.pushpull(self._keys[key][1], pieces.vectors, priority=-i)
        for key, group in zip(keys, outs):
            self._copies[key].put(group)

    def _init_second(self, keys, vectors):
        """Tell the servers of the second keys of some arrays, when all workers have come."""
        for key in keys:
            self._connection.kv.init(self._keys[key][1], vectors[key][0])
        if keys:
            self._connection.barrier()

    def _start_compression(self):
        """From now on the engine compresses; before, broadcasts had to arrive unharmed."""
        connection = self._connection
        if connection.compression is None:
            connection.compression = self._compression
            connection.kv.set_gradient_compression(self._compression)
            connection.barrier()
        elif connection.compression != self._compression:
            raise RuntimeError(f'store {self.kind}: all stores of a process must compress alike, '
                               f'got {self._compression} after {connection.compression}')

    def pull(self, key, out, priority=0):
        """Write what the servers hold to out, an array or a list."""
        self._connection.kv.pull(self._keys[key][0], out=_listed(out), priority=priority)

    def barrier(self):
        """Wait for this process's operations, then for all workers."""
        self._connection.barrier()

    def close(self):
        """Leave the job, with all stores of the process, when all workers have come to this."""
        self._connection.close()

    # Updates by the servers.

    def set_optimizer(self, optimizer):
        """Not here: an optimizer travels as its registered name and arguments (`update_by`)."""
        raise ValueError(f'store {self.kind}: the servers update by an optimizer that is named: '
                         'use d2l.Trainer with update_on_kvstore=True, or set it to False')

    def update_by(self, name, arguments):
        """Let the servers update the keys that are broadcast from now on.

        name is that of a registered optimizer, arguments a dict of what JSON has.  The servers
        find what MXNet and d2l register, and what the modules do that D2L_SERVER_IMPORTS names in
        their environment.
        """
        self._connection.command(op='optimizer', group=self._group, name=name, arguments=arguments)
        self._updates = True

    def configure(self, learning_rate, multipliers):
        """Set the learning rate; multipliers is a dict from keys to those of rate and decay.

        Rank 0's call counts, when the gradients that it has pushed have been used; others do
        nothing and wait for nobody.
        """
        if self.rank == 0:
            mx.nd.waitall()  # a command overtakes what the engine has not sent yet
            numbers = [[self._keys[key][0], *pair] for key, pair in multipliers.items()]
            self._connection.kv._send_command_to_servers(_CONTROLLER, json.dumps(
                {'op': 'configure', 'group': self._group, 'learning_rate': learning_rate,
                 'multipliers': numbers}))

    def read_states(self, slot, keys, likes):
        """Return a new list of arrays like likes: one slot of the optimizer's states of keys.

        slot is the number of an array among those of a state, or 'count' for the number of
        updates.  All workers call it, while none pushes.
        """
        mailboxes = self._open_mailboxes('read', slot, keys)
        self._push_from_root(mailboxes, likes)
        self._connection.barrier()
        found = [array.copy() for array in likes]
        for mailbox, array in zip(mailboxes, found):
            self._connection.kv.pull(mailbox, out=array)
        self._connection.barrier()
        return found

    def write_states(self, slot, keys, values):
        """Give the servers one slot of the states of keys, from rank 0; see `read_states`."""
        mailboxes = self._open_mailboxes('write', slot, keys)
        self._push_from_root(mailboxes, values)
        self._connection.barrier()

    def _open_mailboxes(self, op, slot, keys):
        self._connection.barrier()
        self._connection.command(op=op, group=self._group, slot=slot)
        return [self._keys[key][1] for key in keys]


@KVStoreBase.register
class DistSync(ParameterServer):
    """'dist_sync': the servers add up the gradients of all workers (or update by the sum).

    exact: sums of float32 do not depend on the order of arrival, and are the same bits for the same
    shards, whatever devices and workers have them.  Twice the bytes travel, after an exchange of
    the greatest gradients.  Where the servers update, it has no effect.
    """

    kind = 'dist_sync'


@KVStoreBase.register
class DistAsync(ParameterServer):
    """'dist_async': the servers update by each gradient as it comes, and no worker waits."""

    kind = 'dist_async'

    def __init__(self):
        super().__init__()

    def set_gradient_compression(self, compression_params):
        """Raises ValueError: states of the optimizer travel as gradients do."""
        Store.set_gradient_compression(self, compression_params)


def _listed(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]
