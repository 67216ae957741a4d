"""Hit rate and AUC of a matrix factorisation: all pairs at once against a DataLoader per user.

The ratings are those of the first 30 users of the shared data folder's MovieLens, which has 1,682
items as MovieLens 100K has; where that is absent, those of a table made of the samples.  What is
to be found is the latest item of each user, and a sequence the five before it.
"""
import os
import tempfile
import zipfile

import mxnet as mx
import numpy as onp
import pandas as pd
from mxnet import gluon, init, np
from mxnet.gluon import nn

from benchmarks.run import Case
from d2l.data.recommender import load_data_ml100k, split_data_ml100k
from d2l.train.ranking import evaluate_ranking, hit_and_auc
from tests import hub_files

USERS, FACTORS, LENGTH = 30, 10, 5


def read_ratings():
    """The ratings of the first users, and the number of items."""
    with tempfile.TemporaryDirectory() as folder:
        hub_files.build('ml-100k', folder, real=os.path.isdir(hub_files.SHARED))
        with zipfile.ZipFile(os.path.join(folder, 'ml-100k.zip')) as archive, \
                archive.open('ml-100k/u.data') as file:
            table = pd.read_csv(file, sep='\t', header=None)
    return table[table[0] <= USERS], int(table[1].max())


class Scores(nn.HybridBlock):
    """A factorisation, and with a sequence the mean of its items beside the user."""

    def __init__(self, num_items):
        super().__init__()
        self.P = nn.Embedding(USERS, FACTORS)
        self.Q = nn.Embedding(num_items, FACTORS)

    def forward(self, user, *others):
        factors = self.P(user)
        if len(others) > 1:
            factors = factors + self.Q(others[0]).mean(axis=1)
        return (factors * self.Q(others[-1])).sum(axis=1)


def plain_evaluation(net, test_input, seq, candidates, num_items, devices):
    hits, aucs = [], []
    for user in range(USERS):
        items = sorted(set(range(num_items)) - set(candidates[user]))
        users = np.array([user] * len(items), dtype='int32')
        inputs = [users] + ([] if seq is None else [seq[users]]) + [np.array(items, dtype='int32')]
        scores = []
        for values in gluon.data.DataLoader(gluon.data.ArrayDataset(*inputs), 1024):
            values = [gluon.utils.split_and_load(v, devices, even_split=False) for v in values]
            for part in zip(*values):
                scores.extend(net(*part).asnumpy().tolist())
        ranked = sorted(zip(items, scores), key=lambda pair: pair[1], reverse=True)
        hit, auc = hit_and_auc([item for item, _ in ranked], test_input[user], 50)
        hits.append(hit)
        aucs.append(auc)
    return onp.mean(hits), onp.mean(aucs)


def check(results):
    for name, result in results.items():
        onp.testing.assert_allclose(result, results['plain'], 1e-9, err_msg=name)


def cases():
    ratings, num_items = read_ratings()
    halves = split_data_ml100k(ratings, USERS, num_items, 'seq-aware')
    candidates, test_input = (load_data_ml100k(half, USERS, num_items, 'implicit')[3]
                              for half in halves)
    devices = [mx.cpu()]
    mx.random.seed(0)
    net = Scores(num_items)
    net.initialize(init.Normal(1), ctx=devices)
    latest = np.array([candidates[user][-LENGTH:] for user in range(USERS)], dtype='int32')
    for seq in (None, latest):
        yield Case('evaluate_ranking' + ('' if seq is None else ' with sequences'), {
            'd2l': lambda seq=seq: evaluate_ranking(net, test_input, seq, candidates, USERS,
                                                    num_items, devices),
            'plain': lambda seq=seq: plain_evaluation(net, test_input, seq, candidates, num_items,
                                                      devices)}, check)
