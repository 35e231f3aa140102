"""What the report is made of: rows with a number to reproduce, figures, and sections of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.data.splits import Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Between:
    """An expectation with room: any number from `low` to `high`."""

    low: float = -np.inf
    high: float = np.inf

    def __str__(self) -> str:
        if self.high == np.inf:
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if self.low == -np.inf else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Row:
    """A number of the chapter, and how to compute it.

    Attributes
    ----------
    name : str
        What it is.
    expected : number, list of numbers, str, bool, `Between`, or a type of exception
        What must come out.
    compute : callable
        Computes it; arrays of any backend are brought to the host.
    tolerance : float
        Largest absolute difference; 0 asks for every digit.
    note : str
        A remark for the reader; for an erratum, why the source is wrong.
    printed : str
        What a source prints instead.
    """

    name: str
    expected: Any
    compute: Callable[[], Any]
    tolerance: float = 0.0
    note: str = ""
    printed: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure: the name of its file, what it shows, and how to draw it."""

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A part of the report: its entries come in the order of reading."""

    title: str
    introduction: str
    entries: Sequence[Row | Plot]


@dataclass(frozen=True)
class Outcome:
    """A row with what was computed; values are numbers, lists or text, as in report.json."""

    section: str
    name: str
    expected: Any
    computed: Any
    tolerance: float
    ok: bool
    note: str = ""
    printed: str = ""


@dataclass(frozen=True)
class Image:
    """A figure as PNG, for light pages and for dark ones."""

    name: str
    caption: str
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class Part:
    """A section that has been computed."""

    name: str
    title: str
    introduction: str
    entries: Sequence[Outcome | Image]


@dataclass(frozen=True)
class Setting:
    """Where the report is computed, and for the section on training: name and data it takes."""

    backend: Backend
    data: tuple[str, Splits] | None = None

    def array(self, x: Any) -> Array:
        """Return numbers as a float64 array of the backend."""
        return self.backend.asarray(x, "float64")

    def digits(self, elsewhere: float) -> float:
        """Return the tolerance of golden digits: 0 on NumPy, `elsewhere` on other backends.

        Differences divided by 2h show how a library rounds, so their last digits are NumPy's.
        """
        return 0.0 if self.backend.name == "numpy" else elsewhere


def evaluate(row: Row, section: str) -> Outcome:
    """Compute a row and compare."""
    raises = isinstance(row.expected, type)
    try:
        computed = to_host(row.compute())
        ok = not raises and _agrees(row.expected, computed, row.tolerance)
    # Whatever goes wrong fails this row, and the report goes on to the next.
    except Exception as error:
        computed = f"{type(error).__name__}: {error}"
        ok = raises and isinstance(error, row.expected)
    expected = row.expected.__name__ if raises else to_host(row.expected)
    if isinstance(expected, Between):
        expected = str(expected)
    return Outcome(section, row.name, expected, computed, row.tolerance, ok, row.note, row.printed)


def to_host(value: Any) -> Any:
    """Return arrays, alone or in lists, as numbers and lists of numbers."""
    if isinstance(value, list | tuple):
        return [to_host(element) for element in value]
    if hasattr(value, "get"):  # CuPy's arrays
        value = value.get()
    return value.tolist() if hasattr(value, "tolist") else value


def _agrees(expected: Any, computed: Any, tolerance: float) -> bool:
    if isinstance(expected, Between):
        return bool(expected.low <= computed <= expected.high)
    if isinstance(expected, str):
        return bool(expected == computed)
    wanted, found = np.asarray(expected, np.float64), np.asarray(computed, np.float64)
    return wanted.shape == found.shape and np.allclose(
        found, wanted, rtol=0, atol=tolerance, equal_nan=True
    )
