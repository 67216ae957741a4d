"""MovieLens 100K: who rated what, split, and in batches (chapter 16)."""
import numbers
import os

import mxnet as mx
import numpy as onp
import pandas as pd
from mxnet import np

from d2l.data.arrays import ArrayLoader, _random_order, positive_int
from d2l.utils.hub import download_extract

_NAMES = ('user_id', 'item_id', 'rating', 'timestamp')


def read_data_ml100k():
    """The ratings of MovieLens 100K.  Returns (data, num_users, num_items).

    ``data`` is a DataFrame of int64 with the columns user_id, item_id (both count from 1), rating
    (1 to 5) and timestamp; the numbers are those of the different users and items.  Raises
    ``ValueError`` for a file that is not four columns of whole numbers.  Book section 16.2.
    """
    path = os.path.join(download_extract('ml-100k'), 'u.data')
    try:
        data = pd.read_csv(path, sep='\t', header=None, encoding='utf-8')
    except ValueError as error:
        raise ValueError(f'read_data_ml100k: {path} must be a table: {error}') from error
    if data.shape[1] != len(_NAMES) or any(dtype.kind != 'i' for dtype in data.dtypes):
        raise ValueError(f'read_data_ml100k: {path} must have {len(_NAMES)} columns of whole '
                         f'numbers, {", ".join(_NAMES)}')
    data.columns = list(_NAMES)
    return data, int(data['user_id'].nunique()), int(data['item_id'].nunique())


def split_data_ml100k(data, num_users, num_items, split_mode='random', test_ratio=0.1):
    """Ratings for training and ratings for testing.  Returns (train_data, test_data).

    ``data`` is a DataFrame with the columns user, item, rating and time, in this order.

    'random' makes each rating a test rating with probability ``test_ratio``.  The rows keep their
    order and index.  The numbers are drawn from MXNet's, so ``npx.random.seed`` counts.

    'seq-aware' leaves the latest rating of every user for testing (the first of several at that
    time; exact copies of it are left out of both).  The training rows are sorted by user and
    time, the test rows stand in the order in which the users appear; both have a new index.

    Raises ``ValueError`` for another mode, a ratio outside 0 to 1, data without rows, and, if
    'seq-aware', users outside 1 to num_users.  Book section 16.2.
    """
    name = 'split_data_ml100k'
    num_users = positive_int(f'{name}: num_users', num_users)
    positive_int(f'{name}: num_items', num_items)
    _check_split(name, split_mode, test_ratio)
    _check_columns(name, data, 4)
    if len(data) == 0:
        raise ValueError(f'{name}: data must have at least one rating, got none')
    if split_mode == 'seq-aware':
        return _leave_latest_out(data, num_users)
    # Compared by MXNet, in float32: a seed splits as it did in the book.
    is_train = (np.random.uniform(0, 1, (len(data),)) < 1 - test_ratio).asnumpy().astype(bool)
    return data[is_train], data[~is_train]


def load_data_ml100k(data, num_users, num_items, feedback='explicit'):
    """Ratings as lists.  Returns (users, items, scores, inter).

    ``data`` is a DataFrame with the columns user, item and rating, in this order; users and items
    count from 1.  ``users`` and ``items`` are lists of ints that count from 0.

    feedback='explicit': ``scores`` are the ratings, ints, and ``inter`` is an MXNet array, float32
    of shape (num_items, num_users): the last rating of an item by a user, 0 where there is none.

    feedback='implicit': ``scores`` are ones and ``inter`` is a dict from each user who rated
    something to the list of the items, in the order of data.

    Raises ``ValueError`` for another feedback and for users or items that are not whole numbers
    from 1 to num_users or num_items.  Book section 16.2.
    """
    users, items, scores = _checked_ratings('load_data_ml100k', data, num_users, num_items,
                                            feedback)
    if feedback == 'explicit':
        inter = onp.zeros((num_items, num_users), dtype='float32')
        inter[items, users] = scores
        inter = np.array(inter, dtype='float32')
    else:
        inter = _items_of_users(users, items)
    scores = scores.tolist() if feedback == 'explicit' else [1] * len(users)
    return _as_objects(users).tolist(), _as_objects(items).tolist(), scores, inter


def split_and_load_ml100k(split_mode='seq-aware', feedback='explicit', test_ratio=0.1,
                          batch_size=256):
    """MovieLens 100K in batches.  Returns (num_users, num_items, train_iter, test_iter).

    A batch is the list of users and items, int32 of shape (b,), which count from 0, and scores,
    float32 (b,).  The training ratings are shuffled anew in each pass (see ``ArrayLoader`` about
    seeds) and come in full batches: what is left over opens the next pass, and ``len()`` is the
    number of batches of the next one.  A pass has no batch if there are too few ratings.  The
    test ratings keep their order; their last batch may be smaller.

    Raises ``ValueError`` for a wrong mode, feedback or ratio, or if one half has no ratings, and
    ``TypeError`` or ``ValueError`` for a wrong batch_size.  Book section 16.2.
    """
    name = 'split_and_load_ml100k'
    batch_size = positive_int(f'{name}: batch_size', batch_size)
    _check_split(name, split_mode, test_ratio)
    _check_feedback(name, feedback)
    data, num_users, num_items = read_data_ml100k()
    halves = split_data_ml100k(data, num_users, num_items, split_mode, test_ratio)
    if not all(map(len, halves)):
        raise ValueError(f'{name}: test_ratio must leave ratings for training and for testing, '
                         f'got {test_ratio}')
    train, test = ([array.astype(dtype) for array, dtype in
                    zip(_checked_ratings(name, half, num_users, num_items, feedback),
                        ('int32', 'int32', 'float32'))] for half in halves)
    return (num_users, num_items, _RolloverLoader(train, batch_size),
            ArrayLoader(test, batch_size))


class _RolloverLoader:
    """Shuffled full batches; the examples that fill no batch open the next pass.

    ``arrays`` is a list of numpy arrays of equal length.  It is gluon's ``DataLoader`` with
    last_batch='rollover', in whole arrays.
    """

    # Examples that are gathered at once, in whole batches.
    _BLOCK = 1 << 16

    def __init__(self, arrays, batch_size):
        self._arrays, self.batch_size = arrays, batch_size
        self._left = onp.empty(0, dtype='int64')

    def __len__(self):
        return (len(self._left) + len(self._arrays[0])) // self.batch_size

    def __iter__(self):
        # As in ArrayLoader the order is drawn here, not at the first batch.
        order = onp.concatenate([self._left, _random_order(len(self._arrays[0]))])
        end = len(order) // self.batch_size * self.batch_size
        self._left = order[end:]
        return self._batches(order[:end])

    def _batches(self, order):
        block = max(1, self._BLOCK // self.batch_size) * self.batch_size
        for begin in range(0, len(order), block):
            rows = order[begin:begin + block]
            arrays = [np.array(array[rows], dtype=array.dtype, ctx=mx.cpu())
                      for array in self._arrays]
            for first in range(0, len(rows), self.batch_size):
                yield [array[first:first + self.batch_size] for array in arrays]


def _leave_latest_out(data, num_users):
    """(train, test): see ``split_data_ml100k``."""
    users = _whole_numbers('split_data_ml100k', data, 0, 'users', num_users)
    times = data.iloc[:, 3].to_numpy()
    by_time = onp.lexsort((times, users))
    # The sorting is stable: a user's last block of equal times begins with the row to take.
    sorted_users, sorted_times = users[by_time], times[by_time]
    new_time = onp.ones(len(data), dtype=bool)
    new_time[1:] = (onp.diff(sorted_users) != 0) | (sorted_times[1:] != sorted_times[:-1])
    latest_of = onp.full(num_users, -1)
    # Written in order: the last assignment of a user stays.
    latest_of[sorted_users[new_time]] = by_time[new_time]
    _, appears = onp.unique(users, return_index=True)
    latest = latest_of[users[onp.sort(appears)]]
    table = data.to_numpy()
    is_test = (table[:, :4] == table[latest_of[users], :4]).all(axis=1)
    train = by_time[~is_test[by_time]]
    return (data.iloc[train].reset_index(drop=True), data.iloc[latest].reset_index(drop=True))


def _checked_ratings(name, data, num_users, num_items, feedback):
    """Users and items from 0 and scores, int64 arrays."""
    num_users = positive_int(f'{name}: num_users', num_users)
    num_items = positive_int(f'{name}: num_items', num_items)
    _check_feedback(name, feedback)
    _check_columns(name, data, 3)
    users = _whole_numbers(name, data, 0, 'users', num_users)
    items = _whole_numbers(name, data, 1, 'items', num_items)
    if feedback == 'implicit':
        return users, items, onp.ones(len(users), dtype='int64')
    return users, items, data.iloc[:, 2].to_numpy().astype('int64')


def _check_split(name, split_mode, test_ratio):
    if split_mode not in ('random', 'seq-aware'):
        raise ValueError(f"{name}: split_mode must be 'random' or 'seq-aware', "
                         f'got {split_mode!r}')
    if split_mode == 'random' and (not isinstance(test_ratio, numbers.Real)
                                   or not 0 <= test_ratio <= 1):
        raise ValueError(f'{name}: test_ratio must be a number from 0 to 1, got {test_ratio!r}')


def _check_feedback(name, feedback):
    if feedback not in ('explicit', 'implicit'):
        raise ValueError(f"{name}: feedback must be 'explicit' or 'implicit', got {feedback!r}")


def _check_columns(name, data, least):
    if data.shape[1] < least:
        raise ValueError(f'{name}: data must have the columns {", ".join(_NAMES[:least])}, '
                         f'got {data.shape[1]} columns')


def _whole_numbers(name, data, column, what, most):
    """A column of data, which counts from 1, as int64 that count from 0."""
    values = data.iloc[:, column].to_numpy()
    if values.dtype.kind not in 'iuf':
        raise ValueError(f'{name}: data must have whole numbers as {what}, got {values.dtype}')
    right = (values >= 1) & (values <= most)
    if values.dtype.kind == 'f':
        right &= values % 1 == 0
    if not right.all():
        raise ValueError(f'{name}: data must have {what} from 1 to num_{what}={most}, '
                         f'got {values[~right][0]}')
    return values.astype('int64') - 1


def _as_objects(numbers):
    """Whole numbers from 0 as an array of ints, one int for all that are equal.

    Its tolist() makes no new ints, of which there would be one for each rating.
    """
    return onp.arange(numbers.max(initial=-1) + 1).astype(object).take(numbers)


def _items_of_users(users, items):
    """user -> list of items; users in the order of their first item."""
    if not len(users):
        return {}
    # numpy sorts 16-bit numbers by their digits, several times as fast as longer ones.
    order = onp.argsort(users.astype(onp.min_scalar_type(users.max())), kind='stable')
    sorted_users, sorted_items = users[order], _as_objects(items[order]).tolist()
    begins = onp.flatnonzero(onp.diff(sorted_users, prepend=-1))
    ends = onp.append(begins[1:], len(users)).tolist()
    appears = onp.argsort(order[begins])
    slices = list(zip(sorted_users[begins].tolist(), begins.tolist(), ends))
    return {user: sorted_items[begin:end]
            for user, begin, end in (slices[i] for i in appears.tolist())}
