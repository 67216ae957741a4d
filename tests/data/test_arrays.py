"""Whole-array batches against gluon's DataLoader, and the generator of synthetic data."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, gluon, np, npx

from d2l.data import arrays
from d2l.data.arrays import ArrayLoader, load_array, ranges, synthetic_data


def normal(length):
    return onp.random.RandomState(0).normal(size=(length, 3))


# One column of each kind that a reader may pass.
COLUMNS = {
    'np float32': lambda n: np.array(normal(n), dtype='float32'),
    'np float64': lambda n: np.array(normal(n), dtype='float64'),
    'np float16': lambda n: np.array(normal(n), dtype='float16'),
    'np int32 1-D': lambda n: np.arange(n, dtype='int32'),
    'np int64': lambda n: np.arange(2 * n, dtype='int64').reshape(n, 2),
    'np uint8': lambda n: np.arange(4 * n, dtype='uint8').reshape(n, 2, 2),
    'np bool': lambda n: np.array(normal(n) > 0, dtype='bool'),
    'np no columns': lambda n: np.zeros((n, 0)),
    'numpy float64': normal,
    'numpy int64 1-D': onp.arange,
    'list of int': lambda n: list(range(n)),
    'list of lists': lambda n: normal(n).tolist(),
}


def make_columns(length):
    return tuple(make(length) for make in COLUMNS.values())


def assert_same_batches(actual, expected):
    actual, expected = list(actual), list(expected)
    assert len(actual) == len(expected)
    for mine, theirs in zip(actual, expected):
        assert type(mine) is type(theirs)
        if not isinstance(mine, list):
            mine, theirs = [mine], [theirs]
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs):
            assert type(a) is type(b)
            assert a.dtype == b.dtype and a.shape == b.shape
            assert (a.asnumpy() == b.asnumpy()).all()


@pytest.mark.parametrize('length, batch_size', [(1, 1), (10, 3), (10, 10), (10, 11), (64, 1),
                                                (1031, 32)])
def test_same_as_gluon(length, batch_size):
    columns = make_columns(length)
    expected = gluon.data.DataLoader(gluon.data.ArrayDataset(*columns), batch_size)
    loader = load_array(columns, batch_size, is_train=False)
    assert len(loader) == len(expected)
    assert_same_batches(loader, expected)


@pytest.mark.parametrize('kind', list(COLUMNS))
def test_one_array_gives_arrays_not_lists(kind):
    column = COLUMNS[kind](10)
    expected = gluon.data.DataLoader(gluon.data.ArrayDataset(column), 4)
    assert_same_batches(load_array((column,), 4, is_train=False), expected)


def test_blocks_do_not_show(monkeypatch):
    """The batches are the same, whether they are gathered one by one or many at once."""
    columns = make_columns(100)
    for limit in (1, 100 * 7, 1 << 30):
        monkeypatch.setattr(arrays, '_BLOCK_BYTES', limit)
        expected = gluon.data.DataLoader(gluon.data.ArrayDataset(*columns), 7)
        assert_same_batches(load_array(columns, 7, is_train=False), expected)


def test_legacy_arrays():
    npx.reset_np()
    try:
        X, y = mx.nd.arange(20).reshape((10, 2)), onp.arange(10)
        expected = gluon.data.DataLoader(gluon.data.ArrayDataset(X, y), 3)
        assert_same_batches(load_array((X, y), 3, is_train=False), expected)
        shuffled = load_array((X, mx.nd.arange(10)), 3)
        for X_batch, y_batch in shuffled:
            assert (X_batch[:, 0] == 2 * y_batch).asnumpy().all()
    finally:
        npx.set_np()


def rows_of(loader):
    return onp.concatenate([batch.asnumpy() for batch in loader])


@pytest.mark.parametrize('kind', ['mxnet', 'numpy'])
def test_shuffled_rows_stay_together(kind):
    X = np.arange(3000).reshape(1000, 3)
    y = np.arange(1000, dtype='int32')
    if kind == 'numpy':
        X, y = X.asnumpy(), y.asnumpy()
    seen = []
    for X_batch, y_batch in load_array((X, y), 32):
        X_batch, y_batch = X_batch.asnumpy(), y_batch.asnumpy()
        assert (X_batch[:, 0] == 3 * y_batch).all()
        seen.extend(y_batch.tolist())
    assert sorted(seen) == list(range(1000)) and seen != list(range(1000))


@pytest.mark.parametrize('seed', [mx.random.seed, npx.random.seed])
def test_order_is_new_each_pass_and_follows_the_seed(seed):
    loader = load_array((np.arange(200),), 16)
    seed(7)
    first, second = rows_of(loader), rows_of(loader)
    assert (first != second).any()
    seed(7)
    assert (rows_of(loader) == first).all() and (rows_of(loader) == second).all()
    seed(8)
    assert (rows_of(loader) != first).any()


def test_the_order_does_not_touch_numpys_random_numbers():
    onp.random.seed(3)
    expected = onp.random.rand()
    onp.random.seed(3)
    rows_of(load_array((np.arange(200),), 16))
    assert onp.random.rand() == expected


def test_passes_at_the_same_time():
    loader = load_array((np.arange(100),), 8)
    one, two = iter(loader), iter(loader)
    pairs = [(a.asnumpy(), b.asnumpy()) for a, b in zip(one, two)]
    for rows in zip(*pairs):
        assert sorted(onp.concatenate(rows).tolist()) == list(range(100))
    assert len(next(iter(loader))) == 8


@pytest.mark.parametrize('is_train', [True, False])
@pytest.mark.parametrize('kind', ['mxnet', 'numpy'])
def test_batches_are_copies(kind, is_train):
    X = np.ones((10, 2))
    X = X if kind == 'mxnet' else X.asnumpy()
    for batch in load_array((X,), 4, is_train):
        assert (batch.asnumpy() == 1).all()
        batch[:] = 5
    assert (X == 1).all()


def test_later_changes_of_the_array_are_seen():
    X = np.zeros((10, 2))
    loader = load_array((X,), 4, is_train=False)
    X[:] = 3
    assert (rows_of(loader) == 3).all()


def test_nothing_is_recorded():
    X = np.ones((10, 2))
    X.attach_grad()
    with autograd.record():
        total = sum(batch.sum() for batch in load_array((X,), 4))
        total = total + 0 * X.sum()
    total.backward()
    assert (X.grad == 0).all()
    assert not autograd.is_recording()


def test_transform():
    def double(rows):
        return [rows[0] * 2, rows[1]]

    X, y = onp.arange(10, dtype='float32'), np.arange(10)
    batches = list(ArrayLoader((X, y), 4, transform=double))
    assert [batch[0].asnumpy().tolist() for batch in batches] == [
        [0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert all(isinstance(batch[0], np.ndarray) for batch in batches)


@pytest.mark.parametrize('data, batch_size, error, fragment', [
    ((), 1, ValueError, 'at least one array'),
    (([1, 2], [1, 2, 3]), 1, ValueError, r'\[2, 3\]'),
    (([], []), 1, ValueError, 'at least one example'),
    ((1.0,), 1, ValueError, r'arrays\[0\].*scalar'),
    (([1], 'ab'), 1, TypeError, r'arrays\[1\].*dtype'),
    ((['a', 'b'],), 1, TypeError, r'arrays\[0\].*dtype'),
    ((onp.zeros(3, 'complex64'),), 1, TypeError, 'complex64'),
    (([1, 2],), 0, ValueError, 'batch_size.*got 0'),
    (([1, 2],), -3, ValueError, 'batch_size.*got -3'),
    (([1, 2],), 2.0, TypeError, 'batch_size.*got 2.0'),
    (([1, 2],), True, TypeError, 'batch_size'),
    (([1, 2],), None, TypeError, 'batch_size.*None'),
])
def test_errors(data, batch_size, error, fragment):
    with pytest.raises(error, match=fragment):
        load_array(data, batch_size)


def test_errors_that_need_arrays():
    with pytest.raises(TypeError, match='tuple or list'):
        load_array(np.zeros((3, 2)), 1)
    with pytest.raises(TypeError, match='storage type'):
        load_array((mx.nd.sparse.zeros('csr', (3, 2)),), 1)
    with pytest.raises(TypeError, match='DataLoader'):
        load_array((gluon.data.ArrayDataset([1, 2]),), 1)


# synthetic_data

@pytest.mark.parametrize('w', [[2.0, -3.4], [[2.0], [-3.4]]])
def test_synthetic_data(w):
    mx.random.seed(1)
    X, y = synthetic_data(np.array(w), 4.2, 2000)
    assert X.shape == (2000, 2) and y.shape == (2000, 1)
    assert X.dtype == y.dtype == onp.float32
    noise = y.asnumpy()[:, 0] - X.asnumpy() @ onp.array([2.0, -3.4]) - 4.2
    assert abs(noise.mean()) < 0.002 and abs(noise.std() - 0.01) < 0.001
    assert abs(X.asnumpy().mean()) < 0.05 and abs(X.asnumpy().std() - 1) < 0.05
    assert abs(onp.corrcoef(X.asnumpy().T)[0, 1]) < 0.1


def test_synthetic_data_with_an_array_as_bias():
    _, y = synthetic_data(np.zeros(3), np.array([5.0]), 4)
    assert abs(y.asnumpy() - 5).max() < 0.1


@pytest.mark.parametrize('w, num_examples, error, fragment', [
    ([[1, 2], [3, 4]], 5, ValueError, r'w must.*\(2, 2\)'), (1.0, 5, ValueError, r'w must.*\(\)'),
    ([1, 2], 0, ValueError, 'num_examples'), ([1, 2], 1.5, TypeError, 'num_examples')])
def test_synthetic_data_errors(w, num_examples, error, fragment):
    with pytest.raises(error, match=fragment):
        synthetic_data(w, 0, num_examples)


@pytest.mark.parametrize('begins, lengths', [
    ([], []), ([5], [0]), ([5], [3]), ([0, 0, 7, 3, -2], [2, 0, 3, 1, 4]), ([9, 4], [0, 0])])
def test_ranges_against_a_loop(begins, lengths):
    expected = [place for begin, length in zip(begins, lengths)
                for place in range(begin, begin + length)]
    found = ranges(onp.array(begins, dtype='int64'), onp.array(lengths, dtype='int64'))
    assert found.dtype == 'int64' and found.tolist() == expected
