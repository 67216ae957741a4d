"""d2l/parallel/stores/ring.py: sums, training and failures, in one process and in several.

And the sums of stores/horovod.py.
"""
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from mxnet import cpu, nd
from mxnet import np as mnp

from d2l.parallel._agent import free_port
from d2l.parallel.stores import create
from d2l.parallel.stores._fuse import plan
from tests.parallel import _training
from tests.parallel import ring_worker as worker
from tests.parallel.jobs import python_path

ROOT = Path(__file__).resolve().parents[2]
# The module that each needs, and what starts its processes where it has a launcher of its own.
NEEDED = {'gloo': ('torch', None), 'mpi': ('mpi4py', ['mpiexec', '-n']),
          'horovod': ('horovod', ['horovodrun', '-np'])}


@contextlib.contextmanager
def processes(size, scenario, output='', transport='gloo', ranks=None, script=worker.__file__):
    """Start ring_worker.py `size` times, or only these ranks of it; kills what is left.

    script: another one, with the arguments scenario, output and the list transport.
    """
    address = '127.0.0.1:{}'.format(free_port('127.0.0.1'))
    last = [transport] if isinstance(transport, str) else transport
    command = [sys.executable, script, scenario, str(output), *last]
    started = []
    try:
        for rank in range(size) if ranks is None else ranks:
            started.append(subprocess.Popen(
                command, cwd=str(ROOT), stderr=subprocess.PIPE, universal_newlines=True,
                start_new_session=True,
                env=dict(os.environ, D2L_RANK=str(rank), D2L_NUM_WORKERS=str(size),
                         D2L_STORE_ADDRESS=address, OMP_NUM_THREADS='1',
                         PYTHONPATH=python_path())))
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@contextlib.contextmanager
def with_launcher(command, size, output, transport):
    """`processes` by a launcher: one process, which starts the others."""
    process = subprocess.Popen(
        [*command, str(size), sys.executable, str(Path(worker.__file__)), 'sums', str(output),
         transport], cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=python_path()))
    try:
        yield [process]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(size, folder, transport):
    """The results of all ranks of the scenario 'sums'."""
    module, command = NEEDED[transport]
    # Beside the interpreter, where pip puts it, or on the path.
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ['PATH']])
    if command:
        command = [shutil.which(command[0], path=path), *command[1:]]
    if importlib.util.find_spec(module) is None or command and command[0] is None:
        pytest.skip(f'transport {transport} is not installed')
    output = folder / 'rank{}.npz'
    with (with_launcher(command, size, output, transport) if command
          else processes(size, 'sums', output, transport)) as started:
        for process in started:
            output_and_errors = process.communicate(timeout=120)
            assert process.returncode == 0, output_and_errors
    return [np.load(str(output).format(rank)) for rank in range(size)]


def in_some_order(arrays):
    """The sums of arrays of one dtype in every order, one after the other."""
    for order in permutations(arrays):
        total = order[0].copy()
        for array in order[1:]:
            total += array
        yield total


@pytest.mark.parametrize('transport', NEEDED)
@pytest.mark.parametrize('size', [2, 3])
def test_workers_get_the_same_sums(size, transport, tmp_path):
    """And train as one device does."""
    results = run(size, tmp_path, transport)
    for other in results[1:]:
        assert set(other) == set(results[0])
        for name in other:
            if name != 'disagreement':
                np.testing.assert_array_equal(other[name], results[0][name], err_msg=name)
    found = results[0]
    for i in range(len(worker.SHAPES)):
        terms = [worker.terms(rank)[i] for rank in range(size)]
        for dtype in ('float32', 'float64', 'float16', 'int32'):
            arrays = [(term * 8).astype(dtype) for term in terms]
            got = found[f'{dtype}.{i}']
            assert got.dtype == dtype and got.shape == worker.SHAPES[i]
            assert np.any([got == total for total in in_some_order(arrays)], axis=0).all(), dtype
        # The devices of a worker are summed first, in their order.
        arrays = [term + term * np.float32(2) for term in terms]
        for d in range(2):
            got = found[f'devices{i}.{d}']
            assert np.any([got == total for total in in_some_order(arrays)], axis=0).all()
        np.testing.assert_allclose(found[f'half.{i}'], sum(terms), rtol=0, atol=0.02)
    np.testing.assert_array_equal(found[f'half.{len(worker.SHAPES)}'], [40000, 40000])
    assert found['numbers'].tolist() == [2049 * size, sum(range(size))]
    for d in range(2):
        np.testing.assert_array_equal(found[f'broadcast.{d}'], np.full((2, 3), 5.0))
    assert (found['predicted.0'] == 1).all()
    texts = [str(result['disagreement']) for result in results]
    assert all(f'ranks [{size - 1}] differ from those of rank 0' in text for text in texts)
    expected = [array.asnumpy() for array in worker.train(None, [cpu()])]
    for name in ('one', 'two'):
        for i, array in enumerate(expected):
            np.testing.assert_allclose(found[f'{name}.{i}'], array, rtol=2e-5, atol=2e-6)


def test_two_workers_compute_what_two_devices_do(tmp_path):
    """A dozen trainers in one process, with a ring each, whose steps take turns."""
    pytest.importorskip('torch', reason="transport 'gloo' is not installed")
    names = [name for name in _training.CASES if not name.startswith('servers')]
    with processes(2, 'ring', tmp_path, transport=names, script=_training.__file__) as started:
        for process in started:
            errors = process.communicate(timeout=120)[1]
            assert process.returncode == 0, errors
    expected = _training.on_devices(names, 2)
    results = _training.results_of(tmp_path, 2)
    _training.assert_same(results, {'fp16': expected.pop('fp16')}, 1e-3)
    _training.assert_same(results, expected)


@pytest.mark.parametrize('name, error, silent', [
    ('SIGKILL', 'ConnectionError', 'no sign of life from rank 1'),
    ('SIGSTOP', 'Error', 'no sign of life from rank 1')])
def test_a_lost_worker_ends_the_others(name, error, silent):
    pytest.importorskip('torch', reason="transport 'gloo' is not installed")
    with processes(3, name) as started:
        for rank in (0, 2):
            text = started[rank].communicate(timeout=60)[1]
            assert started[rank].returncode == 1
            last = text.strip().splitlines()[-1]
            assert error in last and silent in last, text


def test_a_worker_that_does_not_come_is_named(monkeypatch):
    pytest.importorskip('torch', reason="transport 'gloo' is not installed")
    with processes(3, 'SIGKILL', ranks=[0, 2]) as started:
        for process in started:
            assert 'rank 1 did not come to 127.0.0.1:' in process.communicate(timeout=60)[1]
    with processes(2, 'SIGKILL', ranks=[1]) as (process,):
        assert 'rank 1 found no rank 0 at 127.0.0.1:' in process.communicate(timeout=60)[1]


@pytest.mark.parametrize('transport, module, extra', [
    ('gloo', 'torch.distributed', "'d2l-gluon[ring]'"), ('mpi', 'mpi4py', "'d2l-gluon[mpi]'")])
def test_a_missing_transport_says_what_to_install(transport, module, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv('D2L_NUM_WORKERS', '2')
    with pytest.raises(ImportError, match='pip install ' + extra.replace('[', '.')):
        create('ring', transport=transport, address='127.0.0.1:1')


def test_missing_horovod_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'horovod', None)
    with pytest.raises(ImportError, match='d2l-gluon.horovod'):
        create('horovod')


@pytest.mark.parametrize('options, fragment', [
    ({'transport': 'udp'}, "transport must be one of gloo, mpi, got 'udp'"),
    ({'timeout': 0}, 'timeout must be above 0 seconds, got 0'),
    ({'bucket_bytes': 0}, 'bucket_bytes must be at least 1, got 0'),
    ({'address': 'somewhere'}, "address must be 'host:port'")])
def test_bad_options(options, fragment, monkeypatch):
    if 'address' in options:
        pytest.importorskip('torch', reason="transport 'gloo' is not installed")
        monkeypatch.setenv('D2L_NUM_WORKERS', '2')
    with pytest.raises(ValueError, match='ring: ' + fragment):
        create('ring', **options)


def test_bad_arrays_and_compression():
    store = create('ring')
    sparse = nd.sparse.zeros('row_sparse', (3, 2))
    for calls, fragment in (
            (lambda: store.pushpull(3, sparse), 'key 3 must hold dense arrays, got row_sparse'),
            (lambda: store.pushpull(3, nd.ones(2), out=nd.ones(3)), 'key 3 must have one shape'),
            (lambda: store.pushpull_all([0, 1], [nd.ones(2), [nd.ones(2), nd.ones(2)]]),
             'one array for each device, got 1 for key 0 and 2 for 1'),
            (lambda: store.set_gradient_compression({'type': '2bit', 'threshold': 0.5}), '2bit'),
            (lambda: store.set_gradient_compression({'type': 'fp8'}), 'fp16')):
        with pytest.raises(ValueError, match=fragment):
            calls()


def test_one_worker_sums_its_devices():
    store = create('ring')
    value = [mnp.array([1.0, 2.0], ctx=device) for device in (cpu(0), cpu(1))]
    store.pushpull(0, value)
    assert [array.tolist() for array in value] == [[2, 4], [2, 4]]
    # A reader that is still pending sees the value before the sum.
    before = value[0] * 1
    store.pushpull(0, value)
    assert before.tolist() == [2, 4] and value[0].tolist() == [4, 8]


def test_plan():
    """From the last to the first, one dtype a bucket, large arrays alone, none over the limit.

    A bucket does not go ahead of arrays that are finished before it.
    """
    sizes = [60, 50, 100, 10, 30, 41]
    assert plan(sizes, ['f'] * 6, 100) == [[5, 4, 3], [2], [1], [0]]
    assert plan(sizes, ['f', 'd', 'f', 'd', 'f', 'd'], 101) == [[4], [2], [5, 3, 1], [0]]
    assert plan([], [], 100) == []
