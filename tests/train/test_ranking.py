"""Hit rate and AUC against plain loops over users and items."""
import mxnet as mx
import numpy as onp
import pytest
from matplotlib import pyplot as plt
from mxnet import autograd, gluon, init, np
from mxnet.gluon import nn

from d2l.data.recommender import load_data_ml100k, read_data_ml100k, split_data_ml100k
from d2l.nn.loss import BPRLoss
from d2l.train import ranking
from d2l.train.ranking import evaluate_ranking, hit_and_auc
from d2l.train.recommender import train_ranking
from d2l.utils.animator import Animator

CPUS = [mx.cpu(0), mx.cpu(1), mx.cpu(2)]
DEVICES = pytest.mark.parametrize('devices', [CPUS[:1], CPUS[:2], CPUS])


# hit_and_auc

@pytest.mark.parametrize('ranked, wanted, k, expected', [
    ([3, 1, 2, 0], [1], 2, (1, 2 / 3)), ([3, 1, 2, 0], [1], 1, (0, 2 / 3)),
    ([3, 1, 2, 0], [3], 1, (1, 1.0)), ([3, 1, 2, 0], [0], 3, (0, 0.0)),
    ([3, 1, 2, 0], [9], 4, (0, 0)), ([3, 1, 2, 0], [], 4, (0, 0)),
    # Of several items to be found, auc looks at the first one.
    ([3, 1, 2, 0], [0, 1, 2], 3, (2, 2 / 3)), ([3, 1, 2, 0], (1, 1), 9, (1, 2 / 3)),
    ([4], [4], 1, (1, 1.0)), ([4], [5], 1, (0, 0)), ([], [5], 1, (0, 0)), ([4], [4], 0, (0, 1.0))])
def test_hit_and_auc(ranked, wanted, k, expected):
    assert hit_and_auc(ranked, wanted, k) == pytest.approx(expected)
    assert type(hit_and_auc(ranked, wanted, k)[0]) is int


def test_hit_and_auc_makes_one_set():
    class Counted(list):
        passes = 0

        def __iter__(self):
            Counted.passes += 1
            return super().__iter__()
    hit_and_auc(list(range(100)), Counted([5, 7]), 50)
    assert Counted.passes == 1


# evaluate_ranking

def plain_evaluation(score, test_input, candidates, num_users, num_items):
    """One user after the other, one pair after the other."""
    hits, aucs = [], []
    for user in range(num_users):
        if not test_input.get(user):
            continue
        items = [item for item in range(num_items) if item not in candidates.get(user, [])]
        ranked = sorted(items, key=lambda item: -score(user, item))
        wanted = set(test_input[user])
        places = [place for place, item in enumerate(ranked) if item in wanted]
        hits.append(len([place for place in places if place < 50]))
        others = len(ranked) - 1
        aucs.append((others - places[0]) / others if places and others else float(len(places)))
    return sum(hits) / len(hits), sum(aucs) / len(aucs)


def ranking_data(num_users, num_items, seed=0, tested=1):
    source = onp.random.RandomState(seed)
    test_input, candidates = {}, {}
    for user in range(num_users):
        items = source.permutation(num_items)[:max(1, num_items // 3)].tolist()
        test_input[user], candidates[user] = items[:tested], items[tested:]
    return test_input, candidates, source


@DEVICES
@pytest.mark.parametrize('num_users, num_items, tested', [(7, 130, 1), (60, 9, 1), (5, 200, 20),
                                                          (4, 1, 1), (1, 70, 2)])
@pytest.mark.parametrize('levels', [1000000, 3, 1])
def test_evaluate_ranking(monkeypatch, devices, num_users, num_items, tested, levels):
    test_input, candidates, source = ranking_data(num_users, num_items, tested=tested)
    table = source.randint(0, levels, (num_users, num_items)).astype('float32')
    seen = []

    def net(user, item):
        seen.append((user.ctx, user.dtype, item.dtype, len(item)))
        scores = table[user.asnumpy(), item.asnumpy()]
        return np.array(scores, ctx=user.ctx).reshape(-1, 1)
    expected = plain_evaluation(lambda user, item: table[user, item], test_input, candidates,
                                num_users, num_items)
    for batch, round_ in ((8192, 1 << 20), (17, 300)):
        monkeypatch.setattr(ranking, '_BATCH', batch)
        monkeypatch.setattr(ranking, '_ROUND', round_)
        result = evaluate_ranking(net, test_input, None, candidates, num_users, num_items, devices)
        assert result == pytest.approx(expected, abs=1e-12)
        assert all(type(value) is float for value in result)
    pairs_of_all = sum(num_items - len(set(items)) for items in candidates.values())
    assert sum(length for *_, length in seen) == 2 * pairs_of_all
    assert {dtype for _, *dtypes, _ in seen for dtype in dtypes} == {onp.dtype('int32')}
    if pairs_of_all > 17 * len(devices):
        assert {device for device, *_ in seen} == set(devices)


def test_all_items_are_ranked_and_not_as_many_as_there_are_users():
    """With two users and 100 items the one to be found is the last one."""
    def net(user, item):
        return item.astype('float32')
    assert evaluate_ranking(net, {0: [99], 1: [99]}, None, {}, 2, 100, CPUS[0]) == (1.0, 1.0)
    # With 100 users and two items there are no others.
    few = {user: [1] for user in range(100)}
    assert evaluate_ranking(net, few, None, {}, 100, 2, CPUS[:1]) == (1.0, 1.0)


def test_users_share_the_calls_of_the_net():
    calls = []

    def net(user, item):
        calls.append(len(item))
        return item
    evaluate_ranking(net, {user: [1] for user in range(300)}, None, {}, 300, 20, CPUS[:1])
    assert calls == [6000]


@pytest.mark.parametrize('kind', [np.array, onp.asarray])
def test_evaluate_ranking_with_sequences(kind):
    test_input, candidates, source = ranking_data(20, 90)
    seq = source.randint(0, 90, (20, 5))

    def net(user, sequence, item):
        assert sequence.shape == (len(user), 5)
        onp.testing.assert_array_equal(sequence.asnumpy(), seq[user.asnumpy()])
        return (sequence.sum(axis=1).astype('int32') * item) % 31
    expected = plain_evaluation(lambda user, item: seq[user].sum() * item % 31, test_input,
                                candidates, 20, 90)
    assert evaluate_ranking(net, test_input, kind(seq), candidates, 20, 90, CPUS[:2]) == \
        pytest.approx(expected)


def test_users_without_items_do_not_count():
    test_input, candidates, source = ranking_data(6, 80)
    table = source.normal(size=(6, 80))
    test_input[2], candidates[4] = [], []
    del test_input[5], candidates[0]

    def net(user, item):
        return np.array(table[user.asnumpy(), item.asnumpy()], dtype='float32')
    expected = plain_evaluation(lambda user, item: onp.float32(table[user, item]), test_input,
                                candidates, 6, 80)
    assert evaluate_ranking(net, test_input, None, candidates, 6, 80, CPUS[:1]) == \
        pytest.approx(expected)


def test_items_to_be_found_that_were_met_are_not_ranked():
    def net(user, item):
        return -item.astype('float32')
    assert evaluate_ranking(net, {0: [0]}, None, {0: [0]}, 1, 80, CPUS[0]) == (0, 0)
    assert evaluate_ranking(net, {0: [0, 79]}, None, {0: [0]}, 1, 80, CPUS[0]) == (0, 0)
    assert evaluate_ranking(net, {0: [1]}, None, {0: range(3)}, 1, 3, CPUS[0]) == (0, 0)


def test_scores_that_are_no_numbers_are_not_in_favour_of_the_net():
    def diverged(user, item):
        return np.full(item.shape, onp.nan)
    assert evaluate_ranking(diverged, {0: [0]}, None, {}, 1, 80, CPUS[0]) == (0, 0)

    def others(user, item):
        return np.where(item == 0, np.ones(item.shape), np.full(item.shape, onp.nan))
    assert evaluate_ranking(others, {0: [0]}, None, {}, 1, 80, CPUS[0]) == (0, 0)


def test_evaluate_ranking_is_not_training():
    def net(user, item):
        assert not autograd.is_training() and not autograd.is_recording()
        return item
    with autograd.record():
        evaluate_ranking(net, {0: [0]}, None, {}, 1, 80, CPUS[0])


@pytest.mark.parametrize('change, error, message', [
    ({'test_input': [[1]]}, TypeError, 'test_input must be a dict from users to items, got list'),
    ({'candidates': None}, TypeError, 'candidates must be a dict from users to items, got None'),
    ({'test_input': {0: [4]}}, ValueError, 'test_input must have items from 0 to .* = 3, got 4'),
    ({'candidates': {1: [-1]}}, ValueError, 'candidates must have items from 0 to .* = 3, got -1'),
    ({'test_input': {}}, ValueError, 'test_input must have items of at least one user, got none'),
    ({'test_input': {7: [1]}}, ValueError, 'test_input must have items of at least one user'),
    ({'seq': np.ones((3, 5))}, ValueError, 'seq must have a row for each of the num_users=2 us'),
    ({'devices': []}, ValueError, 'devices must name at least one device, got none'),
    ({'num_items': 0}, ValueError, 'num_items must be at least 1, got 0'),
    ({'net': lambda user, item: np.ones((len(user), 2))}, ValueError,
     r'net must return one score for each of the 6 pairs, got the shape \(6, 2\)')])
def test_wrong_arguments_of_evaluate_ranking(change, error, message):
    arguments = {'net': lambda *values: values[-1], 'test_input': {0: [1], 1: [2]}, 'seq': None,
                 'candidates': {0: [3], 1: [0]}, 'num_users': 2, 'num_items': 4,
                 'devices': CPUS[:1], **change}
    with pytest.raises(error, match='evaluate_ranking: ' + message):
        evaluate_ranking(**arguments)


# Real ratings

class Factors(nn.HybridBlock):
    """Factors of users and items, and how popular an item is."""

    def __init__(self, num_users, num_items, num_factors):
        super().__init__()
        self.P = nn.Embedding(num_users, num_factors)
        self.Q = nn.Embedding(num_items, num_factors)
        self.popular = nn.Embedding(num_items, 1)

    def hybrid_forward(self, F, user, item):
        return (self.P(user) * self.Q(item)).sum(axis=1) + self.popular(item).sum(axis=1)


def ranking_batches(users, items, candidates, num_items, batch_size, seed):
    """Each rating with an item that the user has not met."""
    source, batches = onp.random.RandomState(seed), []
    unseen = {user: onp.setdiff1d(onp.arange(num_items), items)
              for user, items in candidates.items()}
    others = onp.array([source.choice(unseen[user]) for user in users])
    order = source.permutation(len(users))
    for begin in range(0, len(order), batch_size):
        rows = order[begin:begin + batch_size]
        batches.append([np.array(onp.asarray(values)[rows], dtype='int32')
                        for values in (users, items, others)])
    return batches


@pytest.mark.slow
def test_ranking_learns_from_real_ratings(hub_data, monkeypatch):
    monkeypatch.setenv('D2L_PROGRESS', '0')
    plt.switch_backend('Agg')
    hub_data('ml-100k')
    data, _, num_items = read_data_ml100k()
    num_users = 200
    data = data[data['user_id'] <= num_users]
    train, test = split_data_ml100k(data, num_users, num_items, 'seq-aware')
    users, items, _, candidates = load_data_ml100k(train, num_users, num_items, 'implicit')
    _, _, _, test_input = load_data_ml100k(test, num_users, num_items, 'implicit')
    mx.random.seed(0)
    net = Factors(num_users, num_items, 8)
    net.initialize(init.Normal(0.01))
    net.hybridize()
    before = evaluate_ranking(net, test_input, None, candidates, num_users, num_items, CPUS[:1])
    trainer = gluon.Trainer(net.collect_params(), 'adam', {'learning_rate': 0.01})
    batches = ranking_batches(users, items, candidates, num_items, 512, 0)
    animator = Animator()
    train_ranking(net, batches, test_input, BPRLoss(), trainer, None, num_users, num_items, 6,
                  CPUS[:1], evaluate_ranking, candidates, eval_step=3, animator=animator)
    # Chance is 50 of some 1,600 items, and half of them; reached are 0.14 and 0.73.
    assert before[0] < 0.06 and 0.4 < before[1] < 0.6
    hit_rate, auc = (values[-1] for values in animator.Y)
    assert hit_rate > 0.1 and auc > 0.68
    assert animator.X == [[3, 6]] * 2
    plt.close('all')
