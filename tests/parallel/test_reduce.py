"""Sums over devices: all ways give one result, on all devices, and change nothing else."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import autograd, np

from d2l.parallel.reduce import allreduce, broadcast, ring_allreduce, tree_allreduce

SUMS = [allreduce, tree_allreduce, ring_allreduce]


def on_devices(n, shape, dtype, make=np.array):
    rng = onp.random.RandomState(n)
    values = (rng.normal(size=(n,) + shape) * 10).astype(dtype)
    return values, [make(value, dtype=dtype, ctx=mx.cpu(i)) for i, value in enumerate(values)]


@pytest.mark.parametrize('total', SUMS)
@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 8])
def test_sums(total, n):
    for shape, dtype in (((3, 4), 'float32'), ((), 'float64'), ((7,), 'int32'), ((2,), 'float16'),
                         ((0, 3), 'float32'), ((1, 2, 1, 9), 'int8')):
        values, data = on_devices(n, shape, dtype)
        handles = list(data)
        total(data)
        results = [array.asnumpy() for array in handles]
        for i, result in enumerate(results):
            assert result.dtype == dtype and data[i] is handles[i] and data[i].ctx == mx.cpu(i)
            assert result.shape == shape and result.tobytes() == results[0].tobytes()
        tolerance = {'float16': 1e-2, 'float32': 1e-5, 'float64': 1e-14}.get(dtype, 0)
        onp.testing.assert_allclose(
            results[0].astype('float64'), values.astype('float64').sum(0) if tolerance
            else values.sum(0, dtype=dtype), rtol=tolerance, atol=tolerance * 10)


def test_orders_that_give_the_same_bits():
    for n, equal in ((2, SUMS), (3, [allreduce, tree_allreduce])):
        bits = set()
        for total in equal:
            _, data = on_devices(n, (100,), 'float32')
            total(data)
            bits.add(data[0].asnumpy().tobytes())
        assert len(bits) == 1


def test_classic_arrays_and_recording():
    for total in SUMS:
        values, data = on_devices(3, (2, 5), 'float32', mx.nd.array)
        for array in data:
            array.attach_grad()
        with autograd.record():
            total(data)
        onp.testing.assert_allclose(data[2].asnumpy(), values.sum(0), rtol=1e-5)


def test_broadcast():
    values, data = on_devices(3, (2, 5), 'float32')
    broadcast(data)
    for array in data:
        onp.testing.assert_array_equal(array.asnumpy(), values[0])


@pytest.mark.parametrize('call', [*SUMS, broadcast])
def test_bad_input(call):
    for data, message in (([], 'a list of at least one array'),
                          (np.ones(3), 'a list of at least one array, got'),
                          ([np.ones(3), onp.ones(3)], r'data\[1\] must be a dense MXNet array'),
                          ([np.ones(3), np.ones((3, 1))], r'data\[1\] must have the shape and'),
                          ([np.ones(3), np.ones(3, dtype='int32')], 'got .3,. int32')):
        with pytest.raises(ValueError, match=call.__name__ + ': .*' + message):
            call(data)
