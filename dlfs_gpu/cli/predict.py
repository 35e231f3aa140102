"""The command ``predict``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from dlfs_gpu._validation import ArgumentError, Array, DataError, namespace_of
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.cli.data import BUILT_IN, check_data_settings, is_csv, load_splits
from dlfs_gpu.cli.results import check_folder
from dlfs_gpu.cli.settings import PredictionSettings, command_with
from dlfs_gpu.data.csv import read_table
from dlfs_gpu.files import whole_file
from dlfs_gpu.model_files import Model, load_model

_PREDICTIONS = "predictions.csv"


@command_with(PredictionSettings)
def predict(settings: PredictionSettings, given: frozenset[str]) -> None:
    """Answer for data with a trained network.

    Prints the share of right answers, or, where the data have no labels, the answers. With --out,
    writes the answers to predictions.csv, and prints the share alone.
    """
    backend = get_backend(settings.backend)
    model = load_model(settings.model, backend=backend)
    name = settings.data or str(model.data.get("name", "a file"))
    if settings.data is None and name not in BUILT_IN:
        raise ArgumentError("data", f"must be given: {settings.model} was trained on {name}")
    check_data_settings(name, settings)
    if is_csv(name):
        title, x, labels = _table(Path(name), model, settings, backend)
    else:
        _, (x, t) = load_splits(name, settings.data_dir, backend)
        title, labels = f"{name}, test part", backend.to_numpy(t)
    if x.shape[1] != model.network.sizes[0]:
        raise DataError(
            f"{title} has {x.shape[1]} features in a sample; {settings.model} was trained on "
            f"{model.network.sizes[0]}"
        )
    if settings.out is not None:
        inputs = [settings.model, Path(name)] if is_csv(name) else [settings.model]
        check_folder(settings.out, [_PREDICTIONS], inputs)
    scores = model.network.scores(x)
    answers = np.asarray(model.classes)[backend.to_numpy(namespace_of(x).argmax(scores, axis=-1))]
    if labels is not None:
        typer.echo(f"{title}: {_accuracy(labels, answers, model.classes)}")
    elif settings.out is None:
        typer.echo("\n".join(map(str, answers)))
    if settings.out is not None:
        _write(settings.out / _PREDICTIONS, labels, answers)
        typer.echo(f"results in {settings.out}")


def _table(
    path: Path, model: Model, settings: PredictionSettings, backend: Backend
) -> tuple[str, Array, np.ndarray | None]:
    """Read a CSV file, in which the labels may be missing, with the columns of training."""
    known = model.data
    label_column = settings.label_column or known.get("label_column")
    scale = settings.scale
    if scale is None:
        scale = known.get("scale") or 1.0
    table = read_table(path, label_column, scale, known.get("features"))
    if settings.label_column is not None and table.labels is None:
        raise DataError(f"{path} has no column {label_column!r}")
    return str(path), backend.asarray(table.x), table.labels


def _accuracy(labels: np.ndarray, answers: np.ndarray, classes: Sequence[Any]) -> str:
    # As text, because a file may hold only those of the labels that are numbers.
    labels, right = labels.astype(str), int(np.sum(labels.astype(str) == answers.astype(str)))
    text = f"accuracy {right / len(labels):.4f} ({right} of {len(labels)})"
    if strange := np.sum(~np.isin(labels, np.asarray(classes).astype(str))):
        text += f"; {strange} have labels that the network does not know"
    return text


def _write(path: Path, labels: np.ndarray | None, answers: np.ndarray) -> None:
    columns = (
        {"prediction": answers} if labels is None else {"label": labels, "prediction": answers}
    )
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
