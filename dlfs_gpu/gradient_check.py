"""Gradient check: backpropagation against numerical gradients (5.7.4)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from array_api_compat import device

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    as_float,
    check_choice,
    check_positive,
    namespace_of,
)
from dlfs_gpu.differences.comparison import GradientReport, compare, largest, largest_of_rows
from dlfs_gpu.differences.evaluation import Function, checked_result
from dlfs_gpu.functions import labels_of
from dlfs_gpu.gradient import GradientMethod, default_step, numerical_gradient
from dlfs_gpu.network import Network
from dlfs_gpu.processes import Processes
from dlfs_gpu.protocols import is_linear
from dlfs_gpu.training.compiled import compiled_parts
from dlfs_gpu.training.fused import FusedGradient, replaceable

# Step and tolerance for each type. "difference" loses no digits to a small step; 1e-10 leaves no
# truncation error to speak of, and hardly a chance that a kink lies within it. Where f is
# evaluated the steps are near the cube root of eps, where truncation and f's own rounding balance.
_DEFAULTS = {
    ("difference", 64): (1e-10, 1e-7),
    ("difference", 32): (1e-10, 1e-4),
    ("loop", 64): (1e-5, 1e-4),
    ("loop", 32): (2.0**-7, 2e-2),
}
# What truncation may leave of a gradient that is 0, as where a regression fits exactly.
_LARGEST_TRUNCATION = 1e-14


def check_gradients(
    network: Network,
    x: Array,
    t: Array,
    *,
    method: GradientMethod = "difference",
    h: float | None = None,
    tolerance: float | None = None,
    fused: bool = False,
    comm: Any = None,
) -> GradientReport:
    """Compare the gradient by backpropagation with numerical differences, for every element.

    Both are computed in float64 whatever the network's type, so that rounding neither hides a
    fault nor looks like one.

    Parameters
    ----------
    network : Network
        Its parameters are left as they were; its layers see the batch, as in training.
    x, t : array
        A batch, or one sample, and targets. A few samples find a fault as well as many.
    method : {"difference", "batched", "loop"}
        How the numerical gradient is computed, as in `Network.numerical_gradient`.
    h : float, optional
        Step. By default for ``"difference"``, which a small step costs no digits, 1e-10 divided by
        the largest input of a layer if that is above 1; 1e-5 for the others.
    tolerance : float, optional
        Largest relative error that passes: by default 1e-7 for ``"difference"`` and 1e-4 for the
        others. A large h needs a larger one, for the truncation error.
    fused : bool
        Check the gradient that `Trainer` computes in buffers of its own instead of the layers'.
    comm : mpi4py.MPI.Intracomm, optional
        Processes that share the numerical gradients, as in `Network.numerical_gradient`.

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
    cannot but make are never a fault: 16·eps of the largest element of the layer's gradients,
    which are sums of like terms; 16·eps·(1 + |L|)/h by rounding, for methods that evaluate the loss
    L; and h², but no more than 1e-14, by truncation for ``"difference"``.

    At its kink `Relu` has no derivative: backpropagation takes 0, a central difference ½, and
    whoever is so near that the step or rounding takes it across gets something between. Samples of
    zeros, units that are all off, and tiny weights put it there while biases are 0, so the biases
    are moved then, and the report says so. Methods that evaluate the loss also see kinks that lie
    within their larger h: where they find faults in a network with `Relu`, ask ``"difference"``.
    """
    method = check_choice("method", method, get_args(GradientMethod))
    evaluated = method != "difference"
    step, usual = _DEFAULTS["loop" if evaluated else "difference", 64]
    tolerance = usual if tolerance is None else check_positive("tolerance", tolerance)
    network._refuse_random()
    threads = Processes(comm).threads()
    with network._lock, threads, network.params.replaced(network.params.in_float64()):
        x, t = network._check(x, t)
        if h is None:
            h = step if evaluated else step / _largest_input(network, x)
        kinks = _kinks(network, x, h)
        with network.params.replaced(_moved_biases(network, x, h) if kinks else {}):
            scales, sizes = _typical_scales(network, x, t)
            loss, gradient = (
                _fused_gradient(network, x, t) if fused else network._loss_and_gradient(x, t)
            )
            numerical = network.numerical_gradient(x, t, h, method, comm=comm)
    # What the method itself may get wrong: by the loss's rounding, or else by truncation.
    noise = min(h * h, _LARGEST_TRUNCATION)
    if evaluated:
        noise = 16 * np.finfo(np.float64).eps * (1 + abs(float(loss))) / h
        size = max(largest(rows) for rows in scales.values())
        if noise > 0.01 * size:
            raise ArgumentError(
                "h",
                f"is {h}: rounding of the loss alone changes such differences by {noise:.1e}, "
                f"which hides gradients of {size:.1e}; h must be larger",
            )
    checks = {}
    for key, rows in scales.items():
        if gradient[key].shape != numerical[key].shape:
            raise ArgumentError(
                "network",
                f"has a backward that gives {key} a gradient of shape "
                f"{tuple(gradient[key].shape)}; it must have the parameter's, "
                f"{tuple(numerical[key].shape)}",
            )
        rounding = 16 * np.finfo(np.float64).eps * sizes[key]
        checks[key] = compare(gradient[key], numerical[key], rows, noise + rounding, tolerance)
    return GradientReport(checks, method, h, tolerance, kinks)


def check_gradient(
    f: Function,
    gradient: Any,
    x: Array,
    *,
    method: Literal["difference", "loop"] | None = None,
    h: float | None = None,
    tolerance: float | None = None,
) -> GradientReport:
    """Compare the gradient of a function of one's own with numerical differences.

    Parameters
    ----------
    f : callable
        Maps an array of the shape of `x` to one number, the same each time.
    gradient : callable or array
        What is to be checked: a function of `x`, or its value there.
    x : array
        Where, away from kinks. Both gradients are computed in its type, best in float64.
    method : {"difference", "loop"}, optional
        As for `numerical_gradient`: by default ``"difference"``, or ``"loop"`` where `f` does
        something that has no rule, or does not use its argument.
    h : float, optional
        Step: 1e-10 by default for ``"difference"``, 1e-5 for ``"loop"``, in float32 2⁻⁷.
    tolerance : float, optional
        Largest relative error that passes: by default 1e-7 for ``"difference"`` and 1e-4 for
        ``"loop"``, in float32 1e-4 and 2e-2.

    Returns
    -------
    GradientReport
        Of one parameter, ``"x"``; ``print(report)`` shows it.

    Raises
    ------
    ArgumentError
        If `f` gives different values for the same argument, or `gradient` another shape than that
        of `x`; if `tolerance` is not positive and finite.
    ArgumentError, TypeError
        What `numerical_gradient` raises.

    Notes
    -----
    Errors are relative to the largest element of the gradient in the same row of `x`. Those that
    rounding cannot but make are never a fault: 64·eps of the largest element of all, and of |f|,
    divided by h for ``"loop"``.

    Examples
    --------
    >>> import numpy as np
    >>> from dlfs_gpu import check_gradient
    >>> bool(check_gradient(lambda x: np.sum(x**3), lambda x: 3 * x**2, np.array([1.0, 2.0])).ok)
    True
    """
    x = as_float(x)
    xp = namespace_of(x)
    default_step(x.dtype, xp=xp)  # Refuses types that have none.
    eps, bits = float(xp.finfo(x.dtype).eps), xp.finfo(x.dtype).bits
    ways: tuple[Literal["difference", "loop"], ...] = ("difference", "loop")
    if method is not None:
        ways = (check_choice("method", method, ways),)
    if tolerance is not None:
        check_positive("tolerance", tolerance)
    first, second = (checked_result("f", f(x), (), "it must return one number") for _ in range(2))
    if bool(first != second) and bool(first == first):  # NaN is reported below.
        raise ArgumentError("f", "gave different values for the same argument")
    given = gradient(xp.asarray(x, copy=True)) if callable(gradient) else gradient
    given = checked_result("gradient", given, x.shape, "it must have the shape of x")
    for way in ways:
        step, usual = _DEFAULTS[way, bits]
        step = step if h is None else h
        try:
            numerical = numerical_gradient(f, x, step, method=way)
            break
        except (TypeError, ArgumentError) as error:
            # Without a method asked for, what is wrong with `f` only means that it needs another.
            if way == ways[-1] or getattr(error, "argument", "f") != "f":
                raise
    tolerance = usual if tolerance is None else tolerance
    terms = largest(numerical) + abs(float(first)) / (step if way == "loop" else 1.0)
    noise = 64 * eps * terms + min(step * step, _LARGEST_TRUNCATION)
    check = compare(given, numerical, xp.zeros_like(numerical), noise, tolerance)
    return GradientReport({"x": check}, way, step, tolerance, kinks=0)


def _fused_gradient(network: Network, x: Array, t: Array) -> tuple[Array, dict[str, Array]]:
    """Return loss and gradient as training in buffers computes them."""
    labels = labels_of(t)
    if labels is None or not replaceable(network):
        raise ArgumentError("fused", "is True, but this network trains by its layers")
    n = x.shape[0]
    way = FusedGradient(network, x, labels, n, compiled_parts(x, n, network.sizes))
    loss = way(namespace_of(x).arange(n, device=device(x)))
    return loss, way.grads


def _largest_input(network: Network, x: Array) -> float:
    """Return the most that moving a weight by 1 changes an output of its layer, or 1."""
    network._forward(x, training=True)
    return max([1.0, *(largest(layer.x) for layer in network.layers if is_linear(layer))])


def _kinks(network: Network, x: Array, h: float) -> int:
    """Return how many inputs are so near a kink that moving a weight by h, or rounding, crosses it.

    Follows bounds through the layers: by how much inputs may change, and how wrong they may be.
    Layers that are neither linear nor elementwise are taken to pass on the largest of both.
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
            change = max(change * widest, h * max(1.0, largest(layer.x)))
        elif hasattr(layer, "lipschitz"):
            change, error = change * layer.lipschitz, error * layer.lipschitz
        else:
            error = xp.max(error)
            change = max(change, h) if getattr(layer, "params", None) else change
    return count


def _typical_scales(
    network: Network, x: Array, t: Array
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return scales of a gradient with samples and classes weighted at random.

    Of each row, and of all parameters of its layer, whose gradients are sums of like terms.
    """
    network._loss(x, t, training=True)
    dout = network.loss_layer.backward()
    xp = namespace_of(dout)
    weights = np.random.default_rng(0).standard_normal(dout.shape)
    weights = xp.asarray(weights, dtype=dout.dtype, device=device(dout))
    gradient = network._backward(dout * weights)
    rows = {key: largest_of_rows(values) for key, values in gradient.items()}
    layers = []
    for layer in network.layers:
        params = getattr(layer, "params", {})
        largest_of_all = max((largest(layer.grads[name]) for name in params), default=0.0)
        layers.append(dict.fromkeys(params, largest_of_all))
    return rows, network.params.collect(layers)


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
