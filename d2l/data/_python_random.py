"""Many of Python's random numbers at once.

``random`` and numpy's ``RandomState`` are the same Mersenne Twister.  What is drawn here are the
numbers that a loop over ``random`` would have drawn, and ``random`` goes on where the loop would
have left it.  So ``random.seed`` makes them reproducible, in every version of Python and numpy.
"""
import contextlib
import random

import numpy as onp

_CHUNK = 1 << 16


@contextlib.contextmanager
def borrowed():
    """A ``RandomState`` that stands where ``random`` does; at the end ``random`` follows it."""
    version, internal, gauss = random.getstate()
    source = onp.random.RandomState(0)
    source.set_state(('MT19937', onp.array(internal[:-1], dtype='uint32'), internal[-1]))
    yield source
    _, words, position = source.get_state()[:3]
    random.setstate((version, (*words.tolist(), int(position)), gauss))


def uniform(count):
    """``count`` times ``random.random()``, float64."""
    with borrowed() as source:
        return source.random_sample(count)


def randint(low, high, count):
    """``count`` times ``random.randint(low, high)``, both ends included, int64."""
    width = high - low + 1
    bits = width.bit_length()
    if bits > 32 or not count:
        return onp.array([random.randint(low, high) for _ in range(count)], dtype='int64')
    # randint takes the upper bits of a 32-bit word, and the next word where they are too large.
    found, used, words = [], 0, 0
    with borrowed() as source:
        start = source.get_state()
        while used < count:
            drawn = _words(source, (count - used) * 2 ** bits // width + 64) >> (32 - bits)
            kept = onp.flatnonzero(drawn < width)[:count - used]
            found.append(drawn[kept])
            used += len(kept)
            words += len(drawn) if used < count else int(kept[-1]) + 1
        source.set_state(start)
        _words(source, words)
    return onp.concatenate(found).astype('int64') + low


def _words(source, count):
    return source.randint(0, 2 ** 32, count, dtype='uint32')


class WeightedDraws:
    """Numbers from 0 to n - 1, each with a probability proportional to its weight.

    ``weights`` are n numbers.  Raises ``ValueError`` unless they are finite, none is negative and
    at least one is positive; the message begins with ``name``.
    """

    def __init__(self, weights, name):
        weights = onp.asarray(weights, dtype='float64')
        if weights.ndim != 1 or not len(weights) or not onp.isfinite(weights).all() \
                or (weights < 0).any() or not (weights > 0).any():
            raise ValueError(f'{name} must be finite numbers of at least 0, one of them positive')
        self._cumulative = onp.cumsum(weights)
        if not onp.isfinite(self._cumulative[-1]):
            raise ValueError(f'{name} must have a finite sum')
        self._last = int(onp.flatnonzero(weights)[-1])
        self._table = None
        self._size = 1 << min(max((32 * len(weights)).bit_length(), 10), 18)

    def draw(self, count):
        """``random.choices(range(n), weights, k=count)``, int32 of shape (count,)."""
        numbers = onp.empty(count, dtype='int32')
        with borrowed() as source:
            for begin in range(0, count, _CHUNK):
                part = numbers[begin:begin + _CHUNK]
                shares = source.random_sample(len(part))
                # The table pays when there are not many fewer draws than entries.
                if self._table is None and 8 * count < self._size:
                    part[:] = self._find(shares)
                else:
                    self._look_up(shares, part)
        return numbers

    def _find(self, shares):
        places = onp.searchsorted(self._cumulative, shares * self._cumulative[-1], side='right')
        return onp.minimum(places, self._last)

    def _look_up(self, shares, numbers):
        """What ``_find`` gives.  Most places between 0 and 1 hold one number only."""
        if self._table is None:
            edges = self._find(onp.arange(self._size + 1) / self._size).astype('int32')
            self._table = onp.where(edges[:-1] == edges[1:], edges[:-1], -1)
        self._table.take((shares * self._size).astype('int32'), out=numbers, mode='clip')
        open_ = onp.flatnonzero(numbers < 0)
        numbers[open_] = self._find(shares[open_])
