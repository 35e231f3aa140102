"""Descents to compare: a line fitted at several rates, a network trained by several optimizers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.functions import sum_squared_error
from dlfs_gpu.gradient import gradient_descent
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer


class LineFit(NamedTuple):
    """A line fitted by gradient descent.

    Attributes
    ----------
    path : array, shape (steps + 1, 2)
        Slope and intercept after each step.
    first_gradient : array, shape (2,)
        The gradient at the start, as the first step shows it.
    first_loss, last_loss : float
        ½Σ(y − ŷ)² at both ends of the path.
    """

    path: NDArray[np.float64]
    first_gradient: NDArray[np.float64]
    first_loss: float
    last_loss: float


def fit_line(
    backend: Backend,
    *,
    lr: float = 0.1,
    steps: int = 1000,
    start: ArrayLike = (-1.0, 5.0),
    points: ArrayLike = ((1.0, 3.0), (2.0, 5.0)),
) -> LineFit:
    """Fit ŷ = m·x + b to points by gradient descent on ½Σ(y − ŷ)², with numerical gradients.

    Parameters
    ----------
    backend : Backend
    lr : float
        Learning rate.
    steps : int
        Number of steps, 1 or more.
    start : array_like, shape (2,)
        First m and b.
    points : array_like, shape (P, 2)
        Pairs (x, y); the slide deck's two by default.
    """
    data = backend.asarray(points, "float64")
    x, y = data[:, 0], data[:, 1]

    def loss(line: Array) -> Array:
        return sum_squared_error(line[0] * x + line[1], y)

    last, path = gradient_descent(loss, backend.asarray(start, "float64"), lr, steps)
    return LineFit(
        backend.to_numpy(path),
        backend.to_numpy((path[0] - path[1]) / lr),
        float(loss(path[0])),
        float(loss(last)),
    )


_RATES = {
    "SGD": 0.01,
    "Momentum": 0.01,
    "Nesterov": 0.01,
    "AdaGrad": 0.01,
    "RMSprop": 0.001,
    "Adam": 0.001,
}


def compare_optimizers(backend: Backend) -> dict[str, NDArray[np.float64]]:
    """Train the same network on the embedded digits by each optimizer, for 500 updates (6.1).

    The network is 64-50-50-10 with ReLU. All start from the same weights and see the same
    minibatches; the rates are the book's defaults, and Adam's for RMSprop too.

    Returns
    -------
    dict of str to array, shape (500,)
        The minibatch losses of each.
    """
    train, _ = load_digits(backend=backend)
    losses = {}
    for name, lr in _RATES.items():
        trainer = Trainer(
            MultiLayerNet(64, [50, 50], 10, seed=0, backend=backend),
            *train,
            optimizer=name,
            optimizer_param={"lr": lr},
            iterations=500,
            seed=0,
            verbose=False,
        )
        losses[name] = trainer.train().losses.astype(np.float64)
    return losses
