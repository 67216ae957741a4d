"""Every worker the same number of batches, every example once, in one order for all."""
import itertools

import mxnet as mx
import numpy as onp
import pytest
from mxnet import gluon, np

from d2l.parallel.sampler import DistributedSampler


def epoch(samplers):
    """Return the global batches of an epoch, each as the list of its workers' parts."""
    return list(itertools.zip_longest(*samplers))


def every(num_workers, *args, **kwargs):
    return [DistributedSampler(*args, num_workers=num_workers, rank=rank, **kwargs)
            for rank in range(num_workers)]


@pytest.mark.parametrize('length, batch_size', [(40, 8), (47, 8), (8, 8), (5, 8), (44, 9), (9, 4)])
@pytest.mark.parametrize('last', ['keep', 'wrap', 'drop'])
def test_global_batches_do_not_depend_on_the_workers(length, batch_size, last):
    if last == 'drop' and length < batch_size:
        return
    alone = every(1, length, batch_size, seed=5, last=last)
    expected = [list(alone[0]) for _ in range(3)]
    for num_workers in (2, 3, 4):
        if last == 'keep' and 0 < length % batch_size < num_workers:
            continue
        samplers = every(num_workers, length, batch_size, seed=5, last=last)
        for batches in expected:
            parts = epoch(samplers)
            assert [sum(part, []) for part in parts] == batches
            assert len(parts) == len(samplers[0]) == len(batches)
            for part in parts:
                sizes = [len(rows) for rows in part]
                assert sizes[0] - sizes[-1] <= 1 and sizes == sorted(sizes, reverse=True)
                assert sizes[-1] >= 1
    for batches in expected:
        seen = sorted(sum(batches, []))
        if last == 'keep':
            assert seen == list(range(length))
        elif last == 'drop':
            assert len(set(seen)) == len(seen) == length // batch_size * batch_size
        else:
            assert set(seen) == set(range(length)) and len(seen) % batch_size == 0
    if length > 8:
        assert expected[0] != expected[1] != expected[2]


def test_order():
    assert list(DistributedSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]
    assert list(DistributedSampler(5, 2, shuffle=False, last='wrap')) == [[0, 1], [2, 3], [4, 0]]
    assert list(DistributedSampler(5, 2, shuffle=False, last='drop')) == [[0, 1], [2, 3]]
    one, same, other = (list(DistributedSampler(30, 30, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_position():
    whole, sampler = DistributedSampler(20, 6), DistributedSampler(20, 6)
    batches = [batch for _ in range(3) for batch in whole]
    for stop in range(len(batches)):
        # A state is where the batches handed out end, and serves another number of workers.
        states, position = [], DistributedSampler(20, 6)
        for batch in itertools.islice((b for _ in range(3) for b in position), stop):
            states.append(position.state())
            assert position.global_size == len(batch)
        if not states:
            continue
        parts = every(2, 20, 6)
        for part in parts:
            part.set_state(states[-1])
        rest = []
        while len(rest) < len(batches) - stop:
            rest += [sum(both, []) for both in epoch(parts)]
        assert rest == batches[stop:]
    sampler.set_epoch(2)
    assert list(sampler) == batches[8:]
    # As in a loop over epochs that was restored in the middle of one.
    sampler.set_state(dict(sampler.state(), epoch=1, batch=2))
    sampler.set_epoch(1)
    assert list(sampler) == batches[6:8]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_data_loader(num_workers):
    X = np.arange(22).reshape(11, 2)
    sampler = DistributedSampler(11, 4, num_workers=2, rank=1, shuffle=False)
    loader = gluon.data.DataLoader(gluon.data.ArrayDataset(X.asnumpy()), batch_sampler=sampler,
                                   num_workers=num_workers, thread_pool=True)
    got, states, sizes = [], [], []
    for batch in sampler.follow(loader):
        got.append(batch[:, 0].asnumpy().tolist())
        states.append((sampler.epoch, sampler.batch))
        sizes.append(sampler.global_size)
    assert got == [[4, 6], [12, 14], [20]] and len(loader) == 3
    assert states == [(0, 1), (0, 2), (1, 0)] and sizes == [4, 4, 3]
    sampler.set_state(dict(sampler.state(), epoch=1, batch=2))
    assert [batch[:, 0].asnumpy().tolist() for batch in sampler.follow(loader)] == [[20]]


def test_a_loader_with_a_thread_of_its_own():
    sampler = DistributedSampler(8, 2, num_workers=1, rank=0)
    fetched = []

    def loader():
        fetched.append(iter(sampler))
        for _ in range(4):
            yield next(fetched[0])
    for number, _ in enumerate(sampler.follow(loader()), 1):
        if number == 1:
            next(fetched[0])  # while the training is at work on the first
            assert (sampler.epoch, sampler.batch) == (0, 1)
            break


@pytest.mark.parametrize('make', [np.array, mx.nd.array, onp.array])
def test_whole_arrays(make):
    X, y = make(onp.arange(14.0).reshape(7, 2)), make(onp.arange(7))
    sampler = DistributedSampler(7, 3, num_workers=1, rank=0)
    expected = [rows for rows in DistributedSampler(7, 3)]
    for rows, (some, labels) in zip(expected, sampler.batches(X, y)):
        assert labels.asnumpy().tolist() == rows and some.dtype == X.dtype
        onp.testing.assert_array_equal(some.asnumpy()[:, 1], 2 * onp.array(rows) + 1)
    with pytest.raises(ValueError, match=r'arrays must have 7 examples, got \[7, 6\]'):
        next(sampler.batches(X, y[:6]))


@pytest.mark.parametrize('args, message', [
    ({'length': 0}, 'length must be at least 1, got 0'),
    ({'num_workers': 0}, 'num_workers must be at least 1'),
    ({'rank': 2}, 'rank must be from 0 to 1, got 2'),
    ({'batch_size': 1}, 'batch_size, that of all workers together, must be at least'),
    ({'last': 'pad'}, "last must be 'keep', 'wrap' or 'drop', got 'pad'"),
    ({'length': 9}, 'an example for each of 2 workers, 9 % 4 leaves 1; take another batch_size'),
    ({'length': 3, 'last': 'drop'}, "length must be at least batch_size, 4, with last='drop'")])
def test_bad_arguments(args, message):
    with pytest.raises(ValueError, match=message):
        DistributedSampler(**{**dict(length=8, batch_size=4, num_workers=2, rank=0), **args})


def test_a_position_of_another_order():
    state = DistributedSampler(8, 4).state()
    with pytest.raises(ValueError, match='batch_size must be that of the saved position, 4, got 2'):
        DistributedSampler(8, 2).set_state(state)
