"""One pushpull of float32 by several processes of this machine, by the stores that are installed.

d2l is the store 'ring' over Gloo, d2l_mpi over MPI, d2l_fp16 with compression; d2l_dist_sync and
d2l_dist_async are our stores over MXNet's parameter server, with one server process of ours (the
second one's updates by sgd), mxnet_dist_sync is MXNet's own store and server.  Times are for one
pushpull: wall_ms is the slowest worker's, cpu_ms the sum over all workers (not the server), busy
waiting included.  The cases '200 arrays' are those of one step of a network with many parameters:
the stores of d2l take them together (pushpull_all; 'ring' in buckets), d2l_each and MXNet's one by
one.

As a script (stores.py worker KIND) this is a worker of such a job.
"""
import importlib.util
import time

import numpy as np

from benchmarks.parallel._jobs import Job, be_process, command_of, time_tasks

# (workers, elements of an array); a case of many arrays has their number in front.
SHAPES = [(workers, elements) for workers in (2, 4)
          for elements in (1 << 8, 1 << 15, 1 << 18, 10 << 18, 100 << 18)]
MANY = [(200, workers, 1 << 12) for workers in (2, 4)]
# provider -> the kind of job whose processes have it.  A process can be in one job of a parameter
# server only; a ring goes beside it.
KINDS = {'d2l': 'd2l', 'd2l_dist_sync': 'd2l', 'd2l_fp16': 'd2l', 'd2l_each': 'd2l',
         'mxnet_dist_sync': 'mxnet', 'd2l_dist_async': 'async', 'd2l_mpi': 'mpi',
         'horovod': 'horovod'}
# Whose servers these kinds have, and what starts the workers of those.
SERVERS = {'d2l': 'd2l.parallel.server', 'async': 'd2l.parallel.server', 'mxnet': 'mxnet'}
STARTERS = {'mpi': ['mpiexec', '-n'], 'horovod': ['horovodrun', '--gloo', '-np']}


def cases():
    """A Case for each of SHAPES and MANY; the jobs of one number of workers are kept for all."""
    from benchmarks.run import Case
    assert importlib.util.find_spec('torch'), 'nothing to compare: ring needs torch'
    jobs = {}
    for shape in SHAPES + (MANY if len(SHAPES) > 1 else []):
        count, workers, elements = (1,) * (3 - len(shape)) + tuple(shape)
        names = providers(count)
        for name in names:
            if (KINDS[name], workers) not in jobs:
                jobs[KINDS[name], workers] = new_job(KINDS[name], workers)

        def work(name, repeats, task=(count, elements), workers=workers):
            """(Some elements of the sums, the slowest worker's seconds, CPU seconds of all.)"""
            found = jobs[KINDS[name], workers].work(name, *task, repeats)
            values = sorted({value for values, _, _ in found for value in values})
            return values, max(wall for _, wall, _ in found), sum(cpu for _, _, cpu in found)

        def once(name, work=work):
            return lambda: work(name, 1)[0]

        def check(results, workers=workers):
            expected = np.arange(1, workers + 1).sum()
            return [name for name, found in results.items() if set(found) != {expected}]

        def timed(functions, samples, work=work):
            return time_tasks(work, functions, samples)

        size = _bytes(4 * elements)
        what = size if count == 1 else '{} arrays of {}'.format(count, size)
        yield Case('{}, {} workers'.format(what, workers), {name: once(name) for name in names},
                   check, 4 * elements * count, None, timed)


def providers(count):
    """The names of the stores that can run here."""
    missing = {name for name, there in (
        ('d2l_each', count > 1), ('horovod', importlib.util.find_spec('horovod')),
        ('d2l_mpi', importlib.util.find_spec('mpi4py') and command_of('mpiexec'))) if not there}
    return [name for name in KINDS if name not in missing]


def new_job(kind, workers):
    """A Job of workers with the stores of one kind."""
    starter = STARTERS.get(kind)
    return Job(__file__, kind, workers, SERVERS.get(kind),
               starter and [command_of(starter[0]), *starter[1:]])


# What follows runs in the processes of a job.

def create_stores(kind):
    """provider -> its store, in a worker."""
    import d2l  # noqa: F401, I001  (before mxnet)
    import mxnet as mx
    from d2l.parallel.stores import create
    if kind == 'mxnet':
        return {'mxnet_dist_sync': mx.kv.create('dist_sync')}
    if kind == 'async':
        store = create('dist_async')
        # With this learning rate the servers add up what they get.
        store.update_by('sgd', {'learning_rate': -1.0})
        return {'d2l_dist_async': store}
    if kind == 'd2l':
        ring, half = create('ring'), create('ring', {'type': 'fp16'})
        return {'d2l': ring, 'd2l_each': ring, 'd2l_fp16': half, 'd2l_dist_sync':
                create('dist_sync')}
    if kind == 'mpi':
        return {'d2l_mpi': create('ring', transport='mpi')}
    return {kind: create(kind)}


class Arrays:
    """The arrays of a provider for one task: each worker's are filled with its rank plus 1."""

    def __init__(self, name, store, first_key, count, elements):
        import mxnet as mx
        self._mx, self._store = mx, store
        self._keys = list(range(first_key, first_key + count))
        self._values = [mx.nd.ones(elements) for _ in self._keys]
        self._outs = [mx.nd.zeros(elements) for _ in self._keys]
        for key, value, out in zip(self._keys, self._values, self._outs):
            store.broadcast(key, value, out)
            value *= store.rank + 1
        self._sums_up = name == 'd2l_dist_async'
        self._before = 1.0
        self._together = count > 1 and name not in ('mxnet_dist_sync', 'd2l_each')

    def pushpull(self, repeats):
        """Returns (elements of a pushpull's sums, wall seconds, CPU seconds of this process)."""
        store, waitall = self._store, self._mx.nd.waitall
        waitall()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            if self._together:
                store.pushpull_all(self._keys, self._values, self._outs)
            else:
                for key, value, out in zip(self._keys, self._values, self._outs):
                    store.pushpull(key, value, out=out)
            waitall()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return self._elements(repeats), wall, cpu

    def _elements(self, repeats):
        if not self._sums_up:
            return self._found()
        # What has been added since, when all have pushed.
        self._store.barrier()
        for key, out in zip(self._keys, self._outs):
            self._store.pull(key, out)
        found, before = self._found(), self._before
        self._store.barrier()
        self._before = found[0]
        return [(value - before) / repeats for value in found]

    def _found(self):
        return [float(out[i].asscalar()) for out in self._outs for i in (0, -1)]


def worker(kind):
    """What does the tasks of a job of this kind: (provider, number and length of arrays, repeats).
    """
    stores, arrays = create_stores(kind), {}

    def do(name, count, elements, repeats):
        task = name, count, elements
        if task not in arrays:
            arrays[task] = Arrays(name, stores[name], 1000 * len(arrays), count, elements)
        return arrays[task].pushpull(repeats)
    return do


def _bytes(size):
    return '{} MB'.format(size >> 20) if size >> 20 else '{} KB'.format(size >> 10)


if __name__ == '__main__':
    be_process(worker)
