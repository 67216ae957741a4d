import time

import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np, npx

from d2l.utils.timing import Accumulator, Benchmark, Timer


def test_timer_keeps_every_interval():
    timer = Timer()
    first = timer.stop()
    timer.start()
    time.sleep(0.01)
    second = timer.stop()
    assert timer.times == [first, second]
    assert second >= 0.01
    assert timer.sum() == first + second
    assert timer.avg() == (first + second) / 2


def test_timer_avg_before_the_first_stop():
    with pytest.raises(ValueError, match='Timer.avg: there is no interval yet'):
        Timer().avg()
    assert Timer().sum() == 0
    assert Timer().cumsum() == []


def test_timer_cumsum_is_float64():
    timer = Timer()
    # In float32 the second and third total would both be 16777216.
    timer.times = [2.0 ** 24, 1.0, 0.25]
    assert timer.cumsum() == [2.0 ** 24, 2.0 ** 24 + 1, 2.0 ** 24 + 1.25]
    assert all(type(total) is float for total in timer.cumsum())


def test_accumulator_takes_every_kind_of_number():
    metric = Accumulator(3)
    metric.add(1, 2.5, True)
    metric.add(np.array(1.5), np.array([2.0]), onp.float32(0.5))
    metric.add(mx.nd.array([3]), onp.array(4), onp.array([[5]]))
    assert metric.data == [5.5, 8.5, 6.5]
    assert [metric[0], metric[1], metric[-1]] == [5.5, 8.5, 6.5]
    assert all(type(value) is float for value in metric.data)


def test_accumulator_sums_in_float64_and_in_order():
    values = [2.0 ** 24, 1.0, 2.0 ** -10, 0.1] * 3
    metric, expected = Accumulator(1), 0.0
    for value in values:
        metric.add(np.array(value, dtype='float32'))
        expected += float(onp.float32(value))
    assert metric[0] == expected


def test_accumulator_does_not_see_later_writes():
    total, metric = np.zeros(1), Accumulator(1)
    for _ in range(10):
        total += 1
        metric.add(total)
    total[:] = 0
    assert metric[0] == sum(range(1, 11))


def test_adding_to_an_accumulator_waits_for_nothing(monkeypatch):
    metric = Accumulator(2)
    with monkeypatch.context() as patch:
        for name in ('asnumpy', 'wait_to_read', 'item', '__float__'):
            patch.setattr(np.ndarray, name, None)
        metric.add(np.ones(()), np.array([2.0]))
    assert metric.data == [1.0, 2.0]


def test_accumulator_reads_late_but_not_never():
    metric = Accumulator(1)
    for _ in range(100):
        metric.add(np.ones(()))
    assert len(metric._unread) == Accumulator._UNREAD
    assert metric.data == [100.0]
    assert len(metric._unread) == 0


def test_accumulator_inside_record_leaves_the_tape_alone():
    x = np.array([3.0])
    x.attach_grad()
    metric = Accumulator(1)
    with autograd.record():
        y = x * x
        metric.add(y)
        y = y * 2
    y.backward()
    assert metric[0] == 9
    assert x.grad == 12


def test_accumulator_reset():
    metric = Accumulator(2)
    metric.add(np.array(1.0), 2)
    metric.reset()
    assert metric.data == [0.0, 0.0]
    metric.add(3, np.array(4.0))
    assert metric.data == [3.0, 4.0]


@pytest.mark.parametrize('args', [(), (1,), (1, 2, 3)])
def test_accumulator_wrong_number_of_values(args):
    metric = Accumulator(2)
    with pytest.raises(ValueError, match=f'expected 2 values, one for each sum, got {len(args)}'):
        metric.add(*args)
    metric.add(1, 2)
    assert metric.data == [1.0, 2.0]


@pytest.mark.parametrize('value', [np.ones(2), onp.ones((2, 1)), mx.nd.ones((3,))])
def test_accumulator_refuses_longer_arrays(value):
    with pytest.raises(ValueError, match=r'value 1 must be one number, got an array of shape'):
        Accumulator(2).add(0, value)


def test_benchmark_prints(capsys):
    with Benchmark('sleeping') as benchmark:
        time.sleep(0.01)
    text = capsys.readouterr().out
    assert text == f'sleeping: {benchmark.timer.times[0]:.4f} sec\n'
    with Benchmark():
        pass
    assert capsys.readouterr().out.startswith('Done: 0.')


def test_benchmark_waits_for_nothing(monkeypatch, capsys):
    """Section 12.2 shows with it that MXNet returns before the work is done."""
    for name in ('wait_to_read', 'asnumpy', 'item'):
        monkeypatch.setattr(np.ndarray, name, None)
    monkeypatch.setattr(npx, 'waitall', None)
    monkeypatch.setattr(mx.nd, 'waitall', None)
    with Benchmark():
        np.ones((3, 3)).sum()
