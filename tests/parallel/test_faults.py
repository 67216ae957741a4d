"""The fault matrix: whatever happens to whichever process, the job ends with the same weights.

`make test` runs a few cells, `make test-faults` all of them at twenty random moments each; where a
cell fails, its name says the seed of the moment.  There each run leaves a row (see `fault_rows`).
"""
import contextlib
import importlib.util
import itertools
import json
import os
import random
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from tests.parallel import fault_rows
from tests.parallel.jobs import Launched, launch, listening, marked, wait_for

pytestmark = pytest.mark.slow
TRAINING = (Path(__file__).parent / 'training.py').read_text()
STEPS, INTERVAL = 150, 20
TRIES = 6  # runs until a fault must have hit something
LIMIT = 180  # seconds for a job; one that takes longer hangs
OPTIONS = {'dist_sync': ('-n', 2, '-s', 1, '--store', 'dist_sync'),
           'ring': ('-n', 2, '--store', 'ring')}
SERVERS = 'dist_sync, servers update'  # with the optimizer's states, of which checkpoints are made
OPTIONS[SERVERS] = ('-n', 2, '-s', 2, '--store', 'dist_sync')
SIGNALS = {'kill': signal.SIGKILL, 'stop': signal.SIGSTOP}
BOUNDS = {'kill': 10, 'stop': 30, 'raise': 10}  # seconds until the job has ended
# A scheduler runs no code in which an exception could be raised; its engine aborts.
VICTIMS = {'dist_sync': ('worker 0', 'worker 1', 'server 0', 'scheduler'),
           'ring': ('worker 0', 'worker 1')}
WHOLE = [(store, victim, fault) for store in VICTIMS for victim in VICTIMS[store]
         for fault in ('kill', 'stop', 'raise')]
WHOLE += [(SERVERS, 'server 1', 'kill'), (SERVERS, 'server 1', 'stop')]
MOMENTS = int(os.environ.get('D2L_FAULT_MOMENTS', 0))
ROWS = os.environ.get('D2L_FAULT_ROWS') or (MOMENTS and fault_rows.ROOT / 'out' / 'faults.csv')
ROWS = ROWS and Path(ROWS)
if MOMENTS:
    CELLS = [(*cell, seed) for seed, cell in itertools.product(range(MOMENTS), WHOLE)]
else:
    CELLS = [('dist_sync', 'worker 1', 'kill', 1), ('dist_sync', 'server 0', 'raise', 2),
             ('dist_sync', 'scheduler', 'stop', 3), ('ring', 'worker 0', 'kill', 4),
             (SERVERS, 'server 1', 'kill', 7)]
# The default but for the short form: a stopped process is then noticed sooner.
HEARTBEAT = () if MOMENTS else ('--heartbeat-timeout', 3)


def arguments(folder, store):
    return [folder, STEPS, 'servers' if store == SERVERS else 'workers']


def weights(job):
    """The digest that every worker has printed last."""
    found = {line.split()[-1] for line in job.output.splitlines() if '] weights ' in line}
    assert len(found) == 1, job.output + job.errors
    return found.pop()


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """store -> (weights, seconds until the first step, who listened) of a run left in peace.

    who listened: name of a process (None for an agent) -> its addresses, in the first steps.
    """
    found = {}

    def run(store):
        if store == 'ring' and importlib.util.find_spec('torch') is None:
            # Whoever asks for the matrix must not take a part of it for the whole.
            (pytest.fail if MOMENTS else pytest.skip)(
                "the transport of 'ring', torch, is not installed")
        if store not in found:
            folder = tmp_path_factory.mktemp('undisturbed')
            begin = time.monotonic()
            with Launched(folder, TRAINING, *OPTIONS[store],
                          arguments=arguments(folder, store)) as job:
                wait_for(lambda: (folder / 'reached').exists(), 60)
                seconds = time.monotonic() - begin
                names = {event['pid']: event['name'] for event in job.events('process')}
                listeners = {names.get(pid): addresses
                             for pid, addresses in listening(marked(job.mark)).items()}
                assert job.finish(120) == 0, job.errors
            assert job.events('progress')[-1]['step'] == STEPS
            found[store] = weights(job), seconds, listeners
        return found[store]
    return run


@pytest.mark.parametrize('store, names', [
    ('dist_sync', {None, 'scheduler', 'server 0', 'worker 0', 'worker 1'}),
    ('ring', {None, 'worker 0', 'worker 1'})])
def test_a_job_on_one_host_listens_on_loopback_alone(undisturbed, store, names):
    listeners = undisturbed(store)[2]
    assert set(listeners) == names
    assert set().union(*listeners.values()) == {'127.0.0.1'}, listeners


@pytest.mark.parametrize('store', ['dist_sync', 'ring'])
def test_two_hosts_have_the_weights_of_one(tmp_path, undisturbed, two_hosts, store):
    expected = undisturbed(store)[0]
    names, addresses = two_hosts
    (tmp_path / 'hosts').write_text(f'{names[0]} address={addresses[0]}\n{names[1]} '
                                    f'address={addresses[1]}\n')
    job = launch(tmp_path, TRAINING, *OPTIONS[store], '--hosts', 'hosts', '--ssh',
                 'ip netns exec', arguments=arguments(tmp_path, store))
    assert job.process.returncode == 0, job.errors
    assert {event['host'] for event in job.events('process')} == set(names)
    assert weights(job) == expected


@pytest.mark.parametrize('store, victim, fault, seed', CELLS)
def test_the_weights_are_those_of_the_undisturbed_run(tmp_path, undisturbed, store, victim, fault,
                                                      seed):
    expected, start, _ = undisturbed(store)
    moments = random.Random(f'{store} {victim} {fault} {seed}')
    for number in range(TRIES):
        run = Run(tmp_path / str(number), store, victim, fault, start, moments)
        try:
            run.check(expected)
        finally:
            print(run)
            if ROWS:
                fault_rows.append(ROWS, dict(run.row, seed=seed))
        if run.failures:
            return
    pytest.fail(f'the fault has hit nothing in {TRIES} runs')


class Run:
    """A job that something happens to, and what became of it.

    It happens while a step is under way, whose number is drawn, or, in one run of four, in the
    seconds before the first.  failures: the launcher's events, none where nothing was hit.
    """

    def __init__(self, folder, store, victim, fault, start, moments):
        folder.mkdir()
        self.folder, self.victim, self.fault = folder, victim, fault
        self.row = dict(store=store, victim=victim, fault=fault, identical='no', ok='no')
        raised = fault == 'raise' and victim != 'scheduler'
        step, wait = moments.randrange(STEPS), moments.uniform(0, 0.02)
        if raised:  # the training does it
            (folder / f'raise {victim}').write_text(str(step + 1))
        elif moments.random() < 0.25:
            step, wait = None, moments.uniform(0.02, 1) * start
        began = time.time()
        with Launched(folder, TRAINING, *OPTIONS[store], *HEARTBEAT,
                      arguments=arguments(folder, store)) as self.job:
            if not raised:
                if step is not None:
                    wait_for(lambda: self._noted('reached').get('step', -1) >= step, LIMIT)
                time.sleep(wait)
                happened = self._strike()
            # Whatever hangs is a finding, as a row and as a failed test.
            self.status = self._end()
        self.failures = self.job.events('failure')
        if raised:
            happened = self._noted('happened').get('time', 0)
        self.row.update(moment=round(happened - began, 2),
                        restarts=len(self.job.events('start')) - 1)
        if self.failures:
            self.row['detection'] = round(self.failures[0]['time'] - happened, 2)

    def __str__(self):
        texts = [failure['text'] for failure in self.failures]
        return f'{self.row} {texts}\n{self.job.errors or ""}'

    def _end(self):
        try:
            return self.job.finish(LIMIT)
        except (subprocess.TimeoutExpired, AssertionError) as error:
            return f'{type(error).__name__}: {error}'

    def _strike(self):
        """Let it happen from outside; returns the time."""
        pid = wait_for(lambda: self.job.pid(self.victim) or self.job.process.poll() is not None)
        if self.job.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it had ended
                os.kill(pid, SIGNALS.get(self.fault, signal.SIGABRT))
        return time.time()

    def _noted(self, name):
        try:
            return json.loads((self.folder / name).read_text())
        except OSError:
            return {}

    def check(self, expected):
        """That the job ended well, was disturbed once and by this, and lost next to nothing."""
        assert self.status == 0
        self.row['identical'] = 'yes' if weights(self.job) == expected else 'no'
        if self.failures:
            self._check_resumption()
        assert self.row['identical'] == 'yes'
        # One more, if it was killed before it could remove that.
        assert whole_checkpoints(self.folder)[-3:] == [100, 120, 140]
        assert not list(self.folder.glob('checkpoints/*.damaged'))
        assert len(self.failures) == self.row['restarts'] <= 1
        if self.failures:
            assert self.victim in self.failures[0]['text']
            assert 0 <= self.row['detection'] < BOUNDS[self.fault]
        self.row['ok'] = 'yes'

    def _check_resumption(self):
        """That all workers went on from the newest checkpoint there was, and none was lost."""
        workers = int(OPTIONS[self.row['store']][1])
        resumed = [self._noted(f'resumed-1-{rank}') for rank in range(workers)]
        restored = resumed[0]['step']
        assert [found['step'] for found in resumed] == [restored] * workers
        assert restored == max(resumed[0]['whole'], default=0)
        reached = self._noted('reached')
        step = reached.get('step', 0)
        self.row.update(restored=restored, lost=max(step - restored, 0))
        # The step that was under way may have been made, and its checkpoint written.
        newest = {step // INTERVAL * INTERVAL, (step + 1) // INTERVAL * INTERVAL}
        if reached.get('writing'):
            newest.add(step // INTERVAL * INTERVAL - INTERVAL)
        assert restored in newest, f'restored {restored} after {reached}'


def whole_checkpoints(folder):
    """The steps of the checkpoints that are left, by Python's own reading of the files."""
    found = []
    for path in sorted(folder.glob('checkpoints/*.npz')):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None, path
        found.append(int(path.stem[len('step-'):]))
    return found


def test_the_table_counts_what_has_hit():
    rows = [dict(store='ring', victim='worker 0', fault='kill', detection=detection, lost=lost,
                 identical=ok, ok=ok)
            for detection, lost, ok in [('1.25', '3', 'yes'), ('', '', 'yes'), ('2.5', '19', 'yes'),
                                        ('', '', 'no')]]
    assert fault_rows.table(rows)[2:] == [
        '| ring | worker 0 | kill | 3 | 2 | 2 | 2.5, 2.5 | 19 |']
