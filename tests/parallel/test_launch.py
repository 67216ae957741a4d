"""d2l launch: jobs that go well, jobs that fail, and what is left of them."""
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import time
from types import SimpleNamespace

import pytest

from d2l import cli
from d2l.parallel import launch as module
from d2l.parallel._report import status_lines
from tests.parallel.jobs import NAME, Launched, launch, marked, wait_for

LOCAL = ('--store', 'local')
# A server without MXNet, for jobs whose workers do not use it: it ends when the workers have.
IDLE_SERVER = '''
    import os, time
    from d2l.parallel import job
    job.start()
    print('role', os.environ['DMLC_ROLE'], flush=True)
    while not os.path.exists('workers_ended'):
        time.sleep(0.02)
    job.stop()
'''
# Two workers that make a step each 10 ms, together; a worker that fails does it here.
STEPS = '''
    import os, signal, sys, time
    from d2l.parallel import job
    job.start()
    steps = int(sys.argv[1])
    for step in range(1, steps + 1):
        time.sleep(0.01)
        job.progress(step, examples=4, loss=1 / step)
        if step == 5 and job.rank() == 1 and job.restart() == 0 and len(sys.argv) > 2:
            exec(sys.argv[2])
    print('end of', job.rank(), 'restart', job.restart())
'''


# --- Jobs that go well ----------------------------------------------------------------------------

def test_what_a_worker_finds(tmp_path):
    """Environment, folder, arguments; its output with its name and in its file."""
    (tmp_path / 'beside.py').write_text('value = 7\n')
    (tmp_path / 'elsewhere').mkdir()
    job = launch(tmp_path, '''
        import beside, os, pickle, sys
        from pathlib import Path
        from d2l.parallel import job

        class Kept:
            pass

        pickle.loads(pickle.dumps(Kept()))
        commands = [Path('/proc', p, 'cmdline').read_bytes() for p in (str(os.getpid()),
                                                                      str(os.getppid()))]
        assert not any(os.environ['D2L_TOKEN'].encode() in command for command in commands)
        assert os.environ['MINE'] == 'a b' and os.environ['OMP_NUM_THREADS'] == '1'
        assert sys.argv[1:] == ['--lr', '0.1', 'x y'] and __name__ == '__main__'
        print(job.rank(), job.local_rank(), job.num_workers(), job.restart(), job.store(),
              os.path.basename(os.getcwd()), beside.value)
        print('to stderr', file=sys.stderr)
        if job.rank() == 2:
            os.write(1, b'no end of line')
    ''', '-n', 3, *LOCAL, arguments=['--lr', '0.1', 'x y'], environment={'MINE': 'a b'},
                 cwd=tmp_path / 'elsewhere')
    assert job.process.returncode == 0, job.errors
    for rank in range(3):
        line = f'{rank} {rank} 3 0 local elsewhere 7'
        assert f'[worker {rank}] {line}\n' in job.output
        log = (job.logs / f'worker{rank}.log').read_text()
        assert line in log and 'to stderr' in log
    assert '[worker 2] no end of line\n' in job.output
    assert job.errors.count('to stderr') == 3
    assert [e['event'] for e in job.events()][0] == 'start'
    assert job.events('end')[0]['status'] == 0
    assert len(job.events('exit')) == 3


@pytest.mark.slow
def test_servers_and_status(tmp_path):
    """The variables of the parameter server, and the table while the job runs."""
    (tmp_path / 'idle.py').write_text(textwrap.dedent(IDLE_SERVER))
    with Launched(tmp_path, '''
        import os, socket, time
        from d2l.parallel import job
        job.start()
        names = ('ROLE', 'PS_ROOT_URI', 'NUM_WORKER', 'NUM_SERVER', 'NODE_HOST')
        print(*[os.environ['DMLC_' + name] for name in names], flush=True)
        socket.create_server(('127.0.0.1', int(os.environ['DMLC_PS_ROOT_PORT']))).close()
        job.progress(3, examples=10, loss=0.125)
        while not os.path.exists('go_on'):
            time.sleep(0.02)
        job.progress(4, loss=0.0625)
        job.stop()
        open('workers_ended', 'w').close()
    ''', '-n', 1, '-s', 2, '--server', 'idle') as job:
        assert wait_for(lambda: (job.status().get('progress') or {}).get('step') == 3)
        shown = subprocess.run([sys.executable, '-m', 'd2l', 'launch', '--status', str(job.logs)],
                               stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        (tmp_path / 'go_on').touch()
        assert job.finish() == 0, job.errors
    assert ': running, 0 restarts' in shown[0]
    assert [line.split()[0] for line in shown[1:]] == ['process', 'scheduler', 'server', 'server',
                                                       'worker']
    assert 'running  3' in shown[-1] and '0.125' in shown[-1] and 'localhost' in shown[-1]
    assert '[worker 0] worker 127.0.0.1 1 2 127.0.0.1\n' in job.output
    assert '[scheduler] role scheduler\n' in job.output
    assert '[server 1] role server\n' in job.output
    assert job.events('progress')[-1]['loss'] == 0.0625
    assert ': done' in status_lines(job.status())[0]


# --- Failures -------------------------------------------------------------------------------------

def test_an_exception_ends_the_job_and_comes_last(tmp_path):
    """At once, though the failed worker would not end by itself, nor would the others."""
    begin = time.monotonic()
    job = launch(tmp_path, '''
        import atexit, threading, time
        from d2l.parallel import job
        atexit.register(time.sleep, 60)
        if job.rank() == 1:
            raise ValueError('the reason')
        time.sleep(0.2)
        if job.rank() == 0:
            raise OSError('a victim')
        time.sleep(60)
    ''', '-n', 3, *LOCAL)
    assert time.monotonic() - begin < 20
    assert job.process.returncode == 1
    lines = job.errors.splitlines()
    assert lines[-1] == 'ValueError: the reason'
    start = lines.index('Traceback (most recent call last):')
    assert 'd2l launch: worker 1 raised an exception' == lines[start - 1]
    assert 'script.py", line 6' in lines[start + 1]
    assert len(job.events('start')) == 1  # it never formed, so another start would not help


@pytest.mark.slow
@pytest.mark.parametrize('code, status, sentence', [
    ('sys.exit(7)', 7, 'worker 1 ended with exit status 7'),
    ('sys.exit("a message")', 1, 'worker 1 ended with exit status 1'),
    ('os.kill(os.getpid(), 11)', 139, 'worker 1 was ended by SIGSEGV'),
    ('os._exit(3)', 3, 'worker 1 ended with exit status 3')])
def test_the_exit_status_is_that_of_the_first_failure(tmp_path, code, status, sentence):
    job = launch(tmp_path, STEPS, '-n', 2, '--max-restarts', 0, *LOCAL, arguments=[10000, code])
    assert job.process.returncode == status
    assert f'd2l launch: {sentence}\n' in job.errors
    if 'message' in code:
        assert job.errors.splitlines()[-1] == 'a message'


@pytest.mark.slow
@pytest.mark.parametrize('code, sentence', [
    ('os.kill(os.getpid(), 9)', 'worker 1 was ended by SIGKILL'),
    ('os.kill(os.getpid(), 19)', 'worker 1 has been stopped for'),
    ('raise KeyError(step)', 'worker 1 raised an exception')])
def test_the_job_starts_again(tmp_path, code, sentence):
    job = launch(tmp_path, STEPS, '-n', 2, '--heartbeat-timeout', 2, '--store', 'ring',
                 arguments=[300, code])
    assert job.process.returncode == 0, job.errors
    assert f'd2l launch: {sentence}' in job.errors and 'restart 1 of 3' in job.errors
    assert '[worker 1] end of 1 restart 1' in job.output
    assert 'end of 1 restart 1' in (job.logs / 'worker1.restart1.log').read_text()


@pytest.mark.slow
def test_restarts_are_counted(tmp_path):
    job = launch(tmp_path, STEPS.replace('job.restart() == 0', 'True'), '-n', 2,
                 '--max-restarts', 2, *LOCAL, arguments=[10000, 'os.kill(os.getpid(), 9)'])
    assert job.process.returncode == 137
    assert 'worker 1 was ended by SIGKILL (after 2 restarts)' in job.errors
    assert [event['restart'] for event in job.events('start')] == [0, 1, 2]


@pytest.mark.slow
def test_a_step_that_takes_too_long(tmp_path):
    """With the place where it hangs."""
    job = launch(tmp_path, STEPS, '-n', 2, '--step-timeout', 2, '--max-restarts', 0, *LOCAL,
                 arguments=[400, 'def hanging():\n    time.sleep(60)\nhanging()'])
    assert job.process.returncode == 124
    assert 'd2l launch: worker 1 finished no step in 2 s after step 5' in job.errors
    assert 'in hanging' in (job.logs / 'worker1.log').read_text()


@pytest.mark.slow
def test_uneven_batches(tmp_path):
    job = launch(tmp_path, '''
        import time
        from d2l.parallel import job
        job.start()
        for step in range(1, 4 + job.rank()):
            job.progress(step)
        time.sleep(60 * job.rank())
    ''', '-n', 2, '--store', 'ring')
    assert job.process.returncode == 1
    assert ('worker 0 has left after step 3 while worker 1 is in step 4: all workers must have '
            'equally many batches') in job.errors


def parent_of(pid):
    with open(f'/proc/{pid}/stat') as file:
        return int(file.read().rpartition(')')[2].split()[1])


# --- Nothing is left ------------------------------------------------------------------------------

STUBBORN = '''
    import os, signal, subprocess, sys, time
    from d2l.parallel import job
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep = [sys.executable, '-c', 'import time; time.sleep(60)']
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    job.progress(1)
    time.sleep(60)
'''


@pytest.mark.slow
@pytest.mark.parametrize('victim, number, status', [
    ('launcher', signal.SIGKILL, -9), ('launcher', signal.SIGTERM, 143),
    ('launcher', signal.SIGINT, 130),
    ('agent', signal.SIGKILL, 1), ('agent', signal.SIGSTOP, 124)])
def test_nothing_is_left(tmp_path, victim, number, status):
    with Launched(tmp_path, STUBBORN, '-n', 2, '--max-restarts', 0, '--heartbeat-timeout', 2,
                  *LOCAL) as job:
        assert wait_for(lambda: (job.status().get('progress') or {}).get('step') == 1)
        pids = marked(job.mark)
        agents = [pid for pid, command in pids.items() if b'parallel._agent' in command]
        assert len(pids) == 1 + 1 + 2 + 4 and len(agents) == 1
        os.kill(job.process.pid if victim == 'launcher' else agents[0], number)
        assert wait_for(lambda: not marked(job.mark), 12)
        assert job.finish() == status, job.errors


@pytest.mark.slow
@pytest.mark.parametrize('number, status, reachable', [
    (signal.SIGKILL, 1, True), (signal.SIGSTOP, 124, True), (signal.SIGKILL, 1, False)])
def test_nothing_is_left_on_another_host(tmp_path, number, status, reachable):
    """Also of a remote agent's processes, which only somebody on that host can find."""
    shell = tmp_path / 'shell'  # as ssh does, it gives the agent a session of its own
    shell.write_text('#!/bin/sh\nshift\n[ ! -e closed ] || exit 255\n'
                     'exec setsid -w env -i {0}=${0} "$@"\n'.format(NAME))
    shell.chmod(0o755)
    (tmp_path / 'hosts').write_text('far address=127.0.0.1\n')
    script, arguments = (STUBBORN, []) if reachable else (STEPS, [100000])
    with Launched(tmp_path, script, '-n', 2, '--max-restarts', 0, '--heartbeat-timeout', 2,
                  '--hosts', 'hosts', '--ssh', './shell', *LOCAL, arguments=arguments) as job:
        assert wait_for(lambda: job.status().get('progress'))
        if not reachable:
            (tmp_path / 'closed').touch()
        os.kill(parent_of(job.pid('worker 0')), number)
        assert job.finish() == status, job.errors
    assert ('processes may be left on the host far' in job.errors) == (not reachable)


@pytest.mark.slow
def test_the_second_interrupt_is_obeyed_at_once(tmp_path):
    with Launched(tmp_path, STUBBORN, '-n', 1, *LOCAL) as job:
        assert wait_for(lambda: (job.status().get('progress') or {}).get('step') == 1)
        begin = time.monotonic()
        job.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        job.process.send_signal(signal.SIGINT)
        assert job.finish() == 130
        assert time.monotonic() - begin < 4  # less than the five seconds of grace
    assert 'ended by SIGINT' in job.errors


# --- Jobs that cannot form ------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('options, hosts, sentence', [
    (['-n', '0'], None, '-n must be at least 1, got 0'),
    (['-s', '0'], None, '-s must be at least 1 for dist_sync'),
    (['-s', '1', '--store', 'ring'], None, '-s must be left out for ring'),
    (['--store', 'horovod', '-n', '3'], None, 'horovodrun -np 3 python'),
    (['--max-restarts', '-1'], None, '--max-restarts must not be negative'),
    (['--start-timeout', '0'], None, '--start-timeout must be positive'),
    (['--interface', 'nosuch'], None, 'the interface nosuch has no IPv4 address'),
    (['--port', 'TAKEN'], None, 'cannot listen on port'),
    (['--python', 'nosuch'], None, 'the host localhost cannot be reached'),
    (['-n', '4'], 'a slots=1\nb slots=2', '-n must be at most 3, the slots'),
    ([], 'a slots=x', 'hosts:1: slots=NUMBER or address=IP must follow'),
    ([], '# nobody', 'names no host'), ([], 'a\na', 'names a twice'),
    ([], 'a.invalid', 'the host a.invalid has no address'),
    (['--ssh', 'nosuch'], 'a address=127.0.0.1', 'the host a cannot be reached'),
    (['--ssh', 'sh -c "echo no route >&2; exit 255"'], 'a address=127.0.0.1',
     'the host a cannot be reached: no route'),
    (['--ssh', 'sh -c "sleep 60"', '--start-timeout', '1'], 'a address=127.0.0.1',
     'the host a cannot be reached: no answer in 1 s')])
def test_a_job_that_cannot_form(tmp_path, options, hosts, sentence):
    if hosts:
        (tmp_path / 'hosts').write_text(hosts)
        options = options + ['--hosts', 'hosts']
    with socket.create_server(('127.0.0.1', 0)) as taken:
        options = [str(taken.getsockname()[1]) if o == 'TAKEN' else o for o in options]
        job = launch(tmp_path, 'print("never")', *options, seconds=20)
    assert job.process.returncode in (1, 2, 124)
    assert sentence in job.errors and 'Traceback' not in job.errors
    assert 'never' not in job.output


def test_a_script_that_is_not_there(tmp_path):
    job = launch(tmp_path, None, *LOCAL)
    assert job.process.returncode == 2
    assert job.errors == f'd2l launch: there is no script {tmp_path}/script.py\n'
    assert cli.main(['launch', '--status', str(tmp_path)]) == 2


@pytest.mark.slow
@pytest.mark.parametrize('script, sentence', [
    ('job.start() if job.rank() == 0 else None', 'worker 1 did not create a Trainer'),
    ('job.start()', 'processes do not reach each other')])
def test_workers_that_do_not_find_each_other(tmp_path, script, sentence):
    job = launch(tmp_path, 'import time\nfrom d2l.parallel import job\n' + script +
                 '\ntime.sleep(60)', '-n', 2, '--start-timeout', 1.5, '--store', 'ring')
    assert job.process.returncode == 124
    assert f'the job did not form in 1.5 s: {sentence}' in job.errors
    assert 'script.py", line 4' in job.errors  # where they wait
    assert len(job.events('start')) == 1


# --- Several hosts --------------------------------------------------------------------------------

def test_workers_are_placed():
    def place(count, *slots):
        return module.place_workers(count, [module.Host(str(i), slots=s)
                                            for i, s in enumerate(slots)])
    assert place(4, None) == [0] * 4
    assert place(5, None, None) == [0, 0, 0, 1, 1]
    assert place(5, 1, None, None) == [0, 1, 1, 2, 2]
    assert place(3, 2, 4) == [0, 0, 1]
    assert place(2, 2, None) == [0, 0]
    with pytest.raises(module.LaunchError, match='-n must be at most 6'):
        place(7, 2, 4)


def test_hosts_must_reach_each_other():
    hosts = [module.Host('a'), module.Host('b')]
    module.check_addresses(hosts, ['10.0.0.1', '10.0.0.2'])
    with pytest.raises(module.LaunchError, match='the host b has the address 127.0.1.1'):
        module.check_addresses(hosts, ['10.0.0.1', '127.0.1.1'])


MEETING = '''
    import os, socket, sys, time
    from d2l.parallel import job
    job.start()
    host, port = os.environ['D2L_STORE_ADDRESS'].split(':')
    if job.rank() == 0:
        with socket.create_server((host, int(port))) as server:
            print('met', server.accept()[1][0], flush=True)
    else:
        for _ in range(100):
            try:
                socket.create_connection((host, int(port)), 1,
                                         (os.environ['D2L_ADDRESS'], 0)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
    job.progress(1)
    print(os.environ['MINE'], job.local_rank(), os.getcwd())
'''


def test_a_host_gets_its_environment_by_the_connection(tmp_path):
    """A remote shell that passes nothing on: neither environment nor folder."""
    shell = tmp_path / 'shell'
    shell.write_text('#!/bin/sh\nshift\ncd /\nexec env -i {0}=${0} "$@"\n'.format(NAME))
    shell.chmod(0o755)
    (tmp_path / 'hosts').write_text('far address=127.0.0.1  # only one\n')
    job = launch(tmp_path, MEETING, '-n', 2, '--store', 'ring', '--hosts', 'hosts', '--ssh',
                 './shell', environment={'MINE': 'passed', 'TMPDIR': '/nosuch'})
    assert job.process.returncode == 0, job.errors
    assert '[worker 0] met 127.0.0.1' in job.output
    assert f'[worker 1] passed 1 {tmp_path}' in job.output
    assert {event['host'] for event in job.events('process')} == {'far'}


def test_two_hosts(tmp_path, two_hosts):
    """Each with its own network: by the addresses of the file, and by those of an interface."""
    names, addresses = two_hosts
    for options, lines in [((), [f'{n} slots=1 address={a}' for n, a in zip(names, addresses)]),
                           (('--interface', 'd2l0'), names)]:
        (tmp_path / 'hosts').write_text('\n'.join(lines))
        job = launch(tmp_path, MEETING, '-n', 2, '--store', 'ring', '--hosts', 'hosts', '--ssh',
                     'ip netns exec', *options, environment={'MINE': 'x'})
        assert job.process.returncode == 0, job.errors
        assert f'[worker 0] met {addresses[1]}' in job.output
        assert {event['name']: event['host'] for event in job.events('process')} == {
            'worker 0': names[0], 'worker 1': names[1]}
        shutil.rmtree(job.logs)


@pytest.mark.slow
def test_a_lost_host_ends_the_job(tmp_path, two_hosts):
    (tmp_path / 'hosts').write_text('\n'.join(two_hosts[0]))
    with Launched(tmp_path, STUBBORN, '-n', 2, '--hosts', 'hosts', '--ssh', 'ip netns exec',
                  '--interface', 'd2l0', '--max-restarts', 0, *LOCAL) as job:
        assert wait_for(lambda: (job.status().get('progress') or {}).get('step') == 1)
        parents = {os.getsid(job.pid(f'worker {rank}')): rank for rank in range(2)}
        assert len(parents) == 2
        os.kill(parent_of(job.pid('worker 1')), signal.SIGTERM)
        assert job.finish() == 1
    assert f'the connection to the host {two_hosts[0][1]} has ended' in job.errors


# --- The progress bar -----------------------------------------------------------------------------

@pytest.mark.slow
def test_the_bar_shows_the_numbers(tmp_path):
    """On a terminal, below the output of the processes."""
    primary, secondary = os.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    path = tmp_path / 'script.py'
    path.write_text(textwrap.dedent(STEPS))
    process = subprocess.Popen(
        [sys.executable, '-m', 'd2l', 'launch', '-n', '2', *LOCAL, str(path), '250'],
        cwd=str(tmp_path), stdout=secondary, stderr=secondary, stdin=secondary,
        env=dict(os.environ, PYTHONPATH=str(cli.__file__).rsplit('/d2l/', 1)[0]))
    os.close(secondary)
    shown = b''
    try:
        while True:
            try:
                data = os.read(primary, 65536)
            except OSError:  # the end, on a terminal
                break
            if not data:
                break
            shown += data
        assert process.wait(10) == 0, shown
    finally:
        process.kill()
        os.close(primary)
    for fragment in (b'step/s', b'loss=', b'examples_per_s=', b'workers=', b'[worker 1] end of 1'):
        assert fragment in shown, shown


def test_the_table_tells_when_the_launcher_has_gone():
    row = dict(process='worker 0', host='a', pid=7, state='running', step=12, heard=0.25,
               numbers={'loss': 0.123456}, examples_per_s=0.0)
    gone = subprocess.Popen(['true'])
    gone.wait()
    status = dict(launcher=gone.pid, state='running', restarts=1, started=0.0, written=3723.0,
                  command=['a.py', '-x'], processes=[row], progress=None)
    assert status_lines(json.loads(json.dumps(status))) == [
        'a.py -x: without its launcher, which has ended, 1 restart, 1:02:03',
        'process   host  pid  state    step  examples/s  loss    last heard',
        'worker 0  a     7    running  12    -           0.1235  0.25 s ago']


def test_what_another_host_is_not_told(monkeypatch):
    monkeypatch.setenv('SSH_CONNECTION', 'x')
    monkeypatch.setenv('MINE', 'y')
    args = SimpleNamespace(store='ring', workers=2)
    hosts = [module.Host('localhost'), module.Host('b')]
    job = module.Job(args, hosts, [0, 1], '/folder')
    assert 'MINE' not in job.environment(hosts[0])  # its agent inherits it
    far = job.environment(hosts[1])
    assert far['MINE'] == 'y' and 'HOME' not in far and 'SSH_CONNECTION' not in far
