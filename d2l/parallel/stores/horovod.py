"""The store 'horovod': all-reduce through Horovod, where it is installed (section 12.7)."""
import os

import mxnet as mx
from mxnet.kvstore import KVStoreBase

from d2l.parallel import job
from d2l.parallel.stores._allreduce import AllReduceStore


@KVStoreBase.register
class Horovod(AllReduceStore):
    """Sums gradients over all workers by Horovod 0.28 (with Gloo, MPI or NCCL, as it was built).

    The processes are started by horovodrun.  With NCCL the sums stay on the GPUs; everything else
    is as in 'ring', but for failures: Horovod ends an operation with an error when a worker dies,
    and only warns of one that does not answer (see its HOROVOD_STALL_SHUTDOWN_TIME_SECONDS).

    Raises ImportError where Horovod is not installed for MXNet.
    """

    _created = 0

    def __init__(self, bucket_bytes=None):
        prefix = f'd2l{Horovod._created}'
        Horovod._created += 1
        super().__init__('horovod', _Transport(prefix), bucket_bytes)


class _Transport:
    """Horovod's operations; prefix keeps the names of several stores apart."""

    def __init__(self, prefix):
        self._horovod, self._prefix = _import_horovod(), prefix
        self._horovod.init()
        self.rank, self.size = self._horovod.rank(), self._horovod.size()
        self.on_host = not self._horovod.nccl_built()
        if 'D2L_RANK' in os.environ and (job.rank(), job.num_workers()) != (self.rank, self.size):
            raise ValueError(f'horovod: Horovod says rank {self.rank} of {self.size}, the '
                             f'environment rank {job.rank()} of {job.num_workers()}: start the '
                             "workers with horovodrun; `d2l launch` has the store 'ring'")

    def start(self, array, name):
        """Begin to sum a vector over all ranks, in place; return what `wait` takes."""
        self._horovod.allreduce_(array, average=False, name=f'{self._prefix}.{name}')
        return array

    def wait(self, array):
        """Wait for the end of an operation."""
        array.wait_to_read()

    def broadcast(self, array):
        """Replace a vector by rank 0's."""
        self._horovod.broadcast_(array, 0, name=f'{self._prefix}.broadcast')
        array.wait_to_read()

    def barrier(self):
        """Wait for all ranks."""
        self.wait(self.start(mx.nd.zeros(1, ctx=mx.cpu()), 'barrier'))

    def close(self):
        """Nothing: other stores may still need Horovod, which ends with the process."""


def _import_horovod():
    try:
        import horovod.mxnet
        return horovod.mxnet
    except ImportError as error:
        raise ImportError("horovod: the store needs Horovod built with MXNet: HOROVOD_WITH_MXNET=1 "
                          "HOROVOD_WITH_GLOO=1 pip install --no-build-isolation "
                          f"'d2l-gluon[horovod]'; {error}") from None
