"""Defects of MXNet's distributed training: each shows with gluon.Trainer and not with d2l.Trainer.

`_defects.py` has a function for each, whose docstring begins with its number in docs/parallel.md.
"""
from pathlib import Path

import pytest

from tests.parallel import _cluster

SCRIPT = str(Path(__file__).parent / '_defects.py')
# In this order with d2l.Trainer: after two bits nothing else can be broadcast.
NAMES = ['race', 'first_gradient', 'optimizer_of_the_script', 'learning_rate', 'states',
         'batch_size', 'gradient', 'two_trainers', 'sparse', 'convolution', 'thread_at_exit',
         'compression']


def lines(processes):
    return [[line for line in processes[f'worker {i}'].output.splitlines()
             if line.split(':')[0] in NAMES + ['order']] for i in range(2)]


@pytest.mark.slow
def test_none_with_our_trainer(tmp_path):
    """All in one process: a dozen trainers."""
    processes = _cluster.run([SCRIPT, 'd2l'] + NAMES, env={'FOLDER': str(tmp_path)})
    _cluster.check(processes)
    assert lines(processes) == [[f'{name}: right' for name in NAMES]] * 2


@pytest.mark.slow
def test_sums_do_not_depend_on_the_order(tmp_path):
    """With the option exact; the ring has an order of its own."""
    processes = _cluster.run([SCRIPT, 'd2l', 'order'], workers=3)
    _cluster.check(processes)
    assert all('order: right' in processes[f'worker {i}'].output for i in range(3))


def plain(names, folder, timeout=30, workers=2):
    return _cluster.run([SCRIPT, 'plain'] + names, workers, server=_cluster.PLAIN_SERVER,
                        timeout=timeout, env={'FOLDER': str(folder)})


@pytest.mark.slow
@pytest.mark.parametrize('name, sign', [
    ('race', 'expected 1.0'), ('first_gradient', 'expected 0.0'),
    ('optimizer_of_the_script', 'expected 0.5, got [2.0]'),
    ('learning_rate', 'expected 0.5'), ('states', 'Cannot save states'),
    ('batch_size', 'Possible change in the `batch_size`'),
    ('gradient', "wrong ('[0.5 0.5 0.5]')"),  # it was 2, and the weight has become 0.5
    ('compression', 'Compression not supported'),
    ('order', 'got [1.0, 1.0000001192092896]')])
def test_wrong_with_gluon(tmp_path, name, sign):
    found = lines(plain([name], tmp_path, timeout=12, workers=3 if name == 'order' else 2))
    assert any(line.startswith(f'{name}: wrong') and sign in line for of in found for line in of), \
        found


@pytest.mark.slow
@pytest.mark.parametrize('name, server', [('two_trainers', [None]), ('sparse', [-6]),
                                          ('convolution', [None, -6])])
def test_hanging_with_gluon(tmp_path, name, server):
    processes = plain([name], tmp_path, timeout=12)
    assert lines(processes) == [[], []]
    assert processes['scheduler'].status is None
    assert processes['server 0'].status in server
    assert any(processes[f'worker {i}'].status is None for i in range(2))


@pytest.mark.slow
def test_abort_with_gluon(tmp_path):
    processes = plain(['thread_at_exit'], tmp_path)
    assert lines(processes) == [['thread_at_exit: right']] * 2
    assert -6 in [processes[f'worker {i}'].status for i in range(2)]
