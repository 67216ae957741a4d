"""What a parameter server does with commands and gradients; see `d2l.parallel.server`."""
import importlib
import json
import os
import sys
import traceback

import mxnet as mx
from mxnet.kvstore.kvstore_server import KVStoreServer

from d2l.parallel import job
from d2l.parallel._states import arrays_of

# By name: the room of training loops lies downstream of this one.
_OPTIMIZERS = 'd2l.train.optimizers'
_LONGEST_COMMAND = 1 << 24  # bytes


def import_optimizers():
    """Import the modules that register optimizers."""
    named = os.environ.get('D2L_SERVER_IMPORTS', '').split(',')
    for module in [_OPTIMIZERS] + [name.strip() for name in named if name.strip()]:
        importlib.import_module(module)


def fail():
    """End the process with the traceback of the current exception.

    At once: the engine's own end would wait for workers that wait for this server.
    """
    text = traceback.format_exc()
    job.failed(text)
    sys.stderr.write(text)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def serve():
    """Run the loop of a server, or of a scheduler, until all workers have left."""
    _Server(mx.kv.create('dist')).run()


class _Server(KVStoreServer):
    """MXNet's loop with commands in JSON."""

    def __init__(self, kvstore):
        super().__init__(kvstore)
        self._updates = Updates()
        self._updating = False

    def _controller(self):
        def controller(head, body, _):
            # What leaves this function, ctypes prints and forgets.
            try:
                self._updates.command(body)
                if self._updates.groups and not self._updating:
                    self._updating = True
                    # Without an updater the engine adds gradients up, which it does faster.
                    self.kvstore._set_updater(self._update)
            except BaseException:
                fail()
        return controller

    def _update(self, key, pushed, stored):
        try:
            self._updates(key, pushed, stored)
        except BaseException:
            fail()


class Multipliers:
    """Those of a parameter's learning rate and weight decay, as optimizers read them."""

    def __init__(self, lr_mult=1.0, wd_mult=1.0):
        self.lr_mult, self.wd_mult = lr_mult, wd_mult


class Updates:
    """Applies commands, and each array that is pushed to what is stored under its key.

    The keys of a trainer make a group with an optimizer of its own.  Besides, each has a mailbox,
    through which workers read and write the optimizer's states.  What has no group is stored as it
    comes.
    """

    def __init__(self):
        self.groups = {}  # group -> mx.optimizer.Updater
        self._owner, self._mailboxes = {}, {}  # key -> updater; mailbox -> key
        self._assigned, self._transfer = set(), None

    def command(self, body):
        """Execute a command: the bytes of a JSON object.  Raises ValueError for others."""
        if len(body) > _LONGEST_COMMAND:
            raise ValueError(f'server: a command must have at most {_LONGEST_COMMAND} bytes, got '
                             f'{len(body)}')
        try:
            command = json.loads(body.decode())
            action = getattr(self, '_on_' + command.pop('op'))
        except (ValueError, AttributeError, KeyError, TypeError):
            # It ends the server, and should: a gluon.Trainer whose optimizer is refused would
            # take gradients for weights.
            raise ValueError(f'server: unknown command {body[:80]!r}; an optimizer that '
                             'gluon.Trainer sends is a pickle, and refused: use d2l.Trainer'
                             ) from None
        action(**command)

    def _on_optimizer(self, group, name, arguments):
        if name not in mx.optimizer.Optimizer.opt_registry:
            raise ValueError(f'server: optimizer {name!r} is not registered here; name the module '
                             'that registers it in D2L_SERVER_IMPORTS')
        self.groups[group] = mx.optimizer.get_updater(mx.optimizer.create(name, **arguments))

    def _on_own(self, group, key, mailbox):
        self._owner[key] = self.groups[group]
        self._owner[key].optimizer.param_dict[key] = Multipliers()
        self._mailboxes[mailbox] = key

    def _on_assign(self, keys):
        """Until the next such command, what is pushed to keys replaces what is stored."""
        self._assigned = set(keys)

    def _on_configure(self, group, learning_rate, multipliers):
        optimizer = self.groups[group].optimizer
        optimizer.set_learning_rate(learning_rate)
        for key, lr_mult, wd_mult in multipliers:
            optimizer.param_dict[key] = Multipliers(lr_mult, wd_mult)

    def _on_read(self, group, slot):
        self._transfer = self._read, slot

    def _on_write(self, group, slot):
        self._transfer = self._write, slot

    def __call__(self, key, pushed, stored):
        """Update stored by pushed; it is done when this returns, and errors have been raised."""
        if key in self._mailboxes:
            action, slot = self._transfer
            action(self._mailboxes[key], slot, pushed, stored)
        elif key in self._owner and key not in self._assigned:
            self._owner[key](key, pushed, stored)
        else:
            stored[:] = pushed
        stored.wait_to_read()

    def _read(self, key, slot, pushed, stored):
        updater = self._owner[key]
        if slot == 'count':
            stored[:] = updater.optimizer._index_update_count.get(key, 0)
        else:
            arrays = arrays_of(updater.states.get(key))
            # No gradient has come yet: what the worker has put there as a state is right.
            stored[:] = arrays[slot].reshape(stored.shape) if arrays else pushed

    def _write(self, key, slot, pushed, stored):
        updater = self._owner[key]
        optimizer = updater.optimizer
        stored[:] = pushed
        if slot == 'count':
            count = int(pushed[:1].asscalar())
            optimizer._index_update_count[key] = count
            optimizer.num_update = max(optimizer.num_update, count)
            return
        if key not in updater.states:
            updater.states[key] = optimizer.create_state_multi_precision(key, pushed)
            updater.states_synced[key] = True
        state = arrays_of(updater.states[key])[slot]
        state[:] = pushed.reshape(state.shape)
        state.wait_to_read()
