"""Data by the names that ``--data`` takes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.backend import Backend
from dlfs_gpu.cli.settings import NetworkSettings, PredictionSettings
from dlfs_gpu.data import load_csv, load_digits, load_fashion_mnist, load_mnist
from dlfs_gpu.data.splits import DataSet, Splits

BUILT_IN = ("digits", "mnist", "fashion-mnist")


def is_csv(name: str) -> bool:
    """Say whether data of this name is a CSV file."""
    return name.lower().endswith(".csv")


def check_data_settings(name: str, settings: NetworkSettings | PredictionSettings) -> None:
    """Refuse names of data that are not known, and settings for which such data has no use."""
    if name not in BUILT_IN and not is_csv(name):
        raise ArgumentError(
            "data", f"is {name!r}; it must be one of {', '.join(BUILT_IN)}, or a .csv file"
        )
    unused = ["data_dir"] if name == "digits" or is_csv(name) else []
    unused += [] if is_csv(name) else ["test_data", "label_column", "scale"]
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in unused and value != field.default:
            raise ArgumentError(field.name, f"is {value}, for which --data {name} has no use")


def load_data(
    settings: NetworkSettings, backend: Backend, test_data: Path | None = None
) -> DataSet:
    """Load data to train on and to test on.

    Raises
    ------
    ArgumentError
        If the settings do not fit together.
    DataError, OSError
        As `dlfs_gpu.load_csv` and `dlfs_gpu.load_mnist`.
    """
    name = settings.data
    check_data_settings(name, settings)
    if not is_csv(name):
        train, test = load_splits(name, settings.data_dir, backend)
        return DataSet(*train, *test, tuple(range(10)))
    column, scale = settings.label_column, settings.scale
    return load_csv(name, test_data, label_column=column, scale=scale, backend=backend)


def load_splits(name: str, data_dir: Path | None, backend: Backend) -> Splits:
    """Load digits, mnist or fashion-mnist."""
    if name == "digits":
        return load_digits(backend=backend)
    load = load_mnist if name == "mnist" else load_fashion_mnist
    return load(data_dir=data_dir, backend=backend)
