"""Starts, watches and ends the processes of a job on one host, for the launcher.

``python -m d2l.parallel._agent`` takes commands on its standard input and reports on its standard
output, a JSON object a line, so that a remote shell carries both; the token and the environment
stay out of every command line.  When its input ends, because the launcher has or the connection
broke, it ends all that it started, and itself.  Nothing is left behind: each process leads a
session of its own, dies with the agent, and hands its descendants a mark in their environment.
"""
import contextlib
import ctypes
import fcntl
import json
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time

from d2l import _compat
from d2l.parallel import _control

PERIOD = 1.0  # seconds between heartbeats
GRACE = 2.0  # seconds from SIGTERM to SIGKILL where nobody asks for others
COMMAND_LIMIT = 1 << 24  # bytes of a command
LINE_LIMIT = 1 << 16  # bytes of output that are shown as one line
MARK = 'D2L_MARK'
_PR_SET_PDEATHSIG = 1
_SIOCGIFADDR = 0x8915
_libc = ctypes.CDLL(None)


class Agent:
    """The processes of one host."""

    def __init__(self, source=0, sink=1):
        self._source, self._sink = source, sink
        self._selector = selectors.DefaultSelector()
        self._commands = _control.Lines(COMMAND_LIMIT)
        self._processes, self._listener, self._mark = {}, None, None
        self._patience, self._heard = None, time.monotonic()
        self._next_beat, self._stopping, self._ended = 0.0, None, False

    def run(self):
        """Serve until everything has ended."""
        ringing, bell = socket.socketpair()
        for end in (ringing, bell):
            end.setblocking(False)
        signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop(GRACE))
        self._selector.register(ringing, selectors.EVENT_READ, lambda: ringing.recv(4096))
        self._selector.register(self._source, selectors.EVENT_READ, self._read_commands)
        while not self._ended:
            for key, _ in self._selector.select(0.25):
                key.data()
            self._tick()

    def _emit(self, event, **facts):
        data = json.dumps(dict(facts, event=event)).encode('ascii') + b'\n'
        try:
            while data:
                data = data[os.write(self._sink, data):]
        except OSError:
            self._stop(GRACE)  # the launcher has gone

    def _read_commands(self):
        data = os.read(self._source, 1 << 16)
        self._heard = time.monotonic()
        try:
            for command in self._commands.feed(data):
                getattr(self, '_on_' + command.pop('op'))(**command)
        except Exception as error:
            self._emit('refused', text=f'{type(error).__name__}: {error}')
            data = b''
        if not data:
            self._selector.unregister(self._source)
            self._stop(GRACE)

    # What the launcher can ask for.

    def _on_hello(self, folder, script, interface, address, port, patience):
        """Find out whether the job can run here, and where its processes are to be found."""
        self._patience = patience
        try:
            os.chdir(folder)
            if not os.path.isfile(script):
                raise OSError(f'there is no script {script}')
            address = address or interface_address(interface)
            port = free_port(address, port)
        except OSError as error:
            return self._emit('refused', text=str(error))
        self._emit('hello', address=address, port=port, cores=_compat.usable_cores())

    def _on_start(self, mark, token, environment, processes):
        self._mark = mark
        base = dict(os.environ, **environment)
        threads = max(_compat.usable_cores() // max(len(processes), 1), 1)
        base.setdefault('OMP_NUM_THREADS', str(threads))
        base.setdefault('PYTHONUNBUFFERED', '1')
        names = [process['name'] for process in processes]
        self._listener = _control.Listener(self._selector, token, names, self._on_message)
        for process in processes:
            name = process['name']
            environment = dict(base, **process['environment'])
            environment.update(D2L_CONTROL=self._listener.address, D2L_TOKEN=token, D2L_NAME=name)
            environment[MARK] = mark
            self._processes[name] = _Process(self, name, process['command'], environment)
            self._emit('started', name=name, pid=self._processes[name].popen.pid)

    def _on_beat(self):
        pass  # that something was heard is all

    def _on_dump(self, names):
        """Let processes write the stacks of their threads, for which they have connected."""
        for name in names:
            if self._processes[name].connected:
                self._processes[name].signal(signal.SIGUSR2)

    def _on_stop(self, grace):
        self._stop(grace)

    def _on_sweep(self, mark):
        """End what another agent, which could not, has left behind, and that agent too."""
        self._mark = mark
        self._stop(0.0)

    def _on_message(self, name, message):
        self._processes[name].connected = True
        self._emit('message', name=name, message=message)

    def _stop(self, grace):
        """End the processes: SIGTERM now, SIGKILL after grace seconds."""
        deadline = time.monotonic() + grace
        if self._stopping is None:
            self._stopping = deadline
            for process in self._processes.values():
                process.signal(signal.SIGTERM, group=True)
        self._stopping = min(self._stopping, deadline)

    def _tick(self):
        now = time.monotonic()
        for process in self._processes.values():
            process.reap()
        if self._listener is not None:
            self._listener.tick()
        if now >= self._next_beat:
            self._next_beat = now + PERIOD
            stopped = {process.name: round(process.stopped_for(now), 1)
                       for process in self._processes.values()}
            self._emit('beat', stopped={name: time for name, time in stopped.items() if time})
        if self._patience and now - self._heard > self._patience:
            self._stop(GRACE)
        if self._stopping is not None:
            running = [p for p in self._processes.values() if p.popen.returncode is None]
            if not running:
                self._finish()
            elif now > self._stopping:
                for process in running:
                    process.signal(signal.SIGKILL, group=True)

    def _finish(self):
        """All processes have ended: end what they have left behind, say so, and leave."""
        left = kill_marked(self._mark) if self._mark else []
        self._emit('gone', left=left)
        self._ended = True

    def register(self, stream, function):
        self._selector.register(stream, selectors.EVENT_READ, function)

    def unregister(self, stream):
        self._selector.unregister(stream)

    def output(self, name, stream, lines):
        self._emit('output', name=name, stream=stream, lines=lines)

    def exited(self, name, status):
        self._emit('exit', name=name, status=status, time=time.time())


class _Process:
    """A process of the job, and its output."""

    def __init__(self, agent, name, command, environment):
        self.name, self.connected = name, False
        self._agent, self._rests, self._stopped = agent, {}, None
        parent = os.getpid()
        self.popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
            preexec_fn=lambda: _die_with(parent))
        for stream, pipe in (('stdout', self.popen.stdout), ('stderr', self.popen.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._rests[stream] = b''
            agent.register(pipe, lambda stream=stream, pipe=pipe: self._read(stream, pipe))

    def _read(self, stream, pipe):
        """Hand over the lines that are there.  Returns whether there may be more."""
        try:
            data = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return False
        lines = (self._rests[stream] + data).split(b'\n')
        self._rests[stream] = lines.pop()
        if not data or len(self._rests[stream]) > LINE_LIMIT:
            lines += [self._rests[stream]] if self._rests[stream] else []
            self._rests[stream] = b''
        if lines:
            self._agent.output(self.name, stream,
                               [line.decode('utf-8', 'replace') for line in lines])
        if not data:
            self._agent.unregister(pipe)
            pipe.close()
        return bool(data)

    def signal(self, number, group=False):
        if self.popen.returncode is None:
            with contextlib.suppress(OSError):
                (os.killpg if group else os.kill)(self.popen.pid, number)

    def reap(self):
        """Notice that the process has ended, end its children, and report."""
        pid = self.popen.pid
        if self.popen.returncode is not None or not os.waitid(
                os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        # Before the process is reaped, since then its number may be another's.
        self.signal(signal.SIGKILL, group=True)
        status = self.popen.wait()
        for stream, pipe in (('stdout', self.popen.stdout), ('stderr', self.popen.stderr)):
            while not pipe.closed and self._read(stream, pipe):
                pass
            if not pipe.closed:  # held open by somebody who has left the group
                self._agent.unregister(pipe)
                pipe.close()
        self._agent.exited(self.name, status)

    def stopped_for(self, now):
        """Seconds since the process was seen to be stopped, as by SIGSTOP."""
        if self.popen.returncode is not None or _state(self.popen.pid) != 'T':
            self._stopped = None
            return 0.0
        self._stopped = self._stopped or now
        return now - self._stopped


def _die_with(parent):
    """In a process to be: die with the agent, even when that is killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _state(pid):
    """The letter of a process's state in /proc."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
        return ''


def marked(mark):
    """The numbers of this user's other processes that carry the mark in their environment."""
    entry, found = f'{MARK}={mark}'.encode(), []
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                with open(f'/proc/{name}/environ', 'rb') as file:
                    if entry in file.read().split(b'\0'):
                        found.append(int(name))
    return found


def kill_marked(mark, seconds=5.0):
    """Kill all processes with the mark.  Returns those that are still there after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        left = marked(mark)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def interface_address(name):
    """The IPv4 address of a network interface of this host.  Raises OSError where it has none."""
    request = struct.pack('256s', name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
        except OSError as error:
            names = ', '.join(name for _, name in socket.if_nameindex())
            raise OSError(f'the interface {name} has no IPv4 address: {error.strerror} '
                          f'(there are {names})') from error
    return socket.inet_ntoa(answer[20:24])


def free_port(address, port=0):
    """A port that nobody listens on; the given one, unless it is 0.  Raises OSError where none.

    Seconds pass until a process of the job listens there, so it is none of those that the system
    gives to connections, the job's own among them.
    """
    ports = [port] if port else random.sample(_quiet_ports(), 20)
    for candidate in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, candidate))
                probe.listen(1)
                return candidate
            except OSError as error:
                where = f'port {port} of {address}' if port else address
                reason = f'cannot listen on {where}: {error.strerror}'
    raise OSError(reason)


def _quiet_ports():
    """The unprivileged ports that the system does not hand out by itself."""
    with open('/proc/sys/net/ipv4/ip_local_port_range') as file:
        first, last = map(int, file.read().split())
    below, above = range(10000, first), range(last + 1, 1 << 16)
    quiet = max(below, above, key=len)
    return quiet if len(quiet) >= 100 else range(10000, 1 << 16)


if __name__ == '__main__':
    # What libraries print must not look like a report.
    _sink = os.dup(1)
    os.dup2(2, 1)
    Agent(0, _sink).run()
    sys.exit(0)
