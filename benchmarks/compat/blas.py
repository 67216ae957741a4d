"""MXNet's matrix products by scipy-openblas32 (d2l) and by its own OpenBLAS (mxnet), and PyTorch's.

Both of MXNet's run in one process and alternate.  Its own OpenBLAS has the kernels that d2l has
chosen for it, not the slower ones it may take by itself.  peak is the machine's limit, as many
operations by multiplications with additions in registers.
"""
import ctypes
import math
import os
import shutil
import subprocess
import tempfile

import mxnet as mx
import numpy as onp
from mxnet import np, npx

from benchmarks.run import Case
from d2l import _blas

try:
    import torch
except ImportError:
    torch = None

# Of np.dot, and with a batch in front of npx.batch_dot: batch, m, k, n.
SHAPES = [(2048, 2048, 2048), (1024, 1024, 1024), (512, 512, 512), (64, 64, 64), (4, 4, 4),
          (32, 256, 1024), (256, 4096, 1), (1, 1024, 1024), (64, 128, 64, 128), (512, 10, 32, 10)]
LIMITED = ['dot 2048x2048x2048', 'dot 1024x1024x1024']  # the limit is measured beside them

# The machine's limit: so many operations in registers, shared by the usable threads.
PEAK = r'''
#include <omp.h>
typedef float Vector __attribute__((vector_size(BYTES)));
const int kLanes = BYTES / 4, kSums = BYTES == 64 ? 24 : 12;
__attribute__((noinline)) float work(long n) {
  Vector x = Vector{} + 0.999f, y = Vector{} + 1e-3f, sums[kSums];
  for (int j = 0; j < kSums; ++j) sums[j] = x;
  for (long i = 0; i < n; ++i)
#pragma GCC unroll 24
    for (int j = 0; j < kSums; ++j) sums[j] = sums[j] * x + y;
  for (int j = 1; j < kSums; ++j) sums[0] += sums[j];
  return sums[0][0];
}
extern "C" float peak(double flops) {
  float total = 0;
#pragma omp parallel reduction(+ : total)
  total += work(long(flops / (2.0 * kSums * kLanes * omp_get_num_threads())));
  return total;
}
'''


def peak():
    """A function that does a number of float32 operations in registers; None without a compiler."""
    if shutil.which('g++') is None:
        return None
    with open('/proc/cpuinfo') as file:
        wide = 'avx512f' in file.read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'peak.so')
        subprocess.run(['g++', '-O3', '-march=native', '-mprefer-vector-width=512', '-fopenmp',
                        '-Wno-psabi', '-DBYTES={}'.format(64 if wide else 32), '-fPIC', '-shared',
                        '-xc++', '-', '-o', path], input=PEAK, text=True, check=True)
        function = ctypes.CDLL(path).peak
    function.argtypes, function.restype = [ctypes.c_double], ctypes.c_float
    return function


def switched(own, handle, operator):
    """The operator with its products redirected, and with MXNet's own."""
    def modern():
        own.d2l_blas_bind(handle)
        return [operator()]

    def bundled():
        own.d2l_blas_unbind()
        return [operator()]
    return modern, bundled


def products():
    """(name, function of MXNet's arrays, function of NumPy's and PyTorch's, arrays, flops)."""
    rng = onp.random.RandomState(0)

    def random(*shape):
        return rng.standard_normal(shape).astype('float32')

    def matmul(a, b):
        return a @ b
    for shape in SHAPES:
        m, k, n = shape[-3:]
        batch = shape[:-3]
        yield ('{}dot {}'.format('batch_' if batch else '', 'x'.join(map(str, shape))),
               npx.batch_dot if batch else np.dot, matmul,
               (random(*batch, m, k), random(*batch, k, n)), 2 * math.prod(shape))
    a = random(512, 512)
    yield ('syrk 512', lambda x: mx.nd.linalg.syrk(x.as_nd_ndarray()), lambda x: x @ x.T, (a,),
           512 ** 3)
    yield ('trmm 512', lambda x, y: mx.nd.linalg.trmm(x.as_nd_ndarray(), y.as_nd_ndarray()), matmul,
           (onp.tril(a), random(512, 512)), 512 ** 3)


def bare_cases():
    """MXNet's products as they are, in a process that d2l has not prepared."""
    for name, operator, _, arrays, flops in products():
        inputs = [np.array(x) for x in arrays]
        yield Case(name, {'mxnet': lambda f=operator, x=inputs: [f(*x)]}, lambda _: (), flops=flops)


def cases():
    # benchmarks/run.py --bare: a redirection here would leave its mark on what it measures.
    if os.environ.get('D2L_COMPAT') == '0':
        yield from bare_cases()
        return
    found = _blas.redirect(mx.base._LIB)
    if found['products'] == 'bundled':
        raise RuntimeError('nothing to compare: {}'.format(found['why_bundled']))
    own, handle = _blas._open_own(), ctypes.c_void_p(mx.base._LIB._handle)
    limit = peak()
    for name, operator, plain, arrays, flops in products():
        inputs = [np.array(x) for x in arrays]
        modern, bundled = switched(own, handle, lambda f=operator, x=inputs: f(*x))
        providers = {'d2l': modern, 'mxnet': bundled}
        if torch is not None:
            tensors = [torch.tensor(x) for x in arrays]
            providers['torch'] = lambda f=plain, x=tensors: [f(*x)]
        if limit and name in LIMITED:
            providers['peak'] = lambda f=limit, n=flops: [onp.float32(f(n))]
        truth = plain(*(x.astype('float64') for x in arrays))

        def check(results, truth=truth):
            for provider, (got,) in results.items():
                if provider == 'peak':  # no product
                    continue
                got = got.numpy() if provider == 'torch' else got.asnumpy()
                assert onp.abs(got - truth).max() <= 2e-5 * onp.abs(truth).max(), provider
        yield Case(name, providers, check, flops=flops)
