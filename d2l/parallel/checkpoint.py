"""Checkpoints: what a run needs to go on where it was, written beside the training.

    checkpoint = Checkpoint('out/run', steps=100, seed=0)
    step = checkpoint.restore(net=net, trainer=trainer, sampler=sampler) or 0
    for epoch in range(sampler.epoch, num_epochs):
        for X, y in sampler.follow(loader):
            ...
            step += 1
            checkpoint.maybe_save(step, net=net, trainer=trainer, sampler=sampler)
    checkpoint.wait()
"""
import atexit
import json
import logging
import os
import threading
import time
import warnings
import weakref

import mxnet as mx
import numpy

from d2l.parallel import _checkpoint_file, _run_state, job

_logger = logging.getLogger('d2l')

_SECONDS = 60
_NONE, _FAILED = -1, -2  # in the place of a step

_all = weakref.WeakSet()
_failed = set()  # kept until somebody has heard of it
_restored = 0  # how often a step was agreed upon: the same on all workers


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or none can be restored."""


class Checkpoint:
    """The checkpoints of a run, in a folder of its own: one file for each.

    A checkpoint holds the parameters, the states of the trainers with their learning rates and
    schedules, the position of the sampler, the states of Python's and NumPy's global random
    generators and what else the caller gives.  The file has its name only when all of it is on
    the disk, and each part has a checksum; the last `keep` are kept.  It is a zip archive, which
    ``numpy.load`` reads, too.

    Writing does not hold up the training: copies are made on the host, then a thread writes them.
    At the end of the program it is waited for.

    steps is the number of steps between two checkpoints, seconds that of seconds; 60 seconds
    where neither is given.  Workers that take part in reading the states, as with a store that
    updates on its servers, need steps, since their clocks differ.

    seed makes a restored run repeat what the undisturbed one does, random numbers included:
    MXNet's generator can be seeded but not read, so that all three generators, MXNet's, NumPy's
    and Python's, are seeded from (seed, step, rank) where a checkpoint may stand: by restore and
    save, and, since the clock differs from run to run, by every maybe_save that counts seconds
    (some milliseconds: MXNet's has many states).  What comes after a step is then the same in all
    runs with the same `steps`, or in all that count seconds.  With None the generators are left
    alone: Python's and NumPy's are saved and restored on rank 0, and MXNet's begins anew.

    on_error is 'raise' or 'warn': whether the training ends when a checkpoint cannot be written
    (disk full, folder gone), or goes on with a warning and tries again at the next one.  In both
    cases nothing half-written remains, and the error shows at the next call.

    In a job of several workers each makes a Checkpoint of the same folder, which all can reach,
    and calls its methods at the same steps: rank 0 writes and all restore the same step.  rank
    and num_workers are those of the job.

    Raises CheckpointError when the folder cannot be made or written to, ValueError for bad
    arguments.
    """

    def __init__(self, folder, keep=3, seconds=None, steps=None, seed=None, on_error='raise',
                 rank=None, num_workers=None):
        if keep < 1:
            raise ValueError('Checkpoint: keep must be at least 1, got {}'.format(keep))
        if seconds is not None and steps is not None:
            raise ValueError('Checkpoint: seconds and steps must not both be given')
        if steps is not None and steps < 1:
            raise ValueError('Checkpoint: steps must be at least 1, got {}'.format(steps))
        if on_error not in ('raise', 'warn'):
            raise ValueError("Checkpoint: on_error must be 'raise' or 'warn', got {!r}".format(
                on_error))
        self.folder = os.path.abspath(folder)
        self.extra = None
        self._keep, self._steps, self._seed, self._on_error = keep, steps, seed, on_error
        self._seconds = _SECONDS if seconds is None and steps is None else seconds
        self._rank = job.rank() if rank is None else rank
        self._num_workers = job.num_workers() if num_workers is None else num_workers
        self._thread = self._error = None
        self._waiting = False  # for the end of an update that takes several steps
        self._known = False  # whether the checkpoints in the folder are this run's
        self._last = time.monotonic()
        if self._rank == 0:
            self._make_folder()
        _all.add(self)

    def _make_folder(self):
        try:
            os.makedirs(self.folder, exist_ok=True)
            _checkpoint_file.remove_parts(self.folder)
        except OSError as error:
            raise CheckpointError(
                'Checkpoint: the folder cannot be made: {}'.format(error)) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise CheckpointError('Checkpoint: {} must be writable'.format(self.folder))

    def steps(self):
        """Return the steps of which there are checkpoints, in ascending order."""
        return _checkpoint_file.steps_in(self.folder)

    def maybe_save(self, step, net=None, trainer=None, sampler=None, extra=None):
        """Save if it is time to, as `save` does; return whether it was.

        Call it after each step.  It waits for the end of an update, where a Trainer accumulates
        gradients over several steps.  Counted in seconds, none is due while the one before it is
        still being written.
        """
        self._show_error()
        if self._is_due(step, trainer):
            self.save(step, net, trainer, sampler, extra)
            return True
        if self._steps is None:
            self._seed_for(step)
        return False

    def _is_due(self, step, trainer):
        trainers = _run_state.named(trainer).values()
        pending = any(getattr(one, 'pending', 0) for one in trainers)
        if self._steps is not None:
            self._waiting = self._waiting or step % self._steps == 0
            return self._waiting and not pending
        if self._num_workers > 1 and any(map(_is_collective, trainers)):
            raise ValueError('Checkpoint: steps must be given where several workers save the '
                             "states of a store's servers together")
        due = time.monotonic() - self._last >= self._seconds
        return due and not pending and not self._busy()

    def save(self, step, net=None, trainer=None, sampler=None, extra=None):
        """Save what belongs to a step; the file is written while the training goes on.

        step is the number of steps done.  What is None is left out:

        * net: a Block, a dict of parameters, a list of them, or a dict from names to Blocks.
        * trainer: a Trainer, or a dict from names to Trainers: what has get_states() and
          set_states(bytes) or, as gluon.Trainer, save_states and load_states.  The latter are
          pickles, made before this returns: restore them only from folders that you trust.  Of a
          d2l.Trainer, copies of the states are made, as of the parameters.
        * sampler: something with state() and set_state(), such as a DistributedSampler.
        * extra: whatever JSON can say.

        On several devices the parameters of one are saved, and of each what layers such as
        BatchNorm gather.  On several workers those of rank 0.

        Waits for the checkpoint before if it is still being written.  Raises CheckpointError
        where that one failed, ValueError for a step that is behind those of the folder.
        """
        self._join()
        self._show_error()
        if self._rank == 0:
            self._refuse_if_behind(step)
            self._begin(step, *_capture(step, net, trainer, sampler, extra, self._seed is None))
        else:
            for one in filter(_is_collective, _run_state.named(trainer).values()):
                _run_state.capture_trainer(one)
        self._seed_for(step)
        self._last, self._waiting = time.monotonic(), False

    def _refuse_if_behind(self, step):
        later = [other for other in self.steps() if other > step]
        if later and not self._known:
            raise ValueError(
                'Checkpoint: {} has checkpoints of later steps (the last is {}); restore() them, '
                'or take another folder'.format(self.folder, later[-1]))
        self._known = True

    def _begin(self, step, state, members):
        # Not a daemon: Python waits for it at the end, before anything of MXNet is taken down.
        self._thread = threading.Thread(target=self._write, args=(step, state, members),
                                        name='d2l-checkpoint')
        self._thread.start()

    def _write(self, step, state, members):
        try:
            members = {name: value() if callable(value) else value
                       for name, value in members.items()}
            _checkpoint_file.require_space(self.folder, sum(map(_nbytes, members.values())))
            # Scalars have a shape of their own for MXNet only where a thread says so.
            with mx.util.np_shape(True):
                _checkpoint_file.write(_checkpoint_file.path_of(self.folder, step), state, members)
            _checkpoint_file.prune(self.folder, step, self._keep)
        except BaseException as error:  # shown by the next call
            self._error = error
            _failed.add(self)

    def wait(self):
        """Wait until the last checkpoint is on the disk.  Raises CheckpointError if it failed."""
        self._join()
        self._show_error()

    def _busy(self):
        return self._thread is not None and self._thread.is_alive()

    def _join(self):
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _take_error(self):
        """Return what went wrong as a CheckpointError, once; None if all is well."""
        error, self._error = self._error, None
        if error is None:
            return None
        _failed.discard(self)
        found = CheckpointError('Checkpoint: nothing was saved in {}: {}'.format(
            self.folder, error))
        found.__cause__ = error
        return found

    def _show_error(self):
        error = self._take_error()
        if error is not None and self._on_error == 'raise':
            raise error
        if error is not None:
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)

    def _seed_for(self, step):
        if self._seed is not None:
            _run_state.seed_all(self._seed, step, self._rank)

    def restore(self, net=None, trainer=None, sampler=None):
        """Restore the newest checkpoint that is whole; return its step, or None without any.

        Call it once, before the first step, with the net initialized and the trainer made.  What
        is None is not restored.  ``self.extra`` becomes what was saved as extra.  A damaged file
        is passed over with a warning that names it, and renamed to end in ``.damaged``.

        The numbers of devices and workers may be others than when it was saved.

        Raises CheckpointError when there are checkpoints but none is whole, or the workers find
        different ones; ValueError when one does not fit.
        """
        self._join()
        stores = self._stores(trainer)
        found = self._agree(stores[0]) if stores else self._newest(self._rank == 0)
        self._known = True
        if found is None:
            self._seed_for(0)
            return None
        state, members, _ = found
        self._apply(state, members, net, trainer, sampler)
        self._last = time.monotonic()
        return state['step']

    def _apply(self, state, members, net, trainer, sampler):
        trainers = _run_state.named(trainer)
        missing = sorted(set(trainers) - set(state['trainers']))
        if missing or (sampler is not None and state['sampler'] is None):
            raise ValueError('Checkpoint: the checkpoint of step {} holds no {}'.format(
                state['step'], ', '.join(missing) or 'sampler'))
        params = [] if net is None else _run_state.check_parameters(net, members)
        _run_state.apply_parameters(params)
        for name, one in trainers.items():
            _run_state.apply_trainer(one, members[_trainer_member(name)])
        _run_state.apply_replicas(params)
        if sampler is not None:
            sampler.set_state(state['sampler'])
        self.extra = state['extra']
        if self._seed is not None:
            self._seed_for(state['step'])
        elif self._rank == 0 and state['random'] is not None:
            _run_state.apply_random(state['random'])

    def _newest(self, set_aside):
        """Return what `_read` does of the newest checkpoint that is whole; None without any."""
        steps = self.steps()
        for step in reversed(steps):
            path = _checkpoint_file.path_of(self.folder, step)
            try:
                return self._read(step)
            except _checkpoint_file.DamagedError as error:
                warnings.warn('Checkpoint: {} is damaged ({}), the one before it is used'.format(
                    path, error), RuntimeWarning, stacklevel=3)
                if set_aside:
                    _checkpoint_file.set_aside(path)
        if steps:
            raise CheckpointError('Checkpoint: none of the checkpoints in {} is whole'.format(
                self.folder))
        return None

    def _read(self, step):
        path = _checkpoint_file.path_of(self.folder, step)
        try:
            found = _checkpoint_file.read(path)
        except OSError as error:
            raise CheckpointError(
                'Checkpoint: {} cannot be read: {}'.format(path, error)) from error
        if found[0]['step'] != step:
            raise _checkpoint_file.DamagedError('it holds step {}'.format(found[0]['step']))
        return found

    def _stores(self, trainer):
        """Return the stores through which the workers can talk to each other."""
        if self._num_workers == 1:
            return []
        stores = [getattr(one, '_kvstore', None) for one in _run_state.named(trainer).values()]
        return [store for store in stores if getattr(store, 'num_workers', 1) > 1]

    def _agree(self, store):
        """Read what rank 0 of the store finds to be the newest; all workers call it."""
        if store.rank == 0:
            try:
                found = self._newest(True)
            except BaseException:
                _from_rank_0(store, _FAILED, 0)  # nobody waits in vain
                raise
            _from_rank_0(store, *((_NONE, 0) if found is None else (found[0]['step'], found[2])))
            return found
        step, digest = _from_rank_0(store, 0, 0)
        if step == _NONE:
            return None
        if step == _FAILED:
            raise CheckpointError('Checkpoint: rank 0 could not restore')
        try:
            found = self._read(step)
        except (CheckpointError, _checkpoint_file.DamagedError) as error:
            raise CheckpointError(
                'Checkpoint: rank 0 restores step {}, rank {} cannot: {}; all workers must reach '
                'the same folder'.format(step, store.rank, error)) from error
        if found[2] != digest:
            raise CheckpointError('Checkpoint: step {} of rank {} is another checkpoint than that '
                                  'of rank 0'.format(step, store.rank))
        return found


def _capture(step, net, trainer, sampler, extra, with_random):
    """Return (what goes into JSON, member name -> array of MXNet, bytes or what makes bytes)."""
    trainers = _run_state.named(trainer)
    state = {'step': int(step), 'trainers': sorted(trainers), 'extra': extra,
             'sampler': None if sampler is None else sampler.state(),
             'random': _run_state.capture_random() if with_random else None}
    members = _run_state.capture_parameters(net)
    for name, one in trainers.items():
        members[_trainer_member(name)] = _run_state.capture_trainer(one)
    json.dumps(state)  # what it cannot say is an error here, not in the thread
    return state, members


def _nbytes(value):
    if isinstance(value, bytes):
        return len(value)
    return value.size * numpy.dtype(value.dtype).itemsize


def _trainer_member(name):
    return 'trainer/{}.states'.format(name)


def _is_collective(trainer):
    """Whether all workers must take part when the trainer's states are read."""
    return bool(getattr(trainer, '_update_on_kvstore', False)
                and getattr(trainer, '_distributed', False))


def _from_rank_0(store, *numbers):
    """Return the integers, from -2 to 2**47, that the store's rank 0 gives."""
    global _restored
    # Pieces of 16 bits, which float32 holds exactly and every store can carry.
    pieces = [(number + 2) >> shift & 0xffff for number in numbers for shift in (0, 16, 32)]
    value = mx.nd.array(pieces, dtype='float32')
    out = mx.nd.zeros(len(pieces), dtype='float32')
    store.broadcast('restored {}'.format(_restored), value, out)
    _restored += 1
    got = [int(piece) for piece in out.asnumpy()]
    return [sum(piece << shift for piece, shift in zip(got[i:i + 3], (0, 16, 32))) - 2
            for i in range(0, len(got), 3)]


def _finish_all():
    for checkpoint in list(_all):
        checkpoint._join()


def _report_at_exit():
    # Python has waited for the threads before.
    for checkpoint in list(_failed):
        _logger.error('%s', checkpoint._take_error())


# A child that is forked in the middle of a write has MXNet's locks as they were at that moment.
os.register_at_fork(before=_finish_all)
atexit.register(_report_at_exit)
