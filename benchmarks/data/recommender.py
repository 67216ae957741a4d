"""MovieLens 100K and click data, read, split and batched: whole arrays against plain loops.

The data are those of tests/hub_files: real ones where the shared data folder is (1,999 clicks
with 34 features), else what is made of the samples in the package.  Reading clicks is work on
their text, which is about as fast in a plain loop; what it saves comes with the batches.
"""
import collections
import os
import tempfile
import zipfile

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
        numbers = np.array([self.mapper[field].get(feature, len(self.mapper[field]))
                            for field, feature in enumerate(features, 1)], dtype='int64')
        return numbers + self.offsets, [onp.float32(label)]


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


def one_pass(loader):
    """Number of examples, sum of all values."""
    count, total = 0, 0.0
    for batch in loader:
        count += len(batch[0])
        total += sum(float(array.asnumpy().astype('float64').sum()) for array in batch)
    return [onp.array([count, total])]


def cases():
    table = pd.read_csv(os.path.join(unpacked('ml-100k'), 'u.data'), sep='\t', header=None)
    num_users, num_items = int(table[0].max()), int(table[1].max())
    few = table[table[0] <= USERS]
    yield Case('split seq-aware of {} ratings'.format(len(few)),
               {'d2l': lambda: split_data_ml100k(few, USERS, num_items, 'seq-aware'),
                'plain': lambda: plain_split(few, USERS)}, check)
    part = table.iloc[:20000]
    for feedback in ('explicit', 'implicit'):
        sizes = (num_users, num_items, feedback)
        yield Case('load {} {} ratings'.format(len(part), feedback),
                   {'d2l': lambda sizes=sizes: load_data_ml100k(part, *sizes),
                    'plain': lambda sizes=sizes: plain_load(part, *sizes)}, check)
    # Batches of 250: both loaders then show every one of the ratings in each pass.
    arrays = [part[column].to_numpy().astype(dtype) for column, dtype in
              enumerate(['int32', 'int32', 'float32'])]
    arrays = [array[:len(array) // 250 * 250] for array in arrays]
    plain = gluon.data.DataLoader(gluon.data.ArrayDataset(
        *[np.array(array, dtype=array.dtype) for array in arrays]), 250, shuffle=True,
        last_batch='rollover')
    ours = _RolloverLoader(arrays, 250)
    yield Case('pass over {} ratings'.format(len(arrays[0])),
               {'d2l': lambda: one_pass(ours), 'plain': lambda: one_pass(plain)}, check)
    path = os.path.join(unpacked('ctr'), 'train.csv')
    yield Case('read clicks', {
        'd2l': lambda: [CTRDataset(path).offsets],
        'plain': lambda: [PlainClicks(path).offsets]}, check)
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
