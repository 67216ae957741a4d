"""One pushpull of float32 by several processes of this machine, by the stores that are installed.

d2l is the store 'ring' over Gloo, d2l_mpi over MPI, d2l_fp16 with compression; mxnet_dist_sync is
MXNet's parameter server, with one server.  Times are for one pushpull: wall_ms is the slowest
worker's, cpu_ms the sum over all workers (not the server), busy waiting included.  The cases '200
arrays' are those of one step of a network with many parameters: d2l takes them in buckets
(pushpull_all), d2l_each and the others one by one.

As a script (stores.py ROLE) this is one process of such a job.
"""
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Client, Listener

import numpy as np

# (workers, elements of an array); a case of many arrays has their number in front.
SHAPES = [(workers, elements) for workers in (2, 4)
          for elements in (1 << 8, 1 << 15, 1 << 18, 10 << 18, 100 << 18)]
MANY = [(200, workers, 1 << 12) for workers in (2, 4)]
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))


def cases():
    """A Case for each of SHAPES and MANY; the jobs of one number of workers are kept for all."""
    from benchmarks.run import Case
    assert importlib.util.find_spec('torch'), 'nothing to compare: ring needs torch'
    jobs = {}
    for shape in SHAPES + (MANY if len(SHAPES) > 1 else []):
        count, workers, elements = (1,) * (3 - len(shape)) + tuple(shape)
        names = providers(count)
        for name in names:
            if (name, workers) not in jobs:
                jobs[name, workers] = Job(name, workers)

        def once(name, task=(count, elements), workers=workers):
            return lambda: jobs[name, workers].work(*task, 1)[0]

        def check(results, workers=workers):
            expected = np.arange(1, workers + 1).sum()
            return [name for name, found in results.items() if set(found) != {expected}]

        def timed(functions, samples, task=(count, elements), workers=workers):
            return time_jobs({name: jobs[name, workers] for name in functions}, task, samples)

        size = _bytes(4 * elements)
        what = size if count == 1 else '{} arrays of {}'.format(count, size)
        yield Case('{}, {} workers'.format(what, workers), {name: once(name) for name in names},
                   check, 4 * elements * count, None, timed)


def providers(count):
    """The names of the stores that can run here."""
    found = ['d2l', 'mxnet_dist_sync', 'd2l_fp16']
    if count > 1:
        found.append('d2l_each')
    if importlib.util.find_spec('mpi4py') and mpiexec():
        found.append('d2l_mpi')
    if importlib.util.find_spec('horovod'):
        found.append('horovod')
    return found


def mpiexec():
    """The mpiexec of this environment, or None."""
    beside = os.path.join(os.path.dirname(sys.executable), 'mpiexec')
    return beside if os.path.exists(beside) else shutil.which('mpiexec')


def time_jobs(jobs, task, samples, seconds=0.2):
    """As d2l.testing.time_op, of jobs: name -> dict(cpu_ms, wall_ms, spread)."""
    from d2l.testing import summary_of_times
    repeats, taken = {}, {name: [] for name in jobs}
    for name, job in jobs.items():
        job.work(*task, 2)
        repeats[name] = max(1, int(seconds / job.work(*task, 1)[1]))
    for _ in range(samples):
        for name, job in jobs.items():
            _, wall, cpu = job.work(*task, repeats[name])
            taken[name].append((cpu / repeats[name], wall / repeats[name]))
    return {name: summary_of_times(times) for name, times in taken.items()}


class Job:
    """Worker processes with a store, which do pushpulls when told; started by the first `work`."""

    def __init__(self, store, workers):
        self._store, self._workers, self._lines, self._processes = store, workers, [], []

    def work(self, count, elements, repeats):
        """Let all workers push and pull `count` arrays, `repeats` times.

        Returns (some elements of the sums, seconds of the slowest worker, CPU seconds of all).
        """
        if not self._lines:
            self._start()
        for line in self._lines:
            line.send((count, elements, repeats))
        found = [line.recv() for line in self._lines]
        values = sorted({value for values, _, _ in found for value in values})
        return values, max(wall for _, wall, _ in found), sum(cpu for _, _, cpu in found)

    def _start(self):
        env = dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS='1',
                   D2L_NUM_WORKERS=str(self._workers),
                   D2L_STORE_ADDRESS='127.0.0.1:{}'.format(free_port()),
                   DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT=str(free_port()),
                   DMLC_NUM_WORKER=str(self._workers), DMLC_NUM_SERVER='1',
                   DMLC_NODE_HOST='127.0.0.1')
        roles = ['worker'] * self._workers
        if self._store == 'mxnet_dist_sync':
            roles += ['server', 'scheduler']
        with Listener(('127.0.0.1', 0), authkey=b'stores') as listener:
            env['STORES_LINE'] = str(listener.address[1])
            command = [sys.executable, os.path.abspath(__file__)]
            if self._store in ('d2l_mpi', 'horovod'):
                starter = {'d2l_mpi': [mpiexec(), '-n'], 'horovod': ['horovodrun', '--gloo', '-np']}
                self._run(starter[self._store] + [str(self._workers)] + command
                          + ['worker', self._store], env)
            else:
                for rank, role in enumerate(roles):
                    self._run(command + [role, self._store],
                              dict(env, DMLC_ROLE=role, D2L_RANK=str(rank)))
            lines = [listener.accept() for _ in roles]
        self._lines = [line for line in lines if line.recv() == 'worker']
        self._servers = [line for line in lines if line not in self._lines]

    def _run(self, command, env):
        if self._store in ('d2l_mpi', 'horovod'):  # they number the processes themselves
            env = {name: value for name, value in env.items() if name != 'D2L_NUM_WORKERS'}
        self._processes.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL))


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def worker(name, line):
    """Do pushpulls until the line breaks."""
    import d2l  # noqa: F401, I001  (before mxnet)
    import mxnet as mx
    from d2l.parallel.stores import create
    if name == 'mxnet_dist_sync':
        store = mx.kv.create('dist_sync')
    else:
        options = {'d2l_mpi': {'transport': 'mpi'}}
        store = create('horovod' if name == 'horovod' else 'ring', **options.get(name, {}))
        if name == 'd2l_fp16':
            store.set_gradient_compression({'type': 'fp16'})
    arrays = {}
    while True:
        count, elements, repeats = task = line.recv()
        if task[:2] not in arrays:
            keys = [len(arrays) * 1000 + i for i in range(count)]
            values = [mx.nd.ones(elements) for _ in keys]
            outs = [mx.nd.zeros(elements) for _ in keys]
            for key, value, out in zip(keys, values, outs):
                store.broadcast(key, value, out)
                value *= store.rank + 1
            arrays[task[:2]] = keys, values, outs
        keys, values, outs = arrays[task[:2]]
        mx.nd.waitall()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(repeats):
            if count > 1 and name in ('d2l', 'd2l_fp16', 'd2l_mpi', 'horovod'):
                store.pushpull_all(keys, values, outs)
            else:
                for key, value, out in zip(keys, values, outs):
                    store.pushpull(key, value, out=out)
            mx.nd.waitall()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        line.send(([float(out[i].asscalar()) for out in outs for i in (0, -1)], wall, cpu))


def main(role, name):
    """One process of a job; ends with the line to the benchmark."""
    line = Client(('127.0.0.1', int(os.environ['STORES_LINE'])), authkey=b'stores')
    line.send(role)
    server = None
    try:
        if role == 'worker':
            worker(name, line)
        # What DMLC_ROLE says; it blocks.
        server = subprocess.Popen([sys.executable, '-c', 'import d2l, mxnet'])
        line.recv()
    except (EOFError, OSError):
        if server:
            server.kill()
        os._exit(0)  # without the farewells, for which the others would have to be there


def _bytes(size):
    return '{} MB'.format(size >> 20) if size >> 20 else '{} KB'.format(size >> 10)


if __name__ == '__main__':
    main(*sys.argv[1:])
