"""The store 'ring': dense synchronous training by all-reduce, without servers (section 12.7)."""
import os

from mxnet.kvstore import KVStoreBase

from d2l.parallel import job
from d2l.parallel.stores._allreduce import AllReduceStore
from d2l.parallel.stores._gloo import Gloo
from d2l.parallel.stores._mpi import MPI

TRANSPORTS = ('gloo', 'mpi')


@KVStoreBase.register
class Ring(AllReduceStore):
    """Sums gradients over all workers by a ring all-reduce.

    transport: 'gloo' (needs PyTorch; meets at address, 'host:port' of rank 0, by default
    D2L_STORE_ADDRESS, which the launcher sets) or 'mpi' (needs mpi4py, and processes started by
    mpiexec).  timeout: seconds a worker waits for the others, in the constructor and in each
    operation.  bucket_bytes: small gradients travel together in buckets of up to this size (by
    default 4 MiB, or 64 KiB for each worker where that is more).

    Every worker updates its own weights, with sums that are bit-identical on all workers and from
    run to run.  Gradients must be dense.  Several stores may live in a process, one for each
    trainer, if all workers create them in the same order.  For gluon.Trainer pass the store
    itself: with one device it ignores names without 'dist'.

    Raises ConnectionError when another worker is gone and TimeoutError when one does not answer in
    time, naming the ranks that gave no sign of life; ImportError when the transport is not
    installed.
    """

    def __init__(self, transport='gloo', timeout=60, bucket_bytes=None, address=None):
        if transport not in TRANSPORTS:
            raise ValueError(f"ring: transport must be one of {', '.join(TRANSPORTS)}, got "
                             f'{transport!r}')
        if not timeout > 0:
            raise ValueError(f'ring: timeout must be above 0 seconds, got {timeout}')
        super().__init__('ring', _connect(transport, timeout, address), bucket_bytes)


def _connect(transport, timeout, address):
    if transport == 'mpi':
        return MPI(job.rank() if 'D2L_RANK' in os.environ else None, job.num_workers(), timeout)
    if job.num_workers() == 1:
        return Alone()
    return Gloo(job.rank(), job.num_workers(), address or os.environ.get('D2L_STORE_ADDRESS'),
                timeout)


class Alone:
    """The transport of a job of one worker: sums are there already."""

    rank, size, on_host = 0, 1, False

    def start(self, array, name):
        """Nothing."""

    def wait(self, handle):
        """Nothing."""

    def broadcast(self, array):
        """Nothing."""

    def barrier(self):
        """Nothing."""

    def close(self):
        """Nothing."""
