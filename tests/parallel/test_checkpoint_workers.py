"""Checkpoints of several workers: one writes, all restore the same."""
import os

import numpy as onp
import pytest
from mxnet import np

from d2l.parallel import _checkpoint_file
from d2l.parallel.checkpoint import Checkpoint, CheckpointError
from tests.parallel.test_checkpoint import dense


class Channel:
    """The store of two workers, which call it one after the other."""

    num_workers, sent, keys = 2, {}, set()

    def __init__(self, rank):
        self.rank = rank

    def broadcast(self, key, value, out, priority=0):
        assert key not in self.keys
        self.keys.add(key)
        if self.rank == 0:
            self.sent['last'] = value.copy()
        self.sent['last'].copyto(out)


class Worker:
    """A trainer's part that matters here."""

    _update_on_kvstore = False

    def __init__(self, rank):
        self._kvstore, self.asked = Channel(rank), 0

    def get_states(self):
        self.asked += 1
        return b'states'

    def set_states(self, data):
        assert data == b'states'


def workers(folder, **kwargs):
    return [(Checkpoint(folder, rank=rank, num_workers=2, **kwargs), Worker(rank))
            for rank in range(2)]


def test_rank_0_writes_and_all_restore_the_same(tmp_path):
    both = workers(tmp_path, steps=2, keep=5)
    for one, trainer in both:
        assert one.restore(trainer=trainer) is None
        for step in (1, 2, 3, 4):
            one.maybe_save(step, net=dense(step + 10 * one._rank), trainer=trainer)
        one.wait()
    assert [trainer.asked for _, trainer in both] == [2, 0]
    (one, first), (two, second) = workers(tmp_path)
    nets = dense(), dense()
    assert one.restore(net=nets[0], trainer=first) == two.restore(net=nets[1], trainer=second) == 4
    assert [net.weight.data()[0, 0] for net in nets] == [4, 4]
    # Rank 1 takes what rank 0 found, even if there is a later one by now, or none it can read.
    os.truncate(_checkpoint_file.path_of(str(tmp_path), 4), 50)
    with pytest.warns(RuntimeWarning, match='damaged'):
        assert one.restore(trainer=first) == 2
    one.save(6, trainer=first)
    one.wait()
    assert two.restore(trainer=second) == 2
    with pytest.raises(CheckpointError, match='rank 0 restores step 6, rank 1 cannot: .*No such'):
        assert one.restore(trainer=first) == 6
        os.unlink(_checkpoint_file.path_of(str(tmp_path), 6))
        two.restore(trainer=second)
    with pytest.raises(CheckpointError, match='step 2 of rank 1 is another checkpoint than that'):
        assert one.restore(trainer=first) == 2
        one.save(2, trainer=first, extra='other')
        one.wait()
        two.restore(trainer=second)


def test_the_others_hear_of_it_when_rank_0_fails(tmp_path):
    (one, first), (two, second) = workers(tmp_path)
    one.save(1)
    one.wait()
    os.truncate(_checkpoint_file.path_of(str(tmp_path), 1), 50)
    with pytest.warns(RuntimeWarning), pytest.raises(CheckpointError, match='none of the check'):
        one.restore(trainer=first)
    with pytest.raises(CheckpointError, match='rank 0 could not restore'):
        two.restore(trainer=second)


def test_states_that_workers_read_together(tmp_path):
    both = workers(tmp_path, steps=1)
    for one, trainer in both:
        trainer._update_on_kvstore = trainer._distributed = True
        one.maybe_save(1, trainer=trainer)
    assert [trainer.asked for _, trainer in both] == [1, 1]
    one = Checkpoint(tmp_path, rank=1, num_workers=2)
    with pytest.raises(ValueError, match='steps must be given'):
        one.maybe_save(1, trainer=both[1][1])


def test_ranks_have_random_numbers_of_their_own(tmp_path):
    drawn = []
    for rank in (0, 1, 0):
        Checkpoint(tmp_path, seed=5, rank=rank, num_workers=2).restore()
        drawn.append((np.random.uniform(size=()).item(), onp.random.rand()))
    assert drawn[0] == drawn[2] and not set(drawn[0]) & set(drawn[1])


def test_between_two_updates(tmp_path):
    one, trainer = Checkpoint(tmp_path, steps=2), Worker(0)
    for step in range(1, 7):
        trainer.pending = step % 3
        assert one.maybe_save(step, trainer=trainer) == (step % 3 == 0)
