"""Worked examples of sections 4.3 and 4.4: what finite differences and gradients do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.functions import function_1, function_2
from dlfs_gpu.gradient import numerical_diff, numerical_gradient


class DifferenceErrors(NamedTuple):
    """Errors of finite differences, one for each step."""

    steps: NDArray[np.float64]
    forward: NDArray[np.float64]
    central: NDArray[np.float64]


def forward_against_central(
    steps: ArrayLike | None = None,
    *,
    dtype: str = "float64",
    backend: str | Backend | None = None,
) -> DifferenceErrors:
    """Differentiate e^x at 1 by forward and central differences of many steps (4.3.1).

    Truncation makes the error fall with h, for central differences with h²; below some step
    rounding makes it grow again with 1/h.

    Parameters
    ----------
    steps : array_like, shape (K,), optional
        Steps h; 57 from 1e-14 to 1 by default.
    dtype : {"float32", "float64"}
        Type to compute in.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Returns
    -------
    DifferenceErrors
        Relative errors.
    """
    place = get_backend(backend)
    chosen = np.logspace(-14, 0, 57) if steps is None else np.asarray(steps, np.float64)
    x = place.asarray(1.0, dtype)

    def errors(scheme: Any) -> NDArray[np.float64]:
        found = [
            float(numerical_diff(place.xp.exp, x, h, scheme=scheme, nominal_step=True))
            for h in chosen.tolist()
        ]
        return np.abs(np.asarray(found) / np.e - 1)

    return DifferenceErrors(chosen, errors("forward"), errors("central"))


class LostStep(NamedTuple):
    """What comes of a step that rounding swallows."""

    moved: bool
    slopes: NDArray[np.float64]
    h_in_float32: float


def lost_step(
    points: ArrayLike = (5.0, 10.0), h: float = 1e-50, *, backend: str | Backend | None = None
) -> LostStep:
    """Take the chapter's bad example, h = 1e-50: x + h is x, and every slope comes out 0 (4.3.1).

    Parameters
    ----------
    points : array_like, shape (P,)
        Where to differentiate 0.01x² + 0.1x.
    h : float
        Step.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Returns
    -------
    LostStep
        Whether x + h differs from x anywhere, the forward differences (P,), and h in float32.
    """
    place = get_backend(backend)
    x = place.asarray(points, "float64")
    slopes = numerical_diff(function_1, x, h, scheme="forward", nominal_step=True)
    moved = bool(place.xp.any(x + h != x))
    return LostStep(moved, place.to_numpy(slopes), float(np.float32(h)))


class SteepestAscent(NamedTuple):
    """Slopes of a function in all directions, and its gradient."""

    angles: NDArray[np.float64]
    slopes: NDArray[np.float64]
    gradient: NDArray[np.float64]

    @property
    def steepest(self) -> float:
        """Angle of the direction of the greatest slope, in radians."""
        return float(self.angles[np.argmax(self.slopes)])

    @property
    def gradient_angle(self) -> float:
        """Angle of the gradient, in radians."""
        return float(np.arctan2(self.gradient[1], self.gradient[0]))


def steepest_ascent(
    x: ArrayLike = (3.0, 4.0),
    directions: int = 360,
    *,
    f: Callable[[Array], Array] = function_2,
    backend: str | Backend | None = None,
) -> SteepestAscent:
    """Measure the slope of a function of two variables in all directions (4.4).

    In the direction u it is ∇f·u: greatest along the gradient, where it is ‖∇f‖, zero across it,
    and least against it. Nothing says that a minimum lies there.

    Parameters
    ----------
    x : array_like, shape (2,)
        Where.
    directions : int
        Number of directions, evenly around.
    f : callable
        Function of an array (2,); the chapter's x0² + x1² by default.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    point = place.asarray(x, "float64")
    angles = np.linspace(-np.pi, np.pi, directions, endpoint=False)

    def slope(angle: float) -> float:
        u = place.asarray([np.cos(angle), np.sin(angle)])
        return float(numerical_diff(lambda s: f(point + s * u), place.asarray(0.0)))

    gradient = place.to_numpy(numerical_gradient(f, point))
    return SteepestAscent(angles, np.asarray([slope(a) for a in angles.tolist()]), gradient)
