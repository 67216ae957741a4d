"""The readable key-value store against MXNet's."""
import mxnet as mx
import numpy as onp
import pytest
from mxnet import np

from d2l.parallel.keyvalue import KeyValueStore

DEVICES = [mx.cpu(0), mx.cpu(1), mx.cpu(2)]


def use(store, updater):
    """What a run of a store leaves on the devices, for whole numbers."""
    if updater is not None:
        store.set_updater(updater) if hasattr(store, 'set_updater') else store._set_updater(updater)
    results = []
    for key, shape in ((3, (2, 3)), (5, (4,))):
        store.init(key, mx.nd.ones(shape) * 7)
        for i in (1, 2):
            store.push(key, [mx.nd.ones(shape, ctx=device) * (i + n)
                             for n, device in enumerate(DEVICES)])
        out = [mx.nd.zeros(shape, ctx=device) for device in DEVICES]
        store.pull(key, out=out)
        results.append([array.asnumpy() for array in out])
    return results


def step(key, grad, value):
    value -= 2 * grad + key


@pytest.mark.parametrize('updater', [None, step])
def test_same_as_a_store_of_mxnet(updater):
    mx.npx.reset_np()
    got, expected = (use(store, updater) for store in (KeyValueStore(), mx.kv.create('local')))
    for arrays, others in zip(got, expected):
        onp.testing.assert_array_equal(arrays, others)
        onp.testing.assert_array_equal(arrays[0], arrays[2])


def test_what_is_pushed_and_stored_keeps_its_value():
    store, w, grads = KeyValueStore(), np.ones(3), [np.ones(3), np.ones(3, ctx=mx.cpu(1))]
    store.init('w', w)
    store.push('w', grads)
    store.pull('w', w)
    assert w.tolist() == [2, 2, 2] and [g.tolist() for g in grads] == [[1, 1, 1]] * 2
    w[:] = 9
    store.push('w', grads[0])
    store.pull('w', w)
    assert w.tolist() == [1, 1, 1]


def test_bad_input():
    store = KeyValueStore()
    store.init('w', np.ones(3))
    for call, kind, message in (
            (lambda: store.init('w', np.ones(3)), ValueError, "'w' is known"),
            (lambda: store.push('v', np.ones(3)), KeyError, r"'v' must be initialized, known are"),
            (lambda: store.pull('v', np.ones(3)), KeyError, 'must be initialized'),
            (lambda: store.push('w', [np.ones(2)]), ValueError, 'must have the shape and dtype'),
            (lambda: store.pull('w', [np.ones(2)]), ValueError, 'must have the shape and dtype')):
        with pytest.raises(kind, match=message):
            call()
