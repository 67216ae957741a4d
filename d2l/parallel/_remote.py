"""A trainer's side of an optimizer that runs on the servers of its store."""
import json

import mxnet as mx
import numpy

from d2l.parallel import _states


class RemoteOptimizer:
    """The optimizer that the servers of a store have for a trainer's parameters.

    store is a `d2l.parallel.stores.parameter_server.ParameterServer`, named what `Trainer` was
    given as (optimizer, optimizer_params), local the optimizer made of it, which holds learning
    rate, schedule and number of steps; params all parameters of the trainer.

    Raises ValueError for what servers cannot do.
    """

    def __init__(self, store, named, local, params):
        self._store, self._local, self._params = store, local, params
        self._configured = self._states = None
        self.unsynced = False  # whether parameters were set since the servers got theirs
        store.update_by(*_by_name(named, params))

    def update(self, trained, scale, ignore_stale_grad):
        """Make a step with the gradients times scale; trained is a list of (index, parameter)."""
        self._local.num_update += 1
        self.configure(trained)
        for i, param in trained:
            arrays = param.list_data()
            stale = [data for data in arrays if not data._fresh_grad]
            if stale and not ignore_stale_grad:
                raise UserWarning(stale_text(param, stale[0]))
            if len(stale) == len(arrays):
                self._store.pull(i, arrays, priority=-i)
                continue
            self._store.update(i, param.list_grad(), arrays, scale=scale, priority=-i)
            for data in arrays:
                data._fresh_grad = False

    def configure(self, trained):
        """Tell the servers what has changed of learning rate and multipliers."""
        multipliers = {i: (param.lr_mult, param.wd_mult) for i, param in trained
                       if param._data is not None}
        wanted = float(self._local.learning_rate), multipliers
        if wanted != self._configured:
            self._store.configure(*wanted)
            self._configured = wanted

    def agree(self, trained):
        """`configure`, so that the next gradient of any worker is used with it.  All call it."""
        self.configure(trained)
        self._store.barrier()

    def send_values(self):
        """Give the servers parameters and states that were set here.  All workers call it."""
        made = self._made()
        if self.unsynced:
            self.unsynced = False
            arrays = [self._params[i].list_data() for i in made]
            self._store.assign(made, [group[0] for group in arrays], arrays)
        # States wait until all parameters have their shapes.
        if self._states is not None and len(made) == len(self._params):
            (states, counts), self._states = self._states, None
            self._write_states(states, counts)

    def set_states(self, states, counts):
        """Give the servers states (of `_states.unpack`) and numbers of updates, by index."""
        self._states, self._configured = (states, counts), None
        self.send_values()

    def get_states(self):
        """Return (states, counts) of the servers, by index.  All workers call it."""
        self.send_values()
        made = self._made()
        if not made:
            return {}, {}
        found = self._store.read_states('count', made, [self._full(i) for i in made])
        counts = {i: int(array.reshape(-1)[:1].asscalar()) for i, array in zip(made, found)}
        # A new state has the structure of those there.
        states = {i: self._new_state(i) for i in made}
        arrays = {i: _states.arrays_of(states[i]) for i in made}
        for slot, keys in _slots(arrays):
            likes = [arrays[i][slot] for i in keys]
            for array, value in zip(likes, self._store.read_states(slot, keys, likes)):
                array[:] = value
        return states, counts

    def _write_states(self, states, counts):
        made = self._made()
        self._store.write_states('count', made, [self._full(i, counts.get(i, 0)) for i in made])
        arrays = {i: _states.arrays_of(_states.on_device(states[i], mx.cpu()) if i in states
                                       else self._new_state(i)) for i in made}
        for slot, keys in _slots(arrays):
            self._store.write_states(slot, keys, [arrays[i][slot] for i in keys])

    def _made(self):
        return [i for i, param in enumerate(self._params) if param._data is not None]

    def _full(self, i, value=0):
        return mx.nd.full(self._params[i].shape, value, dtype=self._params[i].dtype)

    def _new_state(self, i):
        return self._local.create_state_multi_precision(i, self._full(i))


def _slots(arrays):
    """Pairs of a number and the keys that have so many arrays, and one more."""
    for slot in range(max(map(len, arrays.values()), default=0)):
        yield slot, [key for key, group in arrays.items() if len(group) > slot]


def _by_name(named, params):
    """(name, arguments) of the optimizer as JSON has them."""
    name, arguments = named
    if not isinstance(name, str):
        raise ValueError('Trainer: where servers update, optimizer must be a registered name, got '
                         f'a {type(name).__name__}')
    if any(numpy.dtype(param.dtype) == numpy.float16 for param in params):
        raise ValueError('Trainer: where servers update, parameters must not be float16')
    # These two are sent before the first step, and whenever they change.
    arguments = {key: value.item() if isinstance(value, numpy.generic) else value
                 for key, value in (arguments or {}).items()
                 if key not in ('learning_rate', 'lr_scheduler')}
    try:
        json.dumps(arguments)
    except TypeError as error:
        raise ValueError('Trainer: where servers update, optimizer_params must be numbers, words '
                         f'and lists of them: {error}') from None
    return name.lower(), arguments


def stale_text(param, data):
    """What to say of a parameter without a new gradient, as gluon.Trainer does."""
    return (f'Gradient of Parameter `{param.name}` on context {data.context} has not been updated '
            'by backward since last `step`: the model has used only some of its parameters. If '
            'that is meant, call step with ignore_stale_grad=True')
