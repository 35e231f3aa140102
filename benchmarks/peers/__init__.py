"""The same work done by each library, and what the comparison asks of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.work import Work

Job = NDArray[np.int64]
Values = NDArray[np.float64]


class Peer(ABC):
    """A way to do some work, made anew for each work.

    Parameters
    ----------
    work : Work
    gpu : bool
        Whether to do it on the GPU.
    """

    def __init__(self, work: Work, gpu: bool) -> None:
        self.work = work
        self.gpu = gpu

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
    def values(self, results: Any) -> Values:
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

    def values(self, results: Any) -> Values:
        """Return the losses."""
        return np.array([float(loss) for loss in results])


class GradientPeer(Peer):
    """Differentiates numerically: `run` takes elements of the variables, as `Work` counts them."""

    elements: ClassVar[int | None] = None
    """How many a block takes, from which the time of all is extrapolated; None for all of them."""

    def job(self, block: int) -> Job:
        """Return the block's elements."""
        return self.work.elements(block, self.elements)

    def units(self, job: Job) -> float:
        """Return the share of the whole gradient."""
        return len(job) / self.work.parameters

    def values(self, results: Any) -> Values:
        """Return the derivatives."""
        return np.asarray(results, dtype=np.float64)
