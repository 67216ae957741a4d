"""A gluon.Trainer for one device, several devices and several processes."""
import operator

import mxnet as mx
import numpy
from mxnet import autograd, gluon
from mxnet.gluon.parameter import Parameter, ParameterDict
from mxnet.kvstore import KVStore, KVStoreBase

from d2l.ops import global_norm_clip
from d2l.parallel import _states, job, stores
from d2l.parallel._remote import RemoteOptimizer, stale_text
from d2l.utils.files import replace_synced


class Trainer(gluon.Trainer):
    """Updates parameters by the gradients of all devices and all workers of a job.

    Its differences from gluon.Trainer (which see for what is not said here):

    * When it has been made, all devices and workers have rank 0's parameters.  Those that get their
      shapes in the first forward pass get rank 0's values there, before they are used.
    * By default every device of every worker updates its own copy, by the same sums: what is
      sent are gradients.  Only under dist_async do the servers update.
    * A learning rate, a schedule, a multiplier and a batch size that change have effect at the
      next step, and states are saved and loaded, with every store.
    * Several trainers work side by side in a process, made in the same order by all workers.

    Parameters
    ----------
    params : Block, ParameterDict, or dict or list of Parameters
        Initialized on the same devices.
    optimizer : str or mxnet.optimizer.Optimizer
    optimizer_params : dict, optional
        Arguments of the optimizer.
    kvstore : str, store or None
        A name or an object as of `d2l.parallel.stores.create`; None sends nothing.  In a job that
        `d2l launch` started, 'device' and 'local' stand for its --store.
    batch_size : int, optional
        The number of examples of a step over all devices and workers, by which the sum of their
        gradients is divided, unless `step` gets another one.
    clip_global_norm : float, optional
        The gradient, divided by the batch size, is scaled down to this norm where it is greater
        (section 8.5): the norm of all parameters together, of the gradient over all workers.
    accumulate : int
        An update is made in every accumulate-th call of `step`, by the mean over the examples of
        all these calls.  Parameters with grad_req 'add' are expected to add up their gradients
        through these calls, and are cleared after it; with accumulate=1 that is the caller's.
    compression_params : dict, optional
        {'type': '2bit', 'threshold': t} (device, dist_sync) or {'type': 'fp16'} (dist_sync, ring).
        Where there is one device and one process, nothing is sent or compressed.
    update_on_kvstore : bool, optional
        Whether the servers update: by default, and always, those of dist_async do.  Then the
        optimizer must be given by its registered name, with arguments that JSON has, and the
        schedule of the learning rate counts the steps of rank 0.  State that an optimizer keeps in
        attributes (Nadam's) stays with the servers.

    Raises
    ------
    ValueError
        For bad arguments, among them an unknown store, which MXNet would take for a local one, and
        what a store cannot do: sparse parameters or gradients between processes, say.
    RuntimeError
        For parameters that are not initialized, and processes that have no place in a job, or two.

    Source: Dive into Deep Learning, sections 12.5 to 12.7; Li et al., 2014.
    """

    def __init__(self, params, optimizer, optimizer_params=None, kvstore='device', batch_size=None,
                 clip_global_norm=None, accumulate=1, compression_params=None,
                 update_on_kvstore=None):
        self._batch_size = None if batch_size is None else _positive('batch_size', batch_size)
        if clip_global_norm is not None and not clip_global_norm > 0:
            raise ValueError(f'Trainer: clip_global_norm must be positive, got {clip_global_norm}')
        self._clip = clip_global_norm
        self._accumulate = operator.index(_positive('accumulate', accumulate))
        self._calls, self._examples, self._sums = 0, 0, {}
        self._norms, self._remote, self._in_step = [], None, False
        if isinstance(params, gluon.Block):
            params = params.collect_params()
        _check_initialized(params)
        self._named = optimizer, dict(optimizer_params or {})
        super().__init__(params, optimizer, optimizer_params, kvstore, compression_params,
                         update_on_kvstore)
        self._updaters[1:] = [_LaterUpdater(self._optimizer) for _ in self._contexts[1:]]
        self._init_kvstore()
        self._init_params()
        job.formed()

    # Making it.

    def _init_kvstore(self):
        """Make the store and agree with it on who updates."""
        config = self._kvstore_params
        kvstore, wanted = config['kvstore'], config['update_on_kvstore']
        if kvstore in ('local', 'device') and isinstance(kvstore, str):
            kvstore = job.store(kvstore)
        if kvstore in ('local', 'device') and (self._contains_sparse_weight
                                               or self._contains_sparse_grad):
            if self._clip is not None or self._accumulate > 1:
                raise ValueError('Trainer: clip_global_norm and accumulate need dense parameters '
                                 'and gradients')
            # MXNet's own way has what these need: rows that are pulled one by one.
            super()._init_kvstore()
            return
        self._kvstore = store = self._make_store(kvstore)
        self._distributed = store is not None and 'dist' in store.type
        if self._distributed:
            job.check_place(store)
        if self._distributed and (self._contains_sparse_weight or self._contains_sparse_grad):
            raise ValueError(f'Trainer: parameters and gradients must be dense for the store '
                             f'{store.type}; use sparse_grad=False')
        is_async = self._distributed and 'async' in store.type
        if wanted and not hasattr(store, 'update_by'):
            raise ValueError('Trainer: update_on_kvstore must be None or False, for the store has '
                             'no servers that update')
        if wanted is False and is_async:
            raise ValueError('Trainer: update_on_kvstore must be None or True for dist_async')
        self._update_on_kvstore = bool(is_async if wanted is None else wanted)
        if self._update_on_kvstore and self._clip is not None:
            raise ValueError('Trainer: clip_global_norm needs the sum of all gradients before the '
                             f'update, which the servers of {store.type} make')
        # Whether workers wait for each other in each step.
        self._in_step = self._distributed and not is_async
        self._kv_initialized = True

    def _make_store(self, kvstore):
        compression = self._compression_params
        if kvstore is None:
            return None
        if isinstance(kvstore, str):
            if kvstore in ('local', 'device') and len(self._contexts) == 1:
                return None
            if kvstore not in ('local', 'device'):
                job.start()
            return stores.create(kvstore, compression)
        if isinstance(kvstore, KVStore) and 'dist' in kvstore.type:
            raise ValueError(f"Trainer: for this store pass its name, kvstore='{kvstore.type}'")
        if not isinstance(kvstore, KVStoreBase):
            raise ValueError('Trainer: kvstore must be a name, a store or None, got '
                             f'{type(kvstore).__name__}')
        if compression:
            kvstore.set_gradient_compression(compression)
        return kvstore

    def _init_params(self):
        """Give all devices and workers rank 0's parameters, and wait for that."""
        if self._kvstore is None or isinstance(self._kvstore, KVStore):
            super()._init_params()
            mx.nd.waitall()
            return
        if self._update_on_kvstore:
            self._remote = RemoteOptimizer(self._kvstore, self._named, self._optimizer,
                                           self._params)
        waiting = [param for param in self._params_to_init if param._data is None]
        for param in self._params_to_init:
            if param._data is not None:
                self._broadcast(param)
        self._params_to_init = waiting
        for param in waiting:
            self._broadcast_when_made(param)
        mx.nd.waitall()
        if self._remote is not None:
            self._remote.agree(self._trained())
        elif hasattr(self._kvstore, 'barrier'):
            self._kvstore.barrier()

    def _broadcast(self, param):
        arrays = param._check_and_get(param._data, list)
        self._kvstore.broadcast(self._param2idx[param.name], arrays[0], arrays)

    def _broadcast_when_made(self, param):
        """Broadcast a parameter as soon as it has its shape, before anything can read it."""
        before = vars(param).get('_init_impl')  # of another trainer

        def init_impl(data, devices):
            del param._init_impl
            if before is not None:
                param._init_impl = before
            param._init_impl(data, devices)
            with autograd.pause():
                self._broadcast(param)
            self._params_to_init.remove(param)
            if self._remote is not None:
                self._remote.agree(self._trained())
        param._init_impl = init_impl

    def _reset_kvstore(self):
        """Called when somebody gives a parameter another value while the servers have one."""
        if self._remote is not None:
            self._remote.unsynced = True
        else:
            super()._reset_kvstore()

    # Properties.

    @property
    def batch_size(self):
        """The number of examples of a step, over all devices and workers; None if not given."""
        return self._batch_size

    @property
    def rank(self):
        """This worker's number, from 0."""
        return self._kvstore.rank if self._distributed else 0

    @property
    def num_workers(self):
        """The number of workers."""
        return self._kvstore.num_workers if self._distributed else 1

    @property
    def pending(self):
        """The number of calls of `step` since the last update, less than accumulate."""
        return self._calls

    @property
    def grad_norm(self):
        """The norm of the last gradient before clip_global_norm, an array (1,); None before."""
        return self._norms[0] if self._norms else None

    def sum_workers(self, numbers):
        """Return the sums of a few numbers, such as losses, over all workers, which all call it.

        A list or vector to a NumPy vector of float64.  ValueError for dist_async and with 2bit.
        """
        return self._kvstore.sum(numbers) if self._distributed else numpy.array(numbers, 'float64')

    def set_learning_rate(self, lr):
        """Set the learning rate; where servers update, they have rank 0's when this returns.

        Raises UserWarning for an optimizer with a schedule.
        """
        super().set_learning_rate(lr)
        if self._remote is not None:
            self._remote.configure(self._trained())

    # Steps.

    def step(self, batch_size=None, ignore_stale_grad=False):
        """Update the parameters by their gradients, after backward and outside of record.

        batch_size is the number of examples over all devices and workers, the Trainer's own by
        default.  With accumulate, it is that of this call.

        Parameters without a new gradient raise UserWarning.  With ignore_stale_grad, those that
        have one on no device of no worker are left as they are, and an old gradient beside a new
        one counts as zero.

        Raises ValueError without a batch size.
        """
        size = self._size_of(batch_size)
        if self._accumulate > 1:
            size = self._gather(size, ignore_stale_grad)
            if size is None:
                return
        self._prepare()
        if ignore_stale_grad:
            self._settle_stale()
        if self._remote is not None:
            self._remote.send_values()
            self._remote.update(self._trained(), self._scale / size, ignore_stale_grad)
        else:
            self._allreduce_grads()
            self._update_here(size, ignore_stale_grad)
        if self._accumulate > 1:
            self._clear_sums()
        job.progress(self._optimizer.num_update)

    def allreduce_grads(self):
        """Add up the gradients of all devices and workers, before `update`, instead of `step`."""
        if self._accumulate > 1:
            raise RuntimeError('Trainer: with accumulate, call step instead of allreduce_grads')
        if self._update_on_kvstore:
            raise RuntimeError('Trainer: where the store updates, call step instead of '
                               'allreduce_grads')
        self._prepare()
        self._allreduce_grads()

    def _prepare(self):
        """What MXNet's own stores do before a step: they take parameters when these are made."""
        if not self._kv_initialized:
            self._init_kvstore()
        if self._params_to_init and isinstance(self._kvstore, KVStore):
            self._init_params()

    def update(self, batch_size=None, ignore_stale_grad=False):
        """Update by the gradients that `allreduce_grads` has added up; arguments as of `step`."""
        if self._accumulate > 1:
            raise RuntimeError('Trainer: with accumulate, call step instead of update')
        if self._update_on_kvstore:
            raise RuntimeError('Trainer: where the store updates, call step instead of update')
        self._update_here(self._size_of(batch_size), ignore_stale_grad)
        job.progress(self._optimizer.num_update)

    def _size_of(self, batch_size):
        if batch_size is None and self._batch_size is None:
            raise ValueError('Trainer: batch_size must be given, to step or to the Trainer')
        return self._batch_size if batch_size is None else _positive('batch_size', batch_size)

    def _check_and_rescale_grad(self, scale):
        self._optimizer.rescale_grad = scale

    def _trained(self):
        return [(i, param) for i, param in enumerate(self._params) if param.grad_req != 'null']

    def _allreduce_grads(self):
        if self._kvstore is None or isinstance(self._kvstore, KVStore):
            super()._allreduce_grads()
            return
        grads = {i: param.list_grad() for i, param in self._trained()}
        if hasattr(self._kvstore, 'pushpull_all'):
            self._kvstore.pushpull_all(list(grads), list(grads.values()))
        else:
            for key, value in grads.items():
                self._kvstore.pushpull(key, value, priority=-key)

    def _update_here(self, size, ignore_stale_grad):
        self._check_and_rescale_grad(self._scale / size)
        if self._clip is not None:
            self._clip_gradients()
        for updater in self._updaters[1:]:
            updater.before = _states.plain_values(self._optimizer)
        self._update(ignore_stale_grad)

    def _clip_gradients(self):
        """Clip on each device by itself: their gradients are the same, so the norms are, too."""
        rescale = self._optimizer.rescale_grad
        arrays = [(param.list_data(), param.list_grad()) for _, param in self._trained()]
        self._norms = []
        for j in range(len(self._contexts)):
            grads = [grad[j] for data, grad in arrays if data[j]._fresh_grad]
            if grads:
                norm = global_norm_clip(grads, theta=self._clip / rescale)
                self._norms.append(norm * rescale)

    def _gather(self, size, ignore_stale_grad):
        """Add the gradients to those of the calls before; the number of examples in the last."""
        last = self._calls + 1 == self._accumulate
        for i, param in self._trained():
            if param.grad_req == 'add':
                continue
            sums = self._sums.setdefault(i, [None] * len(self._contexts))
            for j, (data, grad) in enumerate(zip(param.list_data(), param.list_grad())):
                if not data._fresh_grad and not ignore_stale_grad:
                    raise UserWarning(stale_text(param, data))
                sums[j] = _added(sums[j], data, grad, last)
            if last:
                self._sums[i] = [None] * len(self._contexts)
        self._calls += 1
        self._examples += size
        return self._examples if last else None

    def _clear_sums(self):
        self._calls = self._examples = 0
        for _, param in self._trained():
            if param.grad_req == 'add':
                for grad in param.list_grad():
                    grad[:] = 0

    def _settle_stale(self):
        """Agree with all devices and workers on the parameters that have a new gradient."""
        used = numpy.zeros(max(len(self._params), 1), 'float32')
        for i, param in self._trained():
            for data, grad in zip(param.list_data(), param.list_grad()):
                if data._fresh_grad:
                    used[i] = 1
                elif param.grad_req == 'write':
                    grad[:] = 0
        if self._in_step and (self._compression_params or {}).get('type') == '2bit':
            used[:] = 1  # two bits are too few for an answer
        elif self._in_step:
            used = self.sum_workers(used)
        for i, param in self._trained():
            for data in param.list_data():
                data._fresh_grad = bool(used[i])

    # States.

    def get_states(self):
        """Return the states, with learning rate, schedule and counts, as a NumPy archive's bytes.

        All workers must call it where servers update.  RuntimeError between an update's steps.
        """
        return self.capture_states()()

    def capture_states(self):
        """Return a function, for any thread, that makes what `get_states` returns at this call."""
        if self._calls:
            raise RuntimeError('Trainer: states can be saved after an update, not between the '
                               f'{self._accumulate} steps of one; {self._calls} are done')
        optimizer = self._optimizer
        if self._remote is not None:
            states, counts = self._remote.get_states()
        else:
            states = (self._kvstore._updater if self._update_on_kvstore
                      else self._updaters[0]).states
            optimizer._set_current_context(self._contexts[0].device_id)
            counts = optimizer._index_update_count
        return _states.capture(_states.facts_of(optimizer, counts, self._params), states)

    def set_states(self, states):
        """Take over what `get_states` returned, with any store and number of devices and workers.

        All workers must call it.  Raises ValueError for other bytes, another optimizer and other
        parameters.
        """
        facts, states = _states.unpack(states)
        optimizer = self._optimizer
        _states.check_facts(facts, optimizer, self._params)
        _states.set_plain_values(optimizer, facts['values'])
        _states.set_plain_values(optimizer.lr_scheduler, facts['schedule'])
        counts = dict(facts['counts'])
        for device in self._contexts:
            optimizer._all_index_update_counts[device.device_id] = dict(counts)
        optimizer._set_current_context(self._contexts[0].device_id)
        self._calls, self._examples, self._sums = 0, 0, {}
        if self._remote is not None:
            self._remote.set_states(states, counts)
            self._remote.agree(self._trained())
            return
        updaters = [self._kvstore._updater] if self._update_on_kvstore else self._updaters
        for updater, device in zip(updaters, self._contexts):
            updater.states = {i: _states.on_device(state, device) for i, state in states.items()}
            updater.states_synced = dict.fromkeys(states, True)

    def save_states(self, fname):
        """Write `get_states` to a file, whole or not at all: rank 0 does; all workers call it."""
        data = self.get_states()
        if self.rank == 0:
            with open(f'{fname}.part', 'wb') as file:
                file.write(data)
            replace_synced(f'{fname}.part', fname)

    def load_states(self, fname):
        """`set_states` from a file, which all workers can read."""
        with open(fname, 'rb') as file:
            self.set_states(file.read())


class _LaterUpdater(mx.optimizer.Updater):
    """That of another device than the first, with the same optimizer.

    What the optimizer has kept in itself since the step began (Nadam's product of momenta), the
    first device's update has changed; each replica needs what was there before.
    """

    before = {}

    def __call__(self, index, grad, weight):
        _states.set_plain_values(self.optimizer, self.before)
        super().__call__(index, grad, weight)


def _positive(name, value):
    if not value > 0:
        raise ValueError(f'Trainer: {name} must be positive, got {value}')
    return value


def _check_initialized(params):
    if isinstance(params, (dict, ParameterDict)):
        params = list(params.values())
    for param in params if isinstance(params, (list, tuple)) else ():
        if isinstance(param, Parameter) and param._data is None and not param._deferred_init:
            raise RuntimeError(f'Trainer: {param.name} must be initialized before')


def _added(sum_, data, grad, last):
    """The sum with a gradient that is new; in the last call the gradient becomes the sum."""
    if data._fresh_grad:
        if last:
            if sum_ is not None:
                grad += sum_
            return None
        data._fresh_grad = False
        if sum_ is None:
            return grad.copy()
        sum_ += grad
    elif last and sum_ is not None:
        grad[:] = sum_
        data._fresh_grad = True
    return sum_
