"""What test_random_calls.py calls: for each operator arrays, truth and attributes."""
import math

import d2l  # noqa: F401  (before mxnet)

# isort: split
import numpy as onp

from d2l import ops
from tests import philox
from tests.ops import (
    test_additive_attention,
    test_attention,
    test_conv2d,
    test_dense,
    test_multi_dense,
    test_positional_encoding,
)

FLOATS = ['float16', 'float32', 'float64']
INTEGERS = ['int8', 'uint8', 'int32', 'int64']


class Row:
    """What the generator has to know of an operator.

    arrays(rng, dtype) makes its arrays as it wants them; truth is the operator in NumPy float64;
    attrs has some right values of each attribute; follow(*arrays) gives the values of those that
    must fit the arrays.  The result has the dtype of the first array, or that of the attribute
    dtype; several results count as one, beside each other.
    """

    def __init__(self, op, arrays, truth, follow=lambda *arrays: {}, **attrs):
        self.op, self.arrays, self.truth, self.attrs = op, arrays, truth, attrs
        self.follow = follow


def distinct(rng, shape, dtype):
    """Multiples of 1/8 that all differ and that float16 holds: no spread is near 0 but not 0."""
    size = int(onp.prod(shape))
    return onp.asarray((rng.permutation(size) - size // 2).reshape(shape) / 8, dtype=dtype)


def random_shape(rng, low):
    """At least low axes; the sizes are those that loops over whole vectors may get wrong."""
    axes = rng.randint(low, 13 if rng.rand() < 0.1 else 5)
    shape = [int(rng.choice([1, 1, 2, 3])) for _ in range(axes)]
    shape[-1] = int(rng.choice([1, 2, 7, 16, 31, 32, 33, 65]))
    while onp.prod(shape) > 2000:
        shape[int(onp.argmax(shape))] //= 2
    return tuple(0 if rng.rand() < 0.02 else n for n in shape)


def layer_norm_arrays(rng, dtype):
    shape = random_shape(rng, 1)
    return [distinct(rng, shape, dtype)] + [rng.randn(shape[-1]).astype(dtype) for _ in range(2)]


def layer_norm_truth(x, gamma, beta, eps=1e-5):
    centered = x - x.mean(-1, keepdims=True)
    variance = (centered ** 2).mean(-1, keepdims=True)
    return centered / onp.sqrt(variance + float(eps)) * gamma + beta


def masked_softmax_arrays(rng, dtype):
    shape = random_shape(rng, 2)
    axes = 2 if len(shape) == 3 and rng.rand() < 0.5 else 1
    valid_len = rng.randint(-2, 2 * shape[-1] + 4, shape[:axes]) / 2  # cast to integers or not
    valid_len = valid_len.astype(rng.choice(FLOATS + INTEGERS))
    return [distinct(rng, shape, dtype), None if rng.rand() < 0.1 else valid_len]


def masked_softmax_truth(x, valid_len):
    keys = x.shape[-1] if x.ndim else 1  # without valid_len a single number will do
    n = onp.full(1, keys) if valid_len is None else onp.clip(onp.ceil(valid_len), 0, keys)
    n = n.reshape(n.shape + (1,) * (x.ndim - n.ndim))
    valid = onp.arange(keys) < n
    top = onp.where(valid, x, -1e300).max(-1, keepdims=True, initial=-1e300)
    e = onp.where(valid, onp.exp(onp.minimum(x - top, 0)), 0)
    return onp.where(n == 0, 1 / max(keys, 1), e / e.sum(-1, keepdims=True)).reshape(x.shape)


def activation_arrays(rng, dtype):
    return [distinct(rng, random_shape(rng, 1), dtype)]


def activation_truth(x, act_type='relu'):
    erfc = onp.vectorize(math.erfc, otypes=['float64'])
    return {'relu': lambda: onp.maximum(x, 0), 'tanh': lambda: onp.tanh(x),
            'sigmoid': lambda: 1 / (1 + onp.exp(-x)),
            'gelu': lambda: x * erfc(-x / 2 ** 0.5) / 2}[act_type]()


def bias_activation_arrays(rng, dtype):
    shape = random_shape(rng, 1)
    return [distinct(rng, shape, dtype), rng.randn(shape[-1]).astype(dtype)]


def masked_softmax_ce_arrays(rng, dtype):
    batch, steps, vocab = (int(rng.choice(sizes)) for sizes in (
        [0, 1, 2, 3], [0, 1, 2, 7], [1, 2, 7, 16, 31, 32, 33, 65]))
    label = rng.randint(-2, vocab + 2, (batch, steps)).astype(rng.choice(FLOATS + INTEGERS))
    valid_len = rng.randint(-2, 2 * steps + 4, batch) / 2
    return [distinct(rng, (batch, steps, vocab), dtype), label,
            valid_len.astype(rng.choice(FLOATS + INTEGERS))]


def masked_softmax_ce_truth(x, label, valid_len, smoothing=0.0):
    batch, steps, vocab = x.shape
    target = onp.eye(vocab)[onp.clip(label, 0, vocab - 1).astype('int64')]
    target = (1 - float(smoothing)) * target + float(smoothing) / vocab
    x = x - x.max(-1, keepdims=True)
    loss = onp.log(onp.exp(x).sum(-1)) - (target * x).sum(-1)
    valid = onp.arange(steps) < onp.ceil(valid_len).reshape(-1, 1)
    return onp.where(valid, loss, 0).sum(-1) / max(steps, 1)


def embedding_arrays(rng, dtype):
    shape = random_shape(rng, 1)[-11:]
    vocab, cols = (int(rng.choice([1, 2, 7, 16, 33])) for _ in range(2))
    data = [rng.randint(-2, n + 2, shape).astype(rng.choice(FLOATS + INTEGERS))
            for n in (vocab, 2)]
    position = distinct(rng, (1, shape[-1] + rng.randint(3), cols), dtype)
    tables = [distinct(rng, (n, cols), dtype) for n in (vocab, 2)]
    with_segments = rng.rand() < 0.5
    return [tables[0], data[0], position if rng.rand() < 0.5 else None,
            tables[1] if with_segments else None, data[1] if with_segments else None]


def embedding_truth(weight, data, position, segment_weight, segments, scale=1.0):
    def rows(table, index):
        return table[onp.clip(index, 0, len(table) - 1).astype('int64')]
    out = rows(weight, data) * float(scale)
    if position is not None:
        out = out + position[0, :data.shape[-1]]
    return out if segment_weight is None else out + rows(segment_weight, segments)


def seed_array(rng):
    """As random_seed() draws it: in predict mode all ones, in train mode zeros and twos."""
    return onp.ones(64, 'float32') if rng.rand() < 0.3 else philox.new_seed(rng.randint(1000))


def dropout_arrays(rng, dtype):
    return [distinct(rng, random_shape(rng, 1), dtype), seed_array(rng)]


def dropout_truth(x, seed, p=0.5):
    return x * philox.flat_factors(seed, x.shape, float(p))


def add_norm_arrays(rng, dtype):
    shape = random_shape(rng, 1)
    X = distinct(rng, shape, dtype)
    Y = X[..., ::-1] * 2  # all differences stay multiples of 1/8
    return [X, Y, *(rng.randn(shape[-1]).astype(dtype) for _ in range(2)),
            None if rng.rand() < 0.1 else seed_array(rng)]


def add_norm_truth(X, Y, gamma, beta, seed, p=0.0, eps=1e-5):
    if seed is not None:
        Y = Y * philox.row_factors(seed, Y.shape, float(p))
    return layer_norm_truth(X + Y, gamma, beta, eps)


def lengths_and_seed(rng, batch, queries, keys, arrays):
    """arrays and, mostly, valid_len and the numbers of dropout."""
    valid_len = rng.randint(-2, 2 * keys + 4, (batch, queries)[:rng.randint(1, 3)]) / 2
    return arrays + [None if rng.rand() < 0.2 else valid_len.astype(rng.choice(FLOATS + INTEGERS)),
                     None if rng.rand() < 0.5 else seed_array(rng)]


def attention_arrays(rng, dtype):
    batch, queries, keys, d, v = (int(rng.choice([1, 2, 3, 5])) for _ in range(5))
    shapes = [(batch, queries, 2 * d), (batch, keys, 2 * d), (batch, keys, 2 * v)]
    return lengths_and_seed(rng, batch, queries, keys, [
        rng.randn(*shape).astype(dtype) for shape in shapes])


def attention_truth(*arrays, num_heads=1, causal=False, scale=0.0, dropout=0.0):
    return test_attention.truth(*arrays, num_heads=int(num_heads), causal=str(causal) in '1True',
                                scale=float(scale), dropout=float(dropout))


def additive_arrays(rng, dtype):
    batch, queries, keys, hidden, v = (int(rng.choice([1, 2, 3, 5])) for _ in range(5))
    arrays = test_additive_attention.arrays(batch, queries, keys, hidden, v, seed=rng.randint(99))
    return lengths_and_seed(rng, batch, queries, keys, [a.astype(dtype) for a in arrays])


def additive_truth(*arrays, dropout=0.0):
    return test_additive_attention.truth(*arrays, dropout=float(dropout))


def conv2d_arrays(rng, dtype):
    batch, in_channels, channels, kernel = (int(rng.choice([1, 2, 3, 5])) for _ in range(4))
    height, width = (int(rng.choice([5, 7, 16, 19])) for _ in range(2))
    shapes = (batch, in_channels, height, width), (channels, in_channels, kernel, kernel)
    bias = None if rng.rand() < 0.2 else rng.randn(channels).astype(dtype)
    return [rng.randn(*shape).astype(dtype) for shape in shapes] + [bias]


def conv2d_attrs(x, w, bias):
    return {'channels': w.shape[0], 'kernel_size': w.shape[2], 'padding': w.shape[2] // 2}


def batch_dot_arrays(rng, dtype):
    batch, n = int(rng.choice([0, 1, 2, 3])), int(rng.choice([0, 1, 2, 3, 7, 8, 16, 33]))
    return [rng.randn(batch, n, n).astype(dtype) for _ in range(2)]  # whatever is transposed


def batch_dot_truth(a, b, transpose_a=False, transpose_b=False):
    a, b = (x.swapaxes(1, 2) if str(flag) in '1True' else x
            for x, flag in ((a, transpose_a), (b, transpose_b)))
    return a @ b


def dense_arrays(rng, dtype):
    shape, units = random_shape(rng, 1), int(rng.choice([1, 2, 7, 16, 33]))
    arrays = [a.astype(dtype) for a in test_dense.arrays(shape, units, seed=rng.randint(99))]
    return arrays[:2] + [None if rng.rand() < 0.2 else arrays[2]]


def dense_truth(x, w, b=None, units=1, act_type=None):
    return test_dense.truth(x, w, b, act_type=None if str(act_type) == 'None' else act_type)


def multi_dense_arrays(rng, dtype):
    layers = int(rng.randint(2, 4))
    biases = [i for i in range(layers) if rng.rand() < 0.7]
    return test_multi_dense.arrays(random_shape(rng, 1), int(rng.choice([1, 2, 7, 16, 33])), layers,
                                   biases, dtype, seed=rng.randint(99))


def multi_dense_truth(*arrays, units=1):
    return onp.concatenate(test_multi_dense.results(*arrays), -1)


def positional_encoding_arrays(rng, dtype):
    data, past = (onp.ones(random_shape(rng, 2), rng.choice(FLOATS + INTEGERS)) for _ in range(2))
    return [data, None if rng.rand() < 0.5 else past]


def positional_encoding_truth(data, past, num_hiddens=1, dtype='float32'):
    return test_positional_encoding.truth(data, past, int(num_hiddens))


# Not exp, which is more than a float can hold for the numbers that distinct makes.
ACT_TYPES = ['gelu', 'relu', 'sigmoid', 'tanh']

ROWS = {row.op.kernel: row for row in (
    Row(ops.activation, activation_arrays, activation_truth, act_type=ACT_TYPES),
    Row(ops.bias_activation, bias_activation_arrays,
        lambda x, bias, act_type='relu': activation_truth(x + bias, act_type), act_type=ACT_TYPES),
    Row(ops.conv2d, conv2d_arrays, test_conv2d.truth, conv2d_attrs, channels=[1], kernel_size=[1],
        padding=[0]),
    Row(ops.embedding, embedding_arrays, embedding_truth, scale=[1.0, 0.5, '2', 16, 1e-3]),
    Row(ops.layer_norm, layer_norm_arrays, layer_norm_truth, eps=[1e-5, 0.0, 0.5, '1e-3', 2, 1e9]),
    Row(ops.masked_softmax, masked_softmax_arrays, masked_softmax_truth),
    Row(ops.masked_softmax_ce, masked_softmax_ce_arrays, masked_softmax_ce_truth,
        smoothing=[0.0, 0, 0.1, '0.5', 0.99]),
    Row(ops.dropout, dropout_arrays, dropout_truth, p=[0.5, 0.0, 0.25, '0.75', 0]),
    Row(ops.add_norm, add_norm_arrays, add_norm_truth, p=[0.5, 0.0, '0.75', 0],
        eps=[1e-5, 0.5, '1e-3', 2, 1e9]),
    Row(ops.attention, attention_arrays, attention_truth, num_heads=[1, 2, '2'],
        causal=[True, False, 'True', 0], scale=[0.0, 0.5, '1', 0], dropout=[0.0, 0.5, '0.25']),
    Row(ops.batch_dot, batch_dot_arrays, batch_dot_truth, transpose_a=[True, False, 'True', 0],
        transpose_b=[True, False, '1', 0]),
    Row(ops.dense, dense_arrays, dense_truth, lambda x, w, b: {'units': w.shape[0]}, units=[1],
        act_type=[None, 'None', 'relu', 'sigmoid', 'tanh']),
    Row(ops.multi_dense, multi_dense_arrays, multi_dense_truth,
        lambda x, w, *others: {'units': w.shape[0]}, units=[1]),
    Row(ops.positional_encoding, positional_encoding_arrays, positional_encoding_truth,
        num_hiddens=[1, 2, 7, '32', 33], dtype=FLOATS),
    Row(ops.additive_attention, additive_arrays, additive_truth, dropout=[0.0, 0.5, '0.25']),
)}
