"""What the commands do: train, check gradients, predict, and write results."""

from __future__ import annotations

import csv
import datetime
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu._files import check_readable, output_folder, whole_file, whole_results
from dlfs_gpu._validation import Array, is_finite, namespace_of
from dlfs_gpu.backend import Backend
from dlfs_gpu.checkpoint import Model, load_model, save_model
from dlfs_gpu.cli.signals import stop_on_signals
from dlfs_gpu.cli.sources import Data, Source, check_source, load_data
from dlfs_gpu.data.csv import read_table
from dlfs_gpu.gradient_check import GradientReport, check_gradients
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.network import GradientMethod
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.curves import plot_curves
from dlfs_gpu.training.update import GradientKind

RESULTS = ("history.csv", "curves.png", "model.safetensors", "summary.json")
_ANSWERS = ("predictions.csv",)


def default_folder(source: Source) -> Path:
    """Return ``runs/<data>-<time>``."""
    # To the microsecond, because several may be started together.
    return Path("runs") / f"{Path(source.name).stem}-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"


def make_network(
    data: Data,
    hidden: Sequence[int],
    activation: str,
    weight_decay: float,
    dropout: float,
    seed: int,
    dtype: str,
    backend: Backend,
) -> MultiLayerNet:
    """Return a network for the data; with one sigmoid layer, that of the chapter.

    Raises
    ------
    ValueError
        If an argument is out of range, or the weights alone need more memory than is free.
    """
    sizes = [data.x_train.shape[1], *hidden, len(data.classes)]
    # Drawn in float64 on every backend.
    needed = 8 * sum(n * m for n, m in itertools.pairwise(sizes))
    if min(sizes) > 0 and needed > (free := backend.free_memory()):
        raise ValueError(
            f"--hidden is {','.join(map(str, hidden))}, whose weights take {needed / 2**30:,.1f} "
            f"GiB; it must fit into the {free / 2**30:,.1f} GiB of memory that are free"
        )
    chapter = len(hidden) == 1 and activation == "sigmoid"
    return MultiLayerNet(
        data.x_train.shape[1],
        hidden,
        len(data.classes),
        activation,
        0.01 if chapter else "relu" if activation == "relu" else "sigmoid",
        weight_decay,
        dropout_ratio=dropout,
        seed=seed,
        dtype=dtype,
        backend=backend,
    )


def train(
    data: Data,
    folder: Path,
    *,
    backend: Backend,
    gradient: GradientKind,
    hidden: Sequence[int],
    activation: str,
    optimizer: str,
    iterations: int,
    batch_size: int,
    lr: float | None,
    weight_decay: float,
    dropout: float,
    validation_split: float,
    patience: int | None,
    seed: int,
    dtype: str,
) -> dict[str, Any]:
    """Train on data, write the results to a folder, and return the summary.

    Ctrl-C, SIGTERM and SIGHUP end the training after the current update, and the results are
    written all the same; the summary says under "signal" which it was. Weights that are not finite
    are not written.
    """
    network = make_network(data, hidden, activation, weight_decay, dropout, seed, dtype, backend)
    if lr is None and optimizer.lower() == "sgd":
        lr = 0.1
    x, t, x_val, t_val = _split(data, validation_split, patience, seed)
    trainer = Trainer(
        network,
        x,
        t,
        data.x_test,
        data.t_test,
        mini_batch_size=batch_size,
        optimizer=optimizer,
        optimizer_param={} if lr is None else {"lr": lr},
        iterations=iterations,
        gradient=gradient,
        seed=seed,
        x_val=x_val,
        t_val=t_val,
        patience=patience,
    )
    output_folder(folder, RESULTS)
    with stop_on_signals(trainer.stop) as received:
        history = trainer.train()
        finite = all(map(is_finite, network.params.values()))
        summary = {
            "data": data.source.name,
            "backend": backend.name,
            "device": backend.device,
            "seed": seed,
            "dtype": dtype,
            "sizes": network.sizes,
            "activation": activation,
            "optimizer": optimizer.lower(),
            "lr": trainer.optimizer.lr,
            "batch_size": batch_size,
            "weight_decay": weight_decay,
            "dropout": dropout,
            "validation_split": validation_split,
            "early_stopping": patience,
            "gradient": gradient,
            "iterations": len(history.losses),
            "stopped": history.stopped,
            "best_iteration": history.best_iteration,
            "seconds": history.seconds,
            "iterations_per_second": history.iterations_per_second,
            "train_accuracy": network.accuracy(x, t),
            "test_accuracy": network.accuracy(data.x_test, data.t_test),
            "model": "model.safetensors" if finite else None,
        }
        with whole_results(folder, RESULTS) as part:
            if finite:
                save_model(
                    part / "model.safetensors", network, classes=data.classes, data=_origin(data)
                )
            history.write_csv(part / "history.csv")
            plot_curves(
                history.losses,
                history.iterations,
                history.train_accuracy,
                history.test_accuracy,
                part / "curves.png",
            )
            summary["signal"] = received[0].name if received else None
            text = json.dumps(summary, indent=2) + "\n"
            (part / "summary.json").write_text(text, encoding="utf-8")
    return summary


def _origin(data: Data) -> dict[str, Any]:
    """Return what a model needs to know of the data it was trained on.

    Of CSV files also what tells whether they are still the same, and the same from other folders.
    """
    source = data.source
    if data.features is None:
        return asdict(source)
    files, counts = [os.path.abspath(source.name)], [len(data.x_train)]
    if source.test_data is None:
        counts[0] += len(data.x_test)
    else:
        files.append(os.path.abspath(source.test_data))
        counts.append(len(data.x_test))
    return asdict(source) | {
        "name": files[0],
        "test_data": files[1] if len(files) == 2 else None,
        "features": list(data.features),
        "rows": dict(zip(files, counts, strict=True)),
    }


def describe(summary: dict[str, Any]) -> str:
    """Return what `train` says of a training, for people to read."""
    stopped = "stopped early" if summary["stopped"] == "early" else summary["stopped"]
    updates = "1 update" if summary["iterations"] == 1 else f"{summary['iterations']:,} updates"
    best = summary["best_iteration"]
    return "\n".join(
        [
            f"{summary['data']}: {'-'.join(map(str, summary['sizes']))}, {summary['activation']}, "
            f"{summary['optimizer']} with lr {summary['lr']:g}, {summary['dtype']} on "
            f"{summary['backend']}, {summary['device']}",
            f"{stopped} after {updates} in {summary['seconds']:.1f} s, "
            f"{summary['iterations_per_second']:,.0f} a second"
            + ("" if best is None else f"; the weights are those after {best:,}"),
            f"train accuracy {summary['train_accuracy']:.4f}",
            f"test accuracy  {summary['test_accuracy']:.4f}",
        ]
        + ([] if summary["model"] else ["no model is written: its weights are not finite"])
    )


def gradcheck(
    data: Data,
    *,
    backend: Backend,
    hidden: Sequence[int],
    activation: str,
    batch_size: int,
    weight_decay: float,
    dropout: float,
    method: GradientMethod,
    h: float | None,
    seed: int,
    dtype: str,
) -> GradientReport:
    """Check the gradients of a new network on the first samples of the training data."""
    if not 1 <= batch_size <= data.x_train.shape[0]:
        raise ValueError(
            f"--batch-size is {batch_size}; the data allow 1 to {data.x_train.shape[0]}"
        )
    network = make_network(data, hidden, activation, weight_decay, dropout, seed, dtype, backend)
    network.freeze_dropout()
    x, t = data.x_train[:batch_size], data.t_train[:batch_size]
    return check_gradients(network, x, t, h=h, method=method)


def predict(
    model_path: Path,
    name: str | None,
    data_dir: Path | None,
    label_column: str | None,
    scale: float | None,
    backend: Backend,
    folder: Path | None,
) -> str:
    """Answer for data with a model from a file, and return a text for people to read.

    A CSV file given by name is answered for as a whole; of other data, and by default of what the
    model was trained on, the test part is. What is not given is as it was in training.
    """
    model = load_model(model_path, backend=backend)
    source = _source(model, model_path, name, label_column, scale)
    if name is not None and source.is_csv:
        check_source(source, data_dir)
        table = read_table(name, *source.reading, model.data.get("features"))
        if table.labels is None:
            raise ValueError(f"{name} has no column {source.reading[0]!r}")
        x, labels, title = backend.asarray(table.x), table.labels, name
    else:
        data = _data_again(model, model_path, source, data_dir, backend, named=name is not None)
        x, labels = data.x_test, np.asarray(data.classes)[backend.to_numpy(data.t_test)]
        title = source.test_data or f"{source.name}, test part"
    if x.shape[1] != model.network.sizes[0]:
        raise ValueError(
            f"{title} has {x.shape[1]} features in a sample; "
            f"{model_path} was trained on {model.network.sizes[0]}"
        )
    if strange := sorted(set(labels.tolist()) - set(model.classes)):
        raise ValueError(f"{title} holds the label {strange[0]}, which {model_path} never saw")
    if folder is not None:
        output_folder(folder, _ANSWERS)
    scores = model.network.scores(x)
    answers = backend.to_numpy(namespace_of(x).argmax(scores, axis=-1))
    matrix = np.zeros((len(model.classes),) * 2, dtype=np.int64)
    place = {label: k for k, label in enumerate(model.classes)}
    truth = np.asarray([place[label] for label in labels.tolist()])
    np.add.at(matrix, (truth, answers), 1)
    if folder is not None:
        with (
            whole_file(folder / "predictions.csv") as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["label", "prediction"])
            predictions = (model.classes[k] for k in answers)
            writer.writerows(zip(labels.tolist(), predictions, strict=True))
    return _table(matrix, model.classes, title)


def _source(
    model: Model, path: Path, name: str | None, label_column: str | None, scale: float | None
) -> Source:
    """Return what the model was trained on, but for what is given."""
    known = {key: model.data[key] for key in (f.name for f in fields(Source)) if key in model.data}
    if name is not None:
        known |= {"name": name, "test_data": None}
    if "name" not in known:
        raise ValueError(f"{path} does not say what it was trained on: give --data")
    if not Source(known["name"]).is_csv:
        known |= {"label_column": None, "scale": None}
    given = {"label_column": label_column, "scale": scale}
    return Source(**known | {key: value for key, value in given.items() if value is not None})


def _data_again(
    model: Model,
    path: Path,
    source: Source,
    data_dir: Path | None,
    backend: Backend,
    *,
    named: bool,
) -> Data:
    """Return data of the given name, or without one what the model was trained on."""
    if named or not source.is_csv:
        return load_data(source, data_dir, backend)
    for file in (source.name, source.test_data):
        if file is not None:
            check_readable(f"no --data is given, and what {path} was trained on", Path(file))
    try:
        data = load_data(source, data_dir, backend)
        origin = _origin(data)
        known = model.data.get("features", origin["features"])
        if origin["features"] != known:
            raise ValueError(f"{source.name} has other columns than {path}")
        for file, rows in model.data.get("rows", {}).items():
            if origin["rows"].get(file) != rows:
                raise ValueError(f"{file} had {rows} rows then, and has {origin['rows'].get(file)}")
    except ValueError as error:
        raise ValueError(
            f"no --data is given, and {path} was trained on {source.name}: {error}"
        ) from error
    return data


def _split(
    data: Data, share: float, patience: int | None, seed: int
) -> tuple[Array, Array, Array, Array]:
    """Return training and validation data; the same samples on every backend."""
    if not 0 <= share < 1:
        raise ValueError(f"--validation-split is {share}; it must be at least 0 and less than 1")
    if patience is not None and patience < 1:
        raise ValueError(f"--early-stopping is {patience}; it must be 1 or more")
    if patience is not None and share == 0:
        raise ValueError(
            f"--early-stopping is {patience}, but --validation-split is 0: early stopping "
            "needs validation data"
        )
    if share == 0:
        return data.x_train, data.t_train, None, None
    xp = namespace_of(data.x_train)
    n = data.x_train.shape[0]
    order = xp.asarray(np.random.default_rng(seed).permutation(n))
    held = max(1, round(share * n))
    if held == n:
        raise ValueError(f"--validation-split is {share}, which leaves no samples to train on")
    parts = (order[held:], order[:held])
    x, x_val = (xp.take(data.x_train, part, axis=0) for part in parts)
    t, t_val = (xp.take(data.t_train, part, axis=0) for part in parts)
    return x, t, x_val, t_val


def _table(matrix: np.ndarray, classes: Sequence[int] | Sequence[str], name: str) -> str:
    """Return accuracy and confusion matrix as text."""
    width = 1 + max(len(str(n)) for n in (*classes, matrix.max()))
    right, total = int(np.trace(matrix)), int(matrix.sum())
    rows = [
        f"{name}: accuracy {right / total:.4f} ({right} of {total})",
        "rows are labels, columns predictions",
        " " * width + "".join(f"{label:>{width}}" for label in classes),
    ]
    for label, row in zip(classes, matrix.tolist(), strict=True):
        rows.append(f"{label:>{width}}" + "".join(f"{n or '.':>{width}}" for n in row))
    return "\n".join(rows)
