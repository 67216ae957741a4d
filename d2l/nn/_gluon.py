"""What Gluon does in every call of a block, without the time that it need not take."""
from mxnet import gluon, np, sym
from mxnet.ndarray import NDArray

_ARRAYS, _NUMPY = (NDArray, sym.Symbol), (np.ndarray, sym.np._Symbol)


def _check_all_np_ndarrays(out):
    """Raise TypeError unless the arrays and symbols in out are NumPy's, as Gluon's own does.

    That one imports four modules for each array, which takes as long as a small operator.
    """
    if isinstance(out, _NUMPY):
        return
    if isinstance(out, _ARRAYS):
        raise TypeError("Block's output ndarrays/symbols must be of type `mxnet.numpy.ndarray`"
                        f" or `mxnet.symbol.numpy._Symbol`, while got output type {type(out)}")
    if isinstance(out, (list, tuple)):
        for item in out:
            _check_all_np_ndarrays(item)


def install():
    """Let Gluon's blocks call ours."""
    gluon.block._check_all_np_ndarrays = gluon.utils._check_all_np_ndarrays = _check_all_np_ndarrays
