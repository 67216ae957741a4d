"""Ratings and clicks: MovieLens (2016, small) and Criteo, and sample data in their formats."""
import csv
import io
import os
import re
import shutil
import zipfile

import numpy as onp

from d2l.utils.hub import download

# As many items as MovieLens 100K has.
ITEMS = 1682
FIELDS = 34


def ml_100k(shared, folder):
    """Its 1,682 most rated films; half stars are rounded up."""
    with zipfile.ZipFile(os.path.join(shared, 'ml-latest-small',
                                      'ml-latest-small-2016.zip')) as source:
        text = source.read('ml-latest-small/ratings.csv').decode()
    table = onp.array(list(csv.reader(io.StringIO(text)))[1:], dtype='float64')
    items, counts = onp.unique(table[:, 1], return_counts=True)
    kept = items[onp.lexsort((items, -counts))[:ITEMS]]
    table = table[onp.isin(table[:, 1], kept)]
    write_ratings(folder, table[:, 0], table[:, 1], onp.ceil(table[:, 2]), table[:, 3])


def ml_100k_of_samples(folder):
    """Airfoils: 'users' are operating points, 'items' frequencies, 'ratings' sound levels."""
    table = onp.loadtxt(download('airfoil'))
    points = onp.unique(table[:, 1:4], axis=0, return_inverse=True)[1].reshape(-1)
    levels = onp.searchsorted(onp.quantile(table[:, 5], [0.2, 0.4, 0.6, 0.8]), table[:, 5]) + 1
    # Three rows have one time.
    write_ratings(folder, points, table[:, 0], levels, 880000000 + onp.arange(len(table)) // 3)


def write_ratings(folder, users, items, ratings, times):
    """ml-100k.zip; users and items get the numbers from 1, the rows an order without sense."""
    users, items = (onp.unique(ids, return_inverse=True)[1].reshape(-1) + 1
                    for ids in (users, items))
    rows = onp.column_stack([users, items, ratings, times]).astype('int64')
    rows = rows[onp.random.RandomState(0).permutation(len(rows))].tolist()
    with zipfile.ZipFile(os.path.join(folder, 'ml-100k.zip'), 'w',
                         zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('ml-100k/u.data', ''.join('{}\t{}\t{}\t{}\n'.format(*row)
                                                   for row in rows))


def ctr(shared, folder):
    """8 numbers, as text, and 26 categories."""
    shutil.copy(os.path.join(shared, 'ctr-criteo-tiny', 'ctr-criteo-tiny-d2l.zip'),
                os.path.join(folder, 'ctr.zip'))


def ctr_of_samples(folder):
    """The time machine: 34 words, and whether the next one has more than three letters."""
    with open(download('time_machine'), encoding='utf-8') as file:
        words = re.findall('[a-z]+', file.read().lower())
    lines = ['\t'.join([str(int(len(words[i + FIELDS]) > 3)), *words[i:i + FIELDS]]) + '\n'
             for i in range(0, len(words) - FIELDS, FIELDS)]
    with zipfile.ZipFile(os.path.join(folder, 'ctr.zip'), 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('ctr/train.csv', ''.join(lines[:700]))
        archive.writestr('ctr/test.csv', ''.join(lines[700:]))


REAL = {'ml-100k': ml_100k, 'ctr': ctr}
SAMPLES = {'ml-100k': ml_100k_of_samples, 'ctr': ctr_of_samples}
