"""What replaces Gluon's check of a block's outputs lets through and refuses the same."""
import mxnet as mx
import pytest
from mxnet import gluon, np

from d2l.nn import _gluon


class Returns(gluon.Block):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, X):
        return self.make(X)


def test_blocks_call_ours():
    assert gluon.block._check_all_np_ndarrays is _gluon._check_all_np_ndarrays
    assert gluon.utils._check_all_np_ndarrays is _gluon._check_all_np_ndarrays


@pytest.mark.parametrize('make', [
    lambda X: X, lambda X: [X, (X, [X])], lambda X: None, lambda X: 'text', lambda X: {'a': 1},
    lambda X: mx.sym.var('x').as_np_ndarray(), lambda X: [mx.sym.var('x').as_np_ndarray(), X]])
def test_numpy_arrays_and_symbols_pass(make):
    Returns(make)(np.ones(2))


@pytest.mark.parametrize('make, kind', [
    (lambda X: X.as_nd_ndarray(), 'NDArray'), (lambda X: [X, (X.as_nd_ndarray(),)], 'NDArray'),
    (lambda X: mx.sym.var('x'), 'Symbol'),
    (lambda X: X.as_nd_ndarray().tostype('row_sparse'), 'RowSparseNDArray')])
def test_legacy_ones_do_not(make, kind):
    with pytest.raises(TypeError, match=r"Block's output ndarrays/symbols must be .*" + kind):
        Returns(make)(np.ones((2, 2)))
