"""MXNet's matrix products by scipy-openblas32 (d2l) and by its own OpenBLAS (mxnet), and PyTorch's.

Both of MXNet's run in one process and alternate.  Its own OpenBLAS has the kernels that d2l has
chosen for it, not the slower ones it may take by itself.  The machine's limit is measured first:
multiplications with additions in registers.
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

PEAK = r'''
#include <chrono>
#include <cstdio>
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
int main() {
  const long n = 100000;
  double best = 0, threads = omp_get_max_threads();
  volatile float sink;
  for (int i = 0; i < 60; ++i) {
    const auto start = std::chrono::steady_clock::now();
#pragma omp parallel
    sink = work(n);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    const double gflops = threads * 2 * kSums * kLanes * n / taken.count() / 1e9;
    if (gflops > best) best = gflops;
  }
  printf("%.0f", best);
}
'''


def peak():
    """GFLOP/s of the usable threads in float32; None without a compiler."""
    if shutil.which('g++') is None:
        return None
    with open('/proc/cpuinfo') as file:
        wide = 'avx512f' in file.read()
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, 'peak')
        subprocess.run(['g++', '-O3', '-march=native', '-mprefer-vector-width=512', '-fopenmp',
                        '-Wno-psabi', '-DBYTES={}'.format(64 if wide else 32), '-xc++', '-', '-o',
                        program], input=PEAK, text=True, check=True)
        return float(subprocess.check_output([program], text=True))


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


def cases():
    found = _blas.redirect(mx.base._LIB)
    if found['products'] == 'bundled':
        raise RuntimeError('nothing to compare: {}'.format(found['why_bundled']))
    print('peak {} GFLOP/s'.format(peak()))
    own, handle = _blas._open_own(), ctypes.c_void_p(mx.base._LIB._handle)
    for name, operator, plain, arrays, flops in products():
        inputs = [np.array(x) for x in arrays]
        modern, bundled = switched(own, handle, lambda f=operator, x=inputs: f(*x))
        providers = {'d2l': modern, 'mxnet': bundled}
        if torch is not None:
            tensors = [torch.tensor(x) for x in arrays]
            providers['torch'] = lambda f=plain, x=tensors: [f(*x)]
        truth = plain(*(x.astype('float64') for x in arrays))

        def check(results, truth=truth):
            for provider, (got,) in results.items():
                got = got.numpy() if provider == 'torch' else got.asnumpy()
                assert onp.abs(got - truth).max() <= 2e-5 * onp.abs(truth).max(), provider
        yield Case(name, providers, check, flops=flops)
