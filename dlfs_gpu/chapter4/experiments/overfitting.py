"""Over-fitting on a small set, and what helps: dropout, weight decay, early stopping (6.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu.backend import Backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer


class Course(NamedTuple):
    """How a training went.

    Attributes
    ----------
    train_loss, val_loss, val_accuracy : array, shape (epochs,)
        After each epoch: the mean loss of its minibatches, and loss and accuracy of the
        validation data.
    train_accuracy : float
        At the end.
    kept_epoch : int
        The epoch, counted from 1, whose weights the network ended with: the last, or with early
        stopping the best.
    """

    train_loss: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    val_accuracy: NDArray[np.float64]
    train_accuracy: float
    kept_epoch: int


class Overfitting(NamedTuple):
    """The same training four ways."""

    plain: Course
    dropout: Course
    weight_decay: Course
    early_stop: Course


def overfitting(backend: Backend) -> Overfitting:
    """Train a large network on 300 digits, three in ten of them labelled at random.

    Left alone it learns the wrong labels by heart: the training loss falls on, while the loss on
    400 other digits, all labelled right, turns and climbs. Dropout is 0.5, weight decay 0.01, and
    early stopping waits ten epochs. Both sets come from the training part of the embedded digits;
    the test part is for nothing but a last look, and is not touched.
    """
    (x, t), _ = load_digits(backend="numpy")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    train, val = order[:300], order[300:700]
    labels = t[train]
    wrong = rng.random(300) < 0.3
    labels[wrong] = rng.integers(10, size=np.count_nonzero(wrong))
    x_train, t_train, x_val, t_val = map(backend.asarray, (x[train], labels, x[val], t[val]))

    def course(patience: int | None = None, **regularisation: Any) -> Course:
        trainer = Trainer(
            MultiLayerNet(64, [100], 10, seed=0, backend=backend, **regularisation),
            x_train,
            t_train,
            # For the accuracy on them after each epoch.
            x_val,
            t_val,
            epochs=100,
            mini_batch_size=50,
            optimizer="Adam",
            optimizer_param={"lr": 0.01},
            seed=0,
            x_val=x_val,
            t_val=t_val,
            patience=patience,
            verbose=False,
        )
        history = trainer.train()
        best, last = history.best_iteration, history.iterations[-1]
        return Course(
            history.losses.reshape(-1, trainer.iter_per_epoch).mean(axis=1, dtype=np.float64),
            np.asarray(history.val_loss[1:]),
            np.asarray(history.test_accuracy[1:]),
            history.train_accuracy[-1],
            (last if best is None else best) // trainer.iter_per_epoch,
        )

    return Overfitting(
        course(),
        course(dropout_ratio=0.5),
        course(weight_decay_lambda=0.01),
        course(patience=10),
    )
