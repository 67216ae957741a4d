"""Whole arrays of random numbers: those that a loop over Python's random gives."""
import random

import numpy as onp
import pytest

from d2l.data import _python_random
from d2l.data._python_random import WeightedDraws, randint, uniform


@pytest.fixture(params=[0, 1, 623, 624, 1000])
def seeded(request):
    """Call it to put random at a place in its table of 624 words; both times at the same."""
    def seed():
        random.seed(5)
        random.gauss(0, 1)  # leaves a second number for the next call
        for _ in range(request.param):
            random.getrandbits(32)
    return seed


@pytest.mark.parametrize('count', [0, 1, 311, 312, 1000])
def test_uniform_is_python_s(seeded, count):
    seeded()
    expected, after = [random.random() for _ in range(count)], random.getstate()
    seeded()
    found = uniform(count)
    assert found.dtype == 'float64' and found.tolist() == expected
    assert random.getstate() == after


@pytest.mark.parametrize('count', [0, 1, 700, 5000])
@pytest.mark.parametrize('low, high', [(1, 1), (1, 2), (1, 5), (-3, 4), (1, 64), (0, 2 ** 31),
                                       (1, 2 ** 32 - 1), (1, 2 ** 32), (1, 2 ** 50)])
def test_randint_is_python_s(seeded, low, high, count):
    seeded()
    expected, after = [random.randint(low, high) for _ in range(count)], random.getstate()
    seeded()
    found = randint(low, high, count)
    assert found.dtype == 'int64' and found.tolist() == expected
    assert random.getstate() == after


@pytest.mark.parametrize('weights', [
    [1], [3, 1, 2], [0, 1, 0, 2, 0], [1e-300, 1, 1e-300], list(range(1000)), [0.1] * 4999,
    [1] + [0] * 50], ids=lambda weights: f'{len(weights)}-{weights[0]}')
@pytest.mark.parametrize('counts', [(1, 1), (10, 3), (20000,), (10, 20000, 10)])
def test_weighted_draws_are_those_of_choices(weights, counts):
    random.seed(2)
    numbers = range(len(weights))
    expected = [random.choices(numbers, weights, k=count) for count in counts]
    after = random.getstate()
    random.seed(2)
    draws = WeightedDraws(weights, 'x')
    assert [draws.draw(count).tolist() for count in counts] == expected
    assert random.getstate() == after
    assert draws.draw(3).dtype == 'int32'


def test_weighted_draws_in_pieces(monkeypatch):
    random.seed(3)
    expected = random.choices(range(5), [5, 1, 0, 2, 1], k=1001)
    monkeypatch.setattr(_python_random, '_CHUNK', 100)
    random.seed(3)
    assert WeightedDraws([5, 1, 0, 2, 1], 'x').draw(1001).tolist() == expected


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 1 - 2 ** -53])
@pytest.mark.parametrize('count', [1, 20000])
def test_weighted_draws_at_the_edges(monkeypatch, share, count):
    """At the ends of the intervals, with and without the table, no weight of 0 is drawn."""
    draws = WeightedDraws([0, 1, 1, 0, 2, 0], 'x')

    class Source:
        random_sample = staticmethod(lambda n: onp.full(n, share))

    class Borrowed:
        __enter__ = staticmethod(Source)
        __exit__ = staticmethod(lambda *error: None)

    monkeypatch.setattr(_python_random, 'borrowed', Borrowed)
    assert set(draws.draw(count).tolist()) == {{0.0: 1, 0.25: 2}.get(share, 4)}


@pytest.mark.parametrize('weights', [
    [], [0, 0], [1, -1], [1, float('nan')], [1, float('inf')], [[1, 2]], 3, [1.7e308, 1.7e308]])
def test_weights_that_are_none(weights):
    with onp.errstate(over='ignore'), pytest.raises(ValueError, match='^some name must '):
        WeightedDraws(weights, 'some name')
