"""Sums of float32 whose bits do not depend on the order of the terms, nor on who adds them up.

Each term is rounded to a multiple of a first unit, which is such that all sums of these multiples
have at most 24 bits, and so are exact in float32.  What that leaves goes to a second unit in the
same way.  The two sums, added up, are the result: its error is at most that of one rounding, and
2^-47 of the greatest of N terms, times N^3.

The units follow from the greatest term and the number of terms, on which all must agree before.
Source: Demmel and Nguyen, Fast reproducible floating-point summation, 2013 (pre-rounding).
"""
import mxnet as mx
import numpy as np

from d2l.parallel.stores._fuse import flat

_SMALLEST = -60  # so that the second unit is a normal number


def exponents(groups):
    """For each list of arrays of float32 the least e with all |x| < 2^e, as a NumPy vector."""
    greatest = [mx.nd.max(mx.nd.abs(flat(array))).as_in_context(mx.cpu())
                for group in groups for array in group if array.size]
    values = iter(mx.nd.concat(*greatest, dim=0).asnumpy() if greatest else ())
    # Of what is not finite the result is not, either.
    return np.array([max([_SMALLEST] + [_exponent(next(values)) for array in group if array.size])
                     for group in groups])


def _exponent(value):
    return np.frexp(value)[1] if value else _SMALLEST


class Pieces:
    """The two roundings of the arrays of one key, one behind the other in vectors to be summed."""

    def __init__(self, arrays):
        size = arrays[0].size
        self.vectors = [mx.nd.zeros(2 * size, ctx=array.context) for array in arrays]
        self._parts = [(vector[:size], vector[size:]) for vector in self.vectors]

    def cut(self, arrays, exponent, terms):
        """Fill the vectors with the roundings of the arrays, whose |x| < 2^exponent."""
        bits = max(2, int(terms - 1).bit_length())  # those by which a sum is longer than its terms
        # To add and subtract 1.5 * 2^23 units rounds to whole ones.
        first = 1.5 * 2.0 ** (exponent + bits - 1)
        second = first * 2.0 ** (bits - 25)
        for array, (high, low) in zip(map(flat, arrays), self._parts):
            high[:] = (array + first) - first
            low[:] = ((array - high) + second) - second

    def put(self, outs):
        """Write the result, after the vectors have been summed, into arrays."""
        for i, out in enumerate(outs):
            high, low = self._parts[i if len(outs) == len(self._parts) else 0]
            flat(out)[:] = (high + low).as_in_context(out.context)
