"""Gradients of networks with one hidden layer by CUDA kernels, compared with array operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import is_cupy_array

from dlfs_gpu._validation import Array, check_count
from dlfs_gpu.functions import labels_of
from dlfs_gpu.kernels import cuda, kernels_mode
from dlfs_gpu.kernels.host import loop_of
from dlfs_gpu.kernels.proof import UnfitError, attempt, check_near, prove

# Samples that are compared: more than a block of the kernel takes at once, but so few that their
# gradients hardly cancel, which would leave nothing but rounding to compare.
_PROOF_SAMPLES = 130
_TOLERANCE = {"float32": 1e-4, "float64": 1e-10}

Result = tuple[Array, list[dict[str, Array]]]
"""The loss, (), and the gradients of each layer's parameters by their names."""


def loss_and_differences(
    layers: Sequence[Any],
    loss: Any,
    x: Array,
    t: Array,
    h: float,
    max_memory: int | None,
    by_arrays: Callable[[Array, Array], Result],
) -> Result | None:
    """Return a loss and its central differences, by kernels that were compared when first used.

    Parameters
    ----------
    layers, loss
        Layers and the loss behind them.
    x, t : array
        Batch and targets, checked.
    h : float
        Step, which is rounded to the type of x.
    max_memory : int, optional
        Bytes that may be used.
    by_arrays : callable
        Does the same for a batch and targets by array operations.

    Returns
    -------
    Result or None
        None where array operations have to do it.
    """
    if not is_cupy_array(x) or kernels_mode() == "off":
        return None
    activation = _activation(layers, loss)
    if activation is None or (labels := labels_of(t)) is None:
        return None
    device = cuda.device_name()
    params = tuple(layer.params[name] for layer in layers[::2] for name in ("W", "b"))

    def kernels(rows: slice) -> Any:
        made = cuda.Differences(activation, params, x[rows], labels[rows])
        if max_memory is not None and check_count("max_memory", max_memory) < made.nbytes:
            raise UnfitError(f"the kernels take {made.nbytes} bytes; {max_memory} may be used")
        return made

    def compare() -> None:
        few = slice(_PROOF_SAMPLES)
        _, grads = kernels(few).gradient(h)
        _, expected = by_arrays(x[few], t[few])
        for number, (actual, desired) in enumerate(zip(grads, expected[::2], strict=True), 1):
            for name, grad in actual.items():
                title = f"the gradient of {name}{number}"
                check_near(title, grad, desired[name], _TOLERANCE[x.dtype.name], 0)

    def action() -> Result:
        made = kernels(slice(None))
        prove("differences", device, made.key, compare)
        value, (first, last) = made.gradient(h)
        return value, [first, {}, last]

    return attempt("differences", device, action)[0]


def _activation(layers: Sequence[Any], loss: Any) -> str | None:
    """Return the activation's name, if every method that takes part is the library's own."""
    if len(layers) != 3 or not all(hasattr(layer, "difference") for layer in (*layers, loss)):
        return None
    first, name, last = (
        loop_of(layer.forward) if loop_of(layer.forward) == loop_of(layer.difference) else None
        for layer in layers
    )
    known = first == last == "affine" and all("b" in layer.params for layer in layers[::2])
    softmax = loop_of(loss.forward) == loop_of(loss.difference) == "softmax"
    return name if known and softmax and name in cuda.ACTIVATIONS else None
