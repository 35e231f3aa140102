"""Errors of numerical differences by their step (4.3.1 and 4.5.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu.backend import Backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.gradient import numerical_diff
from dlfs_gpu.models import TwoLayerNet


class DifferenceErrors(NamedTuple):
    """Relative errors of two kinds of differences, one of each for each step."""

    steps: NDArray[np.float64]
    forward: NDArray[np.float64]
    central: NDArray[np.float64]


def difference_errors(backend: Backend) -> DifferenceErrors:
    """Differentiate e^x at 1 in float64, with 57 steps from 1e-14 to 1.

    Truncation makes the error fall with h, for central differences with h²; below some step
    rounding makes it grow again with 1/h.
    """
    steps = np.logspace(-14, 0, 57)
    x = backend.asarray(1.0, "float64")

    def errors(scheme: Literal["forward", "central"]) -> NDArray[np.float64]:
        found = [
            float(numerical_diff(backend.xp.exp, x, h, scheme=scheme, nominal_step=True))
            for h in steps.tolist()
        ]
        return np.abs(np.asarray(found) / np.e - 1)

    return DifferenceErrors(steps, errors("forward"), errors("central"))


class GradientErrors(NamedTuple):
    """Relative errors of numerical gradients, one for each step.

    Those of ``method="batched"``, which subtracts two losses, and of ``"difference"``.
    """

    batched: NDArray[np.float64]
    difference: NDArray[np.float64]


def gradient_errors(steps: Sequence[float], dtype: str, backend: Backend) -> GradientErrors:
    """Compare numerical gradients of a network with backpropagation in float64.

    The network is 64-20-10, on 30 digits; the errors are norms over its first weights.

    Parameters
    ----------
    steps : sequence of float, length K
        Steps h.
    dtype : {"float32", "float64"}
        Type to compute the numerical gradients in.
    backend : Backend
    """
    (x, t), _ = load_digits(backend=backend)
    x, t = x[:30], t[:30]

    def network(dtype: str) -> TwoLayerNet:
        return TwoLayerNet(64, 20, 10, 0.1, seed=0, dtype=dtype, backend=backend)

    # The same weights as in `dtype`: their rounding is none of the differences' doing.
    tested, exact = network(dtype), network("float64")
    for key, param in exact.params.items():
        param[...] = backend.asarray(tested.params[key], "float64")
    reference = backend.to_numpy(exact.gradient(x, t)["W1"])

    def errors(method: Literal["batched", "difference"]) -> NDArray[np.float64]:
        found = [
            backend.to_numpy(tested.numerical_gradient(x, t, h, method=method)["W1"]) for h in steps
        ]
        length = np.linalg.norm(reference)
        return np.asarray([np.linalg.norm(grad - reference) / length for grad in found])

    return GradientErrors(errors("batched"), errors("difference"))
