"""The calls that run under the sanitizers: for each operator, pairs of arrays and attributes."""
import numpy as np

ROWS = [1, 2, 31, 33, 65, 0]
COLUMNS = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 257, 1023, 0]


ACT_TYPES = ['exp', 'gelu', 'relu', 'sigmoid', 'tanh']


def activation_cases(rng, dtype):
    shapes = [(n,) for n in COLUMNS] + [(), (0, 3), (1,) * 12, (3, 1023), (65, 1031)]
    for i, shape in enumerate(shapes):
        x = np.asarray(rng.standard_normal(shape), dtype)
        yield [x], {'act_type': ACT_TYPES[i % 5]}
        yield [x], {'act_type': 'gelu'}


def bias_activation_cases(rng, dtype):
    shapes = [(rows, cols) for rows in ROWS for cols in COLUMNS if rows * cols < 4000]
    for i, shape in enumerate(shapes + [(7,), (2, 3, 5), (1,) * 11 + (3,), (700, 67)]):
        yield [rng.standard_normal(s).astype(dtype) for s in (shape, shape[-1:])], {
            'act_type': ACT_TYPES[i % 5]}


def layer_norm_cases(rng, dtype):
    shapes = [(rows, cols) for rows in ROWS for cols in COLUMNS if rows * cols < 4000]
    for shape in shapes + [(7,), (2, 3, 5), (1,) * 11 + (3,), (300, 193), (700, 67)]:
        yield [rng.standard_normal(s).astype(dtype) for s in (shape, shape[-1:], shape[-1:])], {
            'eps': 1e-3}


def masked_softmax_cases(rng, dtype):
    shapes = [((rows, cols), (rows,)) for rows in ROWS for cols in COLUMNS if rows * cols < 4000]
    shapes += [((2, 3, cols), (2, 3)) for cols in COLUMNS] + [
        ((2, 3, 17), (2,)), ((0, 3, 5), (0,)), ((0, 3, 5), (0, 3)), ((2, 0, 5), (2, 0)),
        ((2,) + (1,) * 10 + (3,), (2,)), ((30, 20, 129), (30, 20)), ((30, 20, 129), (30,))]
    lengths = ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64', 'float16']
    for i, (shape, valid_shape) in enumerate(shapes):
        valid_len = rng.integers(0, min(shape[-1] + 3, 127), valid_shape)
        yield [rng.standard_normal(shape).astype(dtype), valid_len.astype(lengths[i % 7])], {}
    for shape in ((), (17,), (2, 3, 65)):
        yield [rng.standard_normal(shape).astype(dtype), None], {}


def masked_softmax_ce_cases(rng, dtype):
    shapes = [(rows, 2, cols) for rows in ROWS for cols in COLUMNS if 0 < 2 * rows * cols < 4000]
    numbers = ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64', 'float16']
    for i, shape in enumerate(shapes + [(0, 3, 5), (2, 0, 5), (30, 20, 129)]):
        label = rng.integers(-2, min(shape[2] + 3, 127), shape[:2]) % 256  # out of range, too
        valid_len = rng.integers(0, shape[1] + 3, shape[0])
        yield [rng.standard_normal(shape).astype(dtype), label.astype(numbers[i % 7]),
               valid_len.astype(numbers[(i + 3) % 7])], {'smoothing': 0.1 * (i % 2)}


def embedding_cases(rng, dtype):
    numbers = ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64', 'float16']
    shapes = [((2, 3), vocab, cols) for vocab in (1, 7, 100) for cols in COLUMNS if cols < 300]
    shapes += [((0, 3), 5, 4), ((2, 0), 5, 4), ((1,) * 11, 5, 4), ((700, 5), 50, 33), ((9,), 3, 65)]
    for i, (shape, vocab, cols) in enumerate(shapes):
        data, segments = (rng.integers(-2, n + 2, shape) % 256 for n in (vocab, 2))
        arrays = [rng.standard_normal((vocab, cols)).astype(dtype), data.astype(numbers[i % 7]),
                  rng.standard_normal((1, shape[-1] + i % 3, cols)).astype(dtype),
                  rng.standard_normal((2, cols)).astype(dtype), segments.astype(numbers[i % 5])]
        for missing in ([], [2], [3, 4], [2, 3, 4]):
            yield [None if k in missing else a for k, a in enumerate(arrays)], {'scale': 1.5}


def seeds(rng):
    return [np.ones(64, 'float32'), rng.integers(0, 2, 64).astype('float32') * 2]


def dropout_cases(rng, dtype):
    for size in COLUMNS + [4095, 4096, 4097, 30000]:
        for seed in seeds(rng):
            yield [rng.standard_normal((size,)).astype(dtype), seed], {'p': 0.3}


def add_norm_cases(rng, dtype):
    for arrays, attrs in layer_norm_cases(rng, dtype):
        x = arrays[0]
        for seed in seeds(rng) if x.size % 3 else [None]:
            yield [x, x[::-1].copy(), *arrays[1:], seed], {'p': 0.3, **attrs}


# batch, queries, keys, d, v
ATTENTION_SIZES = [
    (1, 1, 1, 1, 1), (1, 7, 5, 3, 2), (2, 65, 31, 4, 5), (1, 9, 257, 16, 17), (2, 130, 300, 33, 8),
    (2, 0, 3, 2, 2), (2, 3, 0, 2, 2), (0, 3, 3, 2, 2), (1, 3, 5, 0, 2), (1, 3, 5, 2, 0)]


def lengths_and_seeds(rng, batch, queries, keys):
    """(valid_len, seed): None, then of one axis, then of two."""
    for axes, seed in enumerate([None] + seeds(rng)):
        valid_len = rng.integers(0, keys + 3, (batch, queries)[:axes]).astype('int32')
        yield valid_len if axes else None, seed


def attention_cases(rng, dtype):
    for batch, queries, keys, d, v in ATTENTION_SIZES:
        for valid_len, seed in lengths_and_seeds(rng, batch, queries, keys):
            shapes = [(batch, queries, 3 * d), (batch, keys, 3 * d), (batch, keys, 3 * v)]
            yield [rng.standard_normal(s).astype(dtype) for s in shapes] + [valid_len, seed], {
                'num_heads': 3, 'causal': np.ndim(valid_len) > 1, 'scale': 0.5, 'dropout': 0.3}


def additive_attention_cases(rng, dtype):
    for batch, queries, keys, d, v in ATTENTION_SIZES:
        for valid_len, seed in lengths_and_seeds(rng, batch, queries, keys):
            shapes = [(batch, queries, d), (batch, keys, d), (batch, keys, v), (d,)]
            arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
            arrays[0][:, ::5] += 400  # beyond the factors
            yield arrays + [valid_len, seed], {'dropout': 0.3}


def conv2d_cases(rng, dtype):
    for x, channels, kernel, padding in [
            ((1, 1, 1, 1), 1, 1, 0), ((3, 1, 28, 28), 6, 5, 2), ((2, 6, 14, 14), 16, 5, 0),
            ((1, 3, 33, 31), 7, 3, 1), ((1, 2, 1, 1), 2, 3, 1), ((2, 3, 5, 7), 15, 5, 4),
            ((1, 2, 13, 11), 10, 11, 5), ((300, 1, 4, 4), 2, 2, 1), ((0, 2, 5, 5), 3, 3, 0),
            ((2, 0, 5, 5), 3, 3, 0), ((1, 1, 2, 1023), 1, 2, 1), ((2, 40, 60, 70), 33, 3, 1)]:
        shapes = x, (channels, x[1], kernel, kernel), (channels,)
        arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
        for bias in (arrays[2], None):
            yield arrays[:2] + [bias], {
                'channels': channels, 'kernel_size': kernel, 'padding': padding}


def batch_dot_cases(rng, dtype):
    # batch, rows, depth, cols: tiles and vectors with and without a rest, vectors, blocks, and
    # few long rows, whose right factors are read in place
    sizes = [(2, rows, depth, cols) for rows in (1, 7, 8, 33) for depth in (0, 1, 17)
             for cols in (1, 3, 16, 33, 64)]
    sizes += [(0, 3, 4, 5), (3, 0, 4, 5), (3, 4, 5, 0), (17, 40, 33, 70), (2, 300, 300, 33),
              (1, 70, 257, 300), (20, 9, 16, 5), (3, 5, 300, 33), (1, 32, 259, 7), (2, 2, 1030, 3)]
    for i, (batch, rows, depth, cols) in enumerate(sizes):
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1))[:4 if i % 3 == 0 else 2]:
            shapes = [(batch, depth, rows) if a else (batch, rows, depth),
                      (batch, cols, depth) if b else (batch, depth, cols)]
            yield [rng.standard_normal(s).astype(dtype) for s in shapes], {
                'transpose_a': bool(a), 'transpose_b': bool(b)}


def dense_cases(rng, dtype):
    # rows, in, units: as above; from 33 rows on tasks share what is packed
    sizes = [(rows, depth, units) for rows in (1, 7, 65) for depth in (0, 1, 17)
             for units in (1, 3, 16, 33, 64)]
    sizes += [(0, 3, 4), (33, 40, 1), (70, 257, 300), (300, 300, 33), (530, 9, 5), (5, 300, 33),
              (32, 259, 7), (2, 1030, 3)]
    for i, (rows, depth, units) in enumerate(sizes):
        arrays = [rng.standard_normal(s).astype(dtype)
                  for s in ((rows, depth), (units, depth), (units,))]
        for bias in (arrays[2], None):
            yield arrays[:2] + [bias], {
                'units': units, 'act_type': ['relu', 'None', 'sigmoid', 'tanh'][i % 4]}


def multi_dense_cases(rng, dtype):
    sizes = [(rows, depth, units) for rows in (1, 7, 65) for depth in (0, 1, 17)
             for units in (1, 3, 33)]
    sizes += [(0, 3, 4), (33, 40, 1), (70, 257, 300), (5, 300, 33)]
    for i, (rows, depth, units) in enumerate(sizes):
        x = rng.standard_normal((rows, depth)).astype(dtype)
        weights, biases = ([rng.standard_normal(shape).astype(dtype) for _ in range(3)]
                           for shape in ((units, depth), (units,)))
        for missing in ([2, 5], [2, 3, 4, 5], [i % 3 + 3], []):
            yield [x] + [None if k in missing else a for k, a in enumerate(weights + biases)], {
                'units': units}


def positional_encoding_cases(rng, dtype):
    numbers = ['int32', 'int64', 'int8', 'uint8', 'float32', 'float64', 'float16']
    # No table is kept of the last one but one; the last is copied by several threads.
    sizes = [((2, rows), cols) for rows in ROWS for cols in COLUMNS if 0 < cols < 300]
    sizes += [((0, 3), 5), ((2, 3, 0), 5), ((1,) * 12, 5), ((2, 9), 1 << 18), ((300, 700), 1023)]
    for i, (shape, cols) in enumerate(sizes):
        arrays = [np.ones(shape, numbers[i % 7]), np.ones((2, i % 5 * 30, 2), numbers[i % 5])]
        for past in (arrays[1], None):
            yield [arrays[0], past], {'num_hiddens': cols, 'dtype': dtype}


def update_cases(num_lists, mixed, **attrs):
    """num_lists of the weights' dtype; if mixed, float32 ones get a list of float16 besides."""
    def cases(rng, dtype):
        for n, sizes in ((1, [0]), (2, [1, 33]), (9, COLUMNS), (3, [0, 20000, 16385])):
            sizes = (sizes * n)[:n]
            lists = [[rng.random(size).astype(dtype) for size in sizes] for _ in range(num_lists)]
            common = {'num_weights': n, **attrs}
            if mixed and dtype == 'float32':
                low = [[a.astype('float16') for a in lists[1]] for _ in range(2)]
                mixture = [lists[0], low[0], *lists[2:], low[1]]
                yield [a for group in mixture for a in group], {
                    **common, 'given': '1' * (num_lists + 1),
                    'lrs': ','.join(['0.5'] * n)}
            yield [a for group in lists for a in group] + [None] * (n if mixed else 1), {
                **common, 'given': '1' * num_lists + '0'}
    return cases


def clip_cases(rng, dtype):
    yield from update_cases(1, False, theta=0.5)(rng, dtype)
    grads = [rng.random(size).astype(kind) for size, kind in (
        (33, dtype), (7, 'float16'), (129, 'float64'))]
    yield grads + [np.ones(1)], {'num_weights': 3, 'theta': 0.5, 'given': '11'}


CASES = {
    'activation': activation_cases, 'add_norm': add_norm_cases,
    'additive_attention': additive_attention_cases, 'attention': attention_cases,
    'batch_dot': batch_dot_cases, 'bias_activation': bias_activation_cases,
    'conv2d': conv2d_cases, 'dense': dense_cases, 'dropout': dropout_cases,
    'embedding': embedding_cases, 'global_norm_clip': clip_cases, 'layer_norm': layer_norm_cases,
    'masked_softmax': masked_softmax_cases, 'masked_softmax_ce': masked_softmax_ce_cases,
    'multi_adam': update_cases(4, True), 'multi_dense': multi_dense_cases,
    'multi_lamb': update_cases(4, True),
    'multi_sgd': update_cases(3, True, momentum=0.5),
    'positional_encoding': positional_encoding_cases}
