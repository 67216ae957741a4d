"""Stopwatch, running sums and a timed block."""
import collections
import itertools
import time

import numpy
from mxnet.ndarray import NDArray


class Timer:
    """Stopwatch that keeps every interval, in seconds, in ``times`` (section 3.1).

    It starts when it is made.
    """

    def __init__(self):
        self.times = []
        self.start()

    def start(self):
        """Start a new interval."""
        self.tik = time.perf_counter()

    def stop(self):
        """End the interval and return its length."""
        self.times.append(time.perf_counter() - self.tik)
        return self.times[-1]

    def avg(self):
        """Return the mean length; raise ValueError before the first stop."""
        if not self.times:
            raise ValueError('Timer.avg: there is no interval yet, call stop() first')
        return self.sum() / len(self.times)

    def sum(self):
        """Return the total length."""
        return sum(self.times)

    def cumsum(self):
        """Return the running totals, a list of floats."""
        return list(itertools.accumulate(self.times))


class Accumulator:
    """Running sums of n quantities (section 3.6).

    MXNet computes in the background.  So that a loop need not wait for each of its batches, an
    MXNet array given to `add` is read a few calls later, or when a sum is asked for.  The sums
    are those of reading at once: float64, in the order of the calls.
    """

    # Few enough that a fast loop cannot pile up batches in memory.
    _UNREAD = 4

    def __init__(self, n):
        self.data = [0.0] * n

    @property
    def data(self):
        """The sums, a list of floats."""
        while self._unread:
            self._read_oldest()
        return self._data

    @data.setter
    def data(self, sums):
        self._data = list(sums)
        self._unread = collections.deque()

    def add(self, *args):
        """Add one value to each sum.

        A value is a number, or an MXNet or NumPy array of one element.  Raises ValueError for
        another number of values than there are sums, or for a longer array.
        """
        if len(args) != len(self._data):
            raise ValueError(f'Accumulator.add: expected {len(self._data)} values, one for each '
                             f'sum, got {len(args)}')
        self._unread.append([_snapshot(value, i) for i, value in enumerate(args)])
        while len(self._unread) > self._UNREAD:
            self._read_oldest()

    def reset(self):
        """Set all sums to zero."""
        self.data = [0.0] * len(self._data)

    def __getitem__(self, idx):
        """Return one sum."""
        return self.data[idx]

    def _read_oldest(self):
        for i, value in enumerate(self._unread.popleft()):
            self._data[i] += value.asnumpy().item() if isinstance(value, NDArray) else value


def _snapshot(value, i):
    """Return a float, or a copy of an MXNet array that later writes to it do not change."""
    if isinstance(value, (NDArray, numpy.ndarray)) and value.size != 1:
        raise ValueError(f'Accumulator.add: value {i} must be one number, got an array of shape '
                         f'{value.shape}')
    if isinstance(value, NDArray):
        return value.copy()
    return float(value.item() if isinstance(value, numpy.ndarray) else value)


class Benchmark:
    """Print how long a ``with`` block took (section 12.1).

    MXNet computes in the background: call ``npx.waitall()`` at the end of the block to time the
    computation and not only its start.
    """

    def __init__(self, description='Done'):
        self.description = description

    def __enter__(self):
        self.timer = Timer()
        return self

    def __exit__(self, *args):
        print(f'{self.description}: {self.timer.stop():.4f} sec')
