"""The transport 'mpi': MPI's all-reduce, through mpi4py."""
import sys
import time

import numpy as np

from d2l.parallel.stores._memory import memory

SPIN = 0.002  # seconds of polling before a waiting process hands its core over


class MPI:
    """All processes that mpiexec started.

    MPI has no timeout of its own, so that operations are begun and then asked for; TimeoutError
    after timeout seconds.  An exception that nobody catches ends the whole job (MPI_Abort), since
    the others would wait for ever.  rank, size: what the launcher says, to be compared with MPI's;
    None where nothing is known.
    """

    on_host = True

    def __init__(self, rank, size, timeout):
        self._mpi = mpi = _import_mpi()
        world = mpi.COMM_WORLD
        if rank is not None and (rank, size) != (world.rank, world.size):
            raise ValueError(f'ring: MPI says rank {world.rank} of {world.size}, the environment '
                             f"rank {rank} of {size}: transport 'mpi' needs processes started by "
                             "mpiexec; take transport='gloo' under `d2l launch`")
        self.rank, self.size, self._timeout = world.rank, world.size, timeout
        self._comm, self._half = world.Dup(), None
        _abort_on_exceptions(world)

    def start(self, array, name):
        """Begin to sum a vector over all ranks, in place; return what `wait` takes."""
        buffer = memory(array)
        operation = self._mpi.SUM
        if buffer.dtype == 'float16':
            buffer, operation = [buffer, self._mpi.UINT16_T], self._half_sum()
        return self._comm.Iallreduce(self._mpi.IN_PLACE, buffer, operation), array

    def wait(self, handle):
        """Wait for the end of an operation."""
        self._finish(handle[0])

    def broadcast(self, array):
        """Replace a vector by rank 0's."""
        self._finish(self._comm.Ibcast(memory(array), 0))

    def barrier(self):
        """Wait for all ranks."""
        self._finish(self._comm.Ibarrier())

    def close(self):
        """Drop the communicator; nobody is waited for."""
        self._comm = None

    def _finish(self, request):
        begun = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - begun
            if waited > self._timeout:
                raise TimeoutError(f'ring: rank {self.rank} waited {self._timeout:g} s for the '
                                   'others; MPI does not say for which')
            if waited > SPIN:
                time.sleep(0)

    def _half_sum(self):
        """MPI's own sums have no float16 in its standard."""
        if self._half is None:
            self._half = self._mpi.Op.Create(_add_halves, commute=True)
        return self._half


def _add_halves(terms, sums, datatype):
    sums = np.frombuffer(sums, np.float16)
    sums += np.frombuffer(terms, np.float16)


def _import_mpi():
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ImportError("ring: transport 'mpi' needs mpi4py and an MPI library: pip install "
                          f"'d2l-gluon[mpi]' (or take transport='gloo'); {error}") from None
    return MPI


def _abort_on_exceptions(world):
    if getattr(sys.excepthook, 'aborts', False) or world.size == 1:
        return
    show = sys.excepthook

    def show_and_abort(kind, value, trace):
        show(kind, value, trace)
        sys.stderr.flush()
        world.Abort(1)

    show_and_abort.aborts = True
    sys.excepthook = show_and_abort
