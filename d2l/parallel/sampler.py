"""Which examples each worker sees, and when: the same for one worker and for many."""
import mxnet as mx
import numpy
from mxnet import autograd, gluon
from mxnet.util import is_np_array

from d2l.parallel import job


class DistributedSampler(gluon.data.Sampler):
    """Batches of indices for one worker: its part of each global batch.

    An epoch is cut into global batches of batch_size examples, whose order depends on seed and
    epoch alone: global batch i holds the same examples for one worker and for four.  Each worker
    gets a run of neighbours in it, worker 0 the first; the parts differ by at most one example,
    the longer ones come first, as in `split_batch`.  So all workers have the same number of
    batches, none of them empty.

    Parts that are not equally long need no weights when each worker adds up the gradients of its
    examples, all are added, and the sum is divided by the size of the global batch: this is what
    ``trainer.step(sampler.global_size)`` does with the losses of single examples.

    last says what becomes of the length % batch_size examples that are left:

    * 'keep': they are a smaller global batch.  Every example comes once in an epoch.
    * 'wrap': that batch is filled up with the first examples of the epoch, which come twice.
    * 'drop': they are left out; with shuffle others in each epoch.

    Iterating gives the rest of the epoch as lists of ints, and moves to the next epoch at its
    end.  An instance is a ``batch_sampler`` of ``gluon.data.DataLoader``; `batches` serves whole
    arrays.  ``len()`` is the number of batches in an epoch.  Loaders that fetch ahead
    (num_workers above 0) take batches earlier than the training does: go through them with
    `follow`, which counts those that have arrived, or a checkpoint would skip some.

    rank and num_workers are those of the job unless given.  Raises ValueError for numbers that
    are out of range, a batch_size below num_workers, and with 'keep' where the last batch has
    fewer examples than there are workers.
    """

    def __init__(self, length, batch_size, num_workers=None, rank=None, shuffle=True, seed=0,
                 last='keep'):
        self.num_workers = job.num_workers() if num_workers is None else num_workers
        self.rank = job.rank() if rank is None else rank
        self.length, self.batch_size, self.shuffle = length, batch_size, bool(shuffle)
        self.seed, self.last = seed, last
        self._check()
        self.epoch = self.batch = 0
        # Examples of the global batch that was handed out last, over all workers.
        self.global_size = min(batch_size, length) if last == 'keep' else batch_size
        self._followed = False

    def _check(self):
        name = 'DistributedSampler: '
        for argument in ('length', 'num_workers'):
            if getattr(self, argument) < 1:
                raise ValueError('{}{} must be at least 1, got {}'.format(
                    name, argument, getattr(self, argument)))
        if not 0 <= self.rank < self.num_workers:
            raise ValueError('{}rank must be from 0 to {}, got {}'.format(
                name, self.num_workers - 1, self.rank))
        if self.batch_size < self.num_workers:
            raise ValueError('{}batch_size, that of all workers together, must be at least their '
                             'number, {}, got {}'.format(name, self.num_workers, self.batch_size))
        if self.last not in ('keep', 'wrap', 'drop'):
            raise ValueError("{}last must be 'keep', 'wrap' or 'drop', got {!r}".format(
                name, self.last))
        rest = self.length % self.batch_size
        if self.last == 'keep' and 0 < rest < self.num_workers:
            raise ValueError(
                "{}the last batch must have an example for each of {} workers, {} % {} leaves {}; "
                "take another batch_size, last='wrap' or last='drop'".format(
                    name, self.num_workers, self.length, self.batch_size, rest))
        if len(self) == 0:
            raise ValueError("{}length must be at least batch_size, {}, with last='drop', got "
                             '{}'.format(name, self.batch_size, self.length))

    def __len__(self):
        return (self.length if self.last == 'drop' else self.length + self.batch_size - 1
                ) // self.batch_size

    def __iter__(self):
        order, first, epoch = self._order(self.epoch), self.batch, self.epoch
        for i in range(first, len(self)):
            rows = order[i * self.batch_size:(i + 1) * self.batch_size]
            if not self._followed:
                self._reached(epoch, i + 1, len(rows))
            yield self._part(rows).tolist()

    def _order(self, epoch):
        """Return the indices of an epoch, batch after batch."""
        # RandomState, not the newer Generator: its numbers are the same in every numpy.
        order = (numpy.random.RandomState([self.seed, epoch]).permutation(self.length)
                 if self.shuffle else numpy.arange(self.length))
        # As long as whole batches are, or shorter, with 'keep'; the epoch may be short of one.
        return order if self.last == 'keep' else numpy.resize(order, len(self) * self.batch_size)

    def _part(self, rows):
        return numpy.array_split(rows, self.num_workers)[self.rank]

    def _reached(self, epoch, batch, global_size):
        self.epoch, self.batch = (epoch + 1, 0) if batch == len(self) else (epoch, batch)
        self.global_size = global_size

    def follow(self, loader):
        """Go through the rest of an epoch of a loader over this sampler, batch by batch.

        The position is then that of the batches which have come out of the loader, however many
        it has fetched ahead.
        """
        epoch, batch = self.epoch, self.batch
        self._followed = True
        try:
            for loaded in loader:
                batch += 1
                self._reached(epoch, batch, self._size_of(batch - 1))
                yield loaded
        finally:
            self._followed = False

    def _size_of(self, batch):
        left = self.length - batch * self.batch_size
        return min(left, self.batch_size) if self.last == 'keep' else self.batch_size

    def batches(self, *arrays):
        """Go through the rest of an epoch of whole arrays: a list with this worker's rows of each.

        arrays are MXNet or NumPy arrays with the examples along their first axis; the rows are
        MXNet arrays of their dtype, on their device.  Raises ValueError for other lengths.
        """
        if any(len(array) != self.length for array in arrays):
            raise ValueError('DistributedSampler.batches: arrays must have {} examples, got '
                             '{}'.format(self.length, [len(array) for array in arrays]))
        for rows in self:
            with autograd.pause():
                taken = [_take(array, rows) for array in arrays]
            yield taken

    def set_epoch(self, epoch):
        """Go to the beginning of an epoch; within the epoch that is already under way, stay."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state(self):
        """Return the position, which does not depend on the number of workers, for JSON."""
        return {'epoch': self.epoch, 'batch': self.batch, **self._order_arguments()}

    def set_state(self, state):
        """Go to a position.  Raises ValueError if it is one of another order of batches."""
        for name, value in self._order_arguments().items():
            if state[name] != value:
                raise ValueError('DistributedSampler: {} must be that of the saved position, {!r}, '
                                 'got {!r}'.format(name, state[name], value))
        self.epoch, self.batch = state['epoch'], state['batch']

    def _order_arguments(self):
        return {name: getattr(self, name)
                for name in ('length', 'batch_size', 'shuffle', 'seed', 'last')}


def _take(array, rows):
    if not isinstance(array, mx.nd.NDArray):
        make = mx.np.array if is_np_array() else mx.nd.array
        return make(array[rows], dtype=array.dtype)
    make = mx.np.array if isinstance(array, mx.np.ndarray) else mx.nd.array
    return array.take(make(rows, dtype='int64', ctx=array.ctx), axis=0)
