"""What the commands do: train, check gradients, predict, and write results."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu.backend import Array, Backend, namespace_of
from dlfs_gpu.checkpoint import Model, load_model, save_model
from dlfs_gpu.csv_data import read_table
from dlfs_gpu.files import output_folder, whole_file
from dlfs_gpu.gradient_check import GradientReport, check_gradients
from dlfs_gpu.networks import MultiLayerNet
from dlfs_gpu.plots import plot_confusion_matrix, plot_curves
from dlfs_gpu.sources import Data, Source, load_data
from dlfs_gpu.training import Trainer

# Samples answered for at once, so that large files need little memory.
_PREDICTION_BATCH = 10_000


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
    """Return a network for the data; with one sigmoid layer, that of the chapter."""
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
    gradient: str,
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

    Ctrl-C ends the training after the current update, and the results are written all the same.
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
        gradient=gradient,  # type: ignore[arg-type]
        seed=seed,
        x_val=x_val,
        t_val=t_val,
        patience=patience,
    )
    output_folder(folder)
    with _stop_on_interrupt(trainer.stop):
        history = trainer.train()
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
        }
        save_model(
            folder / "model.safetensors", network, classes=data.classes, data=asdict(data.source)
        )
        history.write_csv(folder / "history.csv")
        plot_curves(
            history.losses,
            history.iterations,
            history.train_accuracy,
            history.test_accuracy,
            folder / "curves.png",
        )
        with whole_file(folder / "summary.json") as part:
            part.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


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
    method: str,
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
    return check_gradients(network, x, t, h=h, method=method)  # type: ignore[arg-type]


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
        table = read_table(Path(name), source.label_column, source.scale)
        x, labels, title = backend.asarray(table.x), table.labels, name
    else:
        data = load_data(source, data_dir, backend)
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
        output_folder(folder)
    answers = _answers(model, x)
    matrix = np.zeros((len(model.classes),) * 2, dtype=np.int64)
    place = {label: k for k, label in enumerate(model.classes)}
    truth = np.asarray([place[label] for label in labels.tolist()])
    np.add.at(matrix, (truth, answers), 1)
    if folder is not None:
        plot_confusion_matrix(matrix, model.classes, folder / "confusion_matrix.png")
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
    given = {"name": name, "label_column": label_column, "scale": scale}
    known = {key: model.data[key] for key in (f.name for f in fields(Source)) if key in model.data}
    known |= {key: value for key, value in given.items() if value is not None}
    if name is not None:
        known["test_data"] = None
    if "name" not in known:
        raise ValueError(f"{path} does not say what it was trained on: give --data")
    return Source(**known)


def _answers(model: Model, x: Array) -> np.ndarray:
    """Return the number of the output that is largest for each sample."""
    network, xp = model.network, namespace_of(x)
    parts = (x[k : k + _PREDICTION_BATCH] for k in range(0, x.shape[0], _PREDICTION_BATCH))
    answers = [network.backend.to_numpy(xp.argmax(network.scores(part), axis=-1)) for part in parts]
    return np.concatenate(answers)


def _split(
    data: Data, share: float, patience: int | None, seed: int
) -> tuple[Array, Array, Array, Array]:
    """Return training and validation data; the same samples on every backend."""
    if not 0 <= share < 1:
        raise ValueError(f"--validation-split is {share}; it must be at least 0 and less than 1")
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


@contextlib.contextmanager
def _stop_on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on the first Ctrl-C inside; a second one interrupts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        # Not by print: that fails when it is in the middle of another one.
        os.write(2, b"\nstopping after this update; the results are kept\n")
        signal.signal(signal.SIGINT, previous)
        stop()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _table(matrix: np.ndarray, classes: Sequence[int], name: str) -> str:
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
