"""How well a recommender system ranks: hit rate and AUC (section 16.6)."""
import itertools
from collections.abc import Mapping

import mxnet as mx
import numpy as onp
from mxnet import autograd, np

from d2l.data.arrays import positive_int
from d2l.utils.devices import try_all_gpus

_TOP = 50
# Pairs of user and item that a net scores in one call, and in one round of calls.
_BATCH = 8192
_ROUND = 1 << 20


def hit_and_auc(rankedlist, test_matrix, k):
    """Return (hits, auc) of a ranking, best item first (section 16.6).

    hits is how many of the first k items are in test_matrix, the items to be found.  auc looks at
    the first of these in the whole list: the share of all other items that are behind it, 0 if
    there is none.  It is 1 for a list of just one item that is in test_matrix.

    Section 16.6 has one item to be found; of several, auc means the best ranked one, as there.
    """
    wanted = set(test_matrix)
    found = [position for position, item in enumerate(rankedlist) if item in wanted]
    hits = len([item for item in rankedlist[:k] if item in wanted])
    return hits, _auc(found[0], len(rankedlist)) if found else 0


def evaluate_ranking(net, test_input, seq, candidates, num_users, num_items, devices):
    """Return the mean hit rate at 50 and the mean AUC over users, two floats (section 16.6).

    test_input and candidates are dicts from a user, 0 to num_users - 1, to a list of items: those
    to be found, and those that the user has met in training.  For each user, all items below
    num_items that the user has not met are ranked by net(user, item), or, where seq of shape
    (num_users, length) is given, net(user, seq[user], item).  The arrays have one row for each
    pair, up to 8,192 of them, int32; net returns one score for each.  Items of equal score stand
    in the order of their numbers.  `hit_and_auc` is what then counts; a score that is not a
    number is never in favour of the net.

    Users without items in test_input do not count; those without items in candidates have met
    none.  devices take turns.

    Raises TypeError where test_input or candidates is no dict, and ValueError for items outside 0
    to num_items - 1, a seq of another length, no user that counts, and a net that does not return
    one score for each pair.
    """
    name = 'evaluate_ranking'
    num_users = positive_int(f'{name}: num_users', num_users)
    num_items = positive_int(f'{name}: num_items', num_items)
    devices = checked_devices(name, devices)
    wanted = [onp.unique(items) for items in
              _items_by_user(name, 'test_input', test_input, num_users, num_items)]
    unseen = onp.ones((num_users, num_items), dtype=bool)
    for user, items in enumerate(_items_by_user(name, 'candidates', candidates, num_users,
                                                num_items)):
        unseen[user, items] = False
    users = onp.array([user for user in range(num_users) if len(wanted[user])], dtype='int64')
    if not len(users):
        raise ValueError(f'{name}: test_input must have items of at least one user, got none')
    if seq is not None:
        seq = seq.asnumpy() if isinstance(seq, mx.nd.NDArray) else onp.asarray(seq)
        if len(seq) != num_users:
            raise ValueError(f'{name}: seq must have a row for each of the num_users={num_users} '
                             f'users, got {len(seq)}')
    results, step = [], max(1, _ROUND // num_items)
    for begin in range(0, len(users), step):
        chunk = users[begin:begin + step]
        rows, items = onp.nonzero(unseen[chunk])
        scores = _scores(net, chunk[rows], seq, items, devices)
        ends = onp.searchsorted(rows, onp.arange(1, len(chunk)))
        results += [_hit_and_auc(*of_user, wanted[user]) for user, *of_user in
                    zip(chunk, onp.split(items, ends), onp.split(scores, ends))]
    hit_rate, auc = onp.mean(results, axis=0)
    return float(hit_rate), float(auc)


def checked_devices(name, devices):
    """A list of devices, by default all GPUs; ``ValueError`` if it is empty."""
    if devices is None:
        return try_all_gpus()
    devices = [devices] if isinstance(devices, mx.Context) else list(devices)
    if not devices:
        raise ValueError(f'{name}: devices must name at least one device, got none')
    return devices


def _scores(net, users, seq, items, devices):
    """The scores of all pairs, a numpy array."""
    scores = []
    with autograd.pause():
        for i, begin in enumerate(range(0, len(users), _BATCH)):
            rows = slice(begin, begin + _BATCH)
            inputs = [users[rows].astype('int32'), items[rows].astype('int32')]
            if seq is not None:
                inputs.insert(1, seq[users[rows]])
            device = devices[i % len(devices)]
            output = net(*[np.array(x, dtype=x.dtype, ctx=device) for x in inputs])
            if output.size != len(inputs[0]):
                raise ValueError('evaluate_ranking: net must return one score for each of the '
                                 f'{len(inputs[0])} pairs, got the shape {output.shape}')
            scores.append(output)
    # Read after all calls: the devices work at the same time.
    return onp.concatenate([output.asnumpy().reshape(-1) for output in scores] or [onp.empty(0)])


def _hit_and_auc(items, scores, wanted):
    """`hit_and_auc` without sorting: items are in order, and only the ranks of some are asked."""
    at = onp.searchsorted(items, wanted)
    at = at[items[onp.minimum(at, len(items) - 1)] == wanted] if len(items) else at[:0]
    if not len(at):
        return 0, 0
    score = scores[at, onp.newaxis]
    ahead = ~(scores <= score) | (scores == score) & (onp.arange(len(items)) < at[:, onp.newaxis])
    ahead[onp.arange(len(at)), at] = False
    ranks = ahead.sum(axis=1)
    return (ranks < _TOP).sum(), _auc(ranks.min(), len(items))


def _auc(first, length):
    return 1.0 * (length - 1 - first) / (length - 1) if length > 1 else 1.0


def _items_by_user(name, argument, items, num_users, num_items):
    """A list with an array of items for each user."""
    if not isinstance(items, Mapping):
        raise TypeError(f'{name}: {argument} must be a dict from users to items, '
                        f'got {type(items).__name__}')
    lists = [items.get(user, ()) for user in range(num_users)]
    flat = onp.fromiter(itertools.chain.from_iterable(lists), dtype='int64')
    wrong = flat[(flat < 0) | (flat >= num_items)]
    if len(wrong):
        raise ValueError(f'{name}: {argument} must have items from 0 to num_items - 1 = '
                         f'{num_items - 1}, got {wrong[0]}')
    return onp.split(flat, onp.cumsum([len(of_user) for of_user in lists[:-1]], dtype='int64'))
