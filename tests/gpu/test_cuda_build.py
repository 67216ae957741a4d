"""The library with CUDA twins: builds with nvcc, holds what it should, and loads without a GPU."""
import contextlib
import ctypes
import io
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import emulated  # noqa: E402
from driver import Call, Guarded, KernelError, Library  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (os.environ.get('NVCC') or shutil.which('nvcc')),
                       reason='nvcc is not here, so the CUDA library cannot be built')]

ARCHS = ['75', '90']


# Whose kernels must keep everything in registers.
TUNED = re.compile(r'\d(layer_norm|masked_softmax)_(forward|backward)_(rows|long)')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """(library, what the compilers said); one instruction set and two architectures, for speed."""
    setup = emulated.load_setup()
    setup.TARGETS = {'v2': setup.TARGETS['v2']}
    folder = tmp_path_factory.mktemp('cuda')
    before = dict(os.environ)
    os.environ.update(D2L_CUDA_ARCH_LIST=';'.join(ARCHS), NVCC_APPEND_FLAGS='-Xptxas -v')
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            setup.Build(folder, folder / 'libd2l_ops.so', cuda=True).run()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return folder / 'libd2l_ops.so', said.getvalue()


def fat_binary_entries(path):
    """('ptx' or 'elf', architecture) of each image in a library's fat binaries."""
    data, entries, at = path.read_bytes(), set(), -1
    while True:
        at = data.find(struct.pack('<I', 0xba55ed50), at + 1)
        if at < 0:
            return entries
        _, version, header, size = struct.unpack_from('<IHHQ', data, at)
        if version != 1 or header != 16 or at + header + size > len(data):
            continue
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from('<HHIQ', data, entry)
            arch, = struct.unpack_from('<I', data, entry + 28)
            entries.add(({1: 'ptx', 2: 'elf'}[kind], str(arch)))
            entry += entry_header + entry_size


def test_archs_and_ptx(built):
    entries = fat_binary_entries(built[0])
    assert entries == {('elf', a) for a in ARCHS} | {('ptx', ARCHS[-1])}


def test_build_is_quiet(built):
    assert 'warning' not in built[1]


def resources(text):
    """(kernel, architecture) -> stack bytes, spilled bytes, registers, from ptxas -v."""
    found = {}
    pattern = (r"entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, "
               r'(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers')
    for name, arch, stack, stores, loads, registers in re.findall(pattern, text, re.DOTALL):
        found[name, arch] = int(stack), int(stores) + int(loads), int(registers)
    return found


def test_no_kernel_uses_local_memory(built):
    kernels = resources(built[1])
    assert {arch for _, arch in kernels} == set(ARCHS)
    for op in ('layer_norm', 'masked_softmax', 'masked_softmax_ce'):
        by_row = re.compile(r'\d{}_(forward|backward)_rows'.format(op))
        found = [name for name, _ in kernels if by_row.search(name)]
        assert sum('SumRows' not in name for name in found) == 2 * 2 * 20, op
    assert sum('SumRows' in name and '_rows' in name for name, _ in kernels) == 2 * 2 * 20
    # The kernels of the other operators compute right, but have not been tuned on a GPU yet.
    tuned = {k: v for k, v in kernels.items() if TUNED.search(k[0]) and 'SumRows' not in k[0]}
    assert {k: v for k, v in tuned.items() if v[:2] != (0, 0)} == {}
    assert max(v[2] for v in tuned.values()) <= 128


def test_library_has_no_need_of_a_cuda_installation(built):
    needed = subprocess.check_output(['readelf', '-d', str(built[0])], text=True)
    assert 'cuda' not in needed
    exported = subprocess.check_output(['nm', '-D', '--defined-only', str(built[0])], text=True)
    assert not re.search(r' \w cuda', exported), 'the runtime inside would take MXNet\'s place'


@pytest.mark.parametrize('name, inputs', [
    ('layer_norm', [np.ones((2, 8), 'float32'), np.ones(8, 'float32'), np.ones(8, 'float32')]),
    ('masked_softmax', [np.ones((2, 8), 'float16'), np.ones(2, 'int32')]),
    ('masked_softmax_ce', [np.ones((2, 3, 8), 'float32'), np.ones((2, 3)), np.ones(2)]),
    ('embedding', [np.ones((5, 8), 'float32'), np.ones((2, 3)), None, None, None])])
def test_call_without_a_driver_is_an_error(built, name, inputs):
    with contextlib.suppress(OSError):
        ctypes.CDLL('libcuda.so.1')
        pytest.skip('there is a driver here')
    library = Library(built[0])
    for _ in range(2):
        call = Call(library, Guarded(), name, inputs)
        with pytest.raises(KernelError, match=name + ': CUDA error (35|100)'):
            call.forward()
        with pytest.raises(KernelError, match=name + ': CUDA error (35|100)'):
            call.backward([])
    # The CPU's kernels of the same library are not touched by that.
    call = Call(library, Guarded(), name, inputs, target='v2')
    assert np.isfinite(call.forward()[0]).all()


IN_MXNET = '''
import d2l, numpy
from mxnet import autograd, np, npx
npx.set_np()
from d2l import ops
x = np.array(numpy.arange(12).reshape(2, 6), dtype='float32')
x.attach_grad()
with autograd.record():
    y = ops.masked_softmax(x, np.array([3, 6]))
    z = ops.layer_norm(y, np.ones(6), np.zeros(6))
z.backward(z)
e = numpy.exp(numpy.arange(6.0))
numpy.testing.assert_allclose(y.asnumpy()[0], [*(e[:3] / e[:3].sum()), 0, 0, 0], rtol=1e-5)
numpy.testing.assert_allclose(y.asnumpy()[1], e / e.sum(), rtol=1e-5)
numpy.testing.assert_allclose(z.asnumpy().mean(-1), 0, atol=1e-6)
assert numpy.isfinite(x.grad.asnumpy()).all()
from d2l.ops import _library
info = _library.info()
assert {'layer_norm', 'masked_softmax'} <= set(_library.available()), info
assert all('cuda' in targets for targets in info['operators'].values()), info
print('loaded', info['cuda'])
'''


def test_loads_into_mxnet_without_gpu_or_driver(built):
    done = subprocess.run([sys.executable, '-c', IN_MXNET], cwd=str(emulated.ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=dict(os.environ, D2L_OPS_LIBRARY=str(built[0])), timeout=120)
    assert done.returncode == 0, done.stdout
    assert "'archs': ['sm_75', 'sm_90', 'compute_90']" in done.stdout
