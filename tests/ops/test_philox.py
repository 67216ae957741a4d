"""common/philox.h and dropout.h for each instruction set: NumPy's results and known answers."""
import ctypes
import importlib.util
import shlex
import subprocess
from pathlib import Path

import numpy as onp
import pytest

from tests import philox

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
#include "common/dropout.h"
using namespace d2l;
extern "C" void run_philox(const uint32_t* key, uint32_t* counter) {
  philox({{key[0], key[1]}}, counter);
}
extern "C" void run_word(const float* state, uint64_t row, uint32_t cols, uint32_t* words) {
  for (uint32_t i = 0; i < cols; ++i) words[i] = random_word(seed_of(state), row, i);
}
extern "C" void run_block(const float* state, uint64_t row, uint32_t blocks, uint32_t* words) {
  for (uint32_t b = 0; b < blocks; ++b) {
    random_block(seed_of(state), row, b, words + kRandomBlock * b);
  }
}
extern "C" void run_factor(const float* state, double p, uint64_t row, uint32_t cols, double* f) {
  const Dropout dropout = dropout_of(state, p);
  for (uint32_t i = 0; i < cols; ++i) f[i] = dropout_factor<double>(dropout, row, i);
}
extern "C" void run_factors(const float* state, double p, uint64_t row, uint32_t cols, float* f) {
  for_each_factor<float>(dropout_of(state, p), row, cols, [=](int64_t i, float a) { f[i] = a; });
}
"""
SEED = philox.new_seed(0)
# Of Random123, the authors' own code: counter, key, words after 7 rounds.
KNOWN = [
    ([0] * 4, [0] * 2, '5f6fb709 0d893f64 4f121f81 4f730a48'),
    ([0xffffffff] * 4, [0xffffffff] * 2, '5207ddc2 45165e59 4d8ee751 8c52f662'),
    ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0],
     '4dfccaba 190a87f0 c47362ba b6b5242a')]


@pytest.fixture(scope='module', params=['v2', 'v3', 'v4'])
def compiled(request, tmp_path_factory):
    """The functions of SOURCE, compiled as setup.py would for one instruction set."""
    from d2l.ops import _library
    if not _library.library().c.d2l_cpu_supports(request.param.encode()):
        pytest.skip('this processor lacks the instruction set ' + request.param)
    spec = importlib.util.spec_from_file_location('setup_of_philox', str(ROOT / 'setup.py'))
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    folder = tmp_path_factory.mktemp('philox')
    build = setup.Build(folder, folder / 'unused')
    source, out = folder / 'philox.cc', folder / 'philox.so'
    source.write_text(SOURCE)
    common = [str(setup.SOURCES / 'common' / name) for name in ('registry.cc', 'error.cc')]
    subprocess.run(build.cxx + build.flags + shlex.split(setup.TARGETS[request.param]) + [
        '-DD2L_ISA=' + request.param, '-I', str(setup.SOURCES), '-shared', str(source), *common,
        '-o', str(out)], check=True)
    return ctypes.CDLL(str(out))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def call(function, seed, row, count, dtype, *p):
    out = onp.zeros(count, dtype)
    blocks = count // philox.BLOCK if 'block' in function.__name__ else count
    function(pointer(seed), *map(ctypes.c_double, p), ctypes.c_uint64(row),
             ctypes.c_uint32(blocks), pointer(out))
    return out


@pytest.mark.parametrize('counter, key, words', KNOWN)
def test_known_answers(compiled, counter, key, words):
    got = onp.array(counter, 'uint32')
    compiled.run_philox(pointer(onp.array(key, 'uint32')), pointer(got))
    assert ' '.join('%08x' % word for word in got) == words
    assert ' '.join('%08x' % word for word in philox.philox(counter, key)) == words


@pytest.mark.parametrize('row', [0, 1, 77, 2 ** 32 + 5])
def test_words(compiled, row):
    want = philox.words(SEED, row, onp.arange(320))
    assert onp.array_equal(call(compiled.run_word, SEED, row, 320, 'uint32'), want)
    assert onp.array_equal(call(compiled.run_block, SEED, row, 320, 'uint32'), want)
    assert len(set(want)) > 310


@pytest.mark.parametrize('p', [0.5, 0.1, 1 / 3, 0.999, 1e-9])
@pytest.mark.parametrize('cols', [1, 127, 128, 129, 1000])
def test_factors(compiled, p, cols):
    for row in (0, 3):
        want = philox.kept(SEED, row, onp.arange(cols), p) / (1 - p)
        assert onp.array_equal(call(compiled.run_factor, SEED, row, cols, 'float64', p), want)
        got = call(compiled.run_factors, SEED, row, cols, 'float32', p)
        assert onp.array_equal(got, want.astype('float32'))


def test_lower_halves_decide_where_upper_ones_do_not(compiled):
    """A rate whose border is met by many upper halves: those of one place."""
    upper = int(philox.words(SEED, 0, 5)) & 0xffff  # column 5 has the lower half of word 5
    lower = int(philox.words(SEED, 0, 5 | 0x80000000)) & 0xffff
    number = upper << 16 | lower
    for keep, kept in ((number, False), (number + 1, True)):
        p = 1 - keep / 2 ** 32
        assert int((1 - p) * 2 ** 32) == keep
        for function, dtype in ((compiled.run_factor, 'float64'),
                                (compiled.run_factors, 'float32')):
            for cols in (6, 128):
                assert (call(function, SEED, 0, cols, dtype, p)[5] > 0) == kept
        assert philox.kept(SEED, 0, 5, p) == kept


def test_predict_mode_and_rate_zero_keep_all(compiled):
    for seed, p in ((onp.ones(64, 'float32'), 0.5), (SEED, 0.0)):
        assert (call(compiled.run_factor, seed, 0, 200, 'float64', p) == 1).all()
