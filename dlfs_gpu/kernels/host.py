"""Compiled loops for differences on NumPy arrays: which methods have some, compiling, threads.

Numba compiles the loops of `dlfs_gpu.kernels.loops` when they are first needed, and keeps the
machine code in its cache where it finds a folder to write to. Where Numba is not installed, or
the loops cannot be compiled, or do not apply, array operations do the same.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from dlfs_gpu.backend import cpu_cores
from dlfs_gpu.kernels import kernels_mode, loops
from dlfs_gpu.kernels.dense import UnfitError
from dlfs_gpu.kernels.proof import attempt, check_near, prove

# Largest change before an activation of which the series for sinh and cosh are few.
_LARGEST_MOVE = 1.0
# Changes that are worth several threads, and rows of a sum that one task takes.
_LARGE_WORK = 2**23
_TASK_ROWS = 64
# Samples and columns of the proof, and what may differ there.
_PROOF_SAMPLES, _PROOF_COLUMNS = 2, 8
_TOLERANCE = {"float32": 5e-6, "float64": 1e-12}
# The activations' changes by their loops: which, and the factor of input and output.
_ACTIVATIONS = {
    "sigmoid": (loops.SIGMOID, 1.0),
    "tanh": (loops.SIGMOID, 2.0),
    "relu": (loops.RELU, 1.0),
}

_Method = TypeVar("_Method", bound=Callable[..., Any])
Sums = Callable[[slice, slice], np.ndarray]
"""Sums over some samples, of some columns."""

_names: dict[Callable[..., Any], str] = {}
_ready: dict[tuple[str, str], Any] = {}
_compiling = threading.Lock()


def has_loop(name: str) -> Callable[[_Method], _Method]:
    """Decorate a method that compiled loops know by a name: they do what this very function does.

    What overrides or replaces it has no loop.
    """

    def decorate(method: _Method) -> _Method:
        _names[method] = name
        return method

    return decorate


def line_sums(
    difference: Callable[..., Any],
    saved: Sequence[np.ndarray],
    line_difference: Callable[..., Any],
    coefficients: Sequence[np.ndarray],
    d: np.ndarray,
    by_arrays: Sums,
    threads: int | None,
) -> np.ndarray | None:
    """Return the changes of the loss along lines, summed over samples, in float64.

    Parameters
    ----------
    difference, line_difference : method
        Of the activation, and of the loss.
    saved, coefficients : sequence of array, shape (N, J, 1)
        What these need.
    d : array, shape (N, I)
        Changes of the activation's input; the loss for d is compared with that for −d.
    by_arrays : callable
        The array code.
    threads : int, optional
        One for each core by default, where there is much to do.

    Returns
    -------
    array, shape (I, J), or None
        None where the array code has to do it.
    """
    activation = _name(difference)
    if activation not in _ACTIVATIONS or _name(line_difference) != "softmax line":
        return None
    kind, scale = _ACTIVATIONS[activation]

    def sums(samples: slice, columns: slice) -> np.ndarray:
        moves = np.ascontiguousarray(d[samples])
        terms = _series_terms(scale * _largest(moves), moves.dtype)
        first, second = (
            np.ascontiguousarray(a[samples, columns, 0])
            for a in (saved if kind == loops.RELU else _slope_and_bend(*saved[:2]))
        )
        c = np.zeros((max(3, len(coefficients)), *first.shape), dtype=d.dtype)
        for power, coefficient in zip(c, coefficients, strict=False):
            power[...] = coefficient[samples, columns, 0]
        inputs, outputs = d.shape[1], first.shape[1]
        total = np.zeros((inputs, outputs))
        rows = _TASK_ROWS if moves.size * outputs >= _LARGE_WORK else inputs
        arguments = (moves, kind, scale, terms, first, second, c)
        loop = _loop("line", (*arguments, 0, 0, total))
        _run(
            lambda start: loop(*arguments, start, min(start + rows, inputs), total),
            range(0, inputs, rows),
            threads,
        )
        return total

    return _attempt((activation, d.dtype.name, "line"), sums, by_arrays, d.dtype.name)


def _attempt(key: tuple[str, ...], sums: Sums, by_arrays: Sums, dtype: str) -> np.ndarray | None:
    """Return all sums by loops that few of them have proved, or None."""

    def compare() -> None:
        few = slice(0, _PROOF_SAMPLES), slice(0, _PROOF_COLUMNS)
        check_near("the gradient", sums(*few), by_arrays(*few), _TOLERANCE[dtype], 0)

    def action() -> np.ndarray:
        prove("differences", "cpu", key, compare)
        return sums(slice(None), slice(None))

    return attempt("differences", "cpu", action)[0]


def _name(method: Callable[..., Any]) -> str | None:
    """Return the name of a bound method's loop, or None if it has none that may be used."""
    name = _names.get(getattr(method, "__func__", method))
    return name if name and kernels_mode() != "off" and _is_installed() else None


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def _largest(d: np.ndarray) -> float:
    return max(float(d.max()), -float(d.min()))


def _series_terms(largest: float, dtype: Any) -> int:
    """Return how many terms sinh and cosh need behind the first for a change up to `largest`."""
    if not largest <= _LARGEST_MOVE:
        raise UnfitError(f"changes of up to {largest:.1e} are too large for the compiled loops")
    smallest = float(np.finfo(dtype).eps) / 8
    k = 0
    while largest ** (2 * k + 2) / math.factorial(2 * k + 3) > smallest:
        k += 1
    return k


def _slope_and_bend(a: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s(1 − s) and ½ − s in the type of a = q/(1 + q) and q = exp(−x), for s = σ(x)."""
    s = 1 / (1 + q.astype(np.float64))
    return (a * s).astype(a.dtype), (0.5 - s).astype(a.dtype)


def _run(task: Callable[[int], None], starts: Sequence[int], threads: int | None) -> None:
    workers = min(threads or cpu_cores(), len(starts))
    if workers == 1:
        for start in starts:
            task(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(task, starts))


def _loop(name: str, arguments: Sequence[Any]) -> Any:
    """Return a loop, compiled for arguments of these types; the first array's stands for all."""
    key = name, arguments[0].dtype.name
    with _compiling:
        if key not in _ready:
            _ready[key] = _compile(getattr(loops, name), arguments)
    return _ready[key]


def _compile(function: Callable[..., None], arguments: Sequence[Any]) -> Any:
    """Return a function compiled by Numba; where its cache cannot be used, without."""
    announcement = threading.Timer(1, _announce)
    announcement.start()
    try:
        numba = importlib.import_module("numba")
        types = tuple(map(numba.typeof, arguments))
        # Products may be added without rounding in between; nothing else may be reordered, and
        # nothing is taken to be finite.
        options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
        try:
            compiled = numba.njit(cache=True, **options)(function)
            compiled.compile(types)
        except Exception:  # RuntimeError where no folder can be written to, OSError where one fails
            compiled = numba.njit(**options)(function)
            compiled.compile(types)
        return compiled
    finally:
        announcement.cancel()


def _announce() -> None:
    from tqdm import tqdm

    tqdm.write("dlfs_gpu: compiling the loops of differences, once", file=sys.stderr)
