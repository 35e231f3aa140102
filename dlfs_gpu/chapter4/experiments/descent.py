"""Worked examples of gradient descent: learning rates, linear regression, optimizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.functions import function_2, sum_squared_error
from dlfs_gpu.gradient import gradient_descent, numerical_gradient
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer


class Descent(NamedTuple):
    """A walk downhill: positions (steps + 1, ...) and the values there (steps + 1,)."""

    path: NDArray[np.float64]
    values: NDArray[np.float64]


def learning_rates(
    rates: Sequence[float] = (10.0, 0.1, 1e-10),
    *,
    start: ArrayLike = (-3.0, 4.0),
    steps: int = 100,
    backend: str | Backend | None = None,
) -> dict[float, Descent]:
    """Walk down x0² + x1² at rates too large, good and too small (4.4.1).

    Parameters
    ----------
    rates : sequence of float
        Learning rates.
    start : array_like, shape (2,)
    steps : int
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Returns
    -------
    dict of float to Descent
        One for each rate.
    """
    place = get_backend(backend)
    walks = {}
    for lr in rates:
        path = place.to_numpy(
            gradient_descent(function_2, place.asarray(start, "float64"), lr, steps)[1]
        )
        walks[lr] = Descent(path, np.sum(path**2, axis=1))
    return walks


class LinearRegression(NamedTuple):
    """A line fitted by gradient descent.

    Attributes
    ----------
    path : array, shape (steps + 1, 2)
        Slope and intercept after each step.
    losses : array, shape (steps + 1,)
        ½Σ(y − ŷ)² there.
    first_gradient : array, shape (2,)
        At the start.
    largest_rate : float
        Descent converges for learning rates below this: 2 / the largest eigenvalue of the
        loss's second derivatives.
    """

    path: NDArray[np.float64]
    losses: NDArray[np.float64]
    first_gradient: NDArray[np.float64]
    largest_rate: float


def linear_regression(
    points: ArrayLike = ((1.0, 3.0), (2.0, 5.0)),
    *,
    start: ArrayLike = (-1.0, 5.0),
    lr: float = 0.1,
    steps: int = 1000,
    gradient: Literal["exact", "numerical"] = "exact",
    backend: str | Backend | None = None,
) -> LinearRegression:
    """Fit ŷ = m·x + b to points by gradient descent on ½Σ(y − ŷ)².

    Parameters
    ----------
    points : array_like, shape (P, 2)
        Pairs (x, y); the slide deck's two by default.
    start : array_like, shape (2,)
        First m and b.
    lr : float
        Learning rate.
    steps : int
        Number of steps.
    gradient : {"exact", "numerical"}
        (Σ(ŷ − y)x, Σ(ŷ − y)), or central differences.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    if gradient not in ("exact", "numerical"):
        raise ValueError(f"gradient is {gradient!r}; it must be 'exact' or 'numerical'")
    place = get_backend(backend)
    data = place.asarray(points, "float64")
    xp = place.xp
    # Both columns of the line's inputs: ŷ = A @ (m, b).
    A = xp.stack([data[:, 0], xp.ones_like(data[:, 0])], axis=1)
    y = data[:, 1]

    def loss(line: Array) -> Array:
        return sum_squared_error(A @ line, y)

    def exact(line: Array) -> Array:
        return A.T @ (A @ line - y)

    def numerical(line: Array) -> Array:
        return numerical_gradient(loss, line)

    slope = exact if gradient == "exact" else numerical
    first = place.asarray(start, "float64")
    _, path = gradient_descent(loss, first, lr, steps, gradient=slope)
    errors = path @ A.T - y
    curvature = place.to_numpy(A.T @ A)
    return LinearRegression(
        place.to_numpy(path),
        place.to_numpy(0.5 * xp.sum(errors * errors, axis=1)),
        place.to_numpy(slope(first)),
        float(2 / np.linalg.eigvalsh(curvature)[-1]),
    )


OPTIMIZER_RATES = {
    "SGD": 0.01,
    "Momentum": 0.01,
    "Nesterov": 0.01,
    "AdaGrad": 0.01,
    "RMSprop": 0.001,
    "Adam": 0.001,
}
"""Learning rates `compare_optimizers` uses: the book's defaults, and Adam's for RMSprop."""


def compare_optimizers(
    rates: dict[str, float] | None = None,
    *,
    updates: int = 500,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Train the same network on the embedded digits by each optimizer (6.1).

    All start from the same weights and see the same minibatches.

    Parameters
    ----------
    rates : dict of str to float, optional
        Learning rate of each optimizer; `OPTIMIZER_RATES` by default.
    updates : int
        Number of updates.
    seed : int
        Of the weights and the minibatches.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Returns
    -------
    dict of str to array, shape (updates,)
        The minibatch losses of each.
    """
    place = get_backend(backend)
    train, _ = load_digits(backend=place)
    losses = {}
    for name, lr in (OPTIMIZER_RATES if rates is None else rates).items():
        network = MultiLayerNet(64, [50, 50], 10, seed=seed, backend=place)
        trainer = Trainer(
            network,
            *train,
            optimizer=name,
            optimizer_param={"lr": lr},
            iterations=updates,
            seed=seed,
            verbose=False,
        )
        losses[name] = trainer.train().losses.astype(np.float64)
    return losses
