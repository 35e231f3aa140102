"""Many processes that work together, by MPI: who does what, and what they learn of each other.

Work is cut into parts that do not depend on how many processes there are, each part is done by one
of them, and what comes of it is gathered. So the results have the same bits on any number, and are
the same on all of them, also where their processors round differently.

All processes make the same calls in the same order. One that fails ends the others, which would
wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import ArgumentError, Array, check_choice, namespace_of
from dlfs_gpu.backend import run_in_chunks, to_numpy
from dlfs_gpu.kernels import kernels_mode
from dlfs_gpu.machine.threads import cpu_cores, one_blas_thread
from dlfs_gpu.machine.versions import versions

_Result = TypeVar("_Result")

ENVIRONMENT_VARIABLE = "DLFS_GPU_MPI"

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
            if self.size > 1:
                _end_all_on_errors()

    def threads(self) -> AbstractContextManager[None]:
        """Return a context in which BLAS has one thread in each process, if there may be several.

        Where an environment variable says how many, it has these.
        """
        if self.comm is None or any(name in os.environ for name in _THREAD_VARIABLES):
            return contextlib.nullcontext()
        return one_blas_thread

    @property
    def cores(self) -> int:
        """How many cores of this machine there are for each of its processes."""
        if self.comm is None:
            return cpu_cores()
        return min(cpu_cores(), max(1, (os.cpu_count() or 1) // self._on_this_machine[1]))

    @property
    def _on_this_machine(self) -> tuple[int, int]:
        """Number of this process among those of its machine, and how many these are."""
        from mpi4py import MPI

        found: tuple[int, int] | None = self.comm.Get_attr(_place())
        if found is None:  # Asking takes half a millisecond.
            here = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
            found = here.Get_rank(), here.Get_size()
            here.Free()
            self.comm.Set_attr(_place(), found)
        return found

    def deal_gpus(self) -> None:
        """Have the processes of a machine use its GPUs in turn, if it has any."""
        if self.comm is None:
            return
        number, _ = self._on_this_machine
        with contextlib.suppress(Exception):  # `get_backend` says why there is none
            cuda = importlib.import_module("cupy").cuda
            cuda.Device(number % cuda.runtime.getDeviceCount()).use()

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
        lib, sent = _buffer(part.T)
        received = lib.empty((shares[-1].stop, *sent.shape[1:]), sent.dtype)
        row = math.prod(sent.shape[1:])
        self.comm.Allgatherv(sent, (received, [row * length(share) for share in shares]))
        return xp.asarray(received.T)

    def exchange(self, rows: Array, counts: Sequence[int], shares: Sequence[slice]) -> Array:
        """Return the rows of all processes in order, of this process's share of the columns.

        Parameters
        ----------
        rows : array, shape (counts[rank], N)
            This process's.
        counts : sequence of int
            How many each process has.
        shares : sequence of slice
            Which columns each process wants.
        """
        xp = namespace_of(rows)
        wanted = length(shares[self.rank])
        lib, sent = _buffer(xp.concat([xp.reshape(rows[:, share], (-1,)) for share in shares]))
        received = lib.empty((sum(counts), wanted), sent.dtype)
        own = counts[self.rank]
        self.comm.Alltoallv(
            (sent, [own * length(share) for share in shares]),
            (received, [count * wanted for count in counts]),
        )
        return xp.asarray(received)

    def any(self, flag: bool) -> bool:
        """Say whether a flag is set on any of the processes."""
        if self.size == 1:
            return flag
        found = np.zeros(self.size, dtype=bool)
        self.comm.Allgather(np.array([flag]), found)
        return bool(found.any())

    def first(self, value: _Result | None) -> _Result | None:
        """Return the value of the first process that has one, or None."""
        values = [value] if self.size == 1 else self.comm.allgather(value)
        return next((value for value in values if value is not None), None)

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
        """Raise ArgumentError, on all processes, if they have not the same, of the same versions.

        Parameters
        ----------
        things : mapping of str to Any
            Arguments by name: arrays, generators, or what `repr` tells apart.
        """
        if self.size == 1:
            return
        own = {f"version of {name}": version for name, version in versions().items()}
        own["kernels"] = kernels_mode()
        own |= {name: _digest(thing) for name, thing in things.items()}
        digests = self.comm.allgather(own)
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
        As for `dlfs_gpu.backend.run_in_chunks`; the first process shows its bar.
    processes : Processes
    """
    shares = processes.shares(flat.shape[0], chunk)
    own = shares[processes.rank]

    def run_own(start: int, stop: int) -> None:
        run(own.start + start, own.start + stop)

    run_in_chunks(run_own, length(own), chunk, title if processes.rank == 0 else "")
    return processes.gather(flat[own], shares)


ALONE = Processes()
"""This process alone."""


def length(share: slice) -> int:
    """Return how many elements a slice has."""
    return int(share.stop - share.start)


def world() -> Any:
    """Return the communicator of all processes that mpiexec has started.

    Raises
    ------
    ArgumentError
        If there is no mpi4py, or no MPI.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        problem = f'needs mpi4py: pip install "dlfs-gpu[mpi]" ({error})'
        raise ArgumentError("mpi", problem) from error
    except RuntimeError as error:
        cause = str(error).partition("\n")[0]
        problem = f"needs MPI: install that of the machine, or pip install mpich ({cause})"
        raise ArgumentError("mpi", problem) from error
    return MPI.COMM_WORLD


def started_processes() -> int:
    """Return how many processes mpiexec has started, by what it has put into the environment."""
    names = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
    return max(int(os.environ.get(name, "1")) for name in names)


def end_all(report: Callable[[], object], status: int) -> None:
    """Report a failure; and if this is one of several processes, end all with an exit status."""
    mpi: Any = sys.modules.get("mpi4py.MPI")
    several = mpi and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.size > 1
    if several and mpi.COMM_WORLD.rank:
        time.sleep(2)  # What fails everywhere, the first process reports, and ends this one.
    report()
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(0.5)  # mpiexec may lose what was written just before.
        mpi.COMM_WORLD.Abort(status)


@functools.cache
def _end_all_on_errors() -> None:
    """Have an exception that nobody catches end all processes, once it is shown."""
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        status = 128 + signal.SIGINT if issubclass(kind, KeyboardInterrupt) else 1
        end_all(lambda: show(kind, error, trace), status)

    sys.excepthook = hook


@functools.cache
def _place() -> Any:
    """Return the key under which communicators keep where processes are."""
    from mpi4py import MPI

    return MPI.Comm.Create_keyval()


def _buffer(x: Array) -> tuple[Any, Array]:
    """Return an array, contiguous, where MPI can take it, and the library of such arrays.

    That is the host: few MPIs take arrays of a GPU. Where ``DLFS_GPU_MPI=direct`` says that this
    one does, it is the GPU, when it has done what it was told.
    """
    way = os.environ.get(ENVIRONMENT_VARIABLE) or "host"
    if check_choice(ENVIRONMENT_VARIABLE, way, ("host", "direct")) == "direct" and is_cupy_array(x):
        cupy: Any = importlib.import_module("cupy")
        direct = cupy.ascontiguousarray(x)
        cupy.cuda.get_current_stream().synchronize()
        return cupy, direct
    return np, np.ascontiguousarray(to_numpy(x))


def _digest(thing: Any) -> str:
    """Return what tells a thing from others."""
    if isinstance(thing, np.random.Generator):
        return repr(thing.bit_generator.state)
    if not hasattr(thing, "dtype"):
        return repr(thing)
    array = np.ascontiguousarray(to_numpy(thing))
    return f"{array.dtype} {array.shape} {zlib.crc32(array.data)}"
