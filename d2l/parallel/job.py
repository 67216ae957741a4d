"""This process's place in the job that ``d2l launch`` started, and its line to the launcher.

Without the launcher everything here works, too, and says: nobody to report to, and one worker, rank
0, or what horovodrun and mpiexec say.
"""
import atexit
import faulthandler
import math
import os
import signal
import threading
import time

from d2l.parallel import _control

PERIOD = 1.0  # seconds between heartbeats
TEXT_LIMIT = 5000  # characters of a traceback that fit into a message, however they are encoded
# Where those who start processes say rank, rank on the host and number: d2l launch, horovodrun,
# mpiexec of Open MPI, mpiexec of MPICH.  The first of whom a process finds anything has said all.
_PLACES = [('D2L_RANK', 'D2L_LOCAL_RANK', 'D2L_NUM_WORKERS'),
           ('HOROVOD_RANK', 'HOROVOD_LOCAL_RANK', 'HOROVOD_SIZE'),
           ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
           ('PMI_RANK', 'MPI_LOCALRANKID', 'PMI_SIZE')]


def launched():
    """Whether ``d2l launch`` started this process."""
    return 'D2L_CONTROL' in os.environ


def rank():
    """This worker's number, from 0 to ``num_workers() - 1``."""
    return _place()[0]


def local_rank():
    """This worker's number among those of its host, for the choice of a device."""
    return _place()[1]


def num_workers():
    """The number of workers of the job."""
    return _place()[2]


def placed():
    """Whether anybody has said which worker this process is."""
    return any(name in os.environ for names in _PLACES for name in names)


def _place():
    """(rank, local rank, number of workers) from the environment."""
    for names in _PLACES:
        if any(name in os.environ for name in names):
            return [int(os.environ.get(name, default)) for name, default in zip(names, (0, 0, 1))]
    return 0, 0, 1


def check_place(store):
    """Raise RuntimeError where a store has another rank or number of workers than the job."""
    if (store.rank, store.num_workers) != (rank(), num_workers()):
        raise RuntimeError(
            f'store {store.type}: it says rank {store.rank} of {store.num_workers} workers, the '
            f'job rank {rank()} of {num_workers()}, by which samplers and checkpoints go: start '
            'the workers by d2l launch, horovodrun or mpiexec, or set D2L_RANK and D2L_NUM_WORKERS')


def devices(count=1):
    """This worker's devices: count GPUs, where its host has those, else cpu(0) to cpu(count - 1).

    The workers of a host take its GPUs by turns of count, in order of their `local_rank`.
    """
    import mxnet as mx  # the launcher does without
    first = local_rank() * count
    if mx.context.num_gpus() >= first + count:
        return [mx.gpu(first + i) for i in range(count)]
    return [mx.cpu(i) for i in range(count)]


def store(default='device'):
    """The store that ``d2l launch --store`` names; `default` where the job was not launched."""
    return os.environ.get('D2L_STORE', default)


def restart():
    """How many times the job has been started again: 0 at first."""
    return int(os.environ.get('D2L_RESTART', 0))


def folder():
    """The job's folder, with its logs, as the launcher's host names it; None when not launched."""
    return os.environ.get('D2L_JOB')


def connect():
    """Connect to the control channel and start the heartbeat, which scripts do not do themselves.

    Does nothing when not launched, or a second time; raises OSError or RuntimeError where the
    launcher does not answer.
    """
    if launched():
        _line.connect()


def start():
    """Join the job: to be called before this process waits for the others.

    From the first such call on the job has the launcher's start timeout to form.  Connects first,
    with the errors of `connect`.
    """
    if launched():
        _line.connect()
        _line.say('joining')


def formed():
    """Tell the launcher that this process has found the others.  `progress` tells it, too."""
    if launched():
        _line.connect()
        _line.say('formed')


def progress(step, examples=0, **numbers):
    """Report that `step` steps are done.

    step counts from 1 over the whole training: a restored one goes on from where it was.  The
    launcher ends a job in which no step is done for its step timeout, shows the numbers, such as
    ``loss=0.31``, and writes them to the job's log.  examples is the number of examples that this
    worker handled in the step; from their sum comes the speed.

    Numbers are looked at about once a second, so that an array among them costs a wait only then.
    Does nothing when not launched.
    """
    if launched():
        _line.connect()
        _line.progress(int(step), int(examples), numbers)


def failed(text):
    """Tell the launcher that this process ends with an exception; text is its traceback."""
    if launched():
        try:
            _line.connect()
            _line.send_beat('beat')  # how far it came
            _line.send({'type': 'exception', 'text': text[-TEXT_LIMIT:], 'time': time.time()})
        except (OSError, RuntimeError):
            pass  # the exit status tells the same, a little later


def stop():
    """Leave the job: the last step is reported and the heartbeat ends.

    From here on the launcher expects this process to end.  Called at the end of the script; a
    thread that lives longer than that makes MXNet's parameter server abort.
    """
    _line.stop()


class _Line:
    """The connection to the control channel, and the thread that sends a heartbeat."""

    def __init__(self):
        self._client = self._thread = self._pid = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._said = set()
        self._step, self._examples, self._numbers, self._latest = None, 0, {}, {}
        self._looked = -math.inf

    def connect(self):
        with self._lock:
            if self._pid is not None:
                return
            name = os.environ.get('D2L_NAME', '')
            try:
                self._client = _control.Client(os.environ['D2L_CONTROL'],
                                               os.environ.get('D2L_TOKEN', ''), name)
            except _control.ProtocolError as error:
                raise RuntimeError(f'job.start: {error}') from error
            self._pid = os.getpid()
            self._thread = threading.Thread(target=self._beat, name='d2l heartbeat', daemon=True)
            self._thread.start()
            atexit.register(self.stop)
            if signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
                # By this signal the launcher asks where a process hangs.
                faulthandler.register(signal.SIGUSR2, all_threads=True)

    def _mine(self):
        """Whether there is a connection, and it is not that of the process that forked this one."""
        return self._client is not None and self._pid == os.getpid()

    def say(self, what):
        if what not in self._said:
            self._said.add(what)
            self.send({'type': what})

    def send(self, message):
        if self._mine():
            self._client.send(message)

    def progress(self, step, examples, numbers):
        if not self._mine():
            return
        self._examples += examples
        if numbers:
            self._latest = numbers
            if time.monotonic() - self._looked >= PERIOD:
                self._look()
        # The greatest, since several trainers in a process may count on their own.
        self._step = max(step, self._step or step)

    def _look(self):
        self._looked = time.monotonic()
        self._numbers = {name: _plain(value) for name, value in self._latest.items()}

    def _beat(self):
        while not self._ending.wait(PERIOD):
            try:
                self.send_beat('beat')
            except OSError:
                return  # without its agent this process is about to be killed

    def send_beat(self, kind):
        self.send({'type': kind, 'step': self._step, 'examples': self._examples,
                   'numbers': self._numbers, 'time': time.time()})

    def stop(self):
        if not self._mine() or self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        try:
            self._look()
            self.send_beat('leaving')
        except OSError:
            pass
        self._client.close()
        self._client = None


def _plain(value):
    """A number that JSON has; what is not finite becomes its name."""
    number = float(value.asnumpy().mean() if hasattr(value, 'asnumpy') else value)
    return number if math.isfinite(number) else str(number)


_line = _Line()
