"""The fault matrix: whatever happens to whichever process, the job ends with the same weights.

`make test` runs a few cells, `make test-faults` all of them at twenty random moments each; where a
cell fails, its name says the seed of the moment.
"""
import importlib.util
import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.parallel.jobs import Launched, launch, listening, marked, wait_for

pytestmark = pytest.mark.slow
TRAINING = (Path(__file__).parent / 'training.py').read_text()
STEPS = 150
OPTIONS = {'dist_sync': ('-n', 2, '-s', 1, '--store', 'dist_sync'),
           'ring': ('-n', 2, '--store', 'ring')}
SIGNALS = {'kill': signal.SIGKILL, 'stop': signal.SIGSTOP}
BOUNDS = {'kill': 10, 'stop': 30, 'raise': 10}  # seconds until the job has ended
# A scheduler runs no code in which an exception could be raised; its engine aborts.
WHOLE = [('dist_sync', victim, fault) for victim in ('worker 1', 'server 0', 'scheduler')
         for fault in ('kill', 'stop', 'raise')]
WHOLE += [('ring', 'worker 0', 'kill'), ('ring', 'worker 0', 'stop'), ('ring', 'worker 1', 'raise')]
MOMENTS = int(os.environ.get('D2L_FAULT_MOMENTS', 0))
if MOMENTS:
    CELLS = [(*cell, seed) for cell, seed in itertools.product(WHOLE, range(MOMENTS))]
else:
    CELLS = [('dist_sync', 'worker 1', 'kill', 1), ('dist_sync', 'server 0', 'raise', 2),
             ('dist_sync', 'scheduler', 'stop', 3), ('ring', 'worker 0', 'kill', 4)]
# The default but for the short form: a stopped process is then noticed sooner.
HEARTBEAT = () if MOMENTS else ('--heartbeat-timeout', 3)


def weights(job):
    """The digest that every worker has printed last."""
    found = {line.split()[-1] for line in job.output.splitlines() if '] weights ' in line}
    assert len(found) == 1, job.output + job.errors
    return found.pop()


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """store -> (weights, seconds, who listened) of a run that nothing happens to.

    who listened: name of a process (None for an agent) -> its addresses, in the first steps.
    """
    found = {}

    def run(store):
        if store == 'ring' and importlib.util.find_spec('torch') is None:
            pytest.skip("the transport of 'ring', torch, is not installed")
        if store not in found:
            folder = tmp_path_factory.mktemp('undisturbed')
            begin = time.monotonic()
            with Launched(folder, TRAINING, *OPTIONS[store], arguments=[folder, STEPS]) as job:
                wait_for(lambda: job.events('progress'), 30)
                names = {event['pid']: event['name'] for event in job.events('process')}
                listeners = {names.get(pid): addresses
                             for pid, addresses in listening(marked(job.mark)).items()}
                assert job.finish(120) == 0, job.errors
            assert job.events('progress')[-1]['step'] == STEPS
            found[store] = weights(job), time.monotonic() - begin, listeners
        return found[store]
    return run


@pytest.mark.parametrize('store, names', [
    ('dist_sync', {None, 'scheduler', 'server 0', 'worker 0', 'worker 1'}),
    ('ring', {None, 'worker 0', 'worker 1'})])
def test_a_job_on_one_host_listens_on_loopback_alone(undisturbed, store, names):
    listeners = undisturbed(store)[2]
    assert set(listeners) == names
    assert set().union(*listeners.values()) == {'127.0.0.1'}, listeners


@pytest.mark.parametrize('store', sorted(OPTIONS))
def test_two_hosts_have_the_weights_of_one(tmp_path, undisturbed, two_hosts, store):
    expected = undisturbed(store)[0]
    names, addresses = two_hosts
    (tmp_path / 'hosts').write_text(f'{names[0]} address={addresses[0]}\n{names[1]} '
                                    f'address={addresses[1]}\n')
    job = launch(tmp_path, TRAINING, *OPTIONS[store], '--hosts', 'hosts', '--ssh',
                 'ip netns exec', arguments=[tmp_path, STEPS])
    assert job.process.returncode == 0, job.errors
    assert {event['host'] for event in job.events('process')} == set(names)
    assert weights(job) == expected


@pytest.mark.parametrize('store, victim, fault, seed', CELLS)
def test_the_weights_are_those_of_the_undisturbed_run(tmp_path, undisturbed, store, victim, fault,
                                                      seed):
    expected, seconds, _ = undisturbed(store)
    moment = random.Random(f'{store} {victim} {fault} {seed}').uniform(0.05, 0.9) * seconds
    begin = time.monotonic()
    with Launched(tmp_path, TRAINING, *OPTIONS[store], *HEARTBEAT,
                  arguments=[tmp_path, STEPS]) as job:
        time.sleep(moment)
        happened = strike(job, tmp_path, victim, fault)
        status = job.finish(120)
    report = f'{moment:.2f} s after the start\n{job.errors}'
    assert status == 0, report
    assert weights(job) == expected, report
    failures = job.events('failure')
    if failures:
        noticed = failures[0]['time'] - (happened or float((tmp_path / 'happened').read_text()))
        print(f'{failures[0]["text"]}: noticed and ended in {noticed:.1f} s, '
              f'whole run {time.monotonic() - begin:.1f} s')
        assert noticed < BOUNDS[fault], report
        assert len(failures) == 1, report
    else:
        assert moment > 0.6 * seconds, f'nothing happened {report}'


def strike(job, folder, victim, fault):
    """Let it happen; returns the time, or None where the training has yet to do it."""
    role = victim.split()[0]
    if fault == 'raise' and role != 'scheduler':
        (folder / f'raise-{role}').touch()
        return None
    pid = wait_for(lambda: job.pid(victim))
    try:
        os.kill(pid, SIGNALS.get(fault, signal.SIGABRT))
    except ProcessLookupError:
        pass  # it had ended
    return time.time()
