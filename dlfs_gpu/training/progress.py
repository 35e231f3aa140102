"""What people see of a training: lines on standard error, and on terminals a bar."""

from __future__ import annotations

import contextlib
import sys
import time

from dlfs_gpu._validation import Array
from dlfs_gpu.training.history import History

# Seconds between looks at the loss for the bar; each waits for the device.
_REFRESH = 1.0
# Of more epochs than twice this, only about so many get a line.
_LINES = 40


class Progress:
    """Shows a training inside a ``with`` block.

    Parameters
    ----------
    history : History
    done, planned, epoch : int
        Updates done, in all, and in an epoch.
    verbose : bool
        Whether to show anything.
    """

    def __init__(
        self, history: History, done: int, planned: int, epoch: int, *, verbose: bool
    ) -> None:
        from tqdm import tqdm

        self._history = history
        self._verbose = verbose
        self._every = max(1, planned // epoch // _LINES)
        self._looked = time.perf_counter()
        self._bar = tqdm(
            total=planned, initial=done, unit=" iterations", disable=None if verbose else True
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def updated(self, losses: Array) -> None:
        """Show that updates were done, with these losses, (K,)."""
        self._bar.update(losses.shape[0])
        if self._verbose and time.perf_counter() - self._looked > _REFRESH:
            self._bar.set_postfix(self._shown(losses), refresh=False)
            self._looked = time.perf_counter()

    def evaluated(self, loss: Array | None, *, last: bool) -> None:
        """Show the last evaluation, and the loss of the last update; always if it is the `last`."""
        if not self._verbose:
            return
        shown = self._shown(loss)
        self._bar.set_postfix(shown, refresh=False)
        iterations = self._history.iterations
        if last or (len(iterations) - 1) % self._every == 0:
            line = "  ".join(f"{name} {value}" for name, value in shown.items())
            with contextlib.suppress(OSError):  # Nobody may be reading any more.
                self._bar.write(f"iteration {iterations[-1]:6d}  {line}", file=sys.stderr)

    def _shown(self, loss: Array | None) -> dict[str, str]:
        """Return the loss of an update and the last accuracies for people to read."""
        history = self._history
        shown = {} if loss is None else {"loss": f"{float(loss[-1]):.4f}"}
        shown["train"] = f"{history.train_accuracy[-1]:.4f}"
        if history.test_accuracy:
            shown["test"] = f"{history.test_accuracy[-1]:.4f}"
        if history.val_loss:
            shown["val_loss"] = f"{history.val_loss[-1]:.4f}"
        return shown
