"""What the report is made of: checks and plots in sections, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dlfs_gpu.backend import Backend, to_numpy
from dlfs_gpu.training.curves import png, style


@dataclass(frozen=True)
class Between:
    """An expectation with room: any number from `low` to `high`."""

    low: float = -np.inf
    high: float = np.inf

    def __str__(self) -> str:
        if self.high == np.inf:
            return f"≥ {self.low:g}"
        return f"≤ {self.high:g}" if self.low == -np.inf else f"{self.low:g} to {self.high:g}"


@dataclass
class Check:
    """A number of the chapter, what must come out for it, and what does.

    Attributes
    ----------
    name : str
        What it is.
    expected : number, list of numbers, str, `Between`, or a type of exception
        What must come out.
    computed : number, list of numbers, or str
        What was computed. It may be given as arrays of any backend, which are brought to the
        host, or as an exception.
    tolerance : float
        Largest absolute difference; 0 asks for every digit.
    note : str
        A remark for the reader.
    printed_in : str
        The source that prints what is expected: "book" with its section, "notes" or "slides".
        Empty if it is derived: by mathematics, or computed in float64 from what a source gives.
    mistake : str
        What a source gets wrong here: the source, a colon, and what it says instead. Empty if no
        mistake is known.
    ok : bool
        Whether what was computed is what was expected.
    """

    name: str
    expected: Any
    computed: Any
    tolerance: float = 0.0
    note: str = ""
    printed_in: str = ""
    mistake: str = ""
    ok: bool = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.computed, Exception):
            self.ok = isinstance(self.expected, type) and isinstance(self.computed, self.expected)
            self.computed = f"{type(self.computed).__name__}: {self.computed}"
        else:
            self.computed = to_host(self.computed)
            self.ok = not isinstance(self.expected, type) and self._agrees()

    @property
    def expectation(self) -> Any:
        """What is expected, as a number, a list of numbers, or text."""
        if isinstance(self.expected, type):
            return self.expected.__name__
        return str(self.expected) if isinstance(self.expected, Between) else to_host(self.expected)

    def _agrees(self) -> bool:
        if isinstance(self.expected, Between):
            return bool(self.expected.low <= self.computed <= self.expected.high)
        if isinstance(self.expected, str):
            return bool(self.expected == self.computed)
        wanted, found = (np.asarray(value, float) for value in (self.expected, self.computed))
        return wanted.shape == found.shape and np.allclose(
            found, wanted, rtol=0, atol=self.tolerance, equal_nan=True
        )


@dataclass
class Plot:
    """A figure: the name of its file, what it shows, how to draw it, and its images as PNG.

    It is drawn when it is made, for light pages and for dark ones.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]
    light: bytes = field(default=b"", init=False)
    dark: bytes = field(default=b"", init=False)

    def __post_init__(self) -> None:
        with style():
            self.light = png(self.draw())
        with style(dark=True):
            self.dark = png(self.draw())


@dataclass(frozen=True)
class Section:
    """A part of the report; `warning` is what its reader must know beforehand, if anything.

    Where `entries` is an iterator they are computed when they are read, once.
    """

    title: str
    introduction: str
    entries: Iterable[Check | Plot]
    warning: str = ""

    @property
    def checks(self) -> list[Check]:
        """Its checks, in order."""
        return [entry for entry in self.entries if isinstance(entry, Check)]

    @property
    def plots(self) -> list[Plot]:
        """Its figures, in order."""
        return [entry for entry in self.entries if isinstance(entry, Plot)]


def section(
    title: str, introduction: str
) -> Callable[[Callable[[Backend], Iterable[Check | Plot]]], Callable[[Backend], Section]]:
    """Make a function that yields a section's entries one that returns the section."""
    return lambda entries: lambda backend: Section(title, introduction, entries(backend))


@dataclass(frozen=True)
class Report:
    """What was computed.

    Attributes
    ----------
    backend : Backend
    sections : dict of str to Section
        By name, in order.
    seconds : float
        How long it took.
    date : str
        Of today, as 2025-12-31.
    """

    backend: Backend
    sections: dict[str, Section]
    seconds: float
    date: str

    @property
    def checks(self) -> list[tuple[str, Check]]:
        """All checks, in order, each with the name of its section."""
        return [(name, check) for name, part in self.sections.items() for check in part.checks]

    @property
    def ok(self) -> bool:
        """Whether every check came out as it must."""
        return all(check.ok for _, check in self.checks)

    def __str__(self) -> str:
        everything = [entry for part in self.sections.values() for entry in part.entries]
        lines = [f"{'section':14}{'checks':>7}{'right':>7}{'figures':>9}"]
        for name, part in (self.sections | {"all": Section("all", "", everything)}).items():
            right = sum(check.ok for check in part.checks)
            lines.append(f"{name:14}{len(part.checks):>7}{right:>7}{len(part.plots):>9}")
        lines += [
            f"WRONG in {name}: {check.name}: {check.computed}, expected {check.expectation}"
            for name, check in self.checks
            if not check.ok
        ]
        lines += [part.warning for part in self.sections.values() if part.warning]
        lines.append(f"{self.seconds:.0f} s on {self.backend.name}, {self.backend.device}")
        return "\n".join(lines)


def error_of(function: Callable[[], Any]) -> Exception | None:
    """Return the error that a function raises."""
    try:
        function()
    except Exception as error:
        return error
    return None


def to_host(value: Any) -> Any:
    """Return arrays of any backend, alone or in lists, as numbers and lists of numbers."""
    if isinstance(value, list | tuple):
        return [to_host(element) for element in value]
    return to_numpy(value).tolist()


def golden_tolerance(backend: Backend, elsewhere: float) -> float:
    """Return the tolerance of digits that show how NumPy rounds: 0 on NumPy, or `elsewhere`."""
    return 0.0 if backend.name == "numpy" else elsewhere
