"""Many processes that work together, by MPI: who does what, and what they learn of each other.

Work is cut into parts that do not depend on how many processes there are, each part is done by one
of them, and what comes of it is gathered. So the results have the same bits on any number, and are
the same on all of them, also where their processors round differently.

All processes make the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np

from dlfs_gpu._validation import ArgumentError, Array, namespace_of
from dlfs_gpu.backend import cpu_cores, one_blas_thread, run_in_chunks, to_numpy

_Result = TypeVar("_Result")

# What sets the threads of BLAS before it is loaded.
_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Processes:
    """The processes of a communicator; or this one alone, which needs no MPI.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0 on, and of all.

    Raises
    ------
    ArgumentError
        If `comm` is no communicator of processes that work together.
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank, self.size = 0, 1
        if comm is not None:
            mpi: Any = sys.modules.get("mpi4py.MPI")
            if mpi is None or not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
                raise ArgumentError(
                    "comm",
                    f"is {comm!r}; it must be an mpi4py communicator, such as MPI.COMM_WORLD",
                )
            self.rank, self.size = comm.Get_rank(), comm.Get_size()

    def threads(self) -> AbstractContextManager[None]:
        """Return a context in which BLAS has one thread in each process, if there may be several.

        Where an environment variable says how many, it has these.
        """
        if self.comm is None or any(name in os.environ for name in _THREAD_VARIABLES):
            return contextlib.nullcontext()
        return one_blas_thread

    def cores(self) -> int:
        """Return how many cores of this machine there are for each of its processes."""
        if self.comm is None:
            return cpu_cores()
        from mpi4py import MPI

        here = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        count: int = here.Get_size()
        here.Free()
        return min(cpu_cores(), max(1, (os.cpu_count() or 1) // count))

    def shares(self, total: int, block: int) -> list[slice]:
        """Return which elements of `total` each process takes, in blocks of so many."""
        blocks = math.ceil(total / block)
        ends = [min(block * (rank * blocks // self.size), total) for rank in range(self.size + 1)]
        return [slice(*ends[rank : rank + 2]) for rank in range(self.size)]

    def gather(self, part: Array, shares: Sequence[slice]) -> Array:
        """Return the parts of all processes in a row, along the last axis.

        Parameters
        ----------
        part : array, shape (..., K)
            This process's.
        shares : sequence of slice
            Where in the result each process's part belongs.
        """
        if self.size == 1:
            return part
        xp = namespace_of(part)
        # Through the host: few MPIs take arrays of a GPU.
        sent = np.ascontiguousarray(to_numpy(part).T)
        received = np.empty((shares[-1].stop, *sent.shape[1:]), sent.dtype)
        row = math.prod(sent.shape[1:])
        counts = [row * (share.stop - share.start) for share in shares]
        self.comm.Allgatherv(sent, (received, counts))
        return xp.asarray(received.T)

    def from_root(self, action: Callable[[], _Result]) -> _Result:
        """Return what the first process gets from `action`, or raise what it raises there."""
        if self.size == 1:
            return action()
        outcome: Any = None
        if self.rank == 0:
            try:
                outcome = action(), None
            except Exception as error:
                outcome = None, error
        result, failure = self.comm.bcast(outcome)
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def require_same(self, things: Mapping[str, Any]) -> None:
        """Raise ArgumentError, on all processes, if they have not the same.

        Parameters
        ----------
        things : mapping of str to Any
            Arguments by name: arrays, or what `repr` tells apart.
        """
        if self.size == 1:
            return
        digests = self.comm.allgather({name: _digest(thing) for name, thing in things.items()})
        for rank, others in enumerate(digests):
            for name, digest in others.items():
                if digest != digests[0].get(name):
                    problem = f"is not the same on the processes 0 and {rank}; it must be on all"
                    raise ArgumentError(name, problem)


def in_shares(
    run: Callable[[int, int], None], flat: Array, chunk: int, title: str, processes: Processes
) -> Array:
    """Return an array whose elements `run` has set, each process's share in chunks.

    Parameters
    ----------
    run : callable
        ``run(start, stop)`` sets these elements of `flat`.
    flat : array, shape (N,)
    chunk, title
        As for `dlfs_gpu.backend.run_in_chunks`.
    processes : Processes
    """
    shares = processes.shares(flat.shape[0], chunk)
    own = shares[processes.rank]

    def run_own(start: int, stop: int) -> None:
        run(own.start + start, own.start + stop)

    run_in_chunks(run_own, own.stop - own.start, chunk, title)
    return processes.gather(flat[own], shares)


ALONE = Processes()
"""This process alone."""


def _digest(thing: Any) -> str:
    """Return what tells an array, or anything else by how Python writes it, from others."""
    if not hasattr(thing, "dtype"):
        return repr(thing)
    array = np.ascontiguousarray(to_numpy(thing))
    return f"{array.dtype} {array.shape} {zlib.crc32(array.data)}"
