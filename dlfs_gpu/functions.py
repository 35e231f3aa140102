"""Activations and losses on arrays of any array API library (chapters 3 and 4.2).

Each function works in the library, on the device and in the floating-point type of the arrays it
is given. Integers are promoted to float64; Python numbers and lists become NumPy arrays.
Classes lie along the last axis.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import device, is_cupy_array, is_numpy_array

from dlfs_gpu._validation import (
    Array,
    array_namespace,
    as_float,
    as_same_shape,
    as_scores,
    check_count,
    check_dtype,
    check_labels,
    check_targets,
    check_unit_targets,
    namespace_of,
)

CROSS_ENTROPY_DELTA = 1e-7
"""What the chapter adds to probabilities so that log 0 does not give −inf (section 4.2.2)."""


def identity_function(x: Array) -> Array:
    """Return `x` itself, as floating point: the output activation of regression (3.5.1)."""
    return as_float(x)


def step_function(x: Array) -> Array:
    """Return 1 where ``x > 0`` and 0 elsewhere, in the floating-point type of `x` (3.2.2)."""
    x = as_float(x)
    xp = namespace_of(x)
    return xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(−x)) without overflow for any `x` (3.2.4)."""
    x = as_float(x)
    xp = namespace_of(x)
    e = xp.exp(-xp.abs(x))
    s = 1 / (1 + e)
    return xp.where(x < 0, e * s, s)


def sigmoid_grad(x: Array) -> Array:
    """Return the slope σ(x) σ(−x) of the sigmoid, right to rounding in both tails.

    The book's (1 − σ(x)) σ(x) is 0 from x = 17 in float32 and x = 37 in float64 on.
    """
    x = as_float(x)
    xp = namespace_of(x)
    e = xp.exp(-xp.abs(x))
    return e / (1 + e) ** 2


def relu(x: Array) -> Array:
    """Return max(x, 0) (3.2.7)."""
    x = as_float(x)
    xp = namespace_of(x)
    return xp.maximum(x, xp.zeros_like(x))


def relu_grad(x: Array) -> Array:
    """Return the slope of `relu`: 1 where ``x > 0`` and 0 elsewhere."""
    return step_function(x)


def softmax(x: Array) -> Array:
    """Return exp(x) / Σ exp(x) over the last axis, with the maximum taken out first (3.5.2).

    Parameters
    ----------
    x : array, shape (..., C)
        Scores.

    Returns
    -------
    array, shape (..., C)
        Probabilities; each row sums to 1.
    """
    x = as_scores(x)
    xp = namespace_of(x)
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Return log(softmax(x)) of scores (..., C), finite where the softmax underflows to 0."""
    x = as_scores(x)
    xp = namespace_of(x)
    shifted = x - xp.max(x, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def sum_squared_error(y: Array, t: Array) -> Array:
    """Return ½ Σ (y − t)² over all elements of two arrays of one shape (4.2.1).

    Raises
    ------
    ArgumentError
        If the shapes differ.
    """
    y, t = as_same_shape(y, t)
    xp = namespace_of(y)
    return 0.5 * xp.sum((y - t) ** 2)


def mean_squared_error(y: Array, t: Array) -> Array:
    """Return the mean of (y − t)² over all elements of two arrays of one shape.

    Some editions give this name to `sum_squared_error`, which is half the sum.

    Raises
    ------
    ArgumentError
        If the shapes differ.
    """
    y, t = as_same_shape(y, t)
    xp = namespace_of(y)
    return xp.mean((y - t) ** 2)


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Return the mean over samples of −Σ t log(y + 1e-7) (4.2.2 to 4.2.4).

    Parameters
    ----------
    y : array, shape (C,) or (N, C)
        Probabilities of one sample or of a batch.
    t : array
        Either one-hot or soft targets of the shape of `y`, or integer labels with one dimension
        fewer: a single label, or shape (N,). The number of dimensions decides, never the size.

    Returns
    -------
    array, shape ()

    Raises
    ------
    ArgumentError
        If the shapes do not fit, the batch is empty, or a label is not in 0..C-1.
    TypeError
        If the labels are not integers.
    """
    y = as_scores(y, "y")
    t = check_targets(t, y.shape, y)
    xp = namespace_of(y)
    return -xp.mean(_select(xp.log(y + CROSS_ENTROPY_DELTA), t))


def softmax_cross_entropy(z: Array, t: Array) -> Array:
    """Return the mean cross entropy of softmax(z), computed by log-sum-exp.

    What networks train on: without the chapter's 1e-7, and finite however small a probability.

    Parameters
    ----------
    z : array, shape (C,) or (N, C)
        Scores of one sample or of a batch.
    t : array
        Targets, as in `cross_entropy_error`, which also says what is raised.

    Returns
    -------
    array, shape ()
    """
    z = as_scores(z, "z")
    t = check_targets(t, z.shape, z, "z")
    return -namespace_of(z).mean(_select(log_softmax(z), t))


def softmax_loss(X: Array, t: Array) -> Array:
    """Return ``cross_entropy_error(softmax(X), t)``: the book's loss, its 1e-7 included."""
    X = as_scores(X, "X")
    return cross_entropy_error(softmax(X), check_targets(t, X.shape, X, "X"))


def binary_cross_entropy_error(y: Array, t: Array) -> Array:
    """Return −(t log y + (1−t) log(1−y)), summed over outputs and averaged over samples.

    Parameters
    ----------
    y : array, shape (), (C,) or (N, C)
        Probabilities: one, those of one sample, or of a batch.
    t : array, shape of `y`
        Targets between 0 and 1.

    Returns
    -------
    array, shape ()

    Raises
    ------
    ArgumentError
        If the shapes differ, or a target is not between 0 and 1.
    """
    y, t = as_same_shape(y, t)
    check_unit_targets(t)
    xp = namespace_of(y)
    # 0·log 0 counts as 0, its limit.
    log_y = xp.log(xp.where(t == 0, xp.ones_like(y), y))
    log_rest = xp.log1p(-xp.where(t == 1, xp.zeros_like(y), y))
    loss = -(log_y * t + log_rest * (1 - t))
    return loss if y.ndim == 0 else xp.mean(xp.sum(loss, axis=-1))


def sigmoid_cross_entropy(z: Array, t: Array) -> Array:
    """Return `binary_cross_entropy_error` of sigmoid(z) from the scores `z`, without overflow."""
    z, t = as_same_shape(z, t, "z")
    check_unit_targets(t)
    xp = namespace_of(z)
    # −log σ(z) = max(−z, 0) + log(1 + exp(−|z|))
    loss = relu(z) - z * t + xp.log1p(xp.exp(-xp.abs(z)))
    return loss if z.ndim == 0 else xp.mean(xp.sum(loss, axis=-1))


def one_hot(labels: Array, num_classes: int, *, dtype: Any = "float32") -> Array:
    """Write each label as a vector of zeros with a one at the label's place.

    Parameters
    ----------
    labels : array of integers, any shape
        Labels from 0 to ``num_classes - 1``.
    num_classes : int
        Length of the vectors.
    dtype : {"float32", "float64"}, optional
        Their type.

    Returns
    -------
    array, shape (*labels.shape, num_classes)
        In the library and on the device of `labels`.

    Raises
    ------
    TypeError
        If `labels` is not an array of integers.
    ArgumentError
        If a label is out of range, or `num_classes` is not a positive whole number.
    """
    xp = array_namespace(labels=labels)
    labels = check_labels(labels, check_count("num_classes", num_classes), "labels")
    return label_rows(labels, num_classes, getattr(xp, check_dtype(dtype)))


def label_rows(labels: Array, num_classes: int, dtype: Any) -> Array:
    """Return what `one_hot` does, of labels that have been checked: without waiting for a GPU."""
    xp = namespace_of(labels)
    classes = xp.arange(num_classes, dtype=labels.dtype, device=device(labels))
    return xp.astype(labels[..., None] == classes, dtype)


def labels_of(t: Array) -> Array | None:
    """Return labels (N,) for labels or one-hot targets in NumPy or CuPy, and None for others."""
    if not (is_numpy_array(t) or is_cupy_array(t)):
        return None
    if t.ndim == 1:
        return t
    xp = namespace_of(t)
    ones = xp.count_nonzero(t == 1, axis=-1) == 1
    zeros = xp.count_nonzero(t == 0, axis=-1) == t.shape[-1] - 1
    return xp.argmax(t, axis=-1) if bool(xp.all(ones & zeros)) else None


def function_1(x: Array) -> Array:
    """Return 0.01 x² + 0.1 x, the chapter's function of one variable (4.3.2)."""
    x = as_float(x)
    return 0.01 * x**2 + 0.1 * x


def function_2(x: Array) -> Array:
    """Return the sum of the squares of all elements, the chapter's x0² + x1² (4.3.3)."""
    x = as_float(x)
    return namespace_of(x).sum(x**2)


def _select(values: Array, t: Array) -> Array:
    """Return Σ t·values over the last axis, or the values at the labels: shape () or (N,)."""
    xp = namespace_of(values)
    if t.ndim == values.ndim:
        # 0·log 0 counts as 0, its limit.
        return xp.sum(xp.where(t == 0, xp.zeros_like(values), values) * t, axis=-1)
    return xp.take_along_axis(values, t[..., None], axis=-1)[..., 0]
