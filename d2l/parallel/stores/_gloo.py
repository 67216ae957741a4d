"""The transport 'gloo': the ring all-reduce of Gloo, as PyTorch brings it."""
import atexit
import socket
import sys
import threading
import time
from datetime import timedelta

from d2l.parallel.stores._memory import memory

# How often a waiting rank looks whether another has given up, and how long one that gives up waits
# for the others to say that they live; seconds.
LOOK, GRACE = 0.5, 1.5
LINGER = 5.0  # seconds; how long one that has finished waits for the others to finish, too
_meetings = {}  # (host, port) -> the TCPStore of this process
_created = {}   # (host, port) -> how many groups this process has formed there


class Gloo:
    """One group of processes that meet at address ('host:port', where rank 0 listens).

    A process may form several groups at one address if all ranks form them in the same order.
    Every operation raises ConnectionError or TimeoutError, with the ranks that gave no sign of
    life, when a peer is gone or does not answer within timeout seconds.

    Listens at the address given and, for the connections between the ranks, at this host's address
    on the way to it; not on other interfaces.
    """

    on_host = True

    def __init__(self, rank, size, address, timeout):
        self._torch = torch = _import_torch()
        self.rank, self.size, self._timeout = rank, size, timeout
        host, port = split_address(address)
        number = _created[host, port] = _created.get((host, port), -1) + 1
        meeting = _meet(torch, rank, size, host, port, timeout)
        self._store = torch.distributed.PrefixStore(f'ring/{number}', meeting)
        self._error = self._asking = None
        self._wait_for_all(f'{host}:{port}')
        group = torch.distributed.ProcessGroupGloo
        options = group._Options()
        options._timeout = timedelta(seconds=timeout)
        options._devices = [group.create_device(hostname=_own_address(host, port))]
        try:
            self._group = group(self._store, rank, size, options)
        except RuntimeError as error:
            raise self._lost(error) from None
        atexit.register(self.close)  # not after an exception, for which nobody waits

    def start(self, array, name):
        """Begin to sum a vector over all ranks, in place; return what `wait` takes."""
        tensor = self._tensor(array)
        # The array comes along so that its memory outlives the operation.
        return self._begin(self._group.allreduce, [tensor]), array

    def wait(self, handle):
        """Wait for the end of an operation."""
        self._finish(handle[0])

    def broadcast(self, array):
        """Replace a vector by rank 0's."""
        self._finish(self._begin(self._group.broadcast, self._tensor(array), 0))

    def barrier(self):
        """Wait for all ranks."""
        self._finish(self._begin(self._group.barrier))

    def close(self):
        """Drop the connections, in good order: when all ranks do so, or LINGER seconds later.

        A process that ends while others still read from it would break what it has sent them.
        """
        if not self._error and self._group is not None and not hasattr(sys, 'last_type'):
            self._ask(self._leave, LINGER)
        self._error = self._error or RuntimeError('ring: the store is closed')
        self._group = None
        atexit.unregister(self.close)

    def _leave(self):
        end = time.monotonic() + LINGER
        left = self._store.add('left', 1)
        while left < self.size and time.monotonic() < end and not self._store.check(['given up']):
            time.sleep(0.005)
            left = self._store.add('left', 0)

    def _tensor(self, array):
        return self._torch.from_numpy(memory(array))

    def _begin(self, operation, *args):
        if self._error:
            raise self._error
        try:
            return operation(*args)
        except RuntimeError as error:
            raise self._lost(error) from None

    def _finish(self, work):
        while True:
            try:
                work.wait(timedelta(seconds=LOOK))
                return
            except RuntimeError as error:
                if work.is_completed():
                    raise self._lost(error) from None
            if self._ask(lambda: self._store.check(['given up'])):
                raise self._lost('another rank gave up')

    def _lost(self, error):
        """The exception to raise for an operation that failed; the others hear of it."""
        def survivors():
            self._store.set('given up', 'yes')
            self._store.set(f'alive/{self.rank}', 'yes')
            end = time.monotonic() + GRACE
            while True:
                silent = [rank for rank in range(self.size)
                          if not self._store.check([f'alive/{rank}'])]
                if not silent or time.monotonic() > end:
                    return silent
                time.sleep(0.02)

        silent = self._ask(survivors, 2 * GRACE)
        if silent is None:
            silent = [0]  # where the store lives
        reason = str(error).splitlines()[0]
        kind = TimeoutError if 'timed out' in reason.lower() else ConnectionError
        who = f'no sign of life from {_ranks(silent)}' if silent else 'all ranks are alive'
        self._error = kind(f'ring: rank {self.rank} gave up (timeout {self._timeout:g} s): {who}; '
                           f'Gloo says: {reason}')
        return self._error

    def _ask(self, question, seconds=GRACE):
        """The store's answer, or None when there is none: its host may be gone or stopped."""
        if self._asking and self._asking.is_alive():
            return None
        answers = []

        def ask():
            try:
                answers.append(question())
            except RuntimeError:
                pass

        # A thread, since the store waits without limit for a host that was stopped.
        self._asking = threading.Thread(target=ask, daemon=True)
        self._asking.start()
        self._asking.join(seconds)
        return answers[0] if answers else None

    def _wait_for_all(self, place):
        """Come to the meeting; whoever misses a rank after the timeout tells the others."""
        store, end = self._store, time.monotonic() + self._timeout
        missing = [0]  # if the store cannot be asked
        try:
            store.set(f'here/{self.rank}', 'yes')
            store.add('here', 1)
            while store.add('here', 0) < self.size:
                if store.check(['missing']) or time.monotonic() > end:
                    missing = [rank for rank in range(self.size)
                               if not store.check([f'here/{rank}'])]
                    store.set('missing', 'yes')
                    if self.rank == 0:
                        time.sleep(GRACE)  # the others ask this process
                    break
                time.sleep(0.02)
            else:
                return
        except RuntimeError:
            pass
        raise TimeoutError(f'ring: {_ranks(missing)} did not come to {place} within '
                           f'{self._timeout:g} s')


def split_address(address):
    """('host', port) of 'host:port'; an IPv6 host may stand in brackets."""
    host, colon, port = (address or '').rpartition(':')
    if not (colon and host and port.isdigit() and int(port) < 65536):
        raise ValueError("ring: address must be 'host:port', where rank 0 listens, got "
                         f'{address!r}; `d2l launch` sets D2L_STORE_ADDRESS')
    return host.strip('[]'), int(port)


def _import_torch():
    try:
        import torch.distributed
    except ImportError:
        raise ImportError("ring: transport 'gloo' needs PyTorch 2.0 or later, whose CPU build is "
                          "enough: pip install 'd2l-gluon[ring]' (or take transport='mpi')"
                          ) from None
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        raise ImportError("ring: transport 'gloo' needs a PyTorch with Gloo; this build of "
                          f'{torch.__version__} has none')
    return torch


def _meet(torch, rank, size, host, port, timeout):
    """The TCPStore at which the processes exchange their addresses; rank 0 holds it."""
    if (host, port) in _meetings:
        return _meetings[host, port]
    listener = {}
    if rank == 0:
        # A socket of our own, since the TCPStore's would listen on all interfaces.
        try:
            info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(*info[:3])
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(info[4])
            listening.listen(max(128, size))
        except OSError as error:
            raise OSError(error.errno, f'ring: rank 0 cannot listen at {host}:{port}: '
                          f'{error.strerror}') from None
        listener = {'master_listen_fd': listening.detach()}
    try:
        store = torch.distributed.TCPStore(host, port, size, rank == 0, timedelta(seconds=timeout),
                                           wait_for_workers=False, **listener)
    except (RuntimeError, OSError) as error:
        raise TimeoutError(f'ring: rank {rank} found no rank 0 at {host}:{port} within {timeout:g} '
                           f's: {str(error).splitlines()[0]}') from None
    _meetings[host, port] = store
    return store


def _own_address(host, port):
    """The address of this host on the way to another one."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)  # of a datagram socket: chooses a route, sends nothing
        return probe.getsockname()[0]


def _ranks(ranks):
    return ('rank ' if len(ranks) == 1 else 'ranks ') + ', '.join(map(str, ranks))
