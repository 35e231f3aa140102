"""Peers, each in a process of its own, asked in turn to run timed blocks of the same work."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import multiprocessing
import os
import time
import traceback
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.work import Work

Device = Literal["CPU", "GPU"]
Job = NDArray[np.int64]
Judge = Callable[[Job, NDArray[np.float64]], float]

# Threads of idle pools spin before they sleep (OpenBLAS for 2^26 ticks, about 30 ms): so long the
# next peer would not have the machine to itself.
_PAUSE = 0.05
_TIMEOUT = 600.0
# Seconds that a timed block lasts at least.
_BLOCK = 0.25


class Peer(ABC):
    """A way to do some work, made anew for each work.

    Parameters
    ----------
    work : Work
    device : {"CPU", "GPU"}
    """

    pool: Any = None
    """CuPy's memory pool, where arrays are in one."""

    def __init__(self, work: Work, device: Device) -> None:
        self.work = work
        self.device = device

    @abstractmethod
    def job(self, block: int) -> Job:
        """Return what a block computes, drawn by NumPy: the same for all peers."""

    @abstractmethod
    def units(self, job: Job) -> float:
        """Return how many whole updates or gradients a job is."""

    @abstractmethod
    def run(self, job: Job) -> Any:
        """Do a job, and return its results wherever they are."""

    @abstractmethod
    def values(self, results: Any) -> NDArray[np.float64]:
        """Bring the results of `run` to the host."""

    def synchronize(self) -> None:
        """Wait for all work under way; nothing to do for libraries that never leave any."""
        return


class TrainingPeer(Peer):
    """Trains: `run` takes minibatches, (updates, batch), and returns the loss of each update."""

    def job(self, block: int) -> Job:
        """Return the rows of the block's minibatches."""
        return self.work.minibatches(block)

    def units(self, job: Job) -> float:
        """Return the number of updates."""
        return len(job)

    def values(self, results: Any) -> NDArray[np.float64]:
        """Return the losses."""
        return np.array([float(loss) for loss in results])


class GradientPeer(Peer):
    """Differentiates numerically: `run` takes indices of parameters in `Work.flat_weights`."""

    elements: ClassVar[int | None] = None
    """Parameters in a block, from which the time of all is extrapolated; None for all of them."""

    def job(self, block: int) -> Job:
        """Return the block's parameters."""
        return self.work.elements(block, self.elements)

    def units(self, job: Job) -> float:
        """Return the share of the whole gradient."""
        return len(job) / self.work.parameters

    def values(self, results: Any) -> NDArray[np.float64]:
        """Return the derivatives."""
        return np.asarray(results, dtype=np.float64)


@dataclass(frozen=True)
class Row:
    """A row of a comparison.

    Attributes
    ----------
    name : str
    peer : str
        Its `Peer` class as ``"module:Class"``, imported only in the worker.
    package : str
        What must be installed for it.
    device : {"CPU", "GPU"}
    """

    name: str
    peer: str
    package: str
    device: Device = "CPU"


@dataclass
class Result:
    """What became of a row.

    Attributes
    ----------
    status : str
        ``"ok"``, ``"not installed"``, or what went wrong.
    seconds : list of float
        Of one unit (an update, a gradient), for each round; aligned between rows.
    first_seconds : float
        Of the whole first block, compilation included; no part of `seconds`.
    units : float
        Units in a block; below 1, the time is extrapolated.
    deviation : float
        What the judge made of the first block's values.
    agrees : bool
        Whether that is within the tolerance.
    peak_bytes : int or None
        Most memory in arrays while a block ran, the data set included; where asked for.
    """

    row: Row
    status: str = "ok"
    seconds: list[float] = field(default_factory=list)
    first_seconds: float = math.nan
    units: float = math.nan
    deviation: float = math.nan
    agrees: bool = True
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """Median seconds of a unit."""
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The quarter and three-quarter quantiles of the seconds."""
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)

    def speedup(self, baseline: Result) -> float:
        """Return how many times faster this is than `baseline`: the median over rounds."""
        return float(np.median(np.divide(baseline.seconds, self.seconds)))


class PeerError(Exception):
    """A worker failed, died or did not answer."""


class Comparison:
    """Rows to compare, with workers that live on from one work to the next.

    Parameters
    ----------
    rows : sequence of Row
    pause : float
        Seconds between blocks, for the last worker's threads to fall asleep.
    """

    def __init__(self, rows: Sequence[Row], pause: float = _PAUSE) -> None:
        self.rows = rows
        self.pause = pause
        self._workers: dict[Row, Worker] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def measure(
        self,
        work: Work,
        rounds: int,
        judge: Judge,
        tolerance: float = math.inf,
        *,
        memory: bool = False,
    ) -> list[Result]:
        """Run a first block of each row, judge its values, then `rounds` timed blocks in turn.

        Parameters
        ----------
        work : Work
        rounds : int
            Timed blocks of each row; the order rotates from round to round.
        judge : callable
            Maps a job and its values to how far they are off.
        tolerance : float
            How far they may be off.
        memory : bool
            Measure the peak memory of a block as well, afterwards.
        """
        results = [Result(row) for row in self.rows]
        # No bar where nobody watches.
        with tqdm(total=len(results) * (rounds + 1), leave=False, disable=None) as bar:
            for result in results:
                bar.set_description(f"{work.name}: {result.row.name}")
                self._start(result, work, judge, tolerance)
                bar.update()
            for block in range(1, rounds + 1):
                first = block % len(results)
                for result in results[first:] + results[:first]:
                    bar.set_description(f"{work.name}: {result.row.name}")
                    self._time(result, block)
                    bar.update()
        for result in results:
            if memory and result.status == "ok":
                with self._recording_failure(result):
                    result.peak_bytes = self._workers[result.row].ask("peak_memory")
        return results

    def _start(self, result: Result, work: Work, judge: Judge, tolerance: float) -> None:
        """Set a row's worker up for `work` and run its first block."""
        row = result.row
        if importlib.util.find_spec(row.package) is None:
            result.status = "not installed"
            return
        with self._recording_failure(result):
            if row not in self._workers:
                self._workers[row] = Worker(row)
            self._workers[row].ask("setup", work)
            job, values, result.first_seconds = self._workers[row].ask("first")
            if not np.isfinite(values).all():
                raise PeerError("failed: NaN or infinity among its results")
            result.deviation = judge(job, values)
            result.agrees = result.deviation <= tolerance

    def _time(self, result: Result, block: int) -> None:
        """Have a row run a timed block, unless it has failed."""
        if result.status == "ok":
            time.sleep(self.pause)
            with self._recording_failure(result):
                seconds, result.units = self._workers[result.row].ask("time", block)
                result.seconds.append(seconds / result.units)

    @contextlib.contextmanager
    def _recording_failure(self, result: Result) -> Iterator[None]:
        try:
            yield
        except PeerError as error:
            result.status = str(error)
            if result.row in self._workers:
                self._workers.pop(result.row).close()


class Worker:
    """The parent's end of a process that serves one row."""

    def __init__(self, row: Row) -> None:
        # Intel's OpenMP would spin for 200 ms after each block.
        os.environ.setdefault("KMP_BLOCKTIME", "20")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, row), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any, timeout: float = _TIMEOUT) -> Any:
        """Have the worker's `Session` run a method; raise PeerError if that fails."""
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(timeout):
                raise PeerError(f"failed: no answer within {timeout:.0f} s")
            error, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise PeerError(f"crashed: exit code {self._process.exitcode}") from None
        if error:
            raise PeerError(f"failed: {error}")
        return answer

    def close(self) -> None:
        """Hang up, and end the process if it does not end by itself."""
        self._connection.close()
        self._process.join(timeout=5)
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, row: Row) -> None:
    """Serve a row in the worker process until the parent hangs up."""
    # glibc gives large arrays back to the system, and their pages cost as much as work on them,
    # until one that is larger still was freed. Rows should not differ by who happened to do that.
    np.zeros(31 * 2**20, np.uint8)
    session = Session(row)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            method, arguments = connection.recv()
            answer: tuple[str | None, Any]
            try:
                answer = None, getattr(session, method)(*arguments)
            except Exception as error:
                traceback.print_exc()
                first_line = str(error).strip().partition("\n")[0]
                answer = f"{type(error).__name__}: {first_line}", None
            connection.send(answer)


class Session:
    """What a worker does for its parent."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def setup(self, work: Work) -> None:
        """Make the peer for a work."""
        self.work = work
        self.peer = self._make()

    def first(self) -> tuple[Job, NDArray[np.float64], float]:
        """Run the first block; return its job, its values, and its seconds, warm-up included."""
        job = self.peer.job(0)
        seconds, results = timed(self.peer, job)
        return job, self.peer.values(results), seconds

    def time(self, block: int) -> tuple[float, float]:
        """Run another block; return the seconds and the units of a job.

        Caches and threads have gone cold while others ran: a job shorter than a block is done
        once before the clock is started, and then again and again.
        """
        job = self.peer.job(block)
        units = self.peer.units(job)
        seconds = timed(self.peer, job)[0]
        if seconds >= _BLOCK:
            return seconds, units
        repeats = math.ceil(_BLOCK / seconds)
        return timed(self.peer, job, repeats)[0] / repeats, units

    def peak_memory(self) -> int:
        """Make the peer anew and return the most bytes in arrays while a block runs."""
        del self.peer
        tracemalloc.start()
        try:
            self.peer = self._make()
            if self.peer.pool:
                self.peer.pool.free_all_blocks()
            tracemalloc.reset_peak()
            self.peer.run(self.peer.job(0))
            self.peer.synchronize()
            if self.peer.pool:
                return int(self.peer.pool.total_bytes())
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def _make(self) -> Peer:
        module, _, name = self.row.peer.partition(":")
        peer: Peer = getattr(importlib.import_module(module), name)(self.work, self.row.device)
        return peer


def timed(
    peer: Peer, job: Job, repeats: int = 1, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, Any]:
    """Return the seconds that a job takes, repeated or not, and its results: throughput.

    The peer is waited for before the clock is read, both times.
    """
    peer.synchronize()
    start = clock()
    for _ in range(repeats):
        results = peer.run(job)
    peer.synchronize()
    return clock() - start, results
