"""What a job shows: the terminal, a log of each process, the JSON-lines log, the status table."""
import collections
import json
import os
import sys
import time

PERIOD = 1.0  # seconds between two looks at the progress
WINDOW = 10.0  # seconds over which a speed is measured
TAIL = 60  # lines of each process that are kept for its failure


class Member:
    """A process of the running job, as the launcher knows it."""

    def __init__(self, process, host):
        self.name, self.role, self.host = process.name, process.role, host
        self.pid, self.status, self.exception = None, None, None
        self.connected = self.joined = self.formed = self.leaving = False
        self.step, self.numbers = None, {}
        self.heard = self.stepped = time.monotonic()
        self.tail = collections.deque(maxlen=TAIL)
        self._examples = collections.deque()  # (time, examples, steps) of the last seconds

    @property
    def ended(self):
        return self.status is not None

    @property
    def state(self):
        if self.ended:
            return 'ended' if self.status == 0 else f'failed ({self.status})'
        for name in ('leaving', 'formed', 'joined', 'connected'):
            if getattr(self, name):
                return {'formed': 'running', 'joined': 'joining'}.get(name, name)
        return 'starting'

    def beat(self, message):
        """Take over what a heartbeat says."""
        now, step = time.monotonic(), message.get('step')
        self.heard = now
        if step is None:
            return
        if step != self.step:
            self.step, self.stepped, self.formed = step, now, True
        self.numbers = message.get('numbers') or {}
        self._examples.append((now, message.get('examples') or 0, step))
        while now - self._examples[0][0] > WINDOW:
            self._examples.popleft()

    def speed(self, what):
        """Steps (2) or examples (1) in a second, over the last seconds."""
        if len(self._examples) < 2:
            return 0.0
        first, last = self._examples[0], self._examples[-1]
        return (last[what] - first[what]) / (last[0] - first[0])


def summary(members):
    """{'step', numbers of rank 0, 'examples_per_s', 'steps_per_s', 'slowest', 'fastest'}.

    The speed in examples is that of all workers together, slowest and fastest are those of single
    workers.  None before the first step.
    """
    workers = [member for member in members if member.role == 'worker']
    if not workers or workers[0].step is None:
        return None
    found = {'step': workers[0].step}
    found.update((name, value) for name, value in workers[0].numbers.items() if name not in found)
    speeds = [worker.speed(1) for worker in workers]
    found['steps_per_s'] = round(workers[0].speed(2), 2)
    if any(speeds):
        found.update(examples_per_s=round(sum(speeds), 1), slowest=round(min(speeds), 1),
                     fastest=round(max(speeds), 1))
    return found


class Report:
    """Everything that the launcher shows and writes, in the folder of the job.

    board: whether to write event files for TensorBoard there, too.  Raises OSError for a folder
    that cannot be written or is another job's, ImportError where board lacks tensorboardX.
    """

    def __init__(self, folder, command, board=False):
        self.folder, self._command, self._started = folder, command, time.time()
        if board:
            from tensorboardX import SummaryWriter
        os.makedirs(folder, exist_ok=True)
        if os.path.exists(os.path.join(folder, 'events.jsonl')):
            raise OSError(f'{folder} is the folder of another job: choose a new one for --logs')
        self._events = open(os.path.join(folder, 'events.jsonl'), 'a', encoding='utf-8')
        self._board = SummaryWriter(os.path.join(folder, 'tensorboard')) if board else None
        self._logs, self._bar, self._restart, self._last_step = {}, None, 0, None

    def begin(self, restart):
        """The job starts, for the first time (restart 0) or again."""
        self._restart, self._last_step = restart, None
        self._close_logs()

    def event(self, kind, **facts):
        """A line of events.jsonl."""
        json.dump(dict({'time': round(time.time(), 3), 'event': kind}, **facts), self._events)
        self._events.write('\n')
        self._events.flush()

    def say(self, text):
        """A line of the launcher itself."""
        self._print(sys.stderr, f'd2l launch: {text}\n')

    def show(self, text):
        """Text as it is, such as a traceback."""
        self._print(sys.stderr, text if text.endswith('\n') else text + '\n')

    def output(self, member, stream, lines):
        """Lines that a process has written: to its file, and to the terminal with its name."""
        if member.name not in self._logs:
            again = f'.restart{self._restart}' if self._restart else ''
            path = os.path.join(self.folder, member.name.replace(' ', '') + again + '.log')
            self._logs[member.name] = open(path, 'a', encoding='utf-8', errors='replace')
        log = self._logs[member.name]
        log.write('\n'.join(lines) + '\n')
        log.flush()
        member.tail.extend(lines)
        text = ''.join(f'[{member.name}] {line}\n' for line in lines)
        self._print(sys.stdout if stream == 'stdout' else sys.stderr, text)

    def progress(self, members, state='running'):
        """How the job stands: status.json, the log, the bar."""
        now, found = time.monotonic(), summary(members)
        rows = [{'process': m.name, 'host': m.host, 'pid': m.pid, 'state': m.state, 'step': m.step,
                 'heard': round(now - m.heard, 1), 'numbers': m.numbers,
                 'examples_per_s': round(m.speed(1), 1)} for m in members]
        status = {'launcher': os.getpid(), 'state': state, 'restarts': self._restart,
                  'started': self._started, 'written': time.time(), 'command': self._command,
                  'progress': found, 'processes': rows}
        path = os.path.join(self.folder, 'status.json')
        with open(path + '.tmp', 'w', encoding='utf-8') as file:
            json.dump(status, file)
        os.replace(path + '.tmp', path)
        if found and found['step'] != self._last_step:
            self._last_step = found['step']
            self.event('progress', **found)
            self._draw(found)
            if self._board is not None:
                for name, value in found.items():
                    # A number that is not finite travels as its name.
                    if name != 'step':
                        self._board.add_scalar(name, float(value), found['step'])

    def end(self, members, state, status):
        """The job is over, 'done' or 'failed', with an exit status."""
        self.progress(members, state)
        self.event('end', status=status)
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._board is not None:
            self._board.close()
            self._board = None
        self._close_logs()

    def _close_logs(self):
        for log in self._logs.values():
            log.close()
        self._logs = {}

    def _draw(self, found):
        if self._bar is None:
            if not sys.stderr.isatty():
                return
            from tqdm import tqdm
            self._bar = tqdm(unit='step', initial=found['step'], dynamic_ncols=True, leave=False)
        self._bar.n = found['step']
        shown = {name: value for name, value in found.items()
                 if name not in ('step', 'steps_per_s', 'slowest', 'fastest')}
        if 'slowest' in found:
            shown['workers'] = f'{found["slowest"]:g}..{found["fastest"]:g}'
        self._bar.set_postfix(shown)

    def _print(self, stream, text):
        if self._bar is not None:
            self._bar.clear()
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            pass  # nobody reads any more; the files have it
        if self._bar is not None:
            self._bar.refresh()


def print_status(folder):
    """Print the table of the job with this folder.  Returns the exit status."""
    path = os.path.join(folder, 'status.json')
    try:
        with open(path, encoding='utf-8') as file:
            status = json.load(file)
    except (OSError, ValueError) as error:
        print(f'd2l launch: {folder} is not the folder of a job: {error}', file=sys.stderr)
        return 2
    print('\n'.join(status_lines(status)))
    return 0


def status_lines(status):
    """The table of a status.json."""
    state = status['state']
    if state == 'running' and not _alive(status['launcher']):
        state = 'without its launcher, which has ended'
    seconds = int((time.time() if state == 'running' else status['written']) - status['started'])
    lines = ['{}: {}, {} restart{}, {}:{:02}:{:02}'.format(
        ' '.join(status['command']), state, status['restarts'],
        '' if status['restarts'] == 1 else 's', seconds // 3600, seconds // 60 % 60, seconds % 60)]
    names = sorted({name for row in status['processes'] for name in row['numbers']})
    table = [['process', 'host', 'pid', 'state', 'step', 'examples/s', *names, 'last heard']]
    for row in status['processes']:
        numbers = [row['numbers'].get(name) for name in names]
        table.append([row['process'], row['host'], row['pid'], row['state'], row['step'],
                      row['examples_per_s'] or None, *numbers, f'{row["heard"]} s ago'])
    texts = [[_text(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*texts)]
    lines += ['  '.join(map(str.ljust, row, widths)).rstrip() for row in texts]
    return lines


def _text(cell):
    if cell is None:
        return '-'
    return f'{cell:.4g}' if isinstance(cell, float) else str(cell)


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
