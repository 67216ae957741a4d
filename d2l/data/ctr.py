"""Click-through rates: lines of a label and categorical features, as whole arrays (chapter 16)."""
import operator

import mxnet as mx
import numpy as onp
from mxnet import gluon, np

from d2l.data._cells import number_cells
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
        cells, labels = _read_cells(data_path, num_feat)
        is_feature = cells.columns > 0
        if feat_mapper is None:
            min_threshold = positive_int('CTRDataset: min_threshold', min_threshold)
            counts = onp.bincount(cells.numbers.reshape(-1))
            chosen = _texts(cells, is_feature & (counts >= min_threshold))
            feat_mapper = _numbered(chosen, num_feat)
            defaults = {field: len(numbers) for field, numbers in feat_mapper.items()}
        else:
            _check_mapper(feat_mapper, defaults, num_feat)
            chosen = _texts(cells, is_feature)
        self.feat_mapper, self.defaults = feat_mapper, defaults
        fields = range(1, num_feat + 1)
        dims = onp.array([len(feat_mapper[field]) + 1 for field in fields])
        offsets = dims.cumsum() - dims
        self.field_dims = np.array(dims, dtype='int64', ctx=mx.cpu())
        self.offsets = np.array(offsets, dtype='int64', ctx=mx.cpu())
        # The number, in the end, of each different cell; column 0 has the labels.
        new = onp.array([0, *(defaults[field] for field in fields)])[cells.columns]
        new[[number for number, _, _ in chosen]] = [
            feat_mapper[field].get(feature, defaults[field]) for _, field, feature in chosen]
        new += onp.append(0, offsets)[cells.columns]
        self._labels = labels
        self.arrays = (np.array(new[cells.numbers[:, 1:]], dtype='int64', ctx=mx.cpu()),
                       np.array(labels[:, onp.newaxis], dtype='float32', ctx=mx.cpu()))

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, idx):
        idx = operator.index(idx)
        # numpy raises IndexError where there is no such item.
        label = self._labels[idx]
        return self.arrays[0][idx], [label]


def _read_cells(path, num_feat):
    """The ``Cells`` of the file, the label in column 0, and the labels, float32."""
    with open_text(path) as file:
        text = file.read()
    cells = number_cells(text, num_feat + 1)
    if cells is None:
        cells = number_cells(_without_blank_lines(text, path, num_feat), num_feat + 1)
    labels = onp.zeros(len(cells.columns), dtype='float32')
    for number in onp.flatnonzero(cells.columns == 0).tolist():
        label = cells.text(number)
        if label not in _LABELS:
            line = next(line for line, cell in enumerate(text.split('\n'), 1)
                        if cell.split('\t')[0] == label and cell)
            raise ValueError(f'CTRDataset: line {line} of {path} must begin with the label 0 or '
                             f'1, got {label!r}')
        labels[number] = _LABELS[label]
    return cells, labels[cells.numbers[:, 0]]


def _without_blank_lines(text, path, num_feat):
    lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        if line and line.count('\t') != num_feat:
            raise ValueError(f'CTRDataset: line {number} of {path} must have a label and '
                             f'num_feat={num_feat} features, got {line.count(chr(9)) + 1} columns')
    lines = list(filter(None, lines))
    if not lines:
        raise ValueError(f'CTRDataset: {path} must have at least one line, got none')
    return '\n'.join(lines)


def _texts(cells, which):
    """(number, column, text) of some of the different cells, of which ``which`` is a mask."""
    numbers = onp.flatnonzero(which)
    return [(number, column, cells.text(number))
            for number, column in zip(numbers.tolist(), cells.columns[numbers].tolist())]


def _numbered(chosen, num_feat):
    """Field -> {feature: number} of the cells, in the order of their text."""
    features = {field: [] for field in range(1, num_feat + 1)}
    for _, field, feature in chosen:
        features[field].append(feature)
    return {field: {feature: number for number, feature in enumerate(sorted(of_field))}
            for field, of_field in features.items()}


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
