"""Data by the names that the command line gives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from dlfs_gpu._files import check_readable
from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.data import load_csv, load_digits, load_fashion_mnist, load_mnist

_NAMES = ("digits", "mnist", "fashion-mnist")
_LABEL_COLUMN = "label"
_SCALE = 255.0


@dataclass(frozen=True)
class Source:
    """What data to use, in the words of the command line; saved with a model.

    Attributes
    ----------
    name : str
        "digits", "mnist", "fashion-mnist", or the path of a CSV file.
    test_data : str or None
        A CSV file to test on.
    label_column, scale
        For CSV files, as for `dlfs_gpu.load_csv`; None for what that takes by default.

    Raises
    ------
    ValueError
        If `scale` is not positive and finite.
    """

    name: str
    test_data: str | None = None
    label_column: str | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"--scale is {self.scale}; it must be positive and finite")

    @property
    def is_csv(self) -> bool:
        """Whether the name is that of a CSV file."""
        return _is_csv(self.name)

    @property
    def reading(self) -> tuple[str, float]:
        """Label column and scale to read CSV files with."""
        return (
            _LABEL_COLUMN if self.label_column is None else self.label_column,
            _SCALE if self.scale is None else self.scale,
        )


@dataclass(frozen=True, eq=False)
class Data:
    """A data set on a backend.

    Attributes
    ----------
    source : Source
    x_train, x_test : array, shape (N, I)
    t_train, t_test : array of int64, shape (N,)
    classes : tuple of int or of str
        The label that each number in `t_train` and `t_test` stands for.
    features : tuple of str or None
        Names of the columns of a CSV file.
    """

    source: Source
    x_train: Array
    t_train: Array
    x_test: Array
    t_test: Array
    classes: tuple[int, ...] | tuple[str, ...]
    features: tuple[str, ...] | None = None


def check_source(source: Source, data_dir: Path | None) -> None:
    """Raise what `load_data` raises before it reads anything."""
    name = source.name
    if name not in _NAMES and not source.is_csv:
        raise ValueError(f"--data is {name!r}; it must be {', '.join(_NAMES)}, or a .csv file")
    if data_dir is not None and (name == "digits" or source.is_csv):
        raise ValueError(f"--data-dir is {data_dir}, but --data is {name}, which needs no folder")
    if source.is_csv:
        check_readable("--data", Path(name))
        if source.test_data is not None:
            if not _is_csv(source.test_data):
                raise ValueError(f"--test-data is {source.test_data!r}; it must be a .csv file")
            check_readable("--test-data", Path(source.test_data))
        return
    if source.test_data is not None:
        raise ValueError(
            f"--test-data is {source.test_data!r}, but --data is {name}, which has its own"
        )
    for option, value in (("--label-column", source.label_column), ("--scale", source.scale)):
        if value is not None:
            raise ValueError(f"{option} is {value}, but --data is {name}, which is no CSV file")


def load_data(source: Source, data_dir: Path | None, backend: Backend) -> Data:
    """Load data by the name that the command line gives.

    Raises
    ------
    ValueError
        If the name is none of ours and no CSV file, or what else is said does not go with it;
        and what the loaders raise.
    OSError
        If a file is not there, or cannot be read.
    """
    check_source(source, data_dir)
    name = source.name
    if source.is_csv:
        label_column, scale = source.reading
        table = load_csv(
            name, source.test_data, label_column=label_column, scale=scale, backend=backend
        )
        parts = (table.x_train, table.t_train, table.x_test, table.t_test)
        return Data(source, *parts, table.classes, table.features)
    if name == "digits":
        train, test = load_digits(backend=backend)
    else:
        load = load_mnist if name == "mnist" else load_fashion_mnist
        train, test = load(data_dir=data_dir, backend=backend)
    return Data(source, *train, *test, tuple(range(10)))


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")
