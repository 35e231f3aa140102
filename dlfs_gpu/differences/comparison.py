"""How far two gradients are from each other: what a gradient check finds, and its report."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dlfs_gpu._validation import Array, namespace_of


@dataclass(frozen=True)
class ParameterCheck:
    """Where the two gradients of one parameter differ most.

    Attributes
    ----------
    shape : tuple of int
        Of the parameter.
    max_absolute_error : float
        |backpropagation − numerical| there; infinite where either is not finite.
    max_relative_error : float
        The largest error as a share of the scale of its row; see `check_gradients`.
    index : tuple of int
        Element with the largest share.
    backprop, numerical : float
        Both gradients there.
    ok : bool
        Whether the relative error is within the tolerance.
    """

    shape: tuple[int, ...]
    max_absolute_error: float
    max_relative_error: float
    index: tuple[int, ...]
    backprop: float
    numerical: float
    ok: bool


@dataclass(frozen=True)
class GradientReport:
    """What `check_gradients` or `check_gradient` found; ``print(report)`` shows it as a table.

    Attributes
    ----------
    checks : dict of str to ParameterCheck
        With the keys of the network's ``params``; of a function, ``"x"`` alone.
    method : {"difference", "batched", "loop"}
    h : float
        Step of the numerical gradient.
    tolerance : float
        Largest relative error that passes.
    kinks : int
        Inputs of layers such as `Relu` within reach of a kink: the step, or rounding, may take
        them across. If there are any, all parameters of one dimension, such as biases, were moved
        by about 1e-3 for the check.
    """

    checks: dict[str, ParameterCheck]
    method: str
    h: float
    tolerance: float
    kinks: int

    @property
    def ok(self) -> bool:
        """Whether all parameters pass."""
        return all(check.ok for check in self.checks.values())

    def __str__(self) -> str:
        rows = [("", "shape", "max error", "relative", "at", "backprop", "numerical", "")]
        for key, check in self.checks.items():
            rows.append(
                (
                    key,
                    " × ".join(map(str, check.shape)),
                    f"{check.max_absolute_error:.1e}",
                    f"{check.max_relative_error:.1e}",
                    str(list(check.index)),
                    f"{check.backprop:.6e}",
                    f"{check.numerical:.6e}",
                    "ok" if check.ok else "FAULT",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if self.kinks:
            lines.append(
                f"{self.kinks} inputs were at a kink, where there is no slope: "
                + (
                    "checked with biases moved by about 1e-3"
                    if any(len(check.shape) == 1 for check in self.checks.values())
                    else "gradients may differ there, as no layer has a bias that could be moved"
                )
            )
        faults = [key for key, check in self.checks.items() if not check.ok]
        verdict = f"gradients differ in {', '.join(faults)}" if faults else "gradients agree"
        lines.append(
            f"{verdict} (method {self.method!r}, h = {self.h:.2g}, tolerance {self.tolerance:g})"
        )
        return "\n".join(lines)


def compare(
    backprop: Array, numerical: Array, rows: Array, noise: float, tolerance: float
) -> ParameterCheck:
    """Find the largest error relative to the scale of its row.

    Parameters
    ----------
    backprop, numerical : array
        Two gradients of one shape.
    rows : array, broadcastable to them
        The least that a row's scale is.
    noise : float
        Errors that the numerical gradient cannot but have, which are no fault.
    tolerance : float
        Largest relative error that passes.
    """
    xp = namespace_of(backprop)
    finite = xp.isfinite(backprop) & xp.isfinite(numerical)
    zero = xp.zeros_like(backprop)
    error = xp.abs(xp.where(finite, backprop, zero) - xp.where(finite, numerical, zero))
    error = xp.where(finite, error, zero + math.inf)
    scale = xp.maximum(rows, xp.maximum(largest_of_rows(backprop), largest_of_rows(numerical)))
    scale = xp.maximum(scale, xp.full_like(scale, noise / tolerance))
    relative = error / xp.where(scale > 0, scale, xp.ones_like(scale))
    flat = int(xp.argmax(xp.reshape(relative, (-1,))))
    index = tuple(int(i) for i in np.unravel_index(flat, numerical.shape))
    return ParameterCheck(
        shape=tuple(numerical.shape),
        max_absolute_error=float(error[index]),
        max_relative_error=float(relative[index]),
        index=index,
        backprop=float(backprop[index]),
        numerical=float(numerical[index]),
        ok=float(relative[index]) <= tolerance,
    )


def largest_of_rows(values: Array) -> Array:
    """Return the largest finite absolute value of each row, or of all if there is one dimension."""
    xp = namespace_of(values)
    sizes = xp.where(xp.isfinite(values), xp.abs(values), xp.zeros_like(values))
    return xp.max(sizes, axis=tuple(range(1 if values.ndim > 1 else 0, values.ndim)), keepdims=True)


def largest(values: Array) -> float:
    """Return the largest finite absolute value."""
    return float(namespace_of(values).max(largest_of_rows(values)))
