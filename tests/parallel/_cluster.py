"""Starts the processes of a job with a parameter server for a test, and ends them all."""
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from d2l.parallel._agent import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVER = ['-m', 'd2l.parallel.server']
PLAIN_SERVER = ['-c', 'import d2l, mxnet']  # d2l for the names that NumPy has removed


class Process:
    """One of the job: name, exit status (None if it had to be ended) and what it wrote."""

    def __init__(self, name, command, env, folder):
        self.name, self.status, self._path = name, None, Path(folder) / name.replace(' ', '_')
        with open(self._path, 'wb') as file:
            self._popen = subprocess.Popen([sys.executable] + command, env=env, stdout=file,
                                           stderr=subprocess.STDOUT, start_new_session=True)

    def poll(self):
        self.status = self._popen.poll()
        return self.status

    def end(self):
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()
        self.output = self._path.read_text(encoding='utf-8', errors='replace')


def run(worker, workers=2, servers=1, server=SERVER, env=None, timeout=60, until_failure=True):
    """Run a job of workers, started as python with the arguments worker, and return its processes.

    They have a dict name -> Process: 'worker 0', 'server 0', 'scheduler'.  All have ended when it
    returns: by themselves, or killed after timeout seconds, or, with until_failure, two seconds
    after the first that failed.
    """
    base = {name: value for name, value in os.environ.items()
            if not name.startswith(('D2L_', 'DMLC_', 'PS_'))}
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), base.get('PYTHONPATH', '')])
    # A port that the engine gave to a server of another job would have that one abort.
    port = free_port('127.0.0.1')
    base.update(DMLC_PS_ROOT_URI='127.0.0.1', DMLC_PS_ROOT_PORT=str(port),
                DMLC_NODE_HOST='127.0.0.1', DMLC_NUM_WORKER=str(workers),
                DMLC_NUM_SERVER=str(servers), OMP_NUM_THREADS='1', PYTHONPATH=path,
                PYTHONFAULTHANDLER='1')
    base.update(env or {})
    names = ['scheduler'] + [f'server {i}' for i in range(servers)]
    names += [f'worker {i}' for i in range(workers)]
    with tempfile.TemporaryDirectory() as folder:
        processes = {}
        try:
            for name in names:
                role, _, rank = name.partition(' ')
                place = {'D2L_RANK': rank, 'D2L_NUM_WORKERS': str(workers)} if rank else {}
                processes[name] = Process(name, worker if role == 'worker' else server,
                                          dict(base, **place, DMLC_ROLE=role), folder)
            _wait(processes.values(), time.monotonic() + timeout, until_failure)
        finally:
            for process in processes.values():
                process.end()
    return processes


def _wait(processes, deadline, until_failure):
    failed = False
    while time.monotonic() < deadline:
        statuses = [process.poll() for process in processes]
        if None not in statuses:
            return
        if until_failure and not failed and any(statuses):
            failed, deadline = True, min(deadline, time.monotonic() + 2)
        time.sleep(0.05)


def check(processes):
    """Fail with what was written unless all processes ended well."""
    if any(process.status != 0 for process in processes.values()):
        raise AssertionError('\n'.join(f'{p.name}: exit status {p.status}\n{p.output}'
                                       for p in processes.values()))
