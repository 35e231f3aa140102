"""Gradient check: backpropagation against numerical gradients (5.7.4)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.layers import Relu
from dlfs_gpu.network import GradientMethod, Network

# The layers' differences lose no digits to a small step, and one as small as this leaves no
# truncation error to speak of, and hardly a chance that a Relu has its kink within the step.
_DIFFERENCE_STEP = 1e-10
_DIFFERENCE_TOLERANCE = 1e-7
# What truncation may leave of a gradient that is 0, as where a regression fits exactly.
_LARGEST_TRUNCATION = 1e-14
# Near the cube root of eps, where truncation and the loss's own rounding balance.
_EVALUATION_STEP = 1e-5
_EVALUATION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ParameterCheck:
    """Where the two gradients of one parameter differ most.

    Attributes
    ----------
    shape : tuple of int
        Of the parameter.
    max_absolute_error : float
        Largest |backpropagation − numerical|; infinite where either is not finite.
    max_relative_error : float
        The same as a share of the gradient's scale; see `check_gradients`.
    index : tuple of int
        Element with the largest error.
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
    """What `check_gradients` found; ``print(report)`` shows it as a table.

    Attributes
    ----------
    checks : dict of str to ParameterCheck
        With the keys of the network's ``params``.
    method : {"difference", "batched", "loop"}
    h : float
        Step of the numerical gradient.
    tolerance : float
        Largest relative error that passes.
    kinks : int
        Inputs of `Relu` layers that were exactly 0. If there are any, all biases, where a
        layer has one, were moved by about 1e-3 for the check.
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
                f"{self.kinks} inputs of Relu were exactly 0, where it has no slope: "
                + (
                    "checked with biases moved by about 1e-3"
                    if any(len(check.shape) == 1 for check in self.checks.values())
                    else "gradients may differ there, as no layer has a bias that could be moved"
                )
            )
        faults = [key for key, check in self.checks.items() if not check.ok]
        verdict = f"gradients differ in {', '.join(faults)}" if faults else "gradients agree"
        lines.append(
            f"{verdict} (method {self.method!r}, h = {self.h:g}, tolerance {self.tolerance:g})"
        )
        return "\n".join(lines)


def check_gradients(
    network: Network,
    x: Array,
    t: Array,
    *,
    method: GradientMethod = "difference",
    h: float | None = None,
    tolerance: float | None = None,
) -> GradientReport:
    """Compare the gradient by backpropagation with numerical differences, for every element.

    Both are computed in float64 whatever the network's type, so that rounding neither hides a
    fault nor looks like one.

    Parameters
    ----------
    network : Network
        It is left as it was.
    x, t : array
        A batch, or one sample, and targets. A few samples find a fault as well as many.
    method : {"difference", "batched", "loop"}
        How the numerical gradient is computed. ``"difference"`` needs layers that have one; the
        others need only ``forward``.
    h : float, optional
        Step: by default 1e-10 for ``"difference"``, which a small step costs no digits, and 1e-5
        for the others.
    tolerance : float, optional
        Largest relative error that passes: by default 1e-7 for ``"difference"`` and 1e-4 for the
        others. A large h needs a larger one, for the truncation error.

    Returns
    -------
    GradientReport

    Raises
    ------
    ValueError
        If `tolerance` is not positive and finite; if the network has dropout that is not frozen;
        if a layer's backward gave a gradient of another shape than the parameter's; if h is so
        small that the loss's rounding would hide the gradient; and what
        `Network.numerical_gradient` raises.
    TypeError
        As there.

    Notes
    -----
    Errors are relative to the scale of the parameter's gradient: its largest element, or, if that
    is larger, the largest element of a gradient in which samples and classes are weighted at
    random. Rounding errors are shares of the terms that make up a gradient, not of their sum, so
    where the sum is 0, at a minimum or by symmetry, only the random sum tells how large they are.
    Errors that the method cannot but make are never a fault: 16·eps·(1 + |L|)/h by rounding, for
    methods that evaluate the loss L, and h², but no more than 1e-14, by truncation for
    ``"difference"``.

    At its kink `Relu` has no derivative: backpropagation takes 0, a central difference ½. Samples
    of zeros or units that are all off put it just there while biases are 0, so the biases are
    moved then, and the report says so. Methods that evaluate the loss also see kinks that lie
    within h: where they find faults in a network with `Relu`, ask ``"difference"``.
    """
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance is {tolerance}; it must be positive and finite")
    network.refuse_random_dropout()
    evaluated = method != "difference"
    if h is None:
        h = _EVALUATION_STEP if evaluated else _DIFFERENCE_STEP
    if tolerance is None:
        tolerance = _EVALUATION_TOLERANCE if evaluated else _DIFFERENCE_TOLERANCE

    with _replaced(network, network.params_in_float64()):
        x, t = network.check(x, t)
        kinks = _count_kinks(network, x)
        with _replaced(network, _moved_biases(network.params) if kinks else {}):
            scales = _typical_scales(network, x, t)
            loss, gradient = network.loss_and_gradient(x, t)
            numerical = network.numerical_gradient(x, t, h, method)
    # What the method itself may get wrong: by the loss's rounding, or else by truncation.
    noise = min(h * h, _LARGEST_TRUNCATION)
    if evaluated:
        noise = 16 * np.finfo(np.float64).eps * (1 + abs(float(loss))) / h
    largest = max(scales.values())
    if evaluated and noise > 0.01 * largest:
        raise ValueError(
            f"h is {h}: rounding of the loss alone changes such differences by {noise:.1e}, which "
            f"hides gradients of {largest:.1e}; h must be larger"
        )
    checks = {}
    for key, scale in scales.items():
        known = max(scale, noise / tolerance)
        checks[key] = _compare(key, gradient[key], numerical[key], known, tolerance)
    return GradientReport(checks, method, h, tolerance, kinks)


def _count_kinks(network: Network, x: Array) -> int:
    """Return how many inputs of `Relu` layers are exactly 0."""
    network.forward(x, training=True)
    relus = [layer for layer in network.layers if isinstance(layer, Relu)]
    return sum(int(namespace_of(x).count_nonzero(layer.x == 0)) for layer in relus)


def _typical_scales(network: Network, x: Array, t: Array) -> dict[str, float]:
    """Return the largest elements of a gradient with samples and classes weighted at random."""
    network.mean_loss(x, t, training=True)
    dout = network.loss_layer.backward()
    xp = namespace_of(dout)
    weights = np.random.default_rng(0).standard_normal(dout.shape)
    weights = xp.asarray(weights, dtype=dout.dtype, device=device(dout))
    return {key: _largest(values) for key, values in network.backward(dout * weights).items()}


def _compare(
    key: str, backprop: Array, numerical: Array, scale: float, tolerance: float
) -> ParameterCheck:
    """Find the largest error of one parameter, relative to no less than `scale`."""
    shape = tuple(numerical.shape)
    if tuple(backprop.shape) != shape:
        raise ValueError(
            f"the gradient of {key} has shape {tuple(backprop.shape)}; "
            f"it must have the parameter's, {shape}"
        )
    xp = namespace_of(backprop)
    finite = xp.isfinite(backprop) & xp.isfinite(numerical)
    zero = xp.zeros_like(backprop)
    error = xp.abs(xp.where(finite, backprop, zero) - xp.where(finite, numerical, zero))
    error = xp.where(finite, error, zero + math.inf)
    flat = int(xp.argmax(xp.reshape(error, (-1,))))
    index = tuple(int(i) for i in np.unravel_index(flat, shape))
    worst = float(error[index])
    relative = worst / (max(scale, _largest(backprop), _largest(numerical)) or 1.0)
    return ParameterCheck(
        shape=shape,
        max_absolute_error=worst,
        max_relative_error=relative,
        index=index,
        backprop=float(backprop[index]),
        numerical=float(numerical[index]),
        ok=relative <= tolerance,
    )


def _largest(values: Array) -> float:
    """Return the largest absolute value of those that are finite."""
    xp = namespace_of(values)
    return float(xp.max(xp.where(xp.isfinite(values), xp.abs(values), xp.zeros_like(values))))


def _moved_biases(params: dict[str, Array]) -> dict[str, Array]:
    """Return the biases, each element moved by about 1e-3."""
    rng = np.random.default_rng(0)
    moved = {}
    for key, param in params.items():
        if param.ndim == 1:
            noise = 1e-3 * rng.standard_normal(param.shape)
            moved[key] = param + namespace_of(param).asarray(
                noise, dtype=param.dtype, device=device(param)
            )
    return moved


@contextlib.contextmanager
def _replaced(network: Network, params: dict[str, Any]) -> Iterator[None]:
    """Put other arrays into the network's ``params`` inside a ``with`` block."""
    own = dict(network.params)
    network.params.update(params)
    try:
        yield
    finally:
        network.params.update(own)
        network.hand_out(own)
