"""The CUDA kernels, compiled for the emulator of CUDA threads and checked on a CPU."""
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import battery  # noqa: E402
import emulated  # noqa: E402
import faults  # noqa: E402
from driver import Call, Guarded, KernelError, Library  # noqa: E402


@pytest.fixture(scope='module')
def library():
    return Library(emulated.build(extra=[HERE / 'selftest.cu']))


@pytest.fixture
def seed(monkeypatch):
    return lambda n: monkeypatch.setenv('D2L_EMULATOR_SEED', str(n))


def run_all(library, checks):
    wrong = []
    for check in checks:
        try:
            check.run(library, Guarded)
        except Exception as error:
            wrong.append('{}: {}'.format(check, error))
    assert not wrong, '\n'.join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize('number', [1, 2])
def test_kernels_are_right_in_any_order(library, seed, number):
    seed(number)
    run_all(library, battery.full() if number == 1 else battery.quick() + battery.shifted())


@pytest.mark.slow
@pytest.mark.parametrize('processors', [1, 7, 1000])
def test_kernels_are_right_on_any_device(library, monkeypatch, processors):
    monkeypatch.setenv('D2L_EMULATOR_PROCESSORS', str(processors))
    run_all(library, [c for c in battery.quick() if c.arguments.get('shape', (99,))[0] < 8])


def test_checks_hold_for_cpu_kernels(library):
    """The checks themselves are right: another implementation passes them."""
    for check in battery.full():
        check.run(library, Guarded, 'v2')


@pytest.mark.slow
@pytest.mark.parametrize('shape, dtype', [((29, 100), 'float16'), ((13, 1000), 'float32'),
                                          ((7, 9000), 'float32'), ((70, 33), 'float64')])
def test_same_bits_in_any_order(library, seed, shape, dtype):
    results = []
    for number in (1, 2, 3):
        seed(number)
        for check in (battery.norm(shape, dtype), battery.softmax(shape, dtype),
                      battery.entropy((2,) + shape, dtype), battery.embedding(shape, dtype),
                      battery.sum_norm(shape, dtype), battery.drop(shape, dtype)):
            results.append([a.tobytes() for part in check.run(library, Guarded) for a in part])
    for i in range(6):
        assert results[i::6] == results[i:i + 1] * 3


def test_both_definitions_have_twins(library):
    names = {name for name, target in library.indices if target == 'cuda'}
    assert names == {p.stem for p in emulated.SOURCES.glob('*.cu')}
    assert names <= {name for name, target in library.indices if target == 'v2'}


def test_rules_are_those_of_the_definition(library):
    x, lengths = np.zeros((2, 3), 'float32'), np.zeros(5, 'int32')
    with pytest.raises(KernelError, match='masked_softmax: valid_len must have shape'):
        Call(library, Guarded(), 'masked_softmax', [x, lengths])
    with pytest.raises(KernelError, match='layer_norm: .*eps'):
        Call(library, Guarded(), 'layer_norm', [x, x[0], x[0]], {'eps': -1})


# ---- Planted faults ----

@pytest.fixture(scope='module')
def planted():
    return faults.build_planted()


@pytest.fixture(scope='module')
def findings(planted):
    """Fault -> what the quick checks say about it."""
    done = subprocess.run([sys.executable, str(HERE / 'faults.py'), str(planted)], check=True,
                          capture_output=True, timeout=900)
    return json.loads(done.stdout.decode())


@pytest.mark.slow
def test_no_finding_without_a_fault(findings):
    assert findings['no fault'] == ''


@pytest.mark.slow
@pytest.mark.parametrize('name', [f[0] for f in faults.FAULTS if f[0] != faults.OVERREAD])
def test_planted_fault_is_found(findings, name):
    assert findings[name]


@pytest.mark.slow
def test_each_kind_of_finding_occurs(findings):
    """Wrong numbers, guards, deadlocks, lanes, launches: none of the nets is torn."""
    text = '\n'.join(findings.values())
    for fragment in ('is nan, not', 'write outside an array', 'outside a shared variable',
                     'is stuck', 'have left the kernel', 'lane that is not in', 'a launch with'):
        assert fragment in text, fragment


def test_a_fault_whose_place_is_gone_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(faults, 'FAULTS', [('gone', faults.CUDA, 'no such @@code@@@@')])
    with pytest.raises(ValueError, match='0 times in the source'):
        faults.planted_sources(tmp_path)


# ---- Sanitizers ----

@pytest.fixture(scope='module')
def sanitized():
    return faults.build_planted('address,undefined')


def run_sanitized(library, fault, *sets):
    """The checks in a process of their own, under the sanitizers."""
    return subprocess.run(
        [sys.executable, str(HERE / 'battery.py'), str(library), '--fault', str(fault), *sets],
        env=emulated.sanitizer_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=600)


@pytest.mark.slow
def test_sanitizers_find_nothing(sanitized):
    done = run_sanitized(sanitized, 0, 'quick', 'shifted')
    assert done.returncode == 0, done.stdout
    assert 'checks passed' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('name, checks, fragment', [
    (faults.OVERREAD, 'quick', 'AddressSanitizer: '),
    ('packs at addresses that are not aligned', 'shifted', 'misaligned address'),
    ('part of the wrong warp', 'quick', 'AddressSanitizer: ')])
def test_sanitizers_find_planted_faults(sanitized, name, checks, fragment):
    done = run_sanitized(sanitized, faults.number_of(name), checks)
    assert done.returncode != 0
    assert fragment in done.stdout, done.stdout


# ---- The emulator itself ----

def selftest(library, number, count=1):
    """Status, results and message of a kernel in selftest.cu."""
    results = (ctypes.c_int * count)(*[-1] * count)
    library.c.d2l_emulator_message.restype = ctypes.c_char_p
    status = library.c.d2l_selftest(number, results)
    return status, list(results), library.c.d2l_emulator_message().decode()


@pytest.mark.parametrize('number', [1, 2, 3])
def test_every_call_does_what_cuda_does(library, seed, number):
    seed(number)
    assert selftest(library, 0, 12)[:2] == (0, [sum(range(40))] * 12)


def test_shared_memory_is_full_of_nans_in_each_block(library):
    assert selftest(library, 1, 3)[:2] == (0, [1, 1, 1])


@pytest.mark.parametrize('number, status, fragment', [
    (2, 719, 'outside a shared variable of 128 bytes'), (3, 719, 'not in its mask'),
    (4, 719, 'is stuck'), (5, 9, 'number of threads: 1056'), (6, 9, 'blocks in y: 65536'),
    (7, 9, 'number of blocks: 0'), (8, 9, 'shared memory: 50176'), (9, 719, 'stack overflow')])
def test_wrong_kernels_and_launches_are_refused(library, number, status, fragment):
    got = selftest(library, number)
    assert got[0] == status
    assert fragment in got[2]


def test_a_failed_launch_does_not_spoil_the_next(library):
    selftest(library, 4)
    battery.quick()[0].run(library, Guarded)


def test_writes_outside_arrays_are_seen(library):
    x = np.zeros((2, 4), 'float32')
    for offset in (-1, x.size):
        call = Call(library, Guarded(), 'masked_softmax', [x, np.array([1, 2])])
        call.forward()
        address = Guarded.pointer(call.outputs[0]) + 4 * offset
        ctypes.c_float.from_address(address).value = 1
        with pytest.raises(KernelError, match='write outside an array'):
            call.backend.download(call.outputs[0])


# ---- The harness, with PyTorch's CPU memory in place of a GPU ----

@pytest.mark.slow
def test_harness_runs_on_emulated_kernels(library, tmp_path):
    pytest.importorskip('torch')
    done = subprocess.run(
        [sys.executable, str(HERE / 'harness.py'), '--check', '--bench', '--dry', '--library',
         str(emulated.FOLDER / 'libd2l_emulated.so'), '--results', str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stdout
    rows, = tmp_path.glob('gpu_*.csv')
    assert 'masked_softmax' in rows.read_text()
