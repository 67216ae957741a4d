"""common/stream.h for each instruction set, and the operators whose large results go by it."""
import ctypes

import numpy as onp
import pytest
from mxnet import autograd, np

from d2l import ops

SOURCE = """
#include "common/stream.h"
using namespace d2l;
template <class T>
void twice(const T* from, long cols, T* to) {
  store_row(cols, to, true, [=](int64_t c) { return 2 * load(from[c]); });
  finish_streams();
}
extern "C" void twice_float32(const float* from, long cols, float* to) { twice(from, cols, to); }
extern "C" void twice_float64(const double* from, long cols, double* to) { twice(from, cols, to); }
extern "C" void twice_float16(const half* from, long cols, half* to) { twice(from, cols, to); }
extern "C" int worth(long count) { return worth_streaming<float>(count); }
"""


@pytest.mark.parametrize('target', ['v2', 'v3', 'v4'])
def test_rows_of_any_length_at_any_address(target, runs_target, compile_source, tmp_path):
    runs_target(target)
    library = ctypes.CDLL(str(compile_source(tmp_path, target, SOURCE)))
    for dtype in ('float16', 'float32', 'float64'):
        for cols in (0, 1, 7, 8, 15, 16, 31, 32, 64, 65, 96):
            for start in (0, 1, 8, 16):
                memory = onp.full(256, 7, dtype)
                first = -memory.ctypes.data % 64 // memory.itemsize + start
                row = memory[first:first + cols]
                values = onp.arange(1, cols + 1).astype(dtype)
                getattr(library, 'twice_' + dtype)(
                    ctypes.c_void_p(values.ctypes.data), ctypes.c_long(cols),
                    ctypes.c_void_p(row.ctypes.data))
                assert onp.array_equal(row, 2 * values)
                assert (memory[:first] == 7).all() and (memory[first + cols:] == 7).all()
    assert not library.worth(ctypes.c_long(1 << 20))
    assert library.worth(ctypes.c_long((1 << 20) + 1))


def run(op, arrays, dy):
    """The result and the gradients, as numpy arrays."""
    arrays = [np.array(a) for a in arrays]
    for a in arrays:
        a.attach_grad()
    with autograd.record():
        y = op(*arrays)
    y.backward(np.array(dy))
    return [y.asnumpy()] + [a.grad.asnumpy() for a in arrays]


# The operator, the shape of its large arrays and of its result, and the shapes of others.
LARGE = [(ops.layer_norm, 1, (2200, 513), [(513,)] * 2),
         (ops.layer_norm, 1, (2200, 512), [(512,)] * 2),
         (ops.add_norm, 2, (2200, 512), [(512,)] * 2),
         (lambda *qkv: ops.attention(*qkv, num_heads=4), 3, (40, 128, 256), [])]


@pytest.mark.parametrize('op, count, shape, others', LARGE,
                         ids=['layer_norm 513', 'layer_norm', 'add_norm', 'attention'])
def test_large_results_are_those_of_small_ones(op, count, shape, others):
    """Whose rows, or examples, they are; these are left in the caches."""
    assert onp.prod(shape) > 1 << 20
    rng = onp.random.RandomState(0)
    *arrays, dy = rng.standard_normal((count + 1, *shape)).astype('float32')
    others = [rng.standard_normal(s).astype('float32') for s in others]
    whole = run(op, arrays + others, dy)
    half = shape[0] // 2
    for part in (slice(0, half), slice(half, None)):
        small = run(op, [a[part] for a in arrays] + others, dy[part])
        for got, want in zip(whole[:count + 1], small):
            assert onp.array_equal(got[part], want)
