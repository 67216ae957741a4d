"""The micro-kernel of common/gemm.h in the first cache against the limit of the same instructions.

A program made of the header, with the flags of setup.py, multiplies the same small matrices again
and again, as the operators do with their blocks.  peak does as many multiplications with additions
in registers, compiled alike; it is no product.  Times are those of REPEATS products, for v3 and v4,
whichever the processor has; x ours of peak is the share of the limit that is reached.
"""
import ctypes
import importlib.util
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as onp

from benchmarks.compat.blas import PEAK
from benchmarks.run import Case
from d2l.ops import _library

ROOT = Path(__file__).resolve().parents[2]
REPEATS = 100
# rows, depth, cols, A transposed, B packed: what attention and batch_dot ask for, and rests of
# tiles and of panels
SHAPES = [(64, 64, 64, False, True), (64, 128, 64, False, False), (64, 64, 128, True, False),
          (96, 96, 96, False, False), (61, 100, 48, False, True), (13, 64, 80, True, False)]

SOURCE = r'''
#include "common/gemm.h"
#define BYTES d2l::kVectorBytes
''' + PEAK + r'''
extern "C" void products(long repeats, long rows, long depth, long cols, int transposed, int packed,
                         const float* a, const float* b, float* c) {
  using namespace d2l;
  const Panels<float> panels = packed ? packed_panels(b, depth) : panels_of_rows(b, cols);
  for (long i = 0; i < repeats; ++i) {
    if (transposed) {
      gemm<true>(rows, cols, depth, 1.0f, a, rows, panels, c, cols, false);
    } else {
      gemm<false>(rows, cols, depth, 1.0f, a, depth, panels, c, cols, false);
    }
    asm volatile("" ::: "memory");  // each product is to be made
  }
}
extern "C" int panel() { return d2l::kPanel<float>; }
'''


def compiled(target):
    """The program for an instruction set."""
    spec = importlib.util.spec_from_file_location('d2l_setup', str(ROOT / 'setup.py'))
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + '/gemm.so'
        command = ['g++'] + shlex.split(setup.FLAGS + ' ' + setup.TARGETS[target]) + [
            '-Wno-psabi', '-DD2L_ISA=' + target, '-I', str(setup.SOURCES), '-shared', '-xc++', '-',
            '-o', path]
        subprocess.run(command, input=SOURCE, text=True, check=True)
        library = ctypes.CDLL(path)
    library.peak.argtypes, library.peak.restype = [ctypes.c_double], ctypes.c_float
    return library


def aligned(array):
    """A copy that begins with a cache line, as the operators' buffers do."""
    memory = onp.empty(array.nbytes + 64, 'uint8')
    start = -memory.ctypes.data % 64
    copy = memory[start:start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def packed_panels(b, panel):
    """b (depth, cols) as panels of columns, one after the other, the last padded with zeros."""
    padded = onp.pad(b, ((0, 0), (0, -b.shape[1] % panel)))
    return padded.reshape(len(b), -1, panel).swapaxes(0, 1)


def provider(library, a, b, c, transposed, packed):
    right = aligned(packed_panels(b, library.panel())) if packed else b
    sizes = [ctypes.c_long(n) for n in (REPEATS, len(c), *b.shape)]
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, right, c)]

    def products(keep=(a, right)):
        library.products(*sizes, transposed, packed, *pointers)
        return c
    return products


def cases():
    rng = onp.random.RandomState(0)
    for target in ('v3', 'v4'):
        if not _library.library().c.d2l_cpu_supports(target.encode()):
            continue
        library = compiled(target)
        for rows, depth, cols, transposed, packed in SHAPES:
            a, b, c = (aligned(rng.standard_normal(s).astype('float32')) for s in (
                (depth, rows) if transposed else (rows, depth), (depth, cols), (rows, cols)))
            truth = (a.T if transposed else a).astype('float64') @ b.astype('float64')
            flops = 2 * rows * depth * cols * REPEATS

            def check(results, truth=truth):
                assert onp.abs(results['d2l'] - truth).max() <= 1e-5 * onp.abs(truth).max()

            name = '{} {}x{}x{}{}{}'.format(target, rows, depth, cols, ' transposed' * transposed,
                                            ' packed' * packed)
            yield Case(name, {'d2l': provider(library, a, b, c, transposed, packed),
                              'peak': lambda n=flops, f=library.peak: f(n)}, check, flops=flops)
