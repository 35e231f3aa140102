"""What compiled loops do of `dlfs_gpu.differences.stack`'s work, and how it is laid out for them.

Two shapes of it, both for one activation behind the moved layer, softmax with cross entropy, and
changes small enough for power series:

- along a line: the `Linear` layer that follows is the last;
- along a curve: there is one more activation and one more layer. A small change t of the input of
  sigmoid or tanh changes the output by Σ A_m·t^m; so an output of the moved layer that changes by
  s moves the scores by Σ s^m·M_m, and M_m comes of one matrix product, for all inputs at once.
  ReLU is such a series of one term, but for units that some change takes across the kink: these
  are followed one by one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dlfs_gpu.differences.series import SMALL, exp_terms, log_terms, sigmoid_series
from dlfs_gpu.differences.tail import Tail, blocks_of
from dlfs_gpu.kernels import host, loops
from dlfs_gpu.kernels.proof import UnfitError
from dlfs_gpu.machine.threads import one_blas_thread

# Largest change before an activation of which the series for sinh and cosh are few.
_LARGEST_MOVE = 1.0
# Terms of the next activation's series, at most.
_MAX_POWERS = 12
# Changes that are worth several threads; rows of a sum that one task takes then.
_LARGE_WORK = 2**23
_LINE_ROWS = 64
_CURVE_ROWS = 8
# Numbers in one matrix of `curve`.
_STEP = 2**17
# By name: the loops' number of the activation, and what multiplies its input and its output.
_ACTIVATIONS = {
    "sigmoid": (loops.SIGMOID, 1.0),
    "tanh": (loops.SIGMOID, 2.0),
    "relu": (loops.RELU, 1.0),
}
Distinct = tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]
_Before = tuple[int, float, int, np.ndarray, np.ndarray]


def sums_by_loops(
    tail: Tail, columns: slice, distinct: Distinct | None, threads: int | None
) -> np.ndarray | None:
    """Return the changes of the loss summed over samples, (I + 1, K), by compiled loops.

    Parameters
    ----------
    tail : Tail
        On NumPy arrays.
    columns : slice
        K of the moved layer's outputs.
    distinct : tuple, optional
        The distinct values of each row of ``tail.d``, how many there are, and where they belong;
        see `dlfs_gpu.differences.stack`. Changes along a line do without.
    threads : int, optional
        One for each core by default, where there is much to do.

    Returns
    -------
    array or None
        None where there are no loops for it, or they cannot be used.
    """
    if not host.is_usable() or len(tail.alone) != 1:
        return None
    names = [host.loop_of(layer.difference) for layer, _ in (*tail.alone, *tail.together)]
    if names[0] not in _ACTIVATIONS:
        return None
    reach = _largest(tail.d) * tail.alone[0][0].lipschitz
    if tail.line is not None:
        if host.loop_of(tail.loss.line_difference) != "softmax line":
            return None
        largest = reach * _largest(tail.line[0])

        def sums(samples: slice, columns: slice) -> np.ndarray:
            return _line(tail, names, samples, columns, threads)

    else:
        known = len(names) == 3 and names[1] in _ACTIVATIONS and names[2] == "affine"
        if distinct is None or not known or host.loop_of(tail.loss.difference) != "softmax":
            return None
        size = reach * tail.together[0][0].lipschitz * _largest_effect(tail)
        largest = 2 * size * _largest(tail.loss_saved[2])

        def sums(samples: slice, columns: slice) -> np.ndarray:
            return _curve(tail, names, size, samples, columns, distinct, threads)

    def by_arrays(samples: slice, columns: slice) -> np.ndarray:
        count = len(range(tail.columns)[columns])
        change = tail.change(tail.d[samples], samples, columns, count)
        total: np.ndarray = change.sum(axis=0, dtype=np.float64).T
        return total

    return host.proved(tuple(map(str, names)), sums, by_arrays, columns, tail.d.dtype, largest)


def _line(
    tail: Tail, names: list[Any], samples: slice, columns: slice, threads: int | None
) -> np.ndarray:
    """Return the sums (I + 1, columns) of changes along lines."""
    d = np.ascontiguousarray(tail.d[samples])
    before = _before(tail, names[0], d, samples, columns)
    line: Any = tail.line
    coefficients = np.zeros((max(3, len(line)), *before[-1].shape), dtype=d.dtype)
    for coefficient, c in zip(coefficients, line, strict=False):
        coefficient[...] = c[samples, columns, 0]
    total = np.zeros((d.shape[1], coefficients.shape[2]))
    rows = _LINE_ROWS if d.size * total.shape[1] >= _LARGE_WORK else len(total)
    host.run("line", (d, *before, coefficients), total, rows, threads)
    return total


def _curve(
    tail: Tail,
    names: list[Any],
    size: float,
    samples: slice,
    columns: slice,
    distinct: Distinct,
    threads: int | None,
) -> np.ndarray:
    """Return the sums (I + 1, columns) of changes along curves, up to `size`."""
    values, counts, places = distinct[0][samples], distinct[1][samples], distinct[2][samples]
    dtype = values.dtype
    before = _before(tail, names[0], values, samples, columns)
    weights = np.ascontiguousarray(tail.weights[columns])
    last = tail.together[1][0].params["W"]
    y, likeliest, totals, _, slope, _ = (a[samples] for a in tail.loss_saved)
    if not size <= SMALL:
        raise UnfitError(f"changes of scores may be {size:.1e}, too large for the compiled loops")
    reach = _largest(values) * tail.alone[0][0].lipschitz
    series, near, negative, floor = _following(tail, names[1], samples, reach)
    eps = float(np.finfo(dtype).eps)
    n, (units, classes) = len(values), last.shape
    total = np.zeros((len(weights), tail.d.shape[1]))
    block = max(1, _STEP // (max(tail.weights.shape) * (classes + 1)))
    for start in range(0, n, block):
        part = slice(start, min(start + block, n))
        # What a change of each unit does to the scores, but for a change common to all, and to the
        # loss along its slope.
        effects = np.empty((part.stop - start, units, classes + 1))
        top = np.argmax(likeliest[part], axis=1)
        np.subtract(last, last.T[top][..., None], out=effects[..., :-1])
        effects[..., -1] = np.matmul(effects[..., :-1], slope[part, :, None])[..., 0]
        with one_blas_thread:
            scores = _curves(weights, [a[part] for a in series], effects, dtype)
        sample, unit = near[part].nonzero()
        first_near = np.searchsorted(sample, np.arange(part.stop - start + 1))
        sizes = [len(where) for where, _ in places[part]]
        arguments = (
            np.ascontiguousarray(values[part]),
            counts[part],
            np.cumsum([0, *sizes]),
            *_joined(places[part]),
            *before[:3],
            *(np.ascontiguousarray(a[part]) for a in before[3:]),
            scores,
            first_near,
            unit,
            *(a[part][sample, unit] for a in (negative, floor)),
            weights,
            effects[sample, unit].astype(dtype),
            np.ascontiguousarray(y[part]),
            np.ascontiguousarray(totals[part, 0]),
            exp_terms(size, eps),
            log_terms(size, eps),
        )
        work = int(counts[part].sum()) * len(total) * 2 * (classes + 1)
        host.run(
            "curve", arguments, total, _CURVE_ROWS if work >= _LARGE_WORK else len(total), threads
        )
    return total.T


def _before(tail: Tail, activation: str, d: np.ndarray, samples: slice, columns: slice) -> _Before:
    """Return what loops need of the activation behind the moved layer; see `loops.line`."""
    kind, scale = _ACTIVATIONS[activation]
    largest = scale * _largest(d)
    if not largest <= _LARGEST_MOVE:
        raise UnfitError(f"changes of up to {largest:.1e} are too large for the compiled loops")
    smallest = float(np.finfo(d.dtype).eps) / 8
    terms = 0
    while largest ** (2 * terms + 2) / math.factorial(2 * terms + 3) > smallest:
        terms += 1
    saved = [a[samples, columns, 0] for a in tail.alone[0][1]]
    first, second = _slope_and_bend(saved) if kind == loops.SIGMOID else saved
    first, second = (np.ascontiguousarray(a, dtype=d.dtype) for a in (first, second))
    return kind, scale, terms, first, second


def _following(
    tail: Tail, activation: str, samples: slice, reach: float
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Return the second activation's series, (N, K) for each power; which units may reach a kink.

    And of ReLU min(x, 0) and −max(x, 0), of these units.
    """
    kind, scale = _ACTIVATIONS[activation]
    weights = tail.weights
    saved = [a[samples, :, 0] for a in tail.together[0][1]]
    if kind == loops.RELU:
        negative, floor = saved
        near = np.abs(negative + floor) <= reach * np.max(np.abs(weights), axis=0)
        return [((floor < 0) & ~near).astype(np.float64)], near, negative, floor
    bound = scale * reach * _largest(weights)
    smallest = float(np.finfo(weights.dtype).eps) / 8
    # Beside the first, the terms are those of a series that converges up to π.
    enough = (m for m in range(1, _MAX_POWERS + 1) if (bound / 2.5) ** m < smallest)
    powers = next(enough, None) if bound < 2.5 else None
    if powers is None:
        raise UnfitError(f"changes of up to {bound:.1e} are too large for the compiled loops")
    series = sigmoid_series(*_slope_and_bend(saved), powers)
    none = np.zeros_like(saved[0])
    scaled = [scale ** (m + 1) * a for m, a in enumerate(series, 1)]
    return scaled, none.astype(bool), none, none


def _slope_and_bend(saved: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return s(1 − s) and ½ − s in float64 from a = q/(1 + q) and q = exp(−x), for s = σ(x)."""
    s = 1 / (1 + saved[1].astype(np.float64))
    return saved[0] * s, 0.5 - s


def _curves(
    weights: np.ndarray, series: list[np.ndarray], effects: np.ndarray, dtype: Any
) -> np.ndarray:
    """Return Σ_k weights[j, k]^m · series[m][n, k] · effects[n, k, c], (M, J, N, C + 1).

    Summed in float64: the slope of the loss is among them, which is nearly all of its change.
    """
    samples, units, ends = effects.shape
    result = np.empty((len(series), len(weights), samples, ends), dtype=dtype)
    power = weights = weights.astype(np.float64)
    for m, a in enumerate(series):
        if m:
            power = power * weights
        right = (a.T[..., None] * effects.transpose(1, 0, 2)).reshape(units, -1)
        for block in blocks_of(slice(0, len(weights))):
            result[m, block] = (power[block] @ right).reshape(-1, samples, ends)
    return result


def _joined(places: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of all samples in a row."""
    empty = np.empty(0, dtype=np.int64)
    where, which = zip(*places, strict=True) if places else ((), ())
    return np.concatenate([empty, *where]), np.concatenate([empty, *which])


def _largest_effect(tail: Tail) -> float:
    """Return a bound of what the difference of two scores changes by when one output does."""
    weights, last = tail.weights, tail.together[1][0].params["W"]
    centred = last - np.mean(last, axis=1, keepdims=True)
    norms = [np.sqrt(np.max(np.sum(a * a, axis=k))) for k, a in ((1, weights), (0, centred))]
    return 2 * float(norms[0] * norms[1])


def _largest(d: np.ndarray) -> float:
    return max(float(d.max()), -float(d.min()))
