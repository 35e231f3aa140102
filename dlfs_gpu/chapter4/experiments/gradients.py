"""Numerical gradients of a network: what evaluation loses, and divided differences keep."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.models import TwoLayerNet
from dlfs_gpu.network import GradientMethod


class GradientErrors(NamedTuple):
    """Relative errors (norms) of the gradient of the first weights, one for each step."""

    steps: NDArray[np.float64]
    evaluated: NDArray[np.float64]
    difference: NDArray[np.float64]


def gradient_errors(
    steps: ArrayLike | None = None,
    *,
    dtype: str = "float32",
    samples: int = 30,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> GradientErrors:
    """Compare numerical gradients of a 64-20-10 network with backpropagation in float64 (4.5.2).

    Central differences taken by evaluating the loss twice lose the more digits the smaller h is;
    those that follow the change through the layers lose none.

    Parameters
    ----------
    steps : array_like, shape (K,), optional
        Steps h; ten from 1e-5 to 0.3 by default.
    dtype : {"float32", "float64"}
        Type to compute the differences in.
    samples : int
        Number of the embedded digits in the batch.
    seed : int
        Of the weights.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    chosen = np.geomspace(1e-5, 0.3, 10) if steps is None else np.asarray(steps, np.float64)
    (x, t), _ = load_digits(backend=place)
    x, t = x[:samples], t[:samples]

    def network(dtype: str) -> TwoLayerNet:
        return TwoLayerNet(64, 20, 10, 0.1, seed=seed, dtype=dtype, backend=place)

    # The same weights as in `dtype`: their rounding is none of the differences' doing.
    tested, exact = network(dtype), network("float64")
    for key, param in exact.params.items():
        param[...] = place.asarray(tested.params[key], "float64")
    reference = place.to_numpy(exact.gradient(x, t)["W1"])

    def error(h: float, method: GradientMethod) -> float:
        found = place.to_numpy(tested.numerical_gradient(x, t, h, method=method)["W1"])
        return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))

    return GradientErrors(
        chosen,
        np.asarray([error(h, "batched") for h in chosen.tolist()]),
        np.asarray([error(h, "difference") for h in chosen.tolist()]),
    )
