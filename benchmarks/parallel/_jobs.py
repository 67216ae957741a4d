"""Processes of benchmarks that take several: started, given tasks, never left running.

A script is a benchmark and, as ``script worker KIND``, one worker of its jobs; this one is their
servers.  All end with the line to the benchmark.
"""
import atexit
import importlib
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

START_TIMEOUT, WORK_TIMEOUT = 120, 300  # seconds
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))


class Job:
    """Worker processes, which do tasks when told; started by the first one.

    script: the file of the benchmark; kind: what its processes are told; server: the module whose
    import or function main serves, where there is a parameter server; starter: the command, before
    the number of workers, that starts and numbers them; hosts: a function that makes the hosts and
    returns (command to run something there, address) of each worker's.

    Raises RuntimeError, and kills the processes, when one ends or does not answer in time.
    """

    def __init__(self, script, kind, workers, server=None, starter=None, hosts=None):
        self._command = [sys.executable, os.path.abspath(script)]
        self._kind, self._workers, self._server, self._starter = kind, workers, server, starter
        self._hosts = hosts or (lambda: [([], '127.0.0.1')] * workers)
        self._lines, self._processes = [], {}

    def work(self, *task):
        """The answers of all workers to a task: numbers, words and lists of them, as JSON has."""
        if not self._lines:
            self._start()
        try:
            for line in self._lines:
                line.send(task)
            return [line.receive(WORK_TIMEOUT) for line in self._lines]
        except OSError as error:
            self._fail('{}: {!r}'.format(task, error))

    def _start(self):
        end = time.monotonic() + START_TIMEOUT
        with tempfile.TemporaryDirectory() as folder, \
                socket.socket(socket.AF_UNIX) as listener:  # which a host of its own sees, too
            path = os.path.join(folder, 'line')
            listener.bind(path)
            listener.listen(64)
            count = self._run_all(path)
            lines = [self._accept(listener, end) for _ in range(count)]
            for line in lines:
                if line.role == 'worker':
                    self._receive_ready(line, end)
        self._lines = [line for line in lines if line.role == 'worker']
        self._others = [line for line in lines if line.role != 'worker']

    def _run_all(self, path):
        """Start the processes; how many will call."""
        from d2l.parallel._agent import free_port  # not in the processes, some of which are bare
        hosts = self._hosts()
        here = hosts[0][1]
        env = dict(os.environ, PYTHONPATH=os.pathsep.join(
            [ROOT, os.environ.get('PYTHONPATH', '')]), OMP_NUM_THREADS='1', D2L_BENCHMARK_LINE=path,
            D2L_STORE_ADDRESS='{}:{}'.format(here, free_port('127.0.0.1')), DMLC_PS_ROOT_URI=here,
            DMLC_PS_ROOT_PORT=str(free_port('127.0.0.1')), DMLC_NUM_WORKER=str(self._workers),
            DMLC_NUM_SERVER='1', D2L_BENCHMARK_SERVER=self._server or '')
        if self._starter:
            self._run('starter', [*self._starter, str(self._workers), *self._command, 'worker',
                                  self._kind], env)
            return self._workers
        roles = ['worker'] * self._workers + ['server', 'scheduler'] * bool(self._server)
        for rank, role in enumerate(roles):
            prefix, address = hosts[rank if role == 'worker' else 0]
            # Not the benchmark's script, whose import of mxnet would serve.
            command = self._command if role == 'worker' else [sys.executable, __file__]
            self._run('{} {}'.format(role, rank) if role == 'worker' else role,
                      [*prefix, *command, role, self._kind], dict(
                          env, DMLC_ROLE=role, DMLC_NODE_HOST=address, D2L_RANK=str(rank),
                          D2L_NUM_WORKERS=str(self._workers)))
        return len(roles)

    def _run(self, name, command, env):
        self._processes[name] = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL)

    def _accept(self, listener, end):
        """The line to the next process that calls, while none ends and until the end."""
        listener.settimeout(0.2)
        while True:
            try:
                line = _Line(listener.accept()[0])
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
        raise RuntimeError('the job {} of {} workers: {}; ended: {}'.format(
            self._kind, self._workers, what, ', '.join(ended) or 'none'))


class _Line:
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


def two_hosts(rate):
    """Hosts for a Job: network namespaces with a cable of so many Gbit/s between them.

    Needs the right to make those; subprocess.CalledProcessError without.
    """
    names = ['d2l{}{}'.format(os.getpid(), letter) for letter in 'ab']
    addresses = ['10.213.9.1', '10.213.9.2']
    atexit.register(lambda: [subprocess.run(['ip', 'netns', 'delete', name]) for name in names])
    commands = ['ip netns add ' + name for name in names]
    commands.append('ip link add d2l0 netns {} type veth peer name d2l0 netns {}'.format(*names))
    for name, address in zip(names, addresses):
        commands += ['ip -n {} address add {}/24 dev d2l0'.format(name, address),
                     'ip -n {} link set d2l0 up'.format(name),
                     'ip -n {} link set lo up'.format(name),
                     'tc -n {} qdisc add dev d2l0 root tbf rate {}gbit burst 1mb latency 50ms'
                     .format(name, rate)]
    for command in commands:
        subprocess.run(command.split(), check=True)
    return [(['ip', 'netns', 'exec', name], address) for name, address in zip(names, addresses)]


def can_make_hosts():
    """Whether `two_hosts` has a chance here."""
    return os.geteuid() == 0 and bool(shutil.which('ip') and shutil.which('tc'))


def command_of(program):
    """The path of a program of this environment, or None."""
    beside = os.path.join(os.path.dirname(sys.executable), program)
    return beside if os.path.exists(beside) else shutil.which(program)


def time_tasks(measure, names, samples, seconds=0.2):
    """As d2l.testing.time_op: name -> dict(cpu_ms, wall_ms, spread), in turns.

    measure(name, repeats) returns (what it will, seconds, CPU seconds) of so many calls.
    """
    from d2l.testing import summary_of_times
    repeats, taken = {}, {name: [] for name in names}
    for name in names:
        measure(name, 2)
        repeats[name] = max(1, int(seconds / measure(name, 1)[1]))
    for _ in range(samples):
        for name in names:
            _, wall, cpu = measure(name, repeats[name])
            taken[name].append((cpu / repeats[name], wall / repeats[name]))
    return {name: summary_of_times(times) for name, times in taken.items()}


def be_process(make_worker):
    """One process of a job, by the command line; in a worker make_worker(kind) does the tasks."""
    role, kind = sys.argv[1:]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ['D2L_BENCHMARK_LINE'])
    line, tasks = _Line(connection), queue.Queue()

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
            do = make_worker(kind)
            line.send('ready')
            while True:
                line.send(do(*tasks.get()))
        import d2l  # noqa: F401  (before mxnet)
        # The import of mxnet serves.
        served = importlib.import_module(os.environ['D2L_BENCHMARK_SERVER'])
        served.main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == '__main__':
    be_process(None)
