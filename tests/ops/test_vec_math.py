"""common/vec_math.h and common/half.h for each instruction set, against NumPy, bit for bit."""
import ctypes

import numpy as onp
import pytest

from d2l.ops import _library

SOURCE = """
#include "common/vec_math.h"
using d2l::half;
extern "C" void run_exp(const float* x, float* y, long n) {
  for (long i = 0; i < n; ++i) y[i] = d2l::fast_exp(x[i]);
}
extern "C" void run_exp_nonpositive(const float* x, float* y, long n) {
  for (long i = 0; i < n; ++i) y[i] = d2l::fast_exp_nonpositive(x[i]);
}
extern "C" void run_exp64(const double* x, double* y, long n) {
  for (long i = 0; i < n; ++i) y[i] = d2l::fast_exp(x[i]);
}
extern "C" void run_load(const half* x, float* y, long n) {
  for (long i = 0; i < n; ++i) y[i] = d2l::load(x[i]);
}
extern "C" void run_store(const float* x, half* y, long n) {
  for (long i = 0; i < n; ++i) y[i] = d2l::store<half>(x[i]);
}
"""


@pytest.fixture(scope='module', params=['v2', 'v3'])
def functions(request, tmp_path_factory, compile_source):
    """name -> function of an array, compiled for one instruction set."""
    if not _library.library().c.d2l_cpu_supports(request.param.encode()):
        pytest.skip('this processor lacks the instruction set ' + request.param)
    compiled = ctypes.CDLL(str(
        compile_source(tmp_path_factory.mktemp('vec_math'), request.param, SOURCE)))

    def call(name, dtype):
        def run(x):
            x = onp.ascontiguousarray(x)
            y = onp.empty(x.shape, dtype)
            getattr(compiled, name)(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data),
                                    ctypes.c_long(x.size))
            return y
        return run
    return {'exp': call('run_exp', 'float32'),
            'exp_nonpositive': call('run_exp_nonpositive', 'float32'),
            'exp64': call('run_exp64', 'float64'),
            'load': call('run_load', 'float32'), 'store': call('run_store', 'float16')}


def test_compiles_for_v4(tmp_path, compile_source):
    compile_source(tmp_path, 'v4', SOURCE, '-fsyntax-only')


def floats_of_all_exponents(step):
    """Every step-th float32 there is, NaN and infinities among them."""
    return onp.arange(0, 2 ** 32, step, dtype='uint32').view('float32')


def neighbours(x, steps=50):
    """Floats around those in x."""
    bits = onp.asarray(x, 'float32').view('int32')[..., None] + onp.arange(-steps, steps + 1)
    return bits.astype('int32').view('float32').ravel()


def exp_arguments():
    limits = [-87.33654, -87.336548, -87.0, 88.722839, 88.72283, 88.0]
    halves = onp.log(2) * (onp.arange(-126, 128) + 0.5)  # where the nearest power of 2 changes
    return onp.concatenate([floats_of_all_exponents(1999), neighbours(limits), neighbours(halves),
                            onp.linspace(-87.3, 88.7, 400001, dtype='float32'),
                            onp.array([0.0, -0.0, onp.inf, -onp.inf, onp.nan], 'float32')])


def test_exp_within_one_ulp(functions):
    x = exp_arguments()
    y = functions['exp'](x)
    with onp.errstate(over='ignore', invalid='ignore'):
        exact = onp.exp(x.astype('float64'))
        normal = (exact >= onp.finfo('float32').tiny) & (exact <= onp.finfo('float32').max)
        ulps = onp.abs(y[normal] - exact[normal]) / onp.spacing(exact[normal].astype('float32'))
    # A neighbourhood of two floats at the ends may round to 0 or infinity already.
    inside = (x[normal] >= onp.float32(-87.33654)) & (x[normal] <= onp.float32(88.72283))
    assert inside.sum() > 400000 and ulps[inside].max() <= 1


def test_exp_beyond_its_range(functions):
    x = exp_arguments()
    y = functions['exp'](x)
    assert (y[x < -87.3366] == 0).all() and (x < -87.3366).sum() > 1000
    assert (y[x > 88.7229] == onp.inf).all() and (x > 88.7229).sum() > 1000
    assert onp.isnan(y[onp.isnan(x)]).all() and onp.isnan(x).sum() > 1000
    assert not onp.isnan(y[~onp.isnan(x)]).any()
    assert (y[~onp.isnan(x)] >= 0).all() and y[x == 0].tolist() == [1.0] * (x == 0).sum()


def test_exp_does_not_depend_on_the_place_in_a_vector(functions):
    x = onp.random.RandomState(0).uniform(-90, 90, 200).astype('float32')
    y = functions['exp'](x)
    for n in list(range(1, 70)) + [130]:
        assert onp.array_equal(functions['exp'](x[n:]), y[n:])
        assert onp.array_equal(functions['exp'](x[:n]), y[:n])


def test_exp_of_what_is_not_positive(functions):
    """As good as the exp of all arguments, though ties of its first rounding go another way."""
    x = exp_arguments()
    x = x[~(x > 0)]
    y, other = functions['exp_nonpositive'](x), functions['exp'](x)
    inside = x >= onp.float32(-87.33654)
    exact = onp.exp(x[inside].astype('float64'))
    ulps = onp.abs(y[inside] - exact) / onp.spacing(exact.astype('float32'))
    assert inside.sum() > 200000 and ulps.max() <= 1
    assert onp.array_equal(y[~inside], other[~inside], equal_nan=True)
    assert onp.isnan(y[~inside]).any() and (y[~inside] == 0).any()


def test_exp_of_doubles(functions):
    x = onp.concatenate([onp.linspace(-745, 709, 10001), [onp.inf, -onp.inf, onp.nan, 710, -750]])
    with onp.errstate(over='ignore'):
        onp.testing.assert_allclose(functions['exp64'](x), onp.exp(x), rtol=1e-15, atol=1e-323)


ALL_HALVES = onp.arange(2 ** 16, dtype='uint32').astype('uint16').view('float16')


def assert_same_bits(got, want):
    nan = onp.isnan(want)
    assert onp.isnan(got[nan]).all()
    bits = 'uint{}'.format(8 * got.dtype.itemsize)
    assert onp.array_equal(got[~nan].view(bits), want[~nan].view(bits))  # -0 is not 0 here


def test_every_half_is_loaded(functions):
    assert_same_bits(functions['load'](ALL_HALVES), ALL_HALVES.astype('float32'))


def test_every_half_is_stored_back(functions):
    assert_same_bits(functions['store'](ALL_HALVES.astype('float32')), ALL_HALVES)
    nan = functions['store'](ALL_HALVES[onp.isnan(ALL_HALVES)].astype('float32'))
    assert onp.isnan(nan).all()


def test_rounding_to_half(functions):
    finite = onp.sort(ALL_HALVES[onp.isfinite(ALL_HALVES)].astype('float32'))
    ties = (finite[1:] + finite[:-1]) / 2  # exact in float32, those of subnormals too
    edges = onp.array([65504, 65519.996, 65520, 65536, 1e38, onp.inf, onp.nan, 0, 2.0 ** -24,
                       2.0 ** -25, 2.0 ** -26, 2.0 ** -14, 1e-40], 'float32')
    x = onp.concatenate([neighbours(ties[ties != 0], 2), edges, -edges, neighbours(edges[:6], 20),
                         floats_of_all_exponents(997)])
    with onp.errstate(over='ignore'):
        assert_same_bits(functions['store'](x), x.astype('float16'))
