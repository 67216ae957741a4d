"""Jobs for tests: started by the command line, never left running, looked through for orphans."""
import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

from d2l.parallel._control import Listener

ROOT = Path(__file__).resolve().parents[2]
NAME = 'D2L_TEST_JOB'  # the variable by which all processes of a test's job are found


def marked(mark):
    """The numbers of all processes whose environment holds NAME=mark, with their command lines."""
    entry, found = f'{NAME}={mark}'.encode(), {}
    for name in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError):
            if entry in Path('/proc', name, 'environ').read_bytes().split(b'\0'):
                found[int(name)] = Path('/proc', name, 'cmdline').read_bytes().replace(b'\0', b' ')
    return found


def python_path(*folders):
    """PYTHONPATH for a process of a job: this checkout, folders, and what the tests have in it."""
    theirs = [os.path.abspath(entry) for entry in filter(
        None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]
    return os.pathsep.join([str(ROOT), *map(str, folders), *theirs])


def listening(pids):
    """pid -> the addresses of the TCP sockets at which it listens, by /proc; those without none.

    Each in the network of its own process.
    """
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            addresses = _listening_sockets(pid)
            for entry in os.scandir(f'/proc/{pid}/fd'):
                with contextlib.suppress(OSError):
                    target = os.readlink(entry.path)
                    if target in addresses:
                        found.setdefault(pid, set()).add(addresses[target])
    return found


def _listening_sockets(pid):
    addresses = {}
    for family, name in ((socket.AF_INET, 'tcp'), (socket.AF_INET6, 'tcp6')):
        with contextlib.suppress(OSError):
            for line in Path('/proc', str(pid), 'net', name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == '0A':  # LISTEN; an address is words in the host's order
                    words = bytes.fromhex(fields[1].split(':')[0])
                    words = [words[i:i + 4][::-1] for i in range(0, len(words), 4)]
                    address = socket.inet_ntop(family, b''.join(words))
                    addresses[f'socket:[{fields[9]}]'] = address
    return addresses


def wait_for(condition, seconds=10.0):
    """Wait until condition() is true; return what it last gave."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.02)


class Launched:
    """A running ``d2l launch``; a context that leaves nothing behind."""

    def __init__(self, folder, script, *options, arguments=(), environment=(), cwd=None):
        self.folder, self.mark = Path(folder), secrets.token_hex(8)
        self.logs = self.folder / 'logs'
        path = self.folder / 'script.py'
        if script is not None and not path.exists():
            path.write_text(textwrap.dedent(script))
        variables = {name: value for name, value in os.environ.items()
                     if not name.startswith(('DMLC_', 'D2L_RANK'))}
        variables.update(environment, PYTHONPATH=python_path(folder), OMP_NUM_THREADS='1')
        variables[NAME] = self.mark
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'd2l', 'launch', '--logs', str(self.logs), *map(str, options),
             str(path), *map(str, arguments)],
            env=variables, cwd=str(cwd or folder), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True)
        self.output = self.errors = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def finish(self, seconds=60):
        """Wait for the end; return the exit status.  Nothing may be left."""
        self.output, self.errors = self.process.communicate(timeout=seconds)
        # A process that has been killed is to be seen for a moment more.
        assert wait_for(lambda: not marked(self.mark), 2), self.errors
        return self.process.returncode

    def status(self):
        """The job's status.json; {} as long as there is none."""
        try:
            return json.loads((self.logs / 'status.json').read_text())
        except OSError:
            return {}

    def pid(self, name):
        """The number of the process with this name, or None as long as there is none."""
        return next((event['pid'] for event in self.events('process')
                     if event['name'] == name), None)

    def events(self, kind=None):
        try:
            lines = (self.logs / 'events.jsonl').read_text().splitlines()
        except OSError:
            return []
        return [event for event in map(json.loads, lines) if kind in (None, event['event'])]


def launch(folder, script, *options, seconds=60, **kwargs):
    """Run a job to its end."""
    with Launched(folder, script, *options, **kwargs) as job:
        job.finish(seconds)
    return job


class Served:
    """A Listener whose selector a thread drives, as an agent does."""

    def __init__(self, names=('worker 0',)):
        self.heard, self._ending = [], threading.Event()
        self.selector = selectors.DefaultSelector()
        self.listener = Listener(self.selector, 'secret', names,
                                 lambda name, message: self.heard.append((name, message)))
        self.address = self.listener.address
        self._thread = threading.Thread(target=self._drive)
        self._thread.start()

    def _drive(self):
        while not self._ending.is_set():
            for key, _ in self.selector.select(0.01):
                key.data()
            self.listener.tick()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()
        self.listener.close()
        self.selector.close()

    def stranger(self):
        host, _, port = self.address.rpartition(':')
        connection = socket.create_connection((host, int(port)), 5)
        challenge = json.loads(connection.recv(1000))['challenge']
        return connection, challenge

    def wait(self, count):
        deadline = time.monotonic() + 5
        while len(self.heard) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.heard
