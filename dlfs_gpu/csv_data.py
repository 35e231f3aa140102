"""Reading a CSV file of numbers with a label column, and saying where it is at fault."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Read a CSV file with a header row; `dlfs_gpu.datasets.load_csv` says what is raised.

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
        lines = [line for line in file if line != "\n"]
    if not lines:
        raise ValueError(f"{path} has no rows below its header")
    try:
        values = np.loadtxt(
            lines, dtype=_dtype(lines), comments=None, delimiter=",", quotechar='"', ndmin=2
        )
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
    integral = (labels == np.rint(labels)) & (np.abs(labels) < 2**53)
    for row in np.flatnonzero(~integral)[:1]:
        line, cells = _nth_row(path, row)
        raise ValueError(
            f"{path}, line {line}: the label is {cells[column]!r}; it must be an integer "
            "below 2**53 in size"
        )
    return Table(path, features, x, labels.astype(np.int64))


def check_alike(test: Table, train: Table) -> None:
    """Raise a ValueError if `test` has other columns than `train`, or a label unknown to it."""
    if len(test.features) != len(train.features):
        raise ValueError(
            f"{test.path} has {len(test.features)} columns beside the labels; it must have "
            f"{len(train.features)}, as {train.path} has"
        )
    for ours, theirs in zip(test.features, train.features, strict=True):
        if ours != theirs:
            raise ValueError(f"{test.path} has a column {ours!r} where {train.path} has {theirs!r}")
    for row in np.flatnonzero(~np.isin(test.labels, train.labels))[:1]:
        raise ValueError(
            f"{test.path}, line {_nth_row(test.path, row)[0]}: label {test.labels[row]} does not "
            f"occur in {train.path}"
        )


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not CSV in UTF-8: {error}") from error


def _header(path: Path, file: TextIO) -> list[str]:
    header = next(csv.reader(file), None)
    if not header:
        raise ValueError(f"{path} is empty, or its first line is; that line must name the columns")
    return [name.strip() for name in header]


def _dtype(lines: list[str]) -> type[np.int64 | np.float64]:
    """Choose integers, which `numpy.loadtxt` reads six times faster, where there is nothing else.

    Not float32: label numbers beyond 2**24 would run together in it.
    """
    plain = not any(line.encode().translate(None, b"0123456789-,\n") for line in lines)
    return np.int64 if plain else np.float64


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield each row below the header with the number of its line."""
    with _open(path) as file:
        reader = csv.reader(file)
        next(reader)
        for cells in reader:
            if cells:
                yield reader.line_num, cells


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
            try:
                float(cell)
            except ValueError:
                return ValueError(f"{path}, line {line}, column {name!r}: {cell!r} is not a number")
    return ValueError(f"{path} cannot be read as numbers: {reason}")


def _abbreviate(names: list[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)} in all)"
