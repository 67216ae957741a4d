"""common/gemm.h for each instruction set: products of every remainder, packing, stores."""
import ctypes
import itertools

import numpy as onp
import pytest

from d2l.ops import _library

SOURCE = """
#include "common/gemm.h"
using namespace d2l;
template <class T, class A = Acc<T>>
void product(long rows, long cols, long depth, double alpha, const T* a, const T* b, long ldb,
             bool a_transposed, bool b_transposed, bool add, A* packed, A* c, T* out) {
  // a and c are in A's type already; b is packed, or copied and read by rows.
  const long padded = padded_to_vector<A>(cols);
  Panels<A> panels = panels_of_rows<A>(packed, padded);
  if (b_transposed) {
    pack_transposed(b, ldb, cols, depth, packed);
    panels = packed_panels<A>(packed, depth);
  } else {
    copy_rows(b, ldb, depth, cols, packed, padded);
  }
  A* left = packed + packed_size<A>(cols, depth);
  copy_rows(a, a_transposed ? rows : depth, a_transposed ? depth : rows,
            a_transposed ? rows : depth, left, a_transposed ? rows : depth);
  if (a_transposed) {
    gemm<true, A>(rows, padded, depth, A(alpha), left, rows, panels, c, padded, add);
  } else {
    gemm<false, A>(rows, padded, depth, A(alpha), left, depth, panels, c, padded, add);
  }
  store_rows(c, padded, rows, cols, out, cols);
}
#define D2L_PRODUCT(T, name)                                                                  \\
  extern "C" void name(long m, long n, long k, double alpha, const T* a, const T* b, long ldb, \\
                       bool at, bool bt, bool add, void* packed, void* c, T* out) {            \\
    product<T>(m, n, k, alpha, a, b, ldb, at, bt, add, static_cast<Acc<T>*>(packed),           \\
               static_cast<Acc<T>*>(c), out);                                                  \\
  }
D2L_PRODUCT(float, product_float32)
D2L_PRODUCT(double, product_float64)
D2L_PRODUCT(d2l::half, product_float16)
extern "C" long vector_bytes() { return kVectorBytes; }
"""


@pytest.fixture(scope='module', params=['v2', 'v3', 'v4'])
def compiled(request, tmp_path_factory, compile_source):
    if not _library.library().c.d2l_cpu_supports(request.param.encode()):
        pytest.skip('this processor lacks the instruction set ' + request.param)
    return ctypes.CDLL(str(
        compile_source(tmp_path_factory.mktemp('gemm'), request.param, SOURCE)))


def address(array):
    return ctypes.c_void_p(array.ctypes.data)


def product(compiled, a, b, a_transposed, b_transposed, alpha=1.0, before=None):
    """alpha * op(a) op(b), added to before if that is there; b may be a view with a longer stride.

    Also returns all of c, padded columns included.
    """
    dtype = a.dtype
    acc = onp.dtype('float32') if dtype == 'float16' else dtype
    rows, depth = a.shape[::-1] if a_transposed else a.shape
    cols = b.shape[0] if b_transposed else b.shape[1]
    lanes = compiled.vector_bytes() // acc.itemsize
    padded = -(-cols // lanes) * lanes
    c = onp.full((rows, padded), onp.nan, acc)
    if before is not None:
        c[:, :cols], c[:, cols:] = before, 0
    # Full of NaN: what is not written shows.
    packed = onp.full((cols + 2 * lanes) * depth + rows * depth + 64, onp.nan, acc)
    out = onp.full((rows, cols), onp.nan, dtype)
    getattr(compiled, 'product_' + dtype.name)(
        ctypes.c_long(rows), ctypes.c_long(cols), ctypes.c_long(depth), ctypes.c_double(alpha),
        address(onp.ascontiguousarray(a)), address(b), ctypes.c_long(b.strides[0] // b.itemsize),
        a_transposed, b_transposed, before is not None, address(packed), address(c), address(out))
    return out, c


SIZES = list(itertools.product([1, 2, 3, 5, 7, 8, 13], [1, 4, 15, 16, 17, 33, 70], [1, 8, 19]))


@pytest.mark.parametrize('dtype', ['float32', 'float64', 'float16'])
@pytest.mark.parametrize('a_transposed', [False, True])
@pytest.mark.parametrize('b_transposed', [False, True])
def test_every_remainder(compiled, dtype, a_transposed, b_transposed):
    rng = onp.random.RandomState(0)
    for rows, cols, depth in SIZES:
        # Small integers: every order of summation is exact, in float16 as well.
        a = rng.randint(-3, 4, (rows, depth)).astype(dtype)
        b = rng.randint(-3, 4, (depth, cols)).astype(dtype)
        before = rng.randint(-9, 10, (rows, cols)).astype(dtype)
        wide = onp.full((b.T if b_transposed else b).shape + onp.array([0, 3]), 7, dtype)
        wide[:, :-3] = b.T if b_transposed else b
        left, right = onp.ascontiguousarray(a.T if a_transposed else a), wide[:, :-3]
        exact = a.astype('float64') @ b.astype('float64')
        out, c = product(compiled, left, right, a_transposed, b_transposed)
        assert onp.array_equal(out, exact), (rows, cols, depth)
        assert (c[:, cols:] == 0).all()
        out, _ = product(compiled, left, right, a_transposed, b_transposed, 0.5, before)
        assert onp.array_equal(out, (before + exact / 2).astype(dtype)), (rows, cols, depth)


def test_without_depth_it_is_zero(compiled):
    a, b = onp.zeros((3, 0), 'float32'), onp.zeros((5, 0), 'float32')
    assert (product(compiled, a, b, False, True)[0] == 0).all()


def test_a_row_does_not_depend_on_the_others(compiled):
    rng = onp.random.RandomState(0)
    a, b = rng.standard_normal((31, 40)), rng.standard_normal((40, 50))
    for dtype in ('float32', 'float64'):
        x, y = a.astype(dtype), b.astype(dtype)
        whole, _ = product(compiled, x, y, False, False)
        for i in range(31):
            assert onp.array_equal(product(compiled, x[i:i + 1], y, False, False)[0][0], whole[i])
        assert onp.abs(whole - a @ b).max() < 100 * onp.finfo(dtype).eps
