"""Gradient check: backpropagation against numerical gradients (5.7.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import ArgumentError, Array, check_positive, namespace_of
from dlfs_gpu.network import GradientMethod, Network
from dlfs_gpu.protocols import is_linear
from dlfs_gpu.training.fused import FusedGradient, labels_of, replaceable

# The layers' differences lose no digits to a small step. One that changes outputs by no more than
# this leaves no truncation error to speak of, and hardly a chance that a kink lies within it.
_DIFFERENCE_REACH = 1e-10
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


def check_gradients(
    network: Network,
    x: Array,
    t: Array,
    *,
    method: GradientMethod = "difference",
    h: float | None = None,
    tolerance: float | None = None,
    fused: bool = False,
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
        Step. By default for ``"difference"``, which a small step costs no digits, 1e-10 divided by
        the largest input of a layer if that is above 1; 1e-5 for the others.
    tolerance : float, optional
        Largest relative error that passes: by default 1e-7 for ``"difference"`` and 1e-4 for the
        others. A large h needs a larger one, for the truncation error.
    fused : bool
        Check the gradient that `Trainer` computes in buffers of its own instead of the layers'.

    Returns
    -------
    GradientReport

    Raises
    ------
    ArgumentError
        If `tolerance` is not positive and finite; if the network has dropout that is not frozen;
        if a layer's backward gave a gradient of another shape than the parameter's; if h is so
        small that the loss's rounding would hide the gradient; if `fused` is asked for a network
        that `Trainer` trains by its layers; and what `Network.numerical_gradient` raises.
    TypeError
        As there.

    Notes
    -----
    Errors are relative to the scale of the gradient in the parameter's row, which belongs to one
    input, or in all of a bias: its largest element there, or, if that is larger, the largest
    element of a gradient in which samples and classes are weighted at random. Rounding errors are
    shares of the terms that make up a gradient, not of their sum, so where the sum is 0, at a
    minimum or by symmetry, only the random sum tells how large they are. Errors that the method
    cannot but make are never a fault: 16·eps·(1 + |L|)/h by rounding, for methods that evaluate
    the loss L, and h², but no more than 1e-14, by truncation for ``"difference"``.

    At its kink `Relu` has no derivative: backpropagation takes 0, a central difference ½, and
    whoever is so near that the step or rounding takes it across gets something between. Samples of
    zeros, units that are all off, and tiny weights put it there while biases are 0, so the biases
    are moved then, and the report says so. Methods that evaluate the loss also see kinks that lie
    within their larger h: where they find faults in a network with `Relu`, ask ``"difference"``.
    """
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    network._refuse_random()
    evaluated = method != "difference"
    if tolerance is None:
        tolerance = _EVALUATION_TOLERANCE if evaluated else _DIFFERENCE_TOLERANCE
    with network._lock, network.params.replaced(network.params.in_float64()):
        x, t = network._check(x, t)
        if h is None:
            h = _EVALUATION_STEP if evaluated else _difference_step(network, x)
        kinks = _kinks(network, x, h)
        with network.params.replaced(_moved_biases(network, x, h) if kinks else {}):
            scales = _typical_rows(network, x, t)
            loss, gradient = (
                _fused_gradient(network, x, t) if fused else network._loss_and_gradient(x, t)
            )
            numerical = network.numerical_gradient(x, t, h, method)
    # What the method itself may get wrong: by the loss's rounding, or else by truncation.
    noise = min(h * h, _LARGEST_TRUNCATION)
    if evaluated:
        noise = 16 * np.finfo(np.float64).eps * (1 + abs(float(loss))) / h
        largest = max(_largest(rows) for rows in scales.values())
        if noise > 0.01 * largest:
            raise ArgumentError(
                "h",
                f"is {h}: rounding of the loss alone changes such differences by {noise:.1e}, "
                f"which hides gradients of {largest:.1e}; h must be larger",
            )
    checks = {
        key: _compare(key, gradient[key], numerical[key], rows, noise, tolerance)
        for key, rows in scales.items()
    }
    return GradientReport(checks, method, h, tolerance, kinks)


def _fused_gradient(network: Network, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
    """Return loss and gradient as training in buffers computes them."""
    labels = labels_of(t)
    if labels is None or not replaceable(network):
        raise ArgumentError("fused", "is True, but this network trains by its layers")
    n = x.shape[0]
    way = FusedGradient(network, x, labels, n)
    loss = way(namespace_of(x).arange(n, device=device(x)))
    return loss, way.grads


def _difference_step(network: Network, x: Array) -> float:
    """Return a step that changes no layer's output, at first, by more than the reach wanted."""
    network._forward(x, training=True)
    inputs = [layer.x for layer in network.layers if is_linear(layer)]
    return _DIFFERENCE_REACH / max([1.0, *(_largest(values) for values in inputs)])


def _kinks(network: Network, x: Array, h: float) -> int:
    """Return how many inputs are so near a kink that moving a weight by h, or rounding, crosses it.

    Follows bounds through the layers: by how much inputs may change, and how wrong they may be.
    Layers that are neither linear nor elementwise are taken to pass both on.
    """
    network._forward(x, training=True)
    xp = namespace_of(x)
    eps = float(xp.finfo(x.dtype).eps)
    count = 0
    change: Any = 0.0
    error: Any = eps * xp.abs(x)
    for layer in network.layers:
        if hasattr(layer, "kinks"):
            count += layer.kinks(change + error)
        if is_linear(layer):
            size = xp.abs(layer.params["W"])
            error = (error + eps * xp.abs(layer.x)) @ size
            if "b" in layer.params:
                error = error + eps * xp.abs(layer.params["b"])
            widest = float(xp.max(xp.sum(size, axis=0)))
            change = max(change * widest, h * max(1.0, _largest(layer.x)))
        elif hasattr(layer, "lipschitz"):
            change, error = change * layer.lipschitz, error * layer.lipschitz
    return count


def _typical_rows(network: Network, x: Array, t: Array) -> dict[str, Array]:
    """Return the scale of each row of a gradient with samples and classes weighted at random."""
    network._loss(x, t, training=True)
    dout = network.loss_layer.backward()
    xp = namespace_of(dout)
    weights = np.random.default_rng(0).standard_normal(dout.shape)
    weights = xp.asarray(weights, dtype=dout.dtype, device=device(dout))
    return {key: _rows(values) for key, values in network._backward(dout * weights).items()}


def _compare(
    key: str, backprop: Array, numerical: Array, rows: Array, noise: float, tolerance: float
) -> ParameterCheck:
    """Find the largest error of one parameter relative to its row's scale, at least `rows`."""
    shape = tuple(numerical.shape)
    if tuple(backprop.shape) != shape:
        raise ArgumentError(
            "network",
            f"has a backward that gives {key} a gradient of shape {tuple(backprop.shape)}; it must "
            f"have the parameter's, {shape}",
        )
    xp = namespace_of(backprop)
    finite = xp.isfinite(backprop) & xp.isfinite(numerical)
    zero = xp.zeros_like(backprop)
    error = xp.abs(xp.where(finite, backprop, zero) - xp.where(finite, numerical, zero))
    error = xp.where(finite, error, zero + math.inf)
    scale = xp.maximum(rows, xp.maximum(_rows(backprop), _rows(numerical)))
    scale = xp.maximum(scale, xp.full_like(scale, noise / tolerance))
    relative = error / xp.where(scale > 0, scale, xp.ones_like(scale))
    flat = int(xp.argmax(xp.reshape(relative, (-1,))))
    index = tuple(int(i) for i in np.unravel_index(flat, shape))
    return ParameterCheck(
        shape=shape,
        max_absolute_error=float(error[index]),
        max_relative_error=float(relative[index]),
        index=index,
        backprop=float(backprop[index]),
        numerical=float(numerical[index]),
        ok=float(relative[index]) <= tolerance,
    )


def _rows(values: Array) -> Array:
    """Return the largest finite absolute value of each row, or of all if there is one dimension."""
    xp = namespace_of(values)
    sizes = xp.where(xp.isfinite(values), xp.abs(values), xp.zeros_like(values))
    return xp.max(sizes, axis=tuple(range(1 if values.ndim > 1 else 0, values.ndim)), keepdims=True)


def _largest(values: Array) -> float:
    return float(namespace_of(values).max(_rows(values)))


def _moved_biases(network: Network, x: Array, h: float) -> dict[str, Array]:
    """Return the parameters of one dimension, each element moved by about 1e-3, past kinks."""
    moved: dict[str, Array] = {}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for key, param in network.params.items():
            if param.ndim == 1:
                noise = 1e-3 * rng.standard_normal(param.shape)
                moved[key] = param + namespace_of(param).asarray(
                    noise, dtype=param.dtype, device=device(param)
                )
        with network.params.replaced(moved):
            if not _kinks(network, x, h):
                break
    return moved
