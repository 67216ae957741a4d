import mxnet as mx
import numpy as onp
from mxnet import np

from d2l.utils import arrays


def test_names_of_methods():
    x = np.array([[1, 5, 2], [4, 3, 6]])
    assert arrays.size(x) == 6
    onp.testing.assert_array_equal(arrays.transpose(x).asnumpy(), x.asnumpy().T)
    assert type(arrays.numpy(x)) is onp.ndarray
    onp.testing.assert_array_equal(arrays.numpy(x), [[1, 5, 2], [4, 3, 6]])
    assert arrays.reshape(x, (3, 2)).shape == arrays.reshape(x, 3, -1).shape == (3, 2)
    assert arrays.to(x, mx.cpu()) is x
    assert arrays.to(x, mx.cpu(1)).ctx == mx.cpu(1)
    assert arrays.reduce_sum(x) == 21
    assert arrays.reduce_sum(x, axis=1, keepdims=True).shape == (2, 1)
    assert arrays.argmax(x) == 5
    assert arrays.argmax(x, axis=1).tolist() == [1, 2]
    assert arrays.astype(x, 'int32').dtype == onp.int32


def test_tensor_is_float32_even_of_integers():
    assert arrays.tensor([1, 2]).dtype == onp.float32
    assert arrays.arange(3).dtype == onp.float32


def test_matmul_is_dot():
    a, b = arrays.ones((2, 3, 4)), arrays.ones((4, 5))
    assert arrays.matmul(a, b).shape == (2, 3, 5)
    assert arrays.matmul is np.dot


def test_functions():
    assert arrays.abs(np.array([-1.0, 2.0])).tolist() == [1, 2]
    assert arrays.concat([arrays.zeros((1, 2)), arrays.ones((2, 2))]).shape == (3, 2)
    assert arrays.stack([arrays.ones(2)] * 3).shape == (3, 2)
    assert arrays.normal(0, 1, (2, 3)).shape == (2, 3)
