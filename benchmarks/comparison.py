"""Competitors, each in a process of its own, asked in turn to run timed blocks of the same work."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import worker
from benchmarks.peers import Job, Values
from benchmarks.work import Work

# Threads of idle pools spin before they sleep (OpenBLAS for 2^26 ticks, about 30 ms): so long the
# next competitor would not have the machine to itself.
_PAUSE = 0.05


@dataclass(frozen=True)
class Competitor:
    """One line of a comparison.

    Attributes
    ----------
    name : str
    peer : str
        Its class in `benchmarks.peers` as ``"module:Class"``, imported only in its process.
    package : str
        What must be installed for it.
    gpu : bool
        Whether it runs on the GPU.
    """

    name: str
    peer: str
    package: str
    gpu: bool = False


@dataclass(frozen=True)
class Judge:
    """Says how far the results of a block are off.

    Attributes
    ----------
    title : str
        What `error` returns, in words.
    error : callable
        Maps a job and its values to a number.
    tolerance : float
        What that may be at most.
    """

    title: str
    error: Callable[[Job, Values], float]
    tolerance: float = math.inf


@dataclass
class Result:
    """What became of a competitor.

    Attributes
    ----------
    name : str
    status : str
        ``"ok"``, ``"not installed"``, or what went wrong.
    errors : dict of str to float
        What each judge made of the first block, by its title.
    units : float
        Updates or gradients in a block; below 1, the time is extrapolated.
    seconds : list of float
        Of one update or gradient, for each round; aligned between competitors.
    """

    name: str
    status: str = "ok"
    errors: dict[str, float] = field(default_factory=dict)
    units: float = math.nan
    seconds: list[float] = field(default_factory=list)


class Comparison:
    """Competitors, whose processes live on from one work to the next.

    Parameters
    ----------
    competitors : sequence of Competitor
    pause : float
        Seconds between blocks, for the threads of the last competitor to fall asleep.
    """

    def __init__(self, competitors: Sequence[Competitor], pause: float = _PAUSE) -> None:
        self.competitors = competitors
        self.pause = pause
        self._processes: dict[Competitor, ProcessPoolExecutor] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.shutdown()

    def measure(self, work: Work, rounds: int, judge: Judge) -> list[Result]:
        """Run a first block of each competitor, judge it, then `rounds` timed blocks in turn.

        The order rotates from round to round. One that fails, or whose results are off by more
        than the judge tolerates, is not timed; its status says why.
        """
        pairs = [(competitor, Result(competitor.name)) for competitor in self.competitors]
        # No bar where nobody watches.
        with tqdm(total=len(pairs) * (rounds + 1), leave=False, disable=None) as bar:
            for competitor, result in pairs:
                bar.set_description(f"{work.name}: {result.name}")
                with _noting_failure(result):
                    self._start(competitor, result, work, judge)
                bar.update()
            for block in range(1, rounds + 1):
                first = block % len(pairs)
                for competitor, result in pairs[first:] + pairs[:first]:
                    bar.set_description(f"{work.name}: {result.name}")
                    if result.status == "ok":
                        with _noting_failure(result):
                            self._time(competitor, result, block)
                    bar.update()
        return [result for _, result in pairs]

    def _start(self, competitor: Competitor, result: Result, work: Work, judge: Judge) -> None:
        if importlib.util.find_spec(competitor.package) is None:
            raise worker.PeerError("not installed")
        arguments = competitor.peer, competitor.gpu, work
        job, values, result.units = self._ask(competitor, worker.start, *arguments)
        if not np.isfinite(values).all():
            raise worker.PeerError("failed: NaN or infinity among its results")
        error = judge.error(job, values)
        result.errors[judge.title] = error
        if error > judge.tolerance:
            raise worker.PeerError(f"not the same work: {judge.title} is {error:.1e}")

    def _time(self, competitor: Competitor, result: Result, block: int) -> None:
        time.sleep(self.pause)
        seconds = self._ask(competitor, worker.time_block, block)
        result.seconds.append(seconds / result.units)

    def _ask(self, competitor: Competitor, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the competitor's process, which is started when it is first asked."""
        if competitor not in self._processes:
            self._processes[competitor] = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer=worker.prepare
            )
        try:
            return self._processes[competitor].submit(function, *arguments).result()
        except BrokenProcessPool:
            del self._processes[competitor]
            raise worker.PeerError("failed: its process died") from None


@contextlib.contextmanager
def _noting_failure(result: Result) -> Iterator[None]:
    try:
        yield
    except worker.PeerError as error:
        result.status = str(error)
