"""Compiled loops for NumPy arrays: which methods have some, compiling them, dealing them out.

Numba compiles the loops of this package when they are first needed, and keeps the
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

from dlfs_gpu.kernels import kernels_mode, loops
from dlfs_gpu.kernels.proof import attempt, check_near, prove
from dlfs_gpu.machine.threads import cpu_cores

# Columns of the proof, which one sample gives, and the share that may differ.
_PROOF_COLUMNS = 8
_TOLERANCE = {"float32": 5e-6, "float64": 1e-12}

_Method = TypeVar("_Method", bound=Callable[..., Any])
Sums = Callable[[slice, slice], np.ndarray]
"""Sums over some samples, of some columns."""

_names: dict[Callable[..., Any], str] = {}
_ready: dict[tuple[str, str], Any] = {}
_compiling = threading.Lock()


def has_loop(name: str) -> Callable[[_Method], _Method]:
    """Decorate a method that kernels know by a name: they do what this very function does.

    What overrides or replaces it has none, so that nothing but the library's own layers and losses
    is taken for them, by the loops here or by the CUDA kernels.
    """

    def decorate(method: _Method) -> _Method:
        _names[method] = name
        return method

    return decorate


def loop_of(method: Callable[..., Any]) -> str | None:
    """Return the name by which kernels know a bound method, or None."""
    return _names.get(getattr(method, "__func__", method))


def is_usable() -> bool:
    """Say whether kernels are on and Numba is installed."""
    return kernels_mode() != "off" and _is_installed()


def proved(
    key: tuple[str, ...],
    sums: Sums,
    by_arrays: Sums,
    columns: slice,
    dtype: Any,
    largest: float,
) -> np.ndarray | None:
    """Return sums by loops that were compared with the array code when they were first used.

    Parameters
    ----------
    key : tuple of str
        Names the loops.
    sums, by_arrays : callable
        By loops, and by the array code, of which a few are asked.
    columns : slice
        Which are wanted.
    dtype : dtype
        Of the changes.
    largest : float
        No change is larger. Those that are nothing to it may differ.

    Returns
    -------
    array or None
        None where the array code has to do it.
    """

    def compare() -> None:
        few = slice(0, 1), slice(0, _PROOF_COLUMNS)
        desired = by_arrays(*few)
        rounding = 16 * float(np.finfo(dtype).eps) * largest * math.sqrt(desired.size)
        check_near("the gradient", sums(*few), desired, _TOLERANCE[dtype.name], rounding)

    def action() -> np.ndarray:
        prove("differences", "cpu", (*key, dtype.name), compare)
        return sums(slice(None), columns)

    return attempt("differences", "cpu", action)[0]


def run(
    name: str, arguments: Sequence[Any], total: np.ndarray, at_once: int, threads: int | None
) -> None:
    """Call a loop with ``(*arguments, start, stop, total)`` for all rows of `total`.

    Parameters
    ----------
    name : str
        Of a function in `dlfs_gpu.kernels.loops`.
    arguments : sequence
        Contiguous arrays of one floating-point type and of integers, and numbers; first an array
        of that type.
    total : array, shape (rows, ...)
    at_once : int
        Rows that one call takes. It makes no difference to them.
    threads : int, optional
        One for each core by default.
    """
    rows = len(total)
    call = loop(getattr(loops, name), (*arguments, 0, 0, total))

    def task(start: int) -> None:
        call(*arguments, start, min(start + at_once, rows), total)

    starts = range(0, rows, at_once)
    workers = min(threads or cpu_cores(), len(starts))
    if workers == 1:
        for start in starts:
            task(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(task, starts))


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def loop(function: Callable[..., None], arguments: Sequence[Any]) -> Any:
    """Return a loop of this package compiled for the type of the first argument."""
    key = function.__name__, arguments[0].dtype.char
    with _compiling:
        if key not in _ready:
            _ready[key] = _compile(function, arguments)
    return _ready[key]


def _compile(function: Callable[..., None], arguments: Sequence[Any]) -> Any:
    """Return a function compiled by Numba; where its cache cannot be used, without."""
    numba = importlib.import_module("numba")
    announcement = threading.Timer(1, _announce)
    announcement.start()
    try:
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


@functools.cache
def _announce() -> None:
    from tqdm import tqdm

    tqdm.write("dlfs_gpu: compiling loops, once", file=sys.stderr)
