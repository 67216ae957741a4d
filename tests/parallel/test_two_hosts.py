"""Where the processes of a job on two hosts, which are network namespaces, listen."""
import pytest

from tests.parallel.jobs import Launched, listening, marked, wait_for

# A worker that has exchanged something, and lives until it is told to end.
SCRIPT = '''
import sys, time
from pathlib import Path
import d2l
import mxnet as mx
from d2l.parallel import job, stores
folder = Path(sys.argv[1])
job.start()
store = stores.create(job.store())
value = mx.nd.ones(3)
store.broadcast(0, value, value)
store.pushpull(0, value)
job.formed()
assert value.asnumpy().tolist() == [2.0] * 3
(folder / f'ready{job.rank()}').touch()
while not (folder / 'end').exists():
    time.sleep(0.05)
'''


@pytest.mark.slow
@pytest.mark.parametrize('options, names', [
    (('--store', 'dist_sync', '-s', 2), ['scheduler', 'server 0', 'server 1', 'worker 0',
                                         'worker 1']),
    (('--store', 'ring'), ['worker 0', 'worker 1'])], ids=['dist_sync', 'ring'])
def test_a_job_listens_at_the_addresses_given_alone(tmp_path, two_hosts, options, names):
    """Each process at its host's address in the file; for its agent's own at most on loopback.

    Although the environment says that ps-lite shall listen on all interfaces.
    """
    if 'ring' in options:
        pytest.importorskip('torch', reason="transport 'gloo' is not installed")
    hosts, addresses = two_hosts
    (tmp_path / 'hosts').write_text(
        ''.join(f'{host} address={address}\n' for host, address in zip(hosts, addresses)))
    with Launched(tmp_path, SCRIPT, '-n', 2, *options, '--hosts', 'hosts', '--ssh',
                  'ip netns exec', arguments=[tmp_path],
                  environment={'DMLC_USE_KUBERNETES': '1'}) as job:
        assert wait_for(lambda: len(list(tmp_path.glob('ready*'))) == 2, 60), job.logs
        started = {event['pid']: event for event in job.events('process')}
        found = listening(marked(job.mark))
        (tmp_path / 'end').touch()
        assert job.finish() == 0, job.errors
    assert sorted(event['name'] for event in started.values()) == names
    assert {event['host'] for event in started.values()} == set(hosts)
    for pid, event in started.items():
        assert found[pid] == {addresses[hosts.index(event['host'])]}, (event['name'], found[pid])
    others = [found[pid] for pid in found if pid not in started]  # the agents, and the launcher
    assert set().union(*others) <= {'127.0.0.1'}, others
