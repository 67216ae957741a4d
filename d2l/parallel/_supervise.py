"""Runs a job: its agents, what they report, what is a failure, and the start after it.

The engines under the stores have no timeouts: whatever ends, stops or hangs, the others wait for
ever.  So every failure ends the whole job, at once, and the whole job starts again, from the newest
checkpoint that the script finds.
"""
import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import threading
import time

from d2l.parallel import _agent, _report

SETTLE = 0.5  # seconds in which failures are gathered, to name the first and not its victims
SILENCE = 6  # heartbeat timeouts that a process may be silent, such as in a call that holds the GIL
EXIT_TIMEOUT = 60.0  # seconds for all processes to end once all workers are through
SERVER_EXIT_TIMEOUT = 10.0  # for servers, once all workers have ended
STACKS = 1.0  # seconds for the processes to write where they hang
SWEEP_TIMEOUT = 20.0  # seconds to look for what an agent has left behind
GRACE = 5.0  # seconds between SIGTERM and SIGKILL where the user ends the job
TIMEOUT_STATUS = 124  # exit status where something took too long, that of timeout(1)
# Signals by which a process may end because another one has; after others it was the first.
VICTIMS_SIGNALS = (signal.SIGABRT, signal.SIGTERM, signal.SIGPIPE)


class Failure(Exception):
    """Why a job has ended.

    The text is a sentence; status the launcher's exit status, details what is printed last, such as
    a traceback; again says whether a restart could help; hung names processes whose stacks are of
    interest.
    """

    def __init__(self, text, status=1, details='', again=False, hung=()):
        super().__init__(text)
        self.status, self.details, self.again, self.hung = status, details, again, hung


class Signals:
    """The signals by which a user ends a job; the second one is impatient."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self):
        self.received = []

    def __enter__(self):
        self._old = {number: signal.signal(number, lambda number, _: self.received.append(number))
                     for number in self.NUMBERS}
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def supervise(job, report):
    """Run a job until it is done or may not start again.  Returns the exit status."""
    with Signals() as signals:
        restart = 0
        while True:
            attempt = Attempt(job, report, signals, restart)
            try:
                attempt.run()
            except Failure as failure:
                status, last = failure.status, failure
            else:
                report.end(attempt.members, 'done', 0)
                return 0
            again = last.again and restart < job.args.max_restarts and not signals.received
            report.event('failure', text=str(last), status=status, restart=restart, again=again)
            if not again:
                break
            restart += 1
            report.say(f'{last}; restart {restart} of {job.args.max_restarts}')
        report.end(attempt.members, 'failed', status)
        report.say(f'{last}' + (f' (after {restart} restarts)' if restart else ''))
        if last.details:
            report.show(last.details)
        return status


class Link:
    """The connection to the agent of one host; what it says goes into a queue."""

    def __init__(self, index, name, command, environment, events):
        self.name, self._index, self._events = name, index, events
        self.heard, self.gone, self.errors = time.monotonic(), False, []
        self.cleared = False  # whether the agent has said that nothing is left
        self.address = self.port = None
        # In a session of its own: a Ctrl-C is the launcher's affair.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env=environment)
        # The one that reads events waits for the other at the end, so it starts second.
        self._reads_errors = threading.Thread(target=self._read_errors, daemon=True)
        self._reads_events = threading.Thread(target=self._read_events, daemon=True)
        self._reads_errors.start()
        self._reads_events.start()

    def _read_events(self):
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # a shell's greeting
                self.errors.append(line.decode('utf-8', 'replace').rstrip())
                continue
            self.heard = time.monotonic()
            self.cleared = event.get('event') == 'gone' and not event['left']
            self._events.put((self._index, event))
        self._process.wait()
        self._reads_errors.join(1.0)
        self._events.put((self._index, {'event': 'lost'}))

    def _read_errors(self):
        for line in self._process.stderr:
            self.errors.append(line.decode('utf-8', 'replace').rstrip())
            del self.errors[:-20]

    def send(self, op, **facts):
        with contextlib.suppress(OSError):  # whoever has gone is noticed by what it does not say
            self._process.stdin.write(json.dumps(dict(facts, op=op)).encode() + b'\n')
            self._process.stdin.flush()

    def kill(self):
        """End the agent, or the remote shell with all that it has started, at once."""
        self.gone = True
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Attempt:
    """One start of the job."""

    def __init__(self, job, report, signals, restart):
        self._job, self._report, self._signals, self._restart = job, report, signals, restart
        self._options, self._events, self._links = job.args, queue.Queue(), []
        self.members, self._by_name = [], {}
        self._mark = secrets.token_hex(8)
        self._suspects = []  # (order, member) of processes that failed
        self._began = self._turned = time.monotonic()
        self._joining = None  # when the first worker began to wait for the others
        self._first_suspect = None
        self._through = None  # when the last worker had no more to do
        self._ended = None  # when the last worker had ended well
        self._next_look = 0.0

    def run(self):
        """Start everything, watch it, and end everything.  Raises Failure."""
        self._report.begin(self._restart)
        self._report.event('start', restart=self._restart)
        try:
            self._connect()
            self._start()
            self._watch()
        except Failure as failure:
            self._show_stacks(failure.hung)
            self._end_all(GRACE if self._signals.received else _agent.GRACE)
            raise
        except BaseException:
            self._end_all(0.0)
            raise
        self._end_all(_agent.GRACE)

    # Beginning.

    def _connect(self):
        """Have an agent on every host."""
        for index, host in enumerate(self._job.hosts):
            try:
                question = self._job.hello(index)
                link = Link(index, host.name, self._job.agent_command(host, self._mark_of(index)),
                            self._job.agent_environment(), self._events)
            except OSError as error:
                raise Failure(f'the host {host.name} cannot be reached: {error}') from error
            self._links.append(link)
            link.send('hello', **question)
        while not all(link.address for link in self._links):
            index, event = self._next(self._silent_hosts)
            link = self._links[index] if event else None
            if event.get('event') == 'hello':
                link.address, link.port = event['address'], event['port']
            elif event.get('event') == 'refused':
                raise Failure(f'the host {link.name} cannot take part: {event["text"]}')
            elif event.get('event') == 'lost':
                link.gone = True
                raise Failure(f'the host {link.name} cannot be reached: {_last(link.errors)}')

    def _mark_of(self, index):
        return f'{self._mark}.{index}'

    def _silent_hosts(self):
        if time.monotonic() - self._began > self._options.start_timeout:
            names = [link.name for link in self._links if not link.address]
            raise Failure(f'{_list("host", names)} cannot be reached: no answer in '
                          f'{self._options.start_timeout:g} s', TIMEOUT_STATUS)

    def _start(self):
        """Have the agents start the processes."""
        token = secrets.token_hex(32)
        processes = self._job.processes([link.address for link in self._links],
                                        self._links[0].port, self._restart)
        self.members = [_report.Member(process, self._job.hosts[process.host].name)
                        for process in processes]
        self._by_name = {member.name: member for member in self.members}
        for index, (host, link) in enumerate(zip(self._job.hosts, self._links)):
            link.send('start', mark=self._mark_of(index), token=token,
                      environment=self._job.environment(host),
                      processes=[{'name': process.name, 'command': process.command,
                                  'environment': process.environment}
                                 for process in processes if process.host == index])

    # The events.

    def _next(self, check):
        """(host index, event) that came, or (None, {}); looks after everything else first."""
        now = time.monotonic()
        if now - self._turned > 2.0:  # the launcher itself was stopped
            for member in self.members:
                member.heard = member.stepped = now
            for link in self._links:
                link.heard = now
        self._turned = now
        if self._signals.received:
            number = self._signals.received[0]
            raise Failure(f'ended by {signal.Signals(number).name}', 128 + number)
        check()
        if now >= self._next_look:
            self._next_look = now + _report.PERIOD
            self._report.progress(self.members)
            for link in self._links:
                link.send('beat')
        try:
            return self._events.get(timeout=0.1)
        except queue.Empty:
            return None, {}

    def _watch(self):
        """Follow the processes until all have ended well.  Raises Failure."""
        while not self._done():
            index, event = self._next(self._check)
            if event:
                self._take(index, event)

    def _done(self):
        """Whether all workers have ended well, and the servers too, or have had their time."""
        if self._suspects or not all(m.status == 0 for m in self._workers()):
            return False
        return (all(member.ended for member in self.members)
                or time.monotonic() - self._ended > SERVER_EXIT_TIMEOUT)

    def _take(self, index, event):
        """Take note of an event.  Raises Failure where it leaves no doubt."""
        kind, member = event['event'], self._by_name.get(event.get('name'))
        if kind == 'output':
            self._report.output(member, event['stream'], event['lines'])
        elif kind == 'started':
            member.pid = event['pid']
            self._report.event('process', name=member.name, host=member.host, pid=member.pid)
        elif kind == 'message':
            self._hear(member, event['message'])
        elif kind == 'exit':
            self._note_exit(member, event['status'], event['time'])
        elif kind == 'beat':
            for name, seconds in event['stopped'].items():
                if seconds >= self._options.heartbeat_timeout:
                    raise Failure(f'{name} has been stopped for {seconds:.0f} s', TIMEOUT_STATUS,
                                  again=True)
        elif kind == 'refused':
            raise Failure(f'the host {self._links[index].name} cannot take part: {event["text"]}')
        elif kind == 'lost' and not self._links[index].gone:
            link = self._links[index]
            link.gone = True
            raise Failure(f'the connection to the host {link.name} has ended: '
                          f'{_last(link.errors)}', again=True)

    def _hear(self, member, message):
        """A message of a process itself."""
        kind, now = message.get('type'), time.monotonic()
        member.heard, member.connected = now, True
        if kind == 'joining':
            member.joined = True
            if member.role == 'worker':
                self._joining = self._joining or now
        elif kind == 'formed':
            member.joined = member.formed = True
        elif kind in ('beat', 'leaving'):
            member.beat(message)
            member.leaving = member.leaving or kind == 'leaving'
        elif kind == 'exception':
            member.exception = str(message.get('text'))
            self._suspects.append(((1, message.get('time') or 0.0), member))
            self._first_suspect = self._first_suspect or now

    def _note_exit(self, member, status, when):
        member.status = status
        self._report.event('exit', name=member.name, status=status)
        if all(worker.status == 0 for worker in self._workers()):
            self._ended = self._ended or time.monotonic()
        elif status and not any(suspect is member for _, suspect in self._suspects):
            killed = status < 0 and -status not in VICTIMS_SIGNALS
            self._suspects.append(((0 if killed else 1, when), member))
            self._first_suspect = self._first_suspect or time.monotonic()

    def _workers(self):
        return [member for member in self.members if member.role == 'worker']

    # What is a failure.

    def _check(self):
        """Raise Failure where something has gone on, or not gone on, for too long."""
        now = time.monotonic()
        if self._suspects:
            if now - self._first_suspect > SETTLE:
                self._blame(min(self._suspects, key=lambda suspect: suspect[0])[1])
            return
        self._check_silence(now)
        self._check_start(now)
        self._check_steps(now)
        self._check_exit(now)

    def _blame(self, member):
        """Raise the Failure of a process that has ended, or is about to, by an exception."""
        if member.status is not None and member.status < 0:
            name = signal.Signals(-member.status).name
            raise Failure(f'{member.name} was ended by {name}', 128 - member.status,
                          _traceback(member), again=True)
        status = member.status or 1
        what = 'raised an exception' if member.exception else f'ended with exit status {status}'
        # What fails before anything has worked would fail again.
        formed = any(other.formed for other in self._workers())
        raise Failure(f'{member.name} {what}', status, _traceback(member), again=formed)

    def _check_silence(self, now):
        for link in self._links:
            if now - link.heard > self._options.heartbeat_timeout:
                link.kill()
                raise Failure(f'the host {link.name} has not answered for '
                              f'{self._options.heartbeat_timeout:g} s', TIMEOUT_STATUS, again=True)
        limit = SILENCE * self._options.heartbeat_timeout
        silent = [member.name for member in self.members if member.connected
                  and not member.leaving and not member.ended and now - member.heard > limit]
        if silent:
            raise Failure(f'{_list("", silent)} sent no heartbeat for {limit:g} s', TIMEOUT_STATUS,
                          again=True, hung=silent)

    def _check_start(self, now):
        limit = self._options.start_timeout
        absent = [m.name for m in self.members if not m.connected and not m.ended]
        if absent and now - self._began > limit:
            raise Failure(f'{_list("", absent)} did not start in {limit:g} s', TIMEOUT_STATUS)
        if self._joining is None or now - self._joining < limit:
            return
        waiting = [m for m in self._workers() if not (m.formed or m.leaving or m.ended)]
        if waiting:
            absent = [m.name for m in waiting if not m.joined]
            why = (f'{_list("", absent)} did not create a Trainer' if absent else
                   'processes do not reach each other')
            raise Failure(f'the job did not form in {limit:g} s: {why} (--start-timeout)',
                          TIMEOUT_STATUS, hung=[m.name for m in waiting])

    def _check_steps(self, now):
        working = [m for m in self._workers() if m.step is not None
                   and not (m.leaving or m.ended)]
        if self._job.synchronous:
            for left in self._workers():
                for member in working:
                    if left.leaving and left.step is not None and member.step > left.step:
                        raise Failure(
                            f'{left.name} has left after step {left.step} while {member.name} is '
                            f'in step {member.step}: all workers must have equally many batches',
                            again=False, hung=[member.name])
        limit = self._options.step_timeout
        slow = [m for m in working if now - m.stepped > limit]
        if slow:
            left = [m.name for m in self._workers() if m.leaving or m.ended]
            hint = (f'; {_list("", left)} had left: all workers must have equally many batches'
                    if left and self._job.synchronous else ' (--step-timeout)')
            raise Failure(f'{_list("", [m.name for m in slow])} finished no step in {limit:g} s '
                          f'after step {slow[0].step}{hint}', TIMEOUT_STATUS, again=not left,
                          hung=[m.name for m in slow])

    def _check_exit(self, now):
        workers = self._workers()
        if self._through is None and all(m.leaving or m.ended for m in workers):
            self._through = now
        if self._through is not None and now - self._through > EXIT_TIMEOUT:
            names = [m.name for m in workers if not m.ended]
            if names:
                raise Failure(f'{_list("", names)} did not end in {EXIT_TIMEOUT:g} s after the '
                              'script', TIMEOUT_STATUS, again=True, hung=names)

    # Ending.

    def _show_stacks(self, names):
        """Have processes that hang write where, into their output."""
        names = [name for name in names if not self._by_name[name].ended]
        if not names:
            return
        for link, host in zip(self._links, self._job.hosts):
            mine = [name for name in names if self._by_name[name].host == host.name]
            link.send('dump', names=mine)
        self._drain(time.monotonic() + STACKS, lambda: False)

    def _end_all(self, grace):
        """End every process and agent.  Nothing that has come from them is lost."""
        for link in self._links:
            if link.address:
                link.send('stop', grace=grace)
            else:  # it has not answered yet, and has nothing to end
                link.kill()
        hurried = len(self._signals.received)

        def ended():
            if len(self._signals.received) > max(hurried, 1):
                for link in self._links:
                    link.send('stop', grace=0)
            return all(link.gone for link in self._links)

        self._drain(time.monotonic() + grace + 8.0, ended)
        for index, (link, host) in enumerate(zip(self._links, self._job.hosts)):
            link.kill()
            if host.local:  # what an agent that was killed could not do
                left = _agent.kill_marked(self._mark_of(index))
                if left:
                    self._report.say(f'processes {left} cannot be ended')
        self._sweep([index for index, host in enumerate(self._job.hosts) if not host.local
                     and self.members and not self._links[index].cleared])

    def _sweep(self, indices):
        """Have other agents end what those of remote hosts have not: they were killed, or hang."""
        events, links, left = queue.Queue(), {}, {}
        for index in indices:
            host = self._job.hosts[index]
            with contextlib.suppress(OSError):
                links[index] = Link(index, host.name, self._job.agent_command(host),
                                    self._job.agent_environment(), events)
                links[index].send('sweep', mark=self._mark_of(index))
        deadline = time.monotonic() + SWEEP_TIMEOUT
        while len(left) < len(links) and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                index, event = events.get(timeout=0.1)
                if event['event'] in ('gone', 'lost'):  # in this order
                    left.setdefault(index, event.get('left', True))
            if len(self._signals.received) > 1:
                break
        for index in indices:
            if index in links:
                links[index].kill()
            if left.get(index, True):
                self._report.say(f'processes may be left on the host {self._links[index].name}')

    def _drain(self, deadline, ended):
        """Take output and exits until ended() or the deadline."""
        while not ended() and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                index, event = self._events.get(timeout=0.05)
                if event['event'] in ('output', 'started'):
                    self._take(index, event)
                elif event['event'] == 'exit':
                    member = self._by_name[event['name']]
                    member.status = event['status']
                    self._report.event('exit', name=member.name, status=member.status)
                elif event['event'] in ('gone', 'lost'):
                    self._links[index].gone = True


def _traceback(member):
    """The exception that a process has reported, or the end of what it has written."""
    if member.exception:
        return member.exception
    lines = list(member.tail)
    starts = [i for i, line in enumerate(lines) if line.startswith('Traceback (most recent')]
    return '\n'.join(lines[starts[-1]:] if starts else lines[-20:])


def _last(errors):
    """The last line of what a remote shell has complained about."""
    said = [line for line in errors if line.strip()]
    return said[-1] if said else 'it said nothing'


def _list(noun, names):
    text = ', '.join(names)
    return f'the {noun}{"s" if len(names) > 1 else ""} {text}' if noun else text
