"""What the report is made of: checks and plots in sections, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu.backend import Backend, to_numpy

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
class Check:
    """A number of the chapter, what must come out for it, and how to compute it.

    Attributes
    ----------
    name : str
        What it is.
    expected : number, list of numbers, str, `Between`, or a type of exception
        What must come out.
    compute : callable
        Computes it; arrays of any backend are brought to the host.
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
    """

    name: str
    expected: Any
    compute: Callable[[], Any]
    tolerance: float = 0.0
    note: str = ""
    printed_in: str = ""
    mistake: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure to draw: the name of its file, what it shows, and how to draw it."""

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A part of the report, before it is computed.

    Attributes
    ----------
    title, introduction : str
    entries : sequence of Check or Plot
        In the order of reading.
    warning : str
        What a reader of the results must know beforehand, if anything.
    """

    title: str
    introduction: str
    entries: Sequence[Check | Plot]
    warning: str = ""


@dataclass(frozen=True)
class CheckResult:
    """What came of a check.

    Attributes
    ----------
    check : Check
    computed : number, list of numbers, or str
        What was computed, or the error that was raised.
    ok : bool
        Whether it is what was expected.
    """

    check: Check
    computed: Any
    ok: bool

    @property
    def expected(self) -> Any:
        """What was expected, as a number, a list of numbers, or text."""
        expected = self.check.expected
        if isinstance(expected, type):
            return expected.__name__
        return str(expected) if isinstance(expected, Between) else to_host(expected)


@dataclass(frozen=True)
class Image:
    """A plot as PNG, for light pages and for dark ones."""

    plot: Plot
    light: bytes
    dark: bytes


@dataclass(frozen=True)
class SectionResult:
    """A section, its name, and the results of its entries in their order."""

    name: str
    section: Section
    results: Sequence[CheckResult | Image]

    @property
    def checks(self) -> list[CheckResult]:
        """The results of its checks."""
        return [result for result in self.results if isinstance(result, CheckResult)]

    @property
    def images(self) -> list[Image]:
        """Its figures."""
        return [result for result in self.results if isinstance(result, Image)]


@dataclass(frozen=True)
class Report:
    """What was computed.

    Attributes
    ----------
    backend : Backend
    sections : list of SectionResult
    seconds : float
        How long it took.
    date : str
        Of today, as 2025-12-31.
    """

    backend: Backend
    sections: list[SectionResult]
    seconds: float
    date: str

    @property
    def checks(self) -> list[CheckResult]:
        """Results of all checks, in order."""
        return [result for section in self.sections for result in section.checks]

    @property
    def images(self) -> list[Image]:
        """All figures, in order."""
        return [image for section in self.sections for image in section.images]

    @property
    def ok(self) -> bool:
        """Whether every check came out as it must."""
        return all(result.ok for result in self.checks)

    def __str__(self) -> str:
        def line(name: str, checks: list[CheckResult], images: list[Image]) -> str:
            right = sum(result.ok for result in checks)
            return f"{name:14}{len(checks):7}{right:7}{len(images):9}"

        lines = [f"{'section':14}{'checks':>7}{'right':>7}{'figures':>9}"]
        lines += [line(part.name, part.checks, part.images) for part in self.sections]
        lines.append(line("all", self.checks, self.images))
        for part in self.sections:
            lines += [
                f"WRONG in {part.name}: {result.check.name}: {result.computed}, "
                f"expected {result.expected}"
                for result in part.checks
                if not result.ok
            ]
        lines += [part.section.warning for part in self.sections if part.section.warning]
        lines.append(f"{self.seconds:.0f} s on {self.backend.name}, {self.backend.device}")
        return "\n".join(lines)


def evaluate(check: Check) -> CheckResult:
    """Compute what a check asks for, and compare."""
    raises = isinstance(check.expected, type)
    # Whatever goes wrong fails this check, and the report goes on to the next.
    try:
        computed = to_host(check.compute())
        return CheckResult(check, computed, not raises and _agrees(check, computed))
    except Exception as error:
        right = raises and isinstance(error, check.expected)
        return CheckResult(check, f"{type(error).__name__}: {error}", right)


def to_host(value: Any) -> Any:
    """Return arrays of any backend, alone or in lists, as numbers and lists of numbers."""
    if isinstance(value, list | tuple):
        return [to_host(element) for element in value]
    return to_numpy(value).tolist()


def golden_tolerance(backend: Backend, elsewhere: float) -> float:
    """Return the tolerance of golden digits: 0 on NumPy, `elsewhere` on other backends.

    Differences divided by 2h show how a library rounds, so their last digits are NumPy's.
    """
    return 0.0 if backend.name == "numpy" else elsewhere


def _agrees(check: Check, computed: Any) -> bool:
    expected = check.expected
    if isinstance(expected, Between):
        return bool(expected.low <= computed <= expected.high)
    if isinstance(expected, str):
        return bool(expected == computed)
    wanted, found = np.asarray(expected, np.float64), np.asarray(computed, np.float64)
    return wanted.shape == found.shape and np.allclose(
        found, wanted, rtol=0, atol=check.tolerance, equal_nan=True
    )
