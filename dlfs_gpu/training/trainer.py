"""Training by minibatches: Trainer, and early stopping (sections 4.5.2, 4.5.3, 6.4)."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import ArgumentError, Array, check_count, is_finite, namespace_of
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import make_optimizer
from dlfs_gpu.processes import Processes
from dlfs_gpu.training.history import History
from dlfs_gpu.training.sharing import accuracy, make_update, mean_loss, start_together
from dlfs_gpu.training.update import GradientKind

# Minibatches whose indices are drawn and uploaded together.
_BLOCK = 1000
# Seconds between looks at the loss for the progress bar; each waits for the device.
_REFRESH = 1.0
# Of more epochs than twice this, only about so many get a line.
_LINES = 40


class Trainer:
    """Trains a network by minibatches, with the book's names and defaults (6.6).

    Parameters
    ----------
    network : Network
    x_train, t_train, x_test, t_test : array
        Data on the network's backend; the test data may be None. Minibatches are drawn with
        replacement, as in the chapter.
    epochs : int
        Training lasts this many times ``len(x_train) / mini_batch_size`` updates.
    mini_batch_size : int
        Samples in a minibatch.
    optimizer : str or object with ``update(params, grads)``
        One of `dlfs_gpu.optimizers`, by its name in upper or lower case or itself, or another.
    optimizer_param : dict, optional
        Arguments of an optimizer given by name.
    evaluate_sample_num_per_epoch : int, optional
        Use only this many samples, the first, for the accuracies.
    verbose : bool
        Show lines of accuracies on standard error, one for each epoch (of very many epochs, for
        some forty), and where that is a terminal a progress bar.
    iterations : int, optional
        Number of updates, instead of `epochs`.
    gradient : {"backprop", "difference", "batched", "loop"}
        How gradients are computed: by backpropagation, or by central differences, by the methods
        of `dlfs_gpu.Network.numerical_gradient`.
    seed : int, optional
        Of the minibatches, which are drawn on the host: the same for every backend.
    x_val, t_val : array, optional
        Validation data, for `patience`.
    patience : int, optional
        Stop early when the validation loss has not fallen for this many epochs, and in any case
        end with the weights, and the optimizer's state, for which it was least (6.4; never decided
        on test data).
    comm : mpi4py.MPI.Intracomm, optional
        Processes that train together, each with the same arguments: numerical gradients are shared
        by parameters, backpropagation and evaluations by samples, so that no layer may make one
        sample depend on others. All end with the same network and history, whose bits do not
        depend on how many they are. They start with the first one's parameters, optimizer and
        random numbers, and stop together. The first one alone shows lines.

    Attributes
    ----------
    network : Network
    iter_per_epoch, max_iter : int
        Updates in an epoch, and in all.
    history : History
        Of the last call to `train`.

    Raises
    ------
    ArgumentError, TypeError
        If data do not fit the network or are not finite, or an argument is out of range; if `comm`
        is no communicator or has more processes than a minibatch has shards (8, or one for each 256
        samples), or one sample may depend on others. `train` raises ArgumentError if data or
        settings are not the same on all processes.

    Notes
    -----
    A minibatch's loss and gradient are those of ``network.loss_and_gradient``, or of a subclass's
    own ``loss_and_gradient``, or ``gradient`` and ``loss``.
    """

    def __init__(
        self,
        network: Network,
        x_train: Array,
        t_train: Array,
        x_test: Array = None,
        t_test: Array = None,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: Any = "SGD",
        optimizer_param: dict[str, Any] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        iterations: int | None = None,
        gradient: GradientKind = "backprop",
        seed: int | None = None,
        x_val: Array = None,
        t_val: Array = None,
        patience: int | None = None,
        comm: Any = None,
    ) -> None:
        self.network = network
        optimizer = make_optimizer(optimizer, **(optimizer_param or {}))
        self._processes = Processes(comm)
        self.verbose = verbose and self._processes.rank == 0
        self._train = _checked(network, x_train, t_train, "train")
        self._test = _checked_pair(network, x_test, t_test, "test")
        self._val = _checked_pair(network, x_val, t_val, "val")
        self.patience = None if patience is None else check_count("patience", patience)
        if patience is not None and x_val is None:
            raise ArgumentError(
                "patience", f"is {patience}, which needs validation data, but x_val is None"
            )
        self._evaluated = evaluate_sample_num_per_epoch
        if evaluate_sample_num_per_epoch is not None:
            check_count("evaluate_sample_num_per_epoch", evaluate_sample_num_per_epoch)
        size = self._train[0].shape[0]
        self._sampler = MinibatchSampler(size, mini_batch_size, seed=seed)
        self.iter_per_epoch = max(size // mini_batch_size, 1)
        if iterations is None:
            self.max_iter = check_count("epochs", epochs) * self.iter_per_epoch
        else:
            self.max_iter = check_count("iterations", iterations)
        self._update = make_update(
            network, optimizer, *self._train, mini_batch_size, gradient, self._processes
        )
        self._stop = self._stopping = False
        self.history = History()

    @property
    def optimizer(self) -> Any:
        """What updates the parameters."""
        return self._update.optimizer

    @property
    def train_loss_list(self) -> list[float]:
        """Loss of each update."""
        return [float(loss) for loss in self.history.losses]

    @property
    def train_acc_list(self) -> list[float]:
        """Accuracy on the training data at each evaluation."""
        return self.history.train_accuracy

    @property
    def test_acc_list(self) -> list[float]:
        """Accuracy on the test data at each evaluation."""
        return self.history.test_accuracy

    def stop(self) -> None:
        """Make `train` end after the current update; for signal handlers and other threads."""
        self._stop = True

    def train(self) -> History:
        """Do all updates, and return their history; called again, go on from there.

        Interrupted by an exception, KeyboardInterrupt for one, it leaves in `history` what was
        done so far, and in the network what it would have left at its end.
        """
        from tqdm import tqdm

        start_together(
            self._update,
            self._sampler,
            {"train": self._train, "test": self._test, "val": self._val},
            {
                "iterations": self.max_iter,
                "patience": self.patience,
                "evaluate_sample_num_per_epoch": self._evaluated,
            },
        )
        history = self.history = History()
        params = self.network.params
        best: dict[str, Array] = {}
        best_state: dict[str, Any] = {}
        least, done, waited = math.inf, 0, 0
        bar = tqdm(total=self.max_iter, unit=" iterations", disable=None if self.verbose else True)
        # `stopped` tells of overflow, once.
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        try:
            with bar, quiet, self._processes.threads():
                while True:
                    self._evaluate(done, bar)
                    if self.patience is not None:
                        waited += 1
                        if history.val_loss[-1] < least:
                            least, waited, history.best_iteration = history.val_loss[-1], 0, done
                            best = {key: _copy(param) for key, param in params.items()}
                            best_state = copy.deepcopy(vars(self.optimizer))
                    if done == self.max_iter or history.stopped != "finished":
                        break
                    if waited == self.patience:
                        history.stopped = "early"
                        break
                    done += self._run(min(self.iter_per_epoch, self.max_iter - done), bar)
                    if self._stopping:
                        history.stopped = "interrupted"
                    elif not is_finite(history._losses[-1][-1:], *params.values()):
                        history.stopped = "diverged"
        except BaseException:
            history.stopped = "interrupted"
            raise
        finally:
            self._stop = self._stopping = False
            for key, param in best.items():
                params[key][...] = param
            vars(self.optimizer).update(best_state)
        return history

    def _run(self, count: int, bar: Any) -> int:
        """Do `count` updates, or fewer if told to stop, and return how many."""
        parts: list[Array] = []
        start = looked = time.perf_counter()
        try:
            with self._update.threads():
                for losses in self._updates(count):
                    parts.append(losses)
                    bar.update(losses.shape[0])
                    if self.verbose and time.perf_counter() - looked > _REFRESH:
                        bar.set_postfix(self._shown(losses[-1]), refresh=False)
                        looked = time.perf_counter()
                    self._stopping = self._processes.any(self._stop)
                    if self._stopping:
                        break
        finally:
            if parts:
                self.history._losses.append(namespace_of(parts[0]).concat(parts))
            self.network.backend.synchronize()
            self.history.seconds += time.perf_counter() - start
        return sum(losses.shape[0] for losses in parts)

    def _updates(self, count: int) -> Iterator[Array]:
        """Do the next updates, and yield their losses as they come, (K,)."""
        x, _ = self._train
        for first in range(0, count, _BLOCK):
            drawn = self._sampler.draw(min(_BLOCK, count - first))
            yield from self._update.run(namespace_of(x).asarray(drawn, device=device(x)))

    def _evaluate(self, done: int, bar: Any) -> None:
        history, network, first = self.history, self.network, self._evaluated
        history.iterations.append(done)
        x, t = self._train
        processes = self._processes
        share = accuracy(network, x[:first, ...], t[:first, ...], processes)
        history.train_accuracy.append(share)
        if self._test is not None:
            x, t = self._test
            share = accuracy(network, x[:first, ...], t[:first, ...], processes)
            history.test_accuracy.append(share)
        if self._val is not None:
            x, t = self._val
            history.val_loss.append(mean_loss(network, x, t, processes))
        if self.verbose:
            shown = self._shown(history._losses[-1][-1] if done else None)
            bar.set_postfix(shown, refresh=False)
            every = max(1, self.max_iter // self.iter_per_epoch // _LINES)
            last = done == self.max_iter or history.stopped != "finished"
            if last or (len(history.iterations) - 1) % every == 0:
                line = "  ".join(f"{name} {value}" for name, value in shown.items())
                with contextlib.suppress(OSError):  # Nobody may be reading any more.
                    bar.write(f"iteration {done:6d}  {line}", file=sys.stderr)

    def _shown(self, loss: Array | None) -> dict[str, str]:
        """Return the loss of an update and the last accuracies for people to read."""
        history = self.history
        shown = {} if loss is None else {"loss": f"{float(loss):.4f}"}
        shown["train"] = f"{history.train_accuracy[-1]:.4f}"
        if history.test_accuracy:
            shown["test"] = f"{history.test_accuracy[-1]:.4f}"
        if history.val_loss:
            shown["val_loss"] = f"{history.val_loss[-1]:.4f}"
        return shown


def _checked(network: Network, x: Array, t: Array, name: str) -> tuple[Array, Array]:
    """Return data ready for the network, or raise what they lack under the names that they have."""
    try:
        return network._check(x, t)
    except ArgumentError as error:
        if error.argument not in ("x", "t"):
            raise
        raise ArgumentError(f"{error.argument}_{name}", error.problem) from error
    except TypeError as error:
        raise TypeError(f"x_{name} and t_{name}: {error}") from error


def _checked_pair(network: Network, x: Array, t: Array, name: str) -> tuple[Array, Array] | None:
    """Return data ready for the network, or None if there are none."""
    if x is None and t is None:
        return None
    if x is None or t is None:
        given, missing = ("t", "x") if x is None else ("x", "t")
        raise ArgumentError(f"{missing}_{name}", f"is None, but {given}_{name} is given; give both")
    return _checked(network, x, t, name)


def _copy(x: Array) -> Array:
    return namespace_of(x).asarray(x, copy=True)
