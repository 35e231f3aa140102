"""Training by minibatches: Trainer, and early stopping (sections 4.5.2, 4.5.3, 6.4)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from dlfs_gpu._validation import ArgumentError, Array, check_count, is_finite
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.network import Network
from dlfs_gpu.optimizers import make_optimizer
from dlfs_gpu.processes import Processes
from dlfs_gpu.training.checkpoint import read_checkpoint, write_checkpoint
from dlfs_gpu.training.early_stopping import EarlyStopping
from dlfs_gpu.training.history import History
from dlfs_gpu.training.inputs import Inputs
from dlfs_gpu.training.progress import Progress
from dlfs_gpu.training.resuming import network_like, optimizer_like, restore, training_state
from dlfs_gpu.training.sharing import make_update, start_together
from dlfs_gpu.training.update import GradientKind
from dlfs_gpu.training.updates import Updates

# Minibatches whose indices are drawn and uploaded together.
_BLOCK = 1000


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
        end with the weights for which it was least (6.4; never decided on test data).
    callback : callable, optional
        Called with the trainer after each evaluation, in every process. It may call `save` or
        `stop`; an exception in it ends training, as one anywhere else does.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that train together, each with the same arguments: numerical gradients are shared
        by parameters, backpropagation and evaluations by samples, so that no layer may make one
        sample depend on others. All end with the same network and history, whose bits do not
        depend on how many they are. They start with the first one's parameters, optimizer and
        random numbers, and stop together. The first one alone shows lines and writes checkpoints.

    Attributes
    ----------
    network : Network
    iter_per_epoch, max_iter : int
        Updates in an epoch, and in all.
    history : History
        Of all calls to `train`.

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
        callback: Callable[[Trainer], object] | None = None,
        comm: Any = None,
    ) -> None:
        self.network = network
        optimizer = make_optimizer(optimizer, **(optimizer_param or {}))
        self._processes = Processes(comm)
        self.verbose = verbose and self._processes.rank == 0
        parts = (x_train, t_train), (x_test, t_test), (x_val, t_val)
        self._inputs = Inputs(network, *parts, evaluate_sample_num_per_epoch)
        self.patience = None if patience is None else check_count("patience", patience)
        if patience is not None and x_val is None:
            raise ArgumentError(
                "patience", f"is {patience}, which needs validation data, but x_val is None"
            )
        x, t = self._inputs.train
        size: int = x.shape[0]
        sampler = MinibatchSampler(size, mini_batch_size, seed=seed)
        self.iter_per_epoch = max(size // mini_batch_size, 1)
        if iterations is None:
            self.max_iter = check_count("epochs", epochs) * self.iter_per_epoch
        else:
            self.max_iter = check_count("iterations", iterations)
        update = make_update(network, optimizer, x, t, mini_batch_size, gradient, self._processes)
        self._updates = Updates(update, sampler)
        self.callback = callback
        self.history = History()
        self._planned = self.max_iter
        self._ended = False  # `train` has done all that was planned
        self._early = EarlyStopping(network)
        self._stop = False
        self._at_rest = True  # no update is half done
        self._due = math.inf
        self._when_due: Callable[[], object] | None = None

    @property
    def optimizer(self) -> Any:
        """What updates the parameters."""
        return self._updates.update.optimizer

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
        """Do all updates, and return their history.

        Called again, it does those that an earlier call left; where none are, as many as before;
        after early stopping or divergence, none. Several calls do what one would have done: they
        go on from the last weights, not the best, and an evaluation in the middle of an epoch,
        where one ended, is taken back.

        Interrupted by an exception, KeyboardInterrupt for one, it leaves in `history` what was
        done so far, and in the network what it would have left at its end.
        """
        update, sampler = self._updates.update, self._updates.sampler
        start_together(update, sampler, self._inputs.parts, self._settings)
        history = self.history
        if history.stopped in ("early", "diverged"):
            self._early.take_best()
            return history
        self._go_on()
        counts = (self._updates.done, self._planned, self.iter_per_epoch)
        self._at_rest = False
        try:
            progress = Progress(history, *counts, verbose=self.verbose)
            with progress, self._processes.threads():
                while True:
                    stopping = self._processes.any(self._stop)
                    self._ended = self._updates.done == self._planned
                    if stopping or self._ended or self._epoch_ended:
                        self._evaluate(progress, stopping)
                        stopping = self._processes.any(self._stop)
                    if self._ended or history.stopped == "diverged":
                        break
                    if stopping:
                        history.stopped = "interrupted"
                        break
                    if self._early.best.waited == self.patience:
                        history.stopped = "early"
                        break
                    if self._processes.any(self._is_due) and self._when_due is not None:
                        self._due = math.inf
                        self._call(self._when_due)
                    self._update(progress)
        except BaseException:
            history.stopped = "interrupted"
            raise
        finally:
            self._stop, self._at_rest = False, True
            self._early.take_best()
        return history

    def save(self, path: str | os.PathLike[str], notes: Any = None) -> None:
        """Write a checkpoint, from which `resume` goes on: a safetensors file.

        It is of the updates that are done; but weights that an exception in the middle of an
        update, KeyboardInterrupt for one, has left half changed are saved as they are. A file that
        is there stays whole until it is replaced.

        Parameters
        ----------
        path : path
        notes : optional
            Numbers, texts, and lists, tuples and dictionaries of them: to be found again by
            `dlfs_gpu.training.checkpoint.read_checkpoint`.

        Raises
        ------
        ArgumentError
            If a layer draws at random and has no `lasting` (`dlfs_gpu.protocols.Layer`).
        RuntimeError
            In the middle of an update: from a signal handler, or another thread than `train`'s.
        TypeError
            If an attribute of the optimizer, or a lasting one of a layer, is none of the things
            that a checkpoint can hold.
        OSError
            If the file cannot be written.
        """
        if not self._at_rest:
            raise RuntimeError(
                "save was called in the middle of an update; call it in callback, or call stop, "
                "and save when train has ended"
            )
        state = {"notes": notes, "settings": self._settings, "planned": self._planned}
        state |= training_state(
            self._updates, self._inputs, self._early, self.history, self.iter_per_epoch
        )
        if self._processes.rank == 0:
            write_checkpoint(path, state)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        x_train: Array,
        t_train: Array,
        x_test: Array = None,
        t_test: Array = None,
        *,
        x_val: Array = None,
        t_val: Array = None,
        network: Network | None = None,
        optimizer: Any = None,
        verbose: bool = True,
        callback: Callable[[Trainer], object] | None = None,
        comm: Any = None,
    ) -> Trainer:
        """Return a trainer whose `train` goes on from a checkpoint, as if it had never stopped.

        Parameters
        ----------
        path : path
            File of `save`.
        x_train, t_train, x_test, t_test, x_val, t_val : array
            The same data; their library decides where training goes on.
        network : Network, optional
            One like that of the checkpoint, whose parameters are replaced. It must be given unless
            that was a `MultiLayerNet` or a `TwoLayerNet`, and no subclass.
        optimizer : object, optional
            One of the checkpoint's class, whose attributes are replaced. It must be given unless
            that was one of `dlfs_gpu.optimizers`.
        verbose, callback, comm
            As for `Trainer`. The processes may be more or fewer than those of the checkpoint, which
            the first one reads for all.

        Raises
        ------
        OSError, DataError
            If the file cannot be read; if it is not a checkpoint, or damaged.
        ArgumentError
            If data, network or optimizer are not those of the checkpoint.

        Warns
        -----
        UserWarning
            If backend, device or versions are others, or only one of the trainings has a `comm`:
            bits may differ then.
        """
        saved = Processes(comm).from_root(lambda: read_checkpoint(path))
        backend = "cupy" if is_cupy_array(x_train) else "numpy"
        trainer = cls(
            network_like(saved["network"], network, backend),
            x_train,
            t_train,
            x_test,
            t_test,
            optimizer=optimizer_like(saved["optimizer"], optimizer),
            verbose=verbose,
            x_val=x_val,
            t_val=t_val,
            callback=callback,
            comm=comm,
            **saved["settings"],
        )
        trainer.history = restore(saved, trainer._updates, trainer._inputs, trainer._early)
        trainer._planned = saved["planned"]
        return trainer

    @property
    def _settings(self) -> dict[str, Any]:
        """The arguments that are no arrays and decide what training does."""
        return {
            "mini_batch_size": self._updates.sampler.mini_batch_size,
            "evaluate_sample_num_per_epoch": self._inputs.evaluated,
            "iterations": self.max_iter,
            "gradient": self._updates.update.gradient,
            "patience": self.patience,
        }

    @property
    def _is_due(self) -> bool:
        return time.perf_counter() >= self._due

    @property
    def _epoch_ended(self) -> bool:
        return self._updates.done % self.iter_per_epoch == 0

    def _go_on(self) -> None:
        """Make all as if the last call to `train` had not ended."""
        self._early.take_last()
        self.history._go_on(self.iter_per_epoch)
        self.history.best_iteration = self._early.best.iteration
        if self._ended:
            self._planned += self.max_iter

    def _call_after(self, seconds: float, function: Callable[[], object]) -> None:
        """Have `train` call a function, once, between two updates that many seconds from now."""
        self._due, self._when_due = time.perf_counter() + seconds, function

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call what may save."""
        self._at_rest = True
        function(*arguments)
        self._at_rest = False

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")  # `stopped` tells of it, once
    def _update(self, progress: Progress) -> None:
        """Do the next updates of the epoch, up to a block; fewer if something else is due."""

        def after(losses: Array) -> bool:
            progress.updated(losses)
            return self._processes.any(self._stop or self._is_due)

        done = self._updates.done
        left = self.iter_per_epoch - done % self.iter_per_epoch
        self._updates.do(min(_BLOCK, left, self._planned - done), self.history, after)

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def _evaluate(self, progress: Progress, stopping: bool) -> None:
        """Add accuracies and validation loss to the history, unless a checkpoint had them."""
        history, network, done = self.history, self.network, self._updates.done
        if history.iterations[-1:] == [done]:
            return
        loss = history._losses[-1][-1:] if done else None
        expected = self._ended or self._epoch_ended
        if done and expected and not is_finite(loss, *network.params.values()):
            history.stopped = "diverged"
        history._add(done, *self._inputs.evaluate(network, self._processes))
        if self.patience is not None:
            self._early.judge(history.val_loss[-1], done, epoch_ended=self._epoch_ended)
            history.best_iteration = self._early.best_at_end.iteration
        last = self._ended or stopping or history.stopped != "finished"
        progress.evaluated(loss, last=last)
        if self.callback is not None:
            self._call(self.callback, self)
