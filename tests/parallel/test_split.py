"""Splitting batches: against numpy's array_split."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import np
from mxnet.base import _LIB

from d2l.parallel.split import split_batch, split_batch_multi_inputs

DEVICES = [mx.cpu(0), mx.cpu(1), mx.cpu(2)]


def batch(n):
    return np.arange(n * 2).reshape(n, 2).astype('float32'), np.arange(n, dtype='int32')


@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 6, 7, 300])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_any_length(n, count):
    X, y = batch(n)
    X_shards, y_shards = split_batch(X, y, DEVICES[:count])
    assert len(X_shards) == len(y_shards) == min(n, count)
    for shards, whole in ((X_shards, X), (y_shards, y)):
        expected = onp.array_split(whole.asnumpy(), min(n, count))
        for shard, part, device in zip(shards, expected, DEVICES):
            onp.testing.assert_array_equal(shard.asnumpy(), part)
            assert shard.dtype == whole.dtype and shard.ctx == device and shard.size


def test_several_inputs():
    X, y = batch(5)
    X_shards, y_shards = split_batch_multi_inputs([X, y], y, DEVICES[:2])
    assert [type(shard) for shard in X_shards] == [tuple, tuple]
    for (first, second), labels, part, device in zip(
            X_shards, y_shards, onp.array_split(onp.arange(5), 2), DEVICES):
        onp.testing.assert_array_equal(first.asnumpy(), X.asnumpy()[part])
        onp.testing.assert_array_equal(second.asnumpy(), part)
        onp.testing.assert_array_equal(labels.asnumpy(), part)
        assert first.ctx == second.ctx == labels.ctx == device


def test_one_device_copies_nothing():
    X, y = batch(4)
    (X_shard,), (y_shard,) = split_batch(X, y, [mx.cpu()])
    assert X_shard is X and y_shard is y
    (X_shard,), (y_shard,) = split_batch(X, y, mx.cpu(0))
    assert X_shard is X and y_shard is y
    X_shards, _ = split_batch(X, y, [mx.cpu(), mx.cpu()])
    X[3, 0] = 99
    assert X_shards[1][1, 0] == 99


@pytest.mark.parametrize('make', [onp.array, mx.nd.array, lambda rows: rows])
def test_other_arrays(make):
    X_shards, y_shards = split_batch(make([[1.5, 2], [3, 4], [5, 6]]), make([0, 1, 2]),
                                     DEVICES[:2])
    assert [shard.asnumpy().tolist() for shard in X_shards] == [[[1.5, 2], [3, 4]], [[5, 6]]]
    assert [shard.asnumpy().tolist() for shard in y_shards] == [[0, 1], [2]]


@pytest.mark.parametrize('split, X', [(split_batch, np.ones((3, 2))),
                                      (split_batch_multi_inputs, [np.ones((3, 2))])])
def test_bad_input(split, X):
    name, y = split.__name__ + ': ', np.ones(3)
    empty = np.ones((0, 2)) if split is split_batch else [np.ones((0, 2))]
    for call, message in (
            (lambda: split(X, np.ones(4), DEVICES), 'X and y must be equally long, got 3 and 4'),
            (lambda: split(empty, np.ones(0), DEVICES), 'must have at least one example, got none'),
            (lambda: split(X, y, []), 'devices must hold at least one device, got none'),
            (lambda: split(X, np.array(1.0), DEVICES), 'y must have the examples along its first')):
        with pytest.raises(ValueError, match=name + '.*' + message):
            call()


def test_bad_inputs_of_several():
    with pytest.raises(ValueError, match='X must be a list or tuple of arrays, got ndarray'):
        split_batch_multi_inputs(np.ones((3, 2)), np.ones(3), DEVICES)
    with pytest.raises(ValueError, match='X must hold at least one array, got none'):
        split_batch_multi_inputs([], np.ones(3), DEVICES)
    with pytest.raises(ValueError, match=r'equally long, got \[3, 2\] and 3 examples'):
        split_batch_multi_inputs([np.ones(3), np.ones(2)], np.ones(3), DEVICES)


@pytest.mark.parametrize('n', [1, 2, 5])
@pytest.mark.parametrize('count', [1, 2, 3])
def test_any_length_of_several_inputs(n, count):
    X, y = batch(n)
    X_shards, y_shards = split_batch_multi_inputs((X, y, X), y, DEVICES[:count])
    firsts, labels = split_batch(X, y, DEVICES[:count])
    assert len(X_shards) == len(y_shards) == len(firsts)
    for (first, second, third), got, expected, label in zip(X_shards, y_shards, firsts, labels):
        for a, b in ((first, expected), (third, expected), (second, label), (got, label)):
            onp.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
            assert a.ctx == b.ctx and a.dtype == b.dtype


def test_nothing_is_waited_for(monkeypatch):
    """Batches may still be computed when they are split."""
    waits = []
    for name in ('MXNDArraySyncCopyToCPU', 'MXNDArrayWaitToRead', 'MXNDArrayWaitAll'):
        call = getattr(_LIB, name)
        monkeypatch.setattr(_LIB, name, lambda *args, call=call: waits.append(call) or call(*args))
    X, y = batch(5)
    split_batch(X * 2, y + 1, DEVICES)
    split_batch_multi_inputs([X * 2, y * 2], y + 1, DEVICES)
    assert not waits
    X.asnumpy()
    assert len(waits) == 1
