"""Competitors, each in a process of its own, asked in turn to run timed blocks of the same work."""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import worker
from benchmarks.work import Array, Job, Work

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
        Its function (see `benchmarks.peers`) as ``"module:function"``, imported in its process.
    package : str
        What must be installed for it.
    elements : int or None
        How many elements of a gradient a block takes, from which the time of all is
        extrapolated; None for all of them.
    has_gpu : bool
        Whether it can run on a GPU too.
    gpu : bool
        Whether it does.
    """

    name: str
    peer: str
    package: str
    elements: int | None = None
    has_gpu: bool = True
    gpu: bool = False


@dataclass(frozen=True)
class Task:
    """What all competitors do, and how their results are judged.

    Attributes
    ----------
    work : Work
    job : callable
        Returns what a block computes, given its number and the competitor's `elements`.
    unit : int
        Entries of a job that make a whole update or gradient.
    title : str
        What `error` returns, in words.
    error : callable
        Maps a job and its results to how far these are off.
    tolerance : float
        How far they may be.
    """

    work: Work
    job: Callable[[int, int | None], Job]
    unit: int
    title: str
    error: Callable[[Job, Array], float]
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
        How far the first block's results are off, by the titles of the tasks.
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

    def measure(self, task: Task, rounds: int) -> list[Result]:
        """Run a first block of each competitor, judge it, then `rounds` timed blocks in turn.

        The order rotates from round to round. One that fails, or whose results are off by more
        than the task tolerates, is not timed; its status says why.
        """
        pairs = [(competitor, Result(competitor.name)) for competitor in self.competitors]
        # No bar where nobody watches.
        with tqdm(total=len(pairs) * (rounds + 1), leave=False, disable=None) as bar:
            for block in range(rounds + 1):
                first = block % len(pairs)
                for competitor, result in pairs[first:] + pairs[:first]:
                    bar.set_description(f"{task.work.name}: {result.name}")
                    self._run(competitor, result, task, block)
                    bar.update()
        return [result for _, result in pairs]

    def _run(self, competitor: Competitor, result: Result, task: Task, block: int) -> None:
        """Run a block, the first or a timed one, unless an earlier one failed."""
        if result.status != "ok":
            return
        job = task.job(block, competitor.elements)
        try:
            if block == 0:
                self._start(competitor, result, task, job)
            else:
                time.sleep(self.pause)
                seconds = self._ask(competitor, worker.time_job, job)
                result.seconds.append(seconds / result.units)
        except worker.PeerError as error:
            result.status = str(error)

    def _start(self, competitor: Competitor, result: Result, task: Task, job: Job) -> None:
        if importlib.util.find_spec(competitor.package) is None:
            raise worker.PeerError("not installed")
        arguments = competitor.peer, competitor.gpu, task.work, job
        values = self._ask(competitor, worker.start, *arguments)
        if not np.isfinite(values).all():
            raise worker.PeerError("failed: NaN or infinity among its results")
        result.units = len(job) / task.unit
        result.errors[task.title] = task.error(job, values)
        if result.errors[task.title] > task.tolerance:
            raise worker.PeerError("failed: its results are not the same")

    def _ask(self, competitor: Competitor, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the competitor's process, which is started when it is first asked."""
        if competitor not in self._processes:
            self._processes[competitor] = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), initializer=worker.prepare
            )
        try:
            return self._processes[competitor].submit(worker.call, function, *arguments).result()
        except BrokenProcessPool:
            del self._processes[competitor]
            raise worker.PeerError("failed: its process died") from None
