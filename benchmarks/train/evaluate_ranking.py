"""Hit rate and AUC of a matrix factorisation: all pairs at once against a DataLoader per user.

The ratings are made: 30 users of 1,682 items, as many as MovieLens 100K has.
"""
import mxnet as mx
import numpy as onp
from mxnet import gluon, init, np
from mxnet.gluon import nn

from benchmarks.run import Case
from d2l.train.ranking import evaluate_ranking, hit_and_auc

USERS, ITEMS, FACTORS, MET = 30, 1682, 10, 100


class Scores(nn.HybridBlock):
    """A factorisation, and with a sequence the mean of its items beside the user."""

    def __init__(self):
        super().__init__()
        self.P = nn.Embedding(USERS, FACTORS)
        self.Q = nn.Embedding(ITEMS, FACTORS)

    def forward(self, user, *others):
        factors = self.P(user)
        if len(others) > 1:
            factors = factors + self.Q(others[0]).mean(axis=1)
        return (factors * self.Q(others[-1])).sum(axis=1)


def plain_evaluation(net, test_input, seq, candidates, devices):
    hits, aucs = [], []
    for user in range(USERS):
        items = sorted(set(range(ITEMS)) - set(candidates[user]))
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
    devices, source = [mx.cpu()], onp.random.RandomState(0)
    mx.random.seed(0)
    net = Scores()
    net.initialize(init.Normal(1), ctx=devices)
    test_input, candidates = {}, {}
    for user in range(USERS):
        test_input[user], *candidates[user] = source.permutation(ITEMS)[:MET + 1].tolist()
        test_input[user] = [test_input[user]]
    for seq in (None, np.array(source.randint(0, ITEMS, (USERS, 5)), dtype='int32')):
        yield Case('evaluate_ranking' + ('' if seq is None else ' with sequences'), {
            'd2l': lambda seq=seq: evaluate_ranking(net, test_input, seq, candidates, USERS,
                                                    ITEMS, devices),
            'plain': lambda seq=seq: plain_evaluation(net, test_input, seq, candidates,
                                                      devices)}, check)
