"""Reading a CSV file of numbers with a label column, and saying where it is at fault."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV file, read.

    Attributes
    ----------
    path : Path
        The file.
    features : list of str
        Names of all columns but the label's.
    x : ndarray of float32, shape (N, len(features))
        Their numbers, divided by the scale.
    labels : ndarray of int64, shape (N,)
        The label column.
    """

    path: Path
    features: list[str]
    x: NDArray[np.float32]
    labels: NDArray[np.int64]


def read_table(path: Path, label_column: str, scale: float) -> Table:
    """Read a CSV file with a header row; `dlfs_gpu.data.datasets.load_csv` says what is raised.

    Parameters
    ----------
    path : Path
        The file, in UTF-8. Empty lines are skipped.
    label_column : str
        Name of the column of integers.
    scale : float
        What all other columns are divided by.
    """
    with _open(path) as file:
        header = _header(path, file)
        if header.count(label_column) != 1:
            raise ValueError(
                f"{path} has {header.count(label_column)} columns named {label_column!r}, where "
                f"one must hold the labels; its columns are {_abbreviate(header)}"
            )
        if len(header) == 1:
            raise ValueError(f"{path} has no column beside {label_column!r}")
        seen: set[str] = set()
        for name in header:
            if name in seen:
                raise ValueError(f"{path} has two columns named {name!r}; names must differ")
            seen.add(name)
        lines = [line for line in file if line != "\n"]
    if not lines:
        raise ValueError(f"{path} has no rows below its header")
    try:
        values = _numbers(lines)
    except ValueError as error:
        raise _fault(path, header, str(error)) from None
    if values.shape[1] != len(header):
        raise _fault(path, header, f"{values.shape[1]} columns below {len(header)} names")
    column = header.index(label_column)
    labels = values[:, column]
    with np.errstate(over="ignore"):
        x = np.delete(values, column, axis=1).astype(np.float32)
        x /= np.float32(scale)
    features = header[:column] + header[column + 1 :]
    for row, feature in np.argwhere(~np.isfinite(x))[:1]:
        place = feature + (feature >= column)
        line, cells = _nth_row(path, row)
        raise ValueError(
            f"{path}, line {line}, column {header[place]!r}: {cells[place]!r} divided by the scale "
            f"{scale:g} is not a finite float32 number"
        )
    # From 2**53 on, float64 skips integers.
    integral = (labels == np.rint(labels)) & (labels > -(2**53)) & (labels < 2**53)
    for row in np.flatnonzero(~integral)[:1]:
        line, cells = _nth_row(path, row)
        raise ValueError(
            f"{path}, line {line}: the label is {cells[column]!r}; it must be an integer "
            "below 2**53 in size"
        )
    return Table(path, features, x, labels.astype(np.int64))


def check_alike(test: Table, train: Table) -> None:
    """Raise a ValueError if `test` has other columns than `train`, or a label unknown to it."""
    check_features(test.path, test.features, train.features, train.path)
    for row in np.flatnonzero(~np.isin(test.labels, train.labels))[:1]:
        raise ValueError(
            f"{test.path}, line {_nth_row(test.path, row)[0]}: label {test.labels[row]} does not "
            f"occur in {train.path}"
        )


def check_features(path: Path, found: Sequence[str], known: Sequence[str], owner: Path) -> None:
    """Raise a ValueError if the columns found are not those, in the order, that `owner` has."""
    if len(found) != len(known):
        raise ValueError(
            f"{path} has {len(found)} columns beside the labels; it must have {len(known)}, as "
            f"{owner} has"
        )
    for ours, theirs in zip(found, known, strict=True):
        if ours != theirs:
            raise ValueError(f"{path} has a column {ours!r} where {owner} has {theirs!r}")


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not CSV in UTF-8: {error}") from error


def _header(path: Path, file: TextIO) -> list[str]:
    line, header = next(_records(path, file), (1, []))
    if not header or line > 1:
        raise ValueError(f"{path} is empty, or its first line is; that line must name the columns")
    return [name.strip() for name in header]


def _numbers(lines: list[str]) -> NDArray[np.int64 | np.float64]:
    """Read integers, which takes a sixth of the time, where there is nothing else.

    Not float32: label numbers beyond 2**24 would run together in it.
    """
    read = partial(np.loadtxt, lines, comments=None, delimiter=",", quotechar='"', ndmin=2)
    if not any(line.encode().translate(None, b"0123456789-,\n") for line in lines):
        # Some may be too large for int64, or no number, such as 1-2.
        with suppress(ValueError):
            return read(dtype=np.int64)
    return read(dtype=np.float64)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row below the header with the number of its line."""
    with _open(path) as file:
        yield from itertools.islice(_records(path, file), 1, None)


def _records(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not empty, header included, and the line's number."""
    reader = csv.reader(file)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {line}: {error}; is a quote not closed?") from error
        if cells is None:
            return
        if reader.line_num > line:
            raise ValueError(f"{path}, line {line}: a quote opens that the line does not close")
        if cells:
            yield line, cells


def _nth_row(path: Path, row: int) -> tuple[int, list[str]]:
    return next(itertools.islice(_rows(path), row, None))


def _fault(path: Path, header: list[str], reason: str) -> ValueError:
    """Find the line that keeps a file from being read as numbers."""
    for line, cells in _rows(path):
        if len(cells) != len(header):
            return ValueError(
                f"{path}, line {line} has {len(cells)} cells; "
                f"it must have {len(header)}, as the header has"
            )
        for name, cell in zip(header, cells, strict=True):
            if not _is_number(cell):
                return ValueError(f"{path}, line {line}, column {name!r}: {cell!r} is not a number")
    return ValueError(f"{path} cannot be read as numbers: {reason}")


def _is_number(cell: str) -> bool:
    """Return whether `numpy.loadtxt` can read a cell; Python reads 1_0 and other scripts too."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and "_" not in cell


def _abbreviate(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)} in all)"
