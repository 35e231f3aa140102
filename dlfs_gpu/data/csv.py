"""CSV files: a header row, a column of labels, and numbers in all others."""

from __future__ import annotations

import csv
import io
import os
import reprlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import (
    ArgumentError,
    DataError,
    check_positive,
    first_index,
    is_finite,
)
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data.splits import DataSet, stratified_split, to_backend
from dlfs_gpu.files import open_regular

# Where all are integers, reading them so takes a fourth of the time. NumPy before 2.3 cuts off
# their fractions, and those beyond 64 bits.
_TYPES = (np.int64, np.float64)[np.lib.NumpyVersion(np.__version__) < "2.3.0" :]


@dataclass(frozen=True, eq=False)
class Table:
    """A CSV file, read: N rows of numbers in columns of these names, and labels if it has any."""

    features: tuple[str, ...]
    x: NDArray[np.float32]  # (N, len(features)), divided by the scale
    labels: NDArray[Any] | None  # (N,), of int64 or str


def load_csv(
    train: str | os.PathLike[str],
    test: str | os.PathLike[str] | None = None,
    *,
    label_column: str = "label",
    scale: float = 1.0,
    one_hot_label: bool = False,
    backend: str | Backend | None = None,
) -> DataSet:
    """Load CSV files with a header row, a column of labels, and numbers in all others.

    Labels are words, or whole numbers, which may skip some as those of the sign-language alphabet
    do (0 to 24 without 9). Sorted, they become 0, 1, 2, ...

    Parameters
    ----------
    train : path
        The file to train on.
    test : path, optional
        The file to test on: its columns of the same names are read, others are not. Without it,
        a fixed fifth of `train` is set apart, with every label in both parts in proportion.
    label_column : str, optional
        Name of the column of labels.
    scale : float, optional
        What the other columns are divided by: where they are pixels between 0 and 255, 255 makes
        them lie between 0 and 1.
    one_hot_label : bool, optional
        Give the labels as float32 of shape (N, number of classes) instead of int64 of shape (N,).
    backend : str or Backend, optional
        Where to put the arrays, as for `dlfs_gpu.get_backend`.

    Raises
    ------
    OSError
        If a file is missing, cannot be read, or is not a regular file.
    ArgumentError
        If `scale` is not positive and finite.
    DataError
        If a file cannot be read as `read_table` says; if all labels of `train` are the same, or
        `train` is too small to be split; or if `test` has no labels, or others than `train`.
    """
    chosen = get_backend(backend)
    known = read_table(train, label_column, scale)
    assert known.labels is not None
    classes, t_known = np.unique(known.labels, return_inverse=True)
    if len(classes) == 1:
        raise DataError(f"{train} has only the label {classes[0]}; there must be two or more")
    if test is None:
        try:
            train_rows, test_rows = stratified_split(t_known)
        except ValueError as error:
            raise DataError(
                f"{train} cannot be split; add rows, or give a file as test: {error}"
            ) from error
        x_train, t_train = known.x[train_rows], t_known[train_rows]
        x_test, t_test = known.x[test_rows], t_known[test_rows]
    else:
        unseen = read_table(test, label_column, scale, known.features)
        if unseen.labels is None:
            raise DataError(f"{test} has no column {label_column!r}")
        # By text: among words there may be numbers, and this file may have only those.
        numbers = {str(label): number for number, label in enumerate(classes)}
        labels = [str(label) for label in unseen.labels]
        if strange := set(labels).difference(numbers):
            raise DataError(f"{test} has the label {min(strange)!r}, which {train} has not")
        x_train, t_train = known.x, t_known
        x_test, t_test = unseen.x, np.array([numbers[label] for label in labels])
    return DataSet(
        *to_backend(chosen, x_train, t_train, len(classes), one_hot_label),
        *to_backend(chosen, x_test, t_test, len(classes), one_hot_label),
        tuple(classes.tolist()),
        known.features,
    )


def read_table(
    path: str | os.PathLike[str],
    label_column: str | None,
    scale: float = 1.0,
    features: Sequence[str] | None = None,
) -> Table:
    """Read a CSV file in UTF-8 with a header row; empty lines are skipped.

    Parameters
    ----------
    path : path
    label_column : str or None
        Name of the column of labels, if there is one.
    scale : float
        What the other columns are divided by.
    features : sequence of str, optional
        The columns to read, in this order; any others are ignored, and the label column may be
        missing. By default all but the label column, which must be there.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, or is not a regular file.
    ArgumentError
        If `scale` is not positive and finite, or `label_column` is one of `features`.
    DataError
        If the file is not CSV in UTF-8, lacks a column or has two of its name, or has no rows; if
        a row has another length than the header; if a cell to read is not a finite number, or a
        label is missing. The message names the file.
    """
    scale = check_positive("scale", scale)
    if features is not None and label_column in features:
        raise ArgumentError("label_column", f"is {label_column!r}, which is one of the features")
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file, strict=True), [])]
            lines = [line for line in file if line != "\n"]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not CSV in UTF-8: {error}") from error
    label = [] if label_column is None else [label_column]
    if features is None:
        features = [name for name in header if name not in label]
    elif label_column not in header:
        label = []
    counts = Counter(header)
    if wrong := [name for name in [*features, *label] if counts[name] != 1]:
        raise DataError(
            f"{path} lacks {reprlib.repr(wrong)}, or has them twice; its columns are "
            f"{reprlib.repr(header)}"
        )
    if not features or not lines:
        raise DataError(f"{path} has no column of numbers, or no rows below its header")
    place = {name: number for number, name in enumerate(header)}
    columns = [place[name] for name in features]
    try:
        values, words = _read_rows(lines, len(header), columns, [place[name] for name in label])
    except ValueError as error:
        fault = str(error).removesuffix("; use `usecols` to select a subset and avoid this error")
        raise DataError(f"{path} cannot be read as numbers: {fault}") from error
    with np.errstate(over="ignore"):
        x = (values[:, columns] / scale).astype(np.float32)
    if not is_finite(x):
        row, column = first_index(~np.isfinite(x))
        raise DataError(
            f"{path}: {features[column]!r} in row {row + 1} below the header, divided by the scale "
            f"{scale:g}, is not a finite float32 number"
        )
    if "" in words:
        raise DataError(f"{path} has no label in row {words.index('') + 1} below the header")
    return Table(tuple(features), x, _as_labels(np.array(words)) if label else None)


def _read_rows(
    lines: list[str], width: int, columns: list[int], label: list[int]
) -> tuple[NDArray[Any], list[str]]:
    """Return numbers of shape (N, width), 0 in columns that are not read, and the labels."""
    words: list[str] = []

    def keep(text: str) -> int:
        words.append(text.strip())
        return 0

    options: dict[str, Any] = {"comments": None, "delimiter": ",", "quotechar": '"', "ndmin": 2}
    ignored = set(range(width)).difference(columns)
    options["converters"] = dict.fromkeys(ignored, lambda text: 0) | dict.fromkeys(label, keep)
    for dtype in _TYPES:
        words.clear()
        try:
            values = np.loadtxt(lines, dtype, **options)
            break
        except ValueError:
            if dtype is _TYPES[-1]:
                raise
    if values.shape != (len(lines), width):
        raise ValueError(
            f"its {len(lines)} lines below {width} names make {len(values)} rows of "
            f"{values.shape[1]} cells; is a quote not closed?"
        )
    return values, words


def _as_labels(words: NDArray[Any]) -> NDArray[Any]:
    """Return labels as int64 if all are whole numbers (``3`` or ``3.0``), and else as words."""
    try:
        numbers = words.astype(np.float64)
    except ValueError:
        return words
    # From 2**53 on, float64 skips whole numbers.
    whole = (np.rint(numbers) == numbers) & (np.abs(numbers) < 2**53)
    return numbers.astype(np.int64) if whole.all() else words
