import logging
import multiprocessing
import os

import mxnet as mx
import pytest
from mxnet import npx
from mxnet.gluon import nn

from d2l.utils import devices


def set_gpus(monkeypatch, count):
    def num_gpus():
        if isinstance(count, Exception):
            raise count
        return count
    monkeypatch.setattr(npx, 'num_gpus', num_gpus)


@pytest.mark.parametrize('count, i, expected', [
    (0, 0, mx.cpu()), (1, 0, mx.gpu(0)), (1, 1, mx.cpu()), (4, 3, mx.gpu(3)), (4, 4, mx.cpu())])
def test_try_gpu(monkeypatch, count, i, expected):
    set_gpus(monkeypatch, count)
    assert devices.try_gpu(i) == expected


def test_try_gpu_counts_from_the_front():
    with pytest.raises(ValueError, match='must not be negative, got -1'):
        devices.try_gpu(-1)


@pytest.mark.parametrize('count, expected', [
    (0, [mx.cpu()]), (1, [mx.gpu(0)]), (3, [mx.gpu(0), mx.gpu(1), mx.gpu(2)])])
def test_try_all_gpus(monkeypatch, count, expected):
    set_gpus(monkeypatch, count)
    assert devices.try_all_gpus() == expected


def test_without_a_driver(monkeypatch, caplog):
    set_gpus(monkeypatch, mx.MXNetError('CUDA: Check failed:\nno CUDA-capable device'))
    with caplog.at_level(logging.WARNING, logger='d2l'):
        assert devices.try_gpu() == mx.cpu()
        assert devices.try_all_gpus() == [mx.cpu()]
    assert 'no CUDA-capable device' in caplog.text


def test_devices_of():
    net = nn.Sequential()
    net.add(nn.Dense(2), nn.Dense(1))
    with pytest.raises(RuntimeError, match='has not been initialized'):
        devices.devices_of(net)
    net[0].initialize(ctx=[mx.cpu(2), mx.cpu(1)])  # the shape is not known yet
    net[1].initialize(ctx=mx.cpu(0))
    assert devices.devices_of(net) == [mx.cpu(2), mx.cpu(1)]
    with mx.Context(mx.cpu(3)):
        assert devices.devices_of(nn.Flatten()) == [mx.cpu(3)]


@pytest.mark.parametrize('cores, expected', [(1, 0), (2, 2), (4, 4), (64, 4)])
def test_workers_follow_the_cores(monkeypatch, cores, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(multiprocessing, 'get_start_method', lambda allow_none: 'fork')
    assert devices.get_dataloader_workers() == expected


@pytest.mark.parametrize('cores, expected', [(None, 0), (8, 4)])
def test_workers_without_affinity(monkeypatch, cores, expected):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    monkeypatch.setattr(multiprocessing, 'get_start_method', lambda allow_none: 'fork')
    assert devices.get_dataloader_workers() == expected


@pytest.mark.parametrize('chosen, default', [('spawn', 'fork'), ('forkserver', 'fork'),
                                             (None, 'spawn')])
def test_no_workers_where_processes_are_not_forked(monkeypatch, chosen, default):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(multiprocessing, 'get_start_method', lambda allow_none: chosen)
    monkeypatch.setattr(multiprocessing, 'get_all_start_methods', lambda: [default])
    assert devices.get_dataloader_workers() == 0
