"""MovieLens against plain loops over its rows, and its batches."""
import re
import zipfile

import mxnet as mx
import numpy as onp
import pandas as pd
import pytest
from mxnet import np, npx

from d2l.data import recommender
from d2l.data.recommender import (
    load_data_ml100k,
    read_data_ml100k,
    split_and_load_ml100k,
    split_data_ml100k,
)

NAMES = ['user_id', 'item_id', 'rating', 'timestamp']
BOTH = pytest.mark.parametrize('real', [True, False])


def frame(*rows):
    return pd.DataFrame(rows, columns=NAMES)


def noise(users=9, items=12, rows=150, seed=0):
    """Ratings with many equal times and some rows that are copies."""
    source = onp.random.RandomState(seed)
    table = onp.column_stack([source.randint(1, most + 1, rows)
                              for most in (users, items, 5, 4)])
    table[:users, 0] = onp.arange(users, 0, -1)
    return frame(*table.tolist())


def plain_leave_latest_out(data):
    """One row after the other, as chapter 16 tells it."""
    latest, rows = {}, [tuple(row) for row in data.to_numpy().tolist()]
    for row in rows:
        if row[0] not in latest or latest[row[0]][3] < row[3]:
            latest[row[0]] = row
    test = list(latest.values())
    train = []
    for user in sorted(latest):
        train += sorted((row for row in rows if row[0] == user), key=lambda row: row[3])
    return [row for row in train if row not in test], test


def plain_load(data, num_users, num_items, feedback):
    users, items, scores, inter = [], [], [], {}
    matrix = onp.zeros((num_items, num_users))
    for row in data.itertuples(index=False):
        users.append(int(row[0]) - 1)
        items.append(int(row[1]) - 1)
        scores.append(int(row[2]) if feedback == 'explicit' else 1)
        inter.setdefault(users[-1], []).append(items[-1])
        matrix[items[-1], users[-1]] = row[2]
    return users, items, scores, matrix if feedback == 'explicit' else inter


def rows_of(data):
    return [tuple(row) for row in data.to_numpy().tolist()]


# Reading

@BOTH
def test_read(hub_data, real):
    hub_data('ml-100k', real=real)
    data, num_users, num_items = read_data_ml100k()
    assert list(data.columns) == NAMES
    assert all(dtype == 'int64' for dtype in data.dtypes)
    with open('../data/ml-100k/u.data', encoding='utf-8') as file:
        lines = [[int(cell) for cell in line.split('\t')] for line in file]
    assert data.to_numpy().tolist() == lines
    assert num_users == len({line[0] for line in lines}) == data['user_id'].max()
    assert num_items == len({line[1] for line in lines}) == data['item_id'].max()
    assert type(num_users) is type(num_items) is int
    assert (num_users, num_items) == ((671, 1682) if real else (106, 21))


@pytest.mark.parametrize('text', ['1\t2\t3\n', '1\t2\t3\t4\n1\t2\t3\n', '1\t2\t3\t4\t5\n',
                                  'a\tb\tc\td\n1\t2\t3\t4\n', '1\t2\t3.5\t4\n'])
def test_read_a_damaged_file(monkeypatch, tmp_path, text):
    (tmp_path / 'u.data').write_text(text)
    monkeypatch.setattr(recommender, 'download_extract', lambda name: str(tmp_path))
    with pytest.raises(ValueError, match='u.data must have 4 columns of whole numbers'):
        read_data_ml100k()


# Splitting

@pytest.mark.parametrize('seed', range(8))
def test_leave_latest_out_of_ties_and_copies(seed):
    data = noise(seed=seed)
    train, test = split_data_ml100k(data, 9, 12, 'seq-aware')
    assert (rows_of(train), rows_of(test)) == plain_leave_latest_out(data)
    assert list(train.columns) == list(test.columns) == NAMES
    assert list(train.index) == list(range(len(train)))
    assert list(test.index) == list(range(len(test)))


@BOTH
def test_leave_latest_out(hub_data, real):
    hub_data('ml-100k', real=real)
    data, num_users, num_items = read_data_ml100k()
    train, test = split_data_ml100k(data, num_users, num_items, 'seq-aware')
    assert len(test) == num_users and len(train) + len(test) == len(data)
    assert sorted(rows_of(train) + rows_of(test)) == sorted(rows_of(data))
    latest = test.set_index('user_id')['timestamp']
    assert (train['timestamp'] <= train['user_id'].map(latest)).all()
    few = data[data['user_id'] <= 20]
    train, test = split_data_ml100k(few, num_users, num_items, 'seq-aware')
    assert (rows_of(train), rows_of(test)) == plain_leave_latest_out(few)


def test_leave_latest_out_of_a_user_with_one_rating():
    train, test = split_data_ml100k(frame((2, 1, 3, 7), (5, 1, 4, 8), (5, 2, 4, 6)), 5, 2,
                                    'seq-aware')
    assert rows_of(test) == [(2, 1, 3, 7), (5, 1, 4, 8)]
    assert rows_of(train) == [(5, 2, 4, 6)]


@pytest.mark.parametrize('ratio', [0.1, 0.5, 0.0, 1.0])
def test_random_split_is_that_of_mxnets_seed(ratio):
    data = noise(rows=2000)
    npx.random.seed(4)
    # Element by element: whether a number below 1 - ratio is drawn.
    drawn = [float(x) < onp.float32(1 - ratio) for x in np.random.uniform(0, 1, (2000,))]
    for _ in range(2):
        npx.random.seed(4)
        onp.random.seed(1)
        train, test = split_data_ml100k(data, 9, 12, test_ratio=ratio)
        assert list(train.index) == [i for i in range(2000) if drawn[i]]
        assert list(test.index) == [i for i in range(2000) if not drawn[i]]
        assert rows_of(train) == [row for row, in_train in zip(rows_of(data), drawn) if in_train]
    assert abs(len(test) / 2000 - ratio) < 0.04
    again = split_data_ml100k(data, 9, 12, test_ratio=ratio)[0]
    assert ratio in (0, 1) or list(again.index) != list(train.index)


@pytest.mark.parametrize('call, message', [
    (lambda: split_data_ml100k(noise(), 9, 12, 'seq'),
     "split_data_ml100k: split_mode must be 'random' or 'seq-aware', got 'seq'"),
    (lambda: split_data_ml100k(noise(), 9, 12, test_ratio=1.5),
     'split_data_ml100k: test_ratio must be a number from 0 to 1, got 1.5'),
    (lambda: split_data_ml100k(noise(), 9, 12, test_ratio='a'),
     "split_data_ml100k: test_ratio must be a number from 0 to 1, got 'a'"),
    (lambda: split_data_ml100k(noise()[:0], 9, 12),
     'split_data_ml100k: data must have at least one rating, got none'),
    (lambda: split_data_ml100k(noise().iloc[:, :3], 9, 12),
     'split_data_ml100k: data must have the columns user_id, item_id, rating, timestamp, got 3'),
    (lambda: split_data_ml100k(noise(), 8, 12, 'seq-aware'),
     'split_data_ml100k: data must have users from 1 to num_users=8, got 9'),
    (lambda: load_data_ml100k(noise(), 8, 12),
     'load_data_ml100k: data must have users from 1 to num_users=8, got 9'),
    (lambda: load_data_ml100k(frame((1, 0, 3, 0)), 8, 12, 'implicit'),
     'load_data_ml100k: data must have items from 1 to num_items=12, got 0'),
    (lambda: load_data_ml100k(frame((1.5, 1, 3, 0)), 8, 12),
     'load_data_ml100k: data must have users from 1 to num_users=8, got 1.5'),
    (lambda: load_data_ml100k(frame(('1', 1, 3, 0)), 8, 12),
     'load_data_ml100k: data must have whole numbers as users, got'),
    (lambda: load_data_ml100k(noise(), 9, 12, 'both'),
     "load_data_ml100k: feedback must be 'explicit' or 'implicit', got 'both'"),
    (lambda: load_data_ml100k(noise(), 9, -1), 'load_data_ml100k: num_items must be at least 1'),
    (lambda: load_data_ml100k(noise().iloc[:, :2], 9, 12), 'got 2 columns')])
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


# Lists

@pytest.mark.parametrize('feedback', ['explicit', 'implicit'])
def test_load(feedback):
    data = noise()
    result, expected = (load(data, 11, 12, feedback) for load in (load_data_ml100k, plain_load))
    assert result[:3] == expected[:3]
    assert all(type(value) is int for values in result[:3] for value in values)
    if feedback == 'explicit':
        assert isinstance(result[3], np.ndarray) and result[3].dtype == onp.float32
        # Some pairs have several ratings: the last one counts.
        onp.testing.assert_array_equal(result[3].asnumpy(), expected[3])
    else:
        assert result[3] == expected[3]
        assert list(result[3]) == list(expected[3])
        assert type(next(iter(result[3]))) is int
        assert 10 not in result[3]


def test_the_matrix_is_not_filled_entry_by_entry(monkeypatch):
    writes, setitem = [], np.ndarray.__setitem__
    monkeypatch.setattr(np.ndarray, '__setitem__',
                        lambda *args: writes.append(args[1]) or setitem(*args))
    load_data_ml100k(noise(), 11, 12)
    assert len(writes) <= 1


@BOTH
def test_load_after_both_splits(hub_data, real):
    hub_data('ml-100k', real=real)
    data, *sizes = read_data_ml100k()
    for mode in ('random', 'seq-aware'):
        train, test = split_data_ml100k(data, *sizes, mode)
        for half in (train.iloc[::20], test.iloc[::3]):
            for feedback in ('explicit', 'implicit'):
                result = load_data_ml100k(half, *sizes, feedback)
                expected = plain_load(half, *sizes, feedback)
                assert result[:3] == expected[:3]
                assert result[3].shape == (sizes[1], sizes[0]) if feedback == 'explicit' \
                    else result[3] == expected[3]


# Batches

def as_rows(batches):
    return [tuple(row) for batch in batches
            for row in zip(*(array.asnumpy().tolist() for array in batch))]


@BOTH
def test_split_and_load(hub_data, real):
    hub_data('ml-100k', real=real)
    num_users, num_items, train_iter, test_iter = split_and_load_ml100k(batch_size=100)
    data, *sizes = read_data_ml100k()
    assert sizes == [num_users, num_items]
    train, test = (rows_of(half) for half in split_data_ml100k(data, *sizes, 'seq-aware'))
    for users, items, ratings in train_iter:
        assert users.shape == items.shape == ratings.shape == (100,)
        assert [array.dtype for array in (users, items, ratings)] == ['int32', 'int32', 'float32']
        assert all(array.ctx == mx.cpu() for array in (users, items, ratings))
    assert as_rows(test_iter) == [(u - 1, i - 1, r) for u, i, r, _ in test]
    assert len(test_iter) == -(-len(test) // 100) == len(list(test_iter))
    expected = {(u - 1, i - 1, r) for u, i, r, _ in train}
    assert set(as_rows(list(train_iter) + list(train_iter))) == expected


def test_split_and_load_is_reproducible(hub_data):
    hub_data('ml-100k', real=False)

    def two_passes(seed):
        npx.random.seed(seed)
        _, _, train_iter, test_iter = split_and_load_ml100k('random', 'implicit', 0.3, 64)
        return as_rows(train_iter), as_rows(train_iter), as_rows(test_iter)
    first, second, test = two_passes(5)
    assert (first, second, test) == two_passes(5) != two_passes(6)
    assert first != second
    assert {row[2] for row in first + test} == {1.0}
    assert 0.2 < len(test) / 1503 < 0.4


def test_what_fills_no_batch_opens_the_next_pass(hub_data):
    hub_data('ml-100k', real=False)
    _, _, train_iter, _ = split_and_load_ml100k(batch_size=900)
    # 1397 training ratings; 497 and then 94 are left over.
    lengths, rows = [], []
    for _ in range(3):
        announced = len(train_iter)
        batches = list(train_iter)
        assert len(batches) == announced
        lengths.append(announced)
        rows += as_rows(batches)
    assert lengths == [1, 2, 1]
    for begin in (0, 1397):
        # No rating twice before each was there once.
        assert len(set(rows[begin:begin + 1397])) == len(set(rows))
    assert len(set(rows)) == 1397


def test_fewer_ratings_than_a_batch(hub_data):
    hub_data('ml-100k', real=False)
    _, _, train_iter, test_iter = split_and_load_ml100k(batch_size=2000)
    assert [len(list(train_iter)) for _ in range(3)] == [0, 1, 1]
    assert len(list(test_iter)) == 1


def test_many_batches_are_gathered_in_blocks(hub_data, monkeypatch):
    hub_data('ml-100k', real=False)
    passes = []
    for block in (1, 100, 1 << 16):
        monkeypatch.setattr(recommender._RolloverLoader, '_BLOCK', block)
        npx.random.seed(1)
        passes.append(as_rows(split_and_load_ml100k(batch_size=32)[2]))
    assert passes[0] == passes[1] == passes[2]


@pytest.mark.parametrize('kwargs, message', [
    ({'split_mode': 'random', 'test_ratio': 0}, 'test_ratio must leave ratings for training'),
    ({'split_mode': 'random', 'test_ratio': 1}, 'test_ratio must leave ratings for training'),
    ({'split_mode': 'x'}, 'split_mode must be'), ({'feedback': 'x'}, 'feedback must be'),
    ({'batch_size': 0}, 'split_and_load_ml100k: batch_size must be at least 1, got 0')])
def test_wrong_arguments_of_split_and_load(hub_data, kwargs, message):
    hub_data('ml-100k', real=False)
    with pytest.raises(ValueError, match=message):
        split_and_load_ml100k(**kwargs)


def test_archive_without_the_table(hub_data, monkeypatch, tmp_path):
    hub_data('ml-100k', real=False)
    with zipfile.ZipFile(tmp_path / 'ml-100k.zip', 'w') as archive:
        archive.writestr('ml-100k/README', 'no ratings')
    monkeypatch.setenv('D2L_DATA', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='u.data'):
        read_data_ml100k()
