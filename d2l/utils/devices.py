"""Which processors there are, GPUs and CPU cores for loading data, and which a net is on."""
import logging
import multiprocessing
import os

import mxnet
from mxnet import npx
from mxnet.context import current_context

from d2l.utils.parameters import parameters_of

_logger = logging.getLogger('d2l')

_MAX_WORKERS = 4


def try_gpu(i=0):
    """Return gpu(i) if it exists, otherwise cpu() (section 5.6)."""
    if i < 0:
        raise ValueError(f'try_gpu: i must not be negative, got {i}')
    return npx.gpu(i) if i < _num_gpus() else npx.cpu()


def try_all_gpus():
    """Return the list of all GPUs, or [cpu()] if there is none (section 5.6)."""
    return [npx.gpu(i) for i in range(_num_gpus())] or [npx.cpu()]


def devices_of(net):
    """Return the list of devices that the first parameter of a Block is on.

    This is [the current device] for a Block without parameters.  The parameter may still wait for
    its shape.  Raises RuntimeError when it is not initialized.
    """
    params = parameters_of(net)
    return params[0].list_ctx() if params else [current_context()]


def get_dataloader_workers():
    """Return how many worker processes a DataLoader should use (section 3.5).

    The book's four, but not more than this process may use CPU cores.  0, which means loading in
    this process, on a single core and where processes are not forked (Windows, macOS): a new
    process imports MXNet first, which takes longer than it saves.
    """
    # Asking for the method without allow_none would fix it for the whole program.
    method = multiprocessing.get_start_method(allow_none=True)
    if (method or multiprocessing.get_all_start_methods()[0]) != 'fork':
        return 0
    cores = _num_cores()
    return min(_MAX_WORKERS, cores) if cores > 1 else 0


def _num_gpus():
    """Return the number of usable GPUs; a build for GPUs may find neither GPU nor driver."""
    try:
        return npx.num_gpus()
    except mxnet.MXNetError as error:
        _logger.warning('no GPU can be used, computing on the CPU: %s',
                        str(error).strip().splitlines()[-1])
        return 0


def _num_cores():
    """Return how many CPU cores this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
