"""What happened in training."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.files import whole_file

# What has an entry for each.
_EVALUATIONS = ("iterations", "train_accuracy", "test_accuracy", "val_loss")


@dataclass
class History:
    """What happened in training.

    Attributes
    ----------
    iterations : list of int
        Iterations done before each evaluation: 0, then once per epoch, and at the end.
    train_accuracy, test_accuracy : list of float
        Accuracies at these; the second is empty without test data.
    val_loss : list of float
        Losses of the validation data at these, weight decay left out; empty without.
    seconds : float
        Time spent on iterations, evaluations left out.
    stopped : {"finished", "interrupted", "early", "diverged"}
        Why training ended: after all iterations; by `Trainer.stop`; by early stopping; or because
        the loss or a parameter was not finite at the end of an epoch.
    best_iteration : int or None
        Where the validation loss was least, if early stopping was on: the network has the weights
        of that iteration again.
    """

    iterations: list[int] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = "finished"
    best_iteration: int | None = None
    _losses: list[Array] = field(default_factory=list, repr=False)

    @property
    def losses(self) -> np.ndarray:
        """Loss of the minibatch of each iteration, copied from the device."""
        self._join()
        return to_numpy(self._losses[0]) if self._losses else np.empty(0)

    @property
    def iterations_per_second(self) -> float:
        """Iterations in each second of `seconds`."""
        count = sum(len(part) for part in self._losses)
        return count / self.seconds if self.seconds else 0.0

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a row for each iteration: its loss, and the accuracies before it where computed."""
        columns = {
            "loss": dict(enumerate(self.losses.tolist())),
            "train_accuracy": dict(zip(self.iterations, self.train_accuracy, strict=False)),
            "test_accuracy": dict(zip(self.iterations, self.test_accuracy, strict=False)),
            "val_loss": dict(zip(self.iterations, self.val_loss, strict=False)),
        }
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["iteration", *columns])
            for i in range(len(columns["loss"]) + 1):
                writer.writerow([i, *(column.get(i, "") for column in columns.values())])

    def _join(self) -> None:
        if self._losses:
            self._losses = [namespace_of(self._losses[0]).concat(self._losses)]

    def _state(self, epoch: int) -> dict[str, Any]:
        """Return the arguments that make this history, as `_go_on` would leave it, again."""
        self._join()
        kept = self._kept(epoch)
        evaluations = {name: getattr(self, name)[:kept] for name in _EVALUATIONS}
        return vars(self) | evaluations | {"stopped": self._stopped_for_good}

    def _go_on(self, epoch: int) -> None:
        """Take back an evaluation in the middle of an epoch of so many iterations."""
        kept = self._kept(epoch)
        for name in _EVALUATIONS:
            del getattr(self, name)[kept:]
        self.stopped = self._stopped_for_good

    def _kept(self, epoch: int) -> int:
        within = self.iterations and self.iterations[-1] % epoch and self.stopped != "diverged"
        return len(self.iterations) - bool(within)

    @property
    def _stopped_for_good(self) -> str:
        return self.stopped.replace("interrupted", "finished")

    def _add(self, *evaluation: float | None) -> None:
        """Add an evaluation: a value for each of `_EVALUATIONS`, None where there are no data."""
        for name, value in zip(_EVALUATIONS, evaluation, strict=True):
            if value is not None:
                getattr(self, name).append(value)
