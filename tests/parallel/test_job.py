"""A process's view of its job, launched and not."""
import math
import os
import threading
import time

import mxnet as mx
import pytest
from mxnet import np

from d2l.parallel import job
from d2l.parallel.sampler import DistributedSampler
from tests.parallel.jobs import Served, wait_for


@pytest.fixture
def nowhere(monkeypatch):
    """An environment in which nobody has said anything."""
    for name in [name for name in os.environ
                 if name.startswith(('D2L_', 'HOROVOD_', 'OMPI_', 'PMI_', 'MPI_'))]:
        monkeypatch.delenv(name)


def test_without_a_launcher_there_is_one_worker(nowhere):
    assert not job.launched()
    assert (job.rank(), job.local_rank(), job.num_workers(), job.restart()) == (0, 0, 1, 0)
    assert job.folder() is None and job.store() == 'device' and job.store('local') == 'local'
    threads = threading.active_count()
    job.connect()
    job.start()
    job.formed()
    job.progress(1, loss=0.5)
    job.failed('text')
    job.stop()
    assert threading.active_count() == threads


@pytest.mark.parametrize('names', [
    ('D2L_RANK', 'D2L_LOCAL_RANK', 'D2L_NUM_WORKERS'),
    ('HOROVOD_RANK', 'HOROVOD_LOCAL_RANK', 'HOROVOD_SIZE'),
    ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
    ('PMI_RANK', 'MPI_LOCALRANKID', 'PMI_SIZE')])
def test_others_can_start_the_workers(nowhere, monkeypatch, names):
    """Whoever has, what takes its place from the job finds the right one; d2l launch goes first."""
    for name, value in zip(names, '315'):
        monkeypatch.setenv(name, value)
    assert (job.rank(), job.local_rank(), job.num_workers()) == (3, 1, 5)
    sampler = DistributedSampler(100, 10)
    assert (sampler.rank, sampler.num_workers) == (3, 5)
    monkeypatch.setenv('D2L_RANK', '1')
    monkeypatch.setenv('D2L_NUM_WORKERS', '2')
    assert (job.rank(), job.num_workers()) == (1, 2)


def test_devices(monkeypatch):
    monkeypatch.setattr(mx.context, 'num_gpus', lambda: 4)
    for local_rank, count, expected in ((0, 1, [mx.gpu(0)]), (1, 2, [mx.gpu(2), mx.gpu(3)]),
                                        (2, 2, [mx.cpu(0), mx.cpu(1)])):
        monkeypatch.setenv('D2L_LOCAL_RANK', str(local_rank))
        assert job.devices(count) == expected


@pytest.fixture
def served(monkeypatch):
    with Served() as served:
        for name, value in dict(CONTROL=served.address, TOKEN='secret', NAME='worker 0',
                                RANK='2', LOCAL_RANK='1', NUM_WORKERS='4', RESTART='3',
                                JOB='/tmp/job', STORE='ring').items():
            monkeypatch.setenv('D2L_' + name, value)
        monkeypatch.setattr(job, '_line', job._Line())
        monkeypatch.setattr(job, 'PERIOD', 0.05)
        yield served
        job.stop()


def test_the_environment_says_which_worker_this_is(served):
    assert job.launched()
    assert (job.rank(), job.local_rank(), job.num_workers(), job.restart()) == (2, 1, 4, 3)
    assert (job.folder(), job.store()) == ('/tmp/job', 'ring')


def test_what_the_launcher_hears(served):
    job.start()
    job.start()
    job.formed()
    for step in range(1, 4):
        job.progress(step, examples=8, loss=np.array([0.25, 0.75]), rate=float('inf'))
    job.failed('x' * 9000)
    job.stop()
    job.progress(9)  # what comes late is not an error
    assert wait_for(lambda: served.heard[-1][1]['type'] == 'leaving')
    kinds = [message['type'] for _, message in served.heard]
    assert [kind for kind in kinds if kind != 'beat'] == ['connected', 'joining', 'formed',
                                                          'exception', 'leaving']
    last = served.heard[-1][1]
    assert (last['step'], last['examples']) == (3, 24)
    assert last['numbers'] == {'loss': 0.5, 'rate': 'inf'}
    assert not [t for t in threading.enumerate() if t.name == 'd2l heartbeat']


def test_the_heart_beats(served):
    job.connect()
    assert len(served.wait(4)) >= 4
    assert {message['type'] for _, message in served.heard[1:]} == {'beat'}


def test_numbers_are_looked_at_now_and_then(served, monkeypatch):
    looks = []

    class Loss:
        def __float__(self):
            looks.append(time.monotonic())
            return 1.0
    monkeypatch.setattr(job, 'PERIOD', 60)
    for step in range(100):
        job.progress(step, loss=Loss())
    assert len(looks) == 1 and job._line._step == 99


def test_a_step_without_numbers_does_not_hide_those_before(served, monkeypatch):
    """Trainer.step reports first, the script then, at all moments relative to the looks."""
    for period in (0.0, 60):
        monkeypatch.setattr(job, 'PERIOD', period)
        job._line._looked = -math.inf
        job._line._numbers = {}
        for step in (1, 2):
            job.progress(step)
            job.progress(step, examples=4, loss=1 / step)
        assert job._line._numbers == {'loss': 1 / step if period == 0 else 1.0}
        job.progress(3)
        assert job._line._numbers and job._line._step == 3
    monkeypatch.setattr(job, 'PERIOD', 0.05)
    job.stop()
    assert wait_for(lambda: served.heard[-1][1]['type'] == 'leaving')
    assert served.heard[-1][1]['numbers'] == {'loss': 0.5}


def test_a_forked_process_says_nothing(served):
    job.connect()
    pid = os.fork()
    if pid == 0:
        job.progress(7)
        job.failed('child')
        job.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(0.1)
    assert {message['type'] for _, message in served.heard} <= {'connected', 'beat'}
    assert all(message.get('step') is None for _, message in served.heard)


def test_a_wrong_token_is_an_error(served, monkeypatch):
    monkeypatch.setenv('D2L_TOKEN', 'other')
    with pytest.raises(RuntimeError, match='job.start'):
        job.start()
