"""Click-through rates: lines of a label and categorical features, as whole arrays (chapter 16)."""
import operator

import mxnet as mx
import numpy as onp
import pandas as pd
from mxnet import gluon, np

from d2l.data.arrays import positive_int
from d2l.utils.files import open_text

_LABELS = {'0': 0.0, '1': 1.0, '0.0': 0.0, '1.0': 1.0}


class CTRDataset(gluon.data.Dataset):
    """Categorical features and clicks, read from a text file (section 16.8).

    Each line of ``data_path`` has the label, 0 or 1, and then ``num_feat`` features, separated by
    tabs.  A feature is any text, the empty one included.  In field 1 to num_feat the features
    that stand on at least ``min_threshold`` lines are numbered from 0 in the order of their text,
    so the numbers depend on nothing but the file; all others share the next number, the default.

    An item is the pair (features, [label]): an MXNet array, int64 of shape (num_feat,), in which
    every field has numbers of its own, and a list of one float32.  Do not write to it: it shares
    memory with the data set.  ``arrays`` holds all of them, for batches without single items:
    ``load_array(dataset.arrays, batch_size)`` gives the same as gluon's ``DataLoader``.

    * ``feat_mapper``: field -> {feature: number}, ``defaults``: field -> number.  Hand those of
      the training data over to read test data; they come together.
    * ``field_dims``: int64 (num_feat,), how many numbers a field has, the default included.
    * ``offsets``: int64 (num_feat,), the first number of each field.

    Raises ``ValueError`` with the line's number for one of another form, for a file without
    lines and for a feat_mapper and defaults that do not fit; blank lines do not count.
    ``TypeError`` or ``ValueError`` for a wrong min_threshold or num_feat.
    """

    def __init__(self, data_path, feat_mapper=None, defaults=None, min_threshold=4, num_feat=34):
        num_feat = positive_int('CTRDataset: num_feat', num_feat)
        if (feat_mapper is None) != (defaults is None):
            raise ValueError('CTRDataset: feat_mapper and defaults must be given together, got '
                             f'only {"defaults" if feat_mapper is None else "feat_mapper"}')
        self.data_path = data_path
        labels, columns = _read_columns(data_path, num_feat)
        columns = [pd.factorize(column) for column in columns]
        if feat_mapper is None:
            min_threshold = positive_int('CTRDataset: min_threshold', min_threshold)
            feat_mapper = {field: _numbered(codes, values, min_threshold)
                           for field, (codes, values) in enumerate(columns, 1)}
            defaults = {field: len(numbers) for field, numbers in feat_mapper.items()}
        else:
            _check_mapper(feat_mapper, defaults, num_feat)
        self.feat_mapper, self.defaults = feat_mapper, defaults
        dims = onp.array([len(feat_mapper[field]) + 1 for field in range(1, num_feat + 1)])
        offsets = dims.cumsum() - dims
        self.field_dims = np.array(dims, dtype='int64', ctx=mx.cpu())
        self.offsets = np.array(offsets, dtype='int64', ctx=mx.cpu())
        features = onp.empty((len(labels), num_feat), dtype='int64')
        for i, (codes, values) in enumerate(columns):
            get, default = feat_mapper[i + 1].get, defaults[i + 1]
            features[:, i] = onp.array([get(value, default) for value in values])[codes]
        features += offsets
        self._labels = labels
        self.arrays = (np.array(features, dtype='int64', ctx=mx.cpu()),
                       np.array(labels[:, onp.newaxis], dtype='float32', ctx=mx.cpu()))

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, idx):
        idx = operator.index(idx)
        # numpy raises IndexError where there is no such item.
        label = self._labels[idx]
        return self.arrays[0][idx], [label]


def _read_columns(path, num_feat):
    """The labels, float32, and for each field its features, an array of str objects."""
    with open_text(path) as file:
        lines = file.read().split('\n')
    for number, line in enumerate(lines, 1):
        if line and line.count('\t') != num_feat:
            raise ValueError(f'CTRDataset: line {number} of {path} must have a label and '
                             f'num_feat={num_feat} features, got {line.count(chr(9)) + 1} columns')
    if '' in lines:
        numbers = [number for number, line in enumerate(lines, 1) if line]
        lines = [lines[number - 1] for number in numbers]
    else:
        numbers = range(1, len(lines) + 1)
    if not lines:
        raise ValueError(f'CTRDataset: {path} must have at least one line, got none')
    width = num_feat + 1
    cells = '\t'.join(lines).split('\t')
    labels = [_LABELS.get(label) for label in cells[::width]]
    if None in labels:
        row = labels.index(None)
        raise ValueError(f'CTRDataset: line {numbers[row]} of {path} must begin with the label 0 '
                         f'or 1, got {cells[row * width]!r}')
    table = onp.array(cells, dtype=object).reshape(len(lines), width)
    return onp.array(labels, dtype='float32'), table.T[1:]


def _numbered(codes, values, min_threshold):
    """{feature: number} of those that are frequent enough, in the order of their text."""
    frequent = onp.bincount(codes) >= min_threshold
    return {value: number for number, value in enumerate(sorted(values[frequent]))}


def _check_mapper(feat_mapper, defaults, num_feat):
    """Every field must be there, and its numbers lie below its dimension."""
    for field in range(1, num_feat + 1):
        if field not in feat_mapper or field not in defaults:
            raise ValueError('CTRDataset: feat_mapper and defaults must have the fields 1 to '
                             f'{num_feat}, got none for field {field}')
        numbers = feat_mapper[field]
        wrong = [number for number in (*numbers.values(), defaults[field])
                 if not 0 <= number <= len(numbers)]
        if wrong:
            raise ValueError(f'CTRDataset: feat_mapper and defaults of field {field} must be '
                             f'numbers from 0 to {len(numbers)}, got {wrong[0]}')
