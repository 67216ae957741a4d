"""MovieLens 100K and click data, read, split and batched: whole arrays against plain loops.

The data are those of tests/hub_files: real ones where the shared data folder is (1,999 clicks
with 34 features), else what is made of the samples in the package.  Each provider of a case ends
with the same numbers: all items, all rows of a pass, or whole arrays.
"""
import collections
import os
import tempfile
import zipfile

import mxnet as mx
import numpy as onp
import pandas as pd
from mxnet import gluon, np

from benchmarks.run import Case
from d2l.data.arrays import load_array
from d2l.data.ctr import CTRDataset
from d2l.data.recommender import (
    _RolloverLoader,
    load_data_ml100k,
    split_data_ml100k,
)
from tests import hub_files

USERS = 100  # of the plain split by time, whose work grows with ratings times users


def unpacked(name):
    """The folder with the files of a hub entry."""
    folder = tempfile.mkdtemp()
    hub_files.build(name, folder, real=os.path.isdir(hub_files.SHARED))
    with zipfile.ZipFile(os.path.join(folder, name + '.zip')) as archive:
        archive.extractall(folder)
    return os.path.join(folder, name)


def plain_split(data, num_users):
    latest, of_user = {}, {}
    for row in data.itertuples(index=False):
        row = tuple(row)
        of_user.setdefault(row[0], []).append(row)
        if row[0] not in latest or latest[row[0]][3] < row[3]:
            latest[row[0]] = row
    test, train = list(latest.values()), []
    for user in range(1, num_users + 1):
        train.extend(sorted(of_user[user], key=lambda row: row[3]))
    return pd.DataFrame([row for row in train if row not in test]), pd.DataFrame(test)


def plain_load(data, num_users, num_items, feedback):
    users, items, scores = [], [], []
    inter = np.zeros((num_items, num_users)) if feedback == 'explicit' else {}
    for row in data.itertuples(index=False):
        user, item = int(row[0] - 1), int(row[1] - 1)
        users.append(user)
        items.append(item)
        scores.append(int(row[2]) if feedback == 'explicit' else 1)
        if feedback == 'explicit':
            inter[item, user] = scores[-1]
        else:
            inter.setdefault(user, []).append(item)
    return users, items, scores, inter


class PlainClicks(gluon.data.Dataset):
    """One line, one feature, one item after the other."""

    def __init__(self, path, num_feat=34, min_threshold=4):
        counts = collections.defaultdict(lambda: collections.defaultdict(int))
        self.rows = []
        with open(path, encoding='utf-8') as file:
            for line in file:
                values = line.rstrip('\n').split('\t')
                for field in range(1, num_feat + 1):
                    counts[field][values[field]] += 1
                self.rows.append(values)
        self.mapper = {field: {feature: number for number, feature in enumerate(sorted(
            feature for feature, count in of_field.items() if count >= min_threshold))}
            for field, of_field in counts.items()}
        dims = [len(self.mapper[field]) + 1 for field in range(1, num_feat + 1)]
        self.offsets = np.array([0] + onp.cumsum(dims).tolist()[:-1], dtype='int64')

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, idx):
        label, *features = self.rows[idx]
        return np.array(self.numbers(features), dtype='int64') + self.offsets, [onp.float32(label)]

    def numbers(self, features):
        return [self.mapper[field].get(feature, len(self.mapper[field]))
                for field, feature in enumerate(features, 1)]

    def arrays(self):
        """Features and labels of all items."""
        numbers = np.array([self.numbers(row[1:]) for row in self.rows], dtype='int64')
        labels = np.array([[float(row[0])] for row in self.rows], dtype='float32')
        return numbers + self.offsets, labels


def as_numpy(result):
    """Frames, lists and arrays as numpy arrays; a dict as its keys and values."""
    arrays = []
    for part in result:
        if isinstance(part, dict):
            part = [item for pair in part.items() for item in (pair[0], *pair[1])]
        arrays.append(part.asnumpy() if isinstance(part, np.ndarray) else onp.asarray(part))
    return arrays


def check(results):
    expected = as_numpy(results['plain'])
    for name, result in results.items():
        result = as_numpy(result)
        assert len(result) == len(expected)
        for mine, other in zip(result, expected):
            onp.testing.assert_array_equal(mine, other, err_msg=name)


def check_items(results):
    expected = results['plain']
    for name, items in results.items():
        assert len(items) == len(expected), name
        for (mine, [label]), (other, [other_label]) in zip(items, expected):
            assert mine.dtype == other.dtype and label == other_label, name
            onp.testing.assert_array_equal(mine.asnumpy(), other.asnumpy(), err_msg=name)


def check_rows(results):
    """The same rows, in whatever order."""
    check({name: [table[onp.lexsort(table.T)] for table in [onp.column_stack(columns)]]
           for name, columns in results.items()})


def one_pass(loader):
    """The columns of all batches, as numpy arrays."""
    batches = [[array.asnumpy() for array in batch] for batch in loader]
    return [onp.concatenate(column) for column in zip(*batches)]


def all_items(data):
    items = [data[i] for i in range(len(data))]
    mx.nd.waitall()
    return items


def cases():
    table = pd.read_csv(os.path.join(unpacked('ml-100k'), 'u.data'), sep='\t', header=None)
    num_users, num_items = int(table[0].max()), int(table[1].max())
    few = table[table[0] <= USERS]
    yield Case('split seq-aware of {} ratings'.format(len(few)),
               {'d2l': lambda: split_data_ml100k(few, USERS, num_items, 'seq-aware'),
                'plain': lambda: plain_split(few, USERS)}, check)
    part = table.iloc[:20000]  # filling a matrix entry by entry takes 0.1 ms for each
    for feedback, ratings in (('explicit', part), ('implicit', table)):
        sizes = (num_users, num_items, feedback)
        yield Case('load {} {} ratings'.format(len(ratings), feedback),
                   {'d2l': lambda ratings=ratings, sizes=sizes: load_data_ml100k(ratings, *sizes),
                    'plain': lambda ratings=ratings, sizes=sizes: plain_load(ratings, *sizes)},
                   check)
    # Batches of 250: both loaders then show every one of the ratings in each pass.
    arrays = [part[column].to_numpy().astype(dtype) for column, dtype in
              enumerate(['int32', 'int32', 'float32'])]
    arrays = [array[:len(array) // 250 * 250] for array in arrays]
    plain = gluon.data.DataLoader(gluon.data.ArrayDataset(
        *[np.array(array, dtype=array.dtype) for array in arrays]), 250, shuffle=True,
        last_batch='rollover')
    ours = _RolloverLoader(arrays, 250)
    yield Case('pass over {} ratings'.format(len(arrays[0])),
               {'d2l': lambda: one_pass(ours), 'plain': lambda: one_pass(plain)}, check_rows)
    path = os.path.join(unpacked('ctr'), 'train.csv')
    yield Case('CTRDataset, all items', {
        'd2l': lambda: all_items(CTRDataset(path)),
        'plain': lambda: all_items(PlainClicks(path))}, check_items)
    yield Case('CTRDataset, whole arrays', {
        'd2l': lambda: CTRDataset(path).arrays,
        'plain': lambda: PlainClicks(path).arrays()}, check)
    data, rows = CTRDataset(path), PlainClicks(path)
    # Made before the clock runs: a loader collects Python's garbage first, which takes longer.
    whole = load_array(data.arrays, 250, is_train=False)
    items, plain_items = (gluon.data.DataLoader(clicks, 250) for clicks in (data, rows))
    yield Case('pass over clicks, whole arrays', {
        'd2l': lambda: one_pass(whole), 'plain': lambda: one_pass(plain_items)}, check)
    yield Case('pass over clicks, DataLoader', {
        'd2l': lambda: one_pass(items), 'plain': lambda: one_pass(plain_items)}, check)
    yield Case('read and pass over clicks', {
        'd2l': lambda: one_pass(load_array(CTRDataset(path).arrays, 250, is_train=False)),
        'plain': lambda: one_pass(gluon.data.DataLoader(PlainClicks(path), 250))}, check)
