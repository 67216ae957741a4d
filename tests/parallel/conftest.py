"""Jobs of several processes: a second try, and hosts, where the machine allows them."""
import os
import shutil
import subprocess

import pytest

# They start jobs, and meet the deadlines of a machine that runs another test besides.
JOBS = ('test_faults.py', 'test_launch.py', 'test_job.py', 'test_control.py', 'test_server.py',
        'test_engine_defects.py', 'test_ring.py', 'test_two_hosts.py')


def pytest_collection_modifyitems(config, items):
    # In the fault matrix each failure counts.
    if config.pluginmanager.hasplugin('rerunfailures') and not os.environ.get('D2L_FAULT_MOMENTS'):
        for item in items:
            if item.fspath.basename in JOBS:
                item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture
def two_hosts():
    """Two network namespaces with an address each, and a cable between them."""
    names = [f'd2l{os.getpid()}{letter}' for letter in 'ab']
    addresses = ['10.213.7.1', '10.213.7.2']

    def ip(*words):
        return subprocess.run(['ip', *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
    if shutil.which('ip') is None:
        pytest.skip('there is no ip command to make network namespaces with')
    commands = [['netns', 'add', name] for name in names]
    commands.append(['link', 'add', 'd2l0', 'netns', names[0], 'type', 'veth', 'peer', 'name',
                     'd2l0', 'netns', names[1]])
    for name, address in zip(names, addresses):
        commands += [['-n', name, 'address', 'add', address + '/24', 'dev', 'd2l0'],
                     ['-n', name, 'link', 'set', 'd2l0', 'up'],
                     ['-n', name, 'link', 'set', 'lo', 'up']]
    try:
        for command in commands:
            done = ip(*command)
            if done.returncode:
                pytest.skip(f'network namespaces cannot be made here: {done.stdout.strip()}')
        yield names, addresses
    finally:
        for name in names:
            ip('netns', 'delete', name)
