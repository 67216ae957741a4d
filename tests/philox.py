"""What src/operators/common/philox.h and dropout.h compute, in plain NumPy."""
import numpy as np

ROW = 4096   # elements that dropout counts as a row
BLOCK = 64   # columns of a block of words; a block of the mask has twice as many


def philox(counter, key, rounds=7):
    """Philox4x32 (Salmon et al., 2011, section 4.3): four arrays of words, of four of counters."""
    c = [np.asarray(a).astype('uint64') for a in counter]
    k = [int(a) for a in key]
    low = np.uint64(0xffffffff)
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [p1 >> np.uint64(32) ^ c[1] ^ np.uint64(k[0]), p1 & low,
             p0 >> np.uint64(32) ^ c[3] ^ np.uint64(k[1]), p0 & low]
        k = [(k[0] + 0x9E3779B9) & 0xffffffff, (k[1] + 0xBB67AE85) & 0xffffffff]
    return [a.astype('uint32') for a in c]


def key_of(seed):
    """The 64 bits of a seed array: which entries are above 1."""
    bits = [int(value > 1) for value in np.asarray(seed).ravel()]
    return [sum(bit << i for i, bit in enumerate(bits[32 * part:32 * part + 32]))
            for part in range(2)]


def words(seed, row, column):
    """The random words of places: arrays of rows and columns."""
    row, column = np.broadcast_arrays(np.asarray(row, 'uint64'), np.asarray(column, 'uint64'))
    block, place = column // BLOCK, column % BLOCK
    four = philox([block * 16 + place % 16, row & np.uint64(0xffffffff), row >> np.uint64(32),
                   np.zeros_like(row)], key_of(seed))
    return np.choose((place // 16).astype(int), four)


def kept(seed, row, column, p):
    """Which places keep their element."""
    column = np.asarray(column)
    block, place = column // (2 * BLOCK), column % (2 * BLOCK)
    upper = words(seed, row, block * BLOCK + place % BLOCK)
    upper = np.where(place < BLOCK, upper & 0xffff, upper >> 16).astype('uint64')
    lower = words(seed, row, column | 0x80000000) & 0xffff
    return (upper << np.uint64(16)) + lower < min(int((1 - p) * 2 ** 32), 2 ** 32 - 1)


def row_factors(seed, shape, p):
    """0 or 1 / (1 - p), float64, for an array whose last axis is a row."""
    if p == 0 or seed[0] == 1:
        return np.ones(shape)
    cols = shape[-1]
    rows = int(np.prod(shape[:-1], dtype=int))
    mask = kept(seed, np.arange(rows)[:, None], np.arange(cols)[None, :], p)
    return (mask / (1 - p)).reshape(shape)


def flat_factors(seed, shape, p):
    """The same for dropout, which looks at no shape."""
    if p == 0 or seed[0] == 1:
        return np.ones(shape)
    place = np.arange(int(np.prod(shape, dtype=int)))
    return (kept(seed, place // ROW, place % ROW, p) / (1 - p)).reshape(shape)


def new_seed(number):
    """A seed of train mode, as d2l.ops.random_seed draws it."""
    return np.random.RandomState(number).randint(0, 2, 64).astype('float32') * 2


def with_seed(op, reference):
    """A function for d2l.testing.Case: op with a seed array of integers, which Case does not cast.

    Composed from MXNet's operators, op would draw a mask of its own; there reference(*arrays, seed,
    **attrs) takes its place.
    """
    from d2l.ops import _library

    def call(*arrays, **attrs):
        *arrays, seed = arrays
        if _library.library() is None:
            return reference(*arrays, seed.asnumpy(), **attrs)
        return op(*arrays, seed.astype('float32'), **attrs)
    call.__name__ = op.__name__
    return call
