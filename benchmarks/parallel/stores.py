"""One pushpull of float32 by several processes of this machine, by the stores that are installed.

d2l is the store 'ring' over Gloo, d2l_mpi over MPI, d2l_fp16 with compression; d2l_dist_sync and
d2l_dist_async are our stores over MXNet's parameter server, with one server process of ours (the
second one's updates by sgd), mxnet_dist_sync is MXNet's own store and server.  Times are for one
pushpull: wall_ms is the slowest worker's, cpu_ms the sum over all workers (not the server), busy
waiting included.  The cases '200 arrays' are those of one step of a network with many parameters:
the stores of d2l take them together (pushpull_all; 'ring' in buckets), d2l_each and MXNet's one by
one.

As a script (stores.py ROLE KIND) this is one process of such a job.
"""
import importlib.util
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback

import numpy as np

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
SERVERS = {'d2l': 'd2l', 'async': 'd2l', 'mxnet': 'mxnet'}
STARTERS = {'mpi': ['mpiexec', '-n'], 'horovod': ['horovodrun', '--gloo', '-np']}
START_TIMEOUT, WORK_TIMEOUT = 120, 300  # seconds
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
            if (KINDS[name], workers) not in jobs:
                jobs[KINDS[name], workers] = Job(KINDS[name], workers)

        def work(name, repeats, task=(count, elements), workers=workers):
            return jobs[KINDS[name], workers].work(name, *task, repeats)

        def once(name, work=work):
            return lambda: work(name, 1)[0]

        def check(results, workers=workers):
            expected = np.arange(1, workers + 1).sum()
            return [name for name, found in results.items() if set(found) != {expected}]

        def timed(functions, samples, work=work):
            return time_work(work, functions, samples)

        size = _bytes(4 * elements)
        what = size if count == 1 else '{} arrays of {}'.format(count, size)
        yield Case('{}, {} workers'.format(what, workers), {name: once(name) for name in names},
                   check, 4 * elements * count, None, timed)


def providers(count):
    """The names of the stores that can run here."""
    missing = {name for name, there in (
        ('d2l_each', count > 1), ('horovod', importlib.util.find_spec('horovod')),
        ('d2l_mpi', importlib.util.find_spec('mpi4py') and starter('mpi'))) if not there}
    return [name for name in KINDS if name not in missing]


def starter(kind):
    """The command before the number of workers, of this environment; None without it."""
    program, *options = STARTERS[kind]
    beside = os.path.join(os.path.dirname(sys.executable), program)
    found = beside if os.path.exists(beside) else shutil.which(program)
    return found and [found, *options]


def time_work(work, names, samples, seconds=0.2):
    """As d2l.testing.time_op, of work(name, repeats): name -> dict(cpu_ms, wall_ms, spread)."""
    from d2l.testing import summary_of_times
    repeats, taken = {}, {name: [] for name in names}
    for name in names:
        work(name, 2)
        repeats[name] = max(1, int(seconds / work(name, 1)[1]))
    for _ in range(samples):
        for name in names:
            _, wall, cpu = work(name, repeats[name])
            taken[name].append((cpu / repeats[name], wall / repeats[name]))
    return {name: summary_of_times(times) for name, times in taken.items()}


class Job:
    """Worker processes with stores, which do pushpulls when told; started by the first `work`.

    Raises RuntimeError, and kills the processes, when one ends or does not answer in time.
    """

    def __init__(self, kind, workers):
        self._kind, self._workers, self._lines, self._processes = kind, workers, [], {}

    def work(self, name, count, elements, repeats):
        """Let all workers push and pull `count` arrays by the store of a provider, repeatedly.

        Returns (some elements of the sums, seconds of the slowest worker, CPU seconds of all).
        """
        if not self._lines:
            self._start()
        try:
            for line in self._lines:
                line.send([name, count, elements, repeats])
            found = [line.receive(WORK_TIMEOUT) for line in self._lines]
        except OSError as error:
            self._fail('{} x {} elements by {}: {!r}'.format(count, elements, name, error))
        values = sorted({value for values, _, _ in found for value in values})
        return values, max(wall for _, wall, _ in found), sum(cpu for _, _, cpu in found)

    def _start(self):
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(
            [ROOT, os.environ.get('PYTHONPATH', '')]), OMP_NUM_THREADS='1',
            D2L_NUM_WORKERS=str(self._workers),
            D2L_STORE_ADDRESS='127.0.0.1:{}'.format(free_port()),
            DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT=str(free_port()),
            DMLC_NUM_WORKER=str(self._workers), DMLC_NUM_SERVER='1', DMLC_NODE_HOST='127.0.0.1')
        end = time.monotonic() + START_TIMEOUT
        with socket.create_server(('127.0.0.1', 0), backlog=64) as listener:
            env['STORES_LINE'] = str(listener.getsockname()[1])
            roles = self._run_all([sys.executable, os.path.abspath(__file__)], env)
            lines = [self._accept(listener, end) for _ in roles]
        for line in lines:
            if line.role == 'worker':
                self._receive_ready(line, end)
        self._lines = [line for line in lines if line.role == 'worker']
        self._others = [line for line in lines if line.role != 'worker']

    def _run_all(self, command, env):
        """Start the processes; the roles of those that will call."""
        roles = ['worker'] * self._workers
        if self._kind in STARTERS:  # it numbers the processes itself
            del env['D2L_NUM_WORKERS']
            self._run('starter', [*starter(self._kind), str(self._workers), *command, 'worker',
                                  self._kind], env)
            return roles
        if self._kind in SERVERS:
            roles += ['server', 'scheduler']
        for rank, role in enumerate(roles):
            name = '{} {}'.format(role, rank) if role == 'worker' else role
            self._run(name, [*command, role, self._kind], dict(
                env, DMLC_ROLE=role, D2L_RANK=str(rank)))
        return roles

    def _run(self, name, command, env):
        self._processes[name] = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)

    def _accept(self, listener, end):
        """The line to the next process that calls, while none ends and until the end."""
        listener.settimeout(0.2)
        while True:
            try:
                line = Line(listener.accept()[0])
                line.role = line.receive(START_TIMEOUT)
                return line
            except socket.timeout:
                ended = [name for name, p in self._processes.items() if p.poll() is not None]
                if ended or time.monotonic() > end:
                    self._fail('not all processes have started within {} s'.format(START_TIMEOUT))

    def _receive_ready(self, line, end):
        try:
            line.receive(max(1, end - time.monotonic()))
        except OSError as error:
            self._fail('not all workers have met within {} s: {!r}'.format(START_TIMEOUT, error))

    def _fail(self, what):
        time.sleep(0.5)  # until one that has broken its line has ended, too
        ended = ['{} (exit status {})'.format(name, process.returncode)
                 for name, process in self._processes.items() if process.poll() is not None]
        for process in self._processes.values():
            process.kill()
            process.wait()
        raise RuntimeError('stores: the job {}, {} workers: {}; ended: {}'.format(
            self._kind, self._workers, what, ', '.join(ended) or 'none'))


class Line:
    """Messages between the benchmark and one of its processes: a line of JSON each."""

    def __init__(self, connection):
        self._connection, self._file = connection, connection.makefile('rb')
        self.role = None

    def send(self, message):
        self._connection.sendall(json.dumps(message).encode() + b'\n')

    def receive(self, timeout=None):
        """The next message.  OSError when the line breaks, or after so many seconds."""
        self._connection.settimeout(timeout)
        text = self._file.readline()
        if not text:
            raise ConnectionError('it has ended')
        return json.loads(text)


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


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


def worker(kind, line, tasks):
    """Do the tasks that come; a broken line ends the process."""
    stores, arrays = create_stores(kind), {}
    line.send('ready')
    while True:
        name, count, elements, repeats = tasks.get()
        task = name, count, elements
        if task not in arrays:
            arrays[task] = Arrays(name, stores[name], 1000 * len(arrays), count, elements)
        line.send(arrays[task].pushpull(repeats))


def serve(kind):
    """Be the server or the scheduler, as DMLC_ROLE says."""
    if SERVERS[kind] == 'd2l':
        from d2l.parallel import server
        server.main()
    else:
        import d2l  # noqa: F401, I001  (before mxnet)
        import mxnet  # noqa: F401  (its import serves)


def main(role, kind):
    """One process of a job; ends with the line to the benchmark."""
    line = Line(socket.create_connection(('127.0.0.1', int(os.environ['STORES_LINE']))))
    tasks = queue.Queue()

    def read():
        try:
            while True:
                tasks.put(line.receive())
        except OSError:
            os._exit(0)  # without the farewells, for which the others would have to be there

    line.send(role)
    # A thread, since the engine may be waiting for other processes.
    threading.Thread(target=read, daemon=True).start()
    try:
        if role == 'worker':
            worker(kind, line, tasks)
        else:
            serve(kind)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _bytes(size):
    return '{} MB'.format(size >> 20) if size >> 20 else '{} KB'.format(size >> 10)


if __name__ == '__main__':
    main(*sys.argv[1:])
