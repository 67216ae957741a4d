"""Kaggle's pictures sorted into one folder for each label, as gluon's data sets want them."""
import collections
import csv
import math
import numbers
import os
import shutil

from d2l.utils.files import file_lock, open_text
from d2l.utils.progress import progress

_STAGING = '.unfinished'


def read_csv_labels(fname):
    """The labels in a csv file of two columns, id and label, with a header line.

    Returns a dict from id to label, both str.  Blank lines do not count.  Raises ``ValueError``
    for a line with fewer columns and for an id with two labels.  Book section 13.13.
    """
    labels = {}
    with open_text(fname, encoding='utf-8-sig', newline='') as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in rows:
            if not row or row == ['']:
                continue
            if len(row) < 2:
                raise ValueError(f'read_csv_labels: {fname}, line {rows.line_num}: must have an '
                                 f'id and a label, got {",".join(row)!r}')
            name, label = row[0].strip(), row[1].strip()
            if labels.setdefault(name, label) != label:
                raise ValueError(f'read_csv_labels: {fname}, line {rows.line_num}: {name!r} has '
                                 f'the labels {labels[name]!r} and {label!r}')
    return labels


def copyfile(filename, target_dir):
    """Copy a file into a folder, which is made if need be, under the same name.

    The name is given only to a whole copy.  Book section 13.13.
    """
    os.makedirs(target_dir, exist_ok=True)
    name = os.path.basename(filename)
    part = os.path.join(target_dir, f'.{name}.part')
    try:
        shutil.copy(filename, part)
        os.replace(part, os.path.join(target_dir, name))
    finally:
        if os.path.exists(part):
            os.unlink(part)


def reorg_train_valid(data_dir, labels, valid_ratio):
    """Sort the pictures of ``data_dir/train`` by label, and hold some out for validation.

    ``labels`` maps the file names without their ending to labels.  Every picture is copied to
    ``data_dir/train_valid_test/train_valid/<label>`` and once more to ``valid/<label>`` or
    ``train/<label>`` beside it.  Of each label the first k pictures in the order of their names
    are for validation; k is ``valid_ratio`` times the size of the smallest label, rounded down,
    but at least 1.  Returns k.

    The three folders hold all labels, so that a label has the same number in each.  They are made
    aside and then put in place of earlier ones: the same call gives the same split everywhere,
    another ratio starts clean, and a call that fails changes nothing.

    Raises ``ValueError`` for a ratio outside 0 to 1, a picture without a label, or a folder
    without pictures, and ``FileNotFoundError`` without the folder.  Book section 13.13.
    """
    if isinstance(valid_ratio, bool) or not isinstance(valid_ratio, numbers.Real) \
            or not 0 <= valid_ratio <= 1:
        raise ValueError('reorg_train_valid: valid_ratio must be a number from 0 to 1, '
                         f'got {valid_ratio!r}')
    source = os.path.join(data_dir, 'train')
    files = _files('reorg_train_valid', source)
    label_of = {file: labels.get(os.path.splitext(file)[0]) for file in files}
    unknown = [file for file in files if label_of[file] is None]
    if unknown:
        raise ValueError(f'reorg_train_valid: labels must have an entry for each picture, got '
                         f'none for {os.path.join(source, unknown[0])}')
    sizes = collections.Counter(label_of.values())
    held_out = max(1, math.floor(min(sizes.values()) * valid_ratio))

    def fill(staging):
        for part in ('train', 'valid', 'train_valid'):
            for label in sizes:
                os.makedirs(os.path.join(staging, part, label))
        taken = collections.Counter()
        for file in progress(files, 'reorg_train_valid'):
            label = label_of[file]
            part = 'valid' if taken[label] < held_out else 'train'
            taken[label] += 1
            for target in ('train_valid', part):
                copyfile(os.path.join(source, file), os.path.join(staging, target, label))

    _replace(data_dir, fill)
    return held_out


def reorg_test(data_dir):
    """Copy the pictures of ``data_dir/test`` to ``data_dir/train_valid_test/test/unknown``.

    Earlier copies are replaced as a whole.  Raises ``FileNotFoundError`` without the folder and
    ``ValueError`` if it is empty.  Book section 13.13.
    """
    source = os.path.join(data_dir, 'test')
    files = _files('reorg_test', source)

    def fill(staging):
        for file in progress(files, 'reorg_test'):
            copyfile(os.path.join(source, file), os.path.join(staging, 'test', 'unknown'))

    _replace(data_dir, fill)


def _files(function, folder):
    """The sorted names of the files in a folder; hidden ones are no pictures."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'{function}: data_dir must hold a folder '
                                f'{os.path.basename(folder)!r}, but {folder} is not there')
    files = [name for name in sorted(os.listdir(folder))
             if not name.startswith('.') and os.path.isfile(os.path.join(folder, name))]
    if not files:
        raise ValueError(f'{function}: {folder} must hold pictures, got none')
    return files


def _replace(data_dir, fill):
    """Let ``fill`` write folders aside, then put them into ``data_dir/train_valid_test``."""
    target = os.path.join(data_dir, 'train_valid_test')
    os.makedirs(target, exist_ok=True)
    with file_lock(os.path.join(target, '.lock')):
        staging = os.path.join(target, _STAGING)
        # Left by a process that was ended.
        shutil.rmtree(staging, ignore_errors=True)
        try:
            fill(os.path.join(staging, 'new'))
            os.mkdir(os.path.join(staging, 'old'))
            for part in sorted(os.listdir(os.path.join(staging, 'new'))):
                if os.path.lexists(os.path.join(target, part)):
                    os.rename(os.path.join(target, part), os.path.join(staging, 'old', part))
                os.rename(os.path.join(staging, 'new', part), os.path.join(target, part))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
