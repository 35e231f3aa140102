"""What the commands do: load data by name, train, check gradients, predict, and write results."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu.backend import Array, Backend, namespace_of
from dlfs_gpu.checkpoint import load_model, save_model
from dlfs_gpu.datasets import load_csv, load_digits, load_fashion_mnist, load_mnist
from dlfs_gpu.gradient_check import GradientReport, check_gradients
from dlfs_gpu.networks import MultiLayerNet
from dlfs_gpu.training import History, Trainer

_NAMES = ("digits", "mnist", "fashion-mnist")


@dataclass(frozen=True, eq=False)
class Data:
    """A data set on a backend.

    Attributes
    ----------
    name : str
        As it was asked for.
    x_train, x_test : array, shape (N, I)
    t_train, t_test : array of int64, shape (N,)
    classes : tuple of int
        The label that each number in `t_train` and `t_test` stands for.
    """

    name: str
    x_train: Array
    t_train: Array
    x_test: Array
    t_test: Array
    classes: tuple[int, ...]


def load_data(
    name: str,
    data_dir: Path | None,
    test_data: Path | None,
    label_column: str,
    scale: float,
    backend: Backend,
) -> Data:
    """Load data by the name that the command line gives.

    Raises
    ------
    ValueError
        If the name is none of ours and no CSV file; and what the loaders raise.
    """
    if name.lower().endswith(".csv"):
        table = load_csv(name, test_data, label_column=label_column, scale=scale, backend=backend)
        return Data(name, table.x_train, table.t_train, table.x_test, table.t_test, table.classes)
    if test_data is not None:
        raise ValueError(f"--test-data is {test_data}, but --data is {name}, which has its own")
    if name == "digits":
        train, test = load_digits(backend=backend)
    elif name in _NAMES:
        load = load_mnist if name == "mnist" else load_fashion_mnist
        train, test = load(data_dir=data_dir, backend=backend)
    else:
        raise ValueError(f"--data is {name!r}; it must be {', '.join(_NAMES)}, or a .csv file")
    return Data(name, *train, *test, tuple(range(10)))


def default_folder(data: str) -> Path:
    """Return ``runs/<data>-<time>``."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{Path(data).stem}-{now}"


def output_folder(path: Path) -> Path:
    """Make a folder for results, and see that it can be written before anything is computed.

    Raises
    ------
    OSError
        If it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"--out is {path}, where nothing can be written: {error}") from error
    return path


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
    with _stop_on_interrupt(trainer.stop):
        history = trainer.train()
    summary = {
        "data": data.name,
        "backend": backend.name,
        "device": backend.device,
        "seed": seed,
        "dtype": dtype,
        "sizes": network.sizes,
        "activation": activation,
        "optimizer": optimizer.lower(),
        "lr": trainer.optimizer.lr,
        "gradient": gradient,
        "iterations": len(history.losses),
        "stopped": history.stopped,
        "best_iteration": history.best_iteration,
        "seconds": history.seconds,
        "iterations_per_second": history.iterations_per_second,
        "train_accuracy": network.accuracy(x, t),
        "test_accuracy": network.accuracy(data.x_test, data.t_test),
    }
    save_model(folder / "model.safetensors", network, classes=data.classes, data=data.name)
    history.write_csv(folder / "history.csv")
    _draw_curves(history, folder / "curves.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


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
    label_column: str,
    scale: float,
    backend: Backend,
    folder: Path | None,
) -> str:
    """Answer for test data with a model from a file, and return a text for people to read.

    A CSV file is test data as a whole; of the other sets their test part is used.
    """
    model = load_model(model_path, backend=backend)
    name = name or model.data
    if name.lower().endswith(".csv"):
        table = load_csv(
            name,
            name,
            label_column=label_column,
            scale=scale,
            backend=backend,
        )
        labels = [table.classes[k] for k in backend.to_numpy(table.t_test).tolist()]
        x = table.x_test
    else:
        data = load_data(name, data_dir, None, label_column, scale, backend)
        labels = backend.to_numpy(data.t_test).tolist()
        x = data.x_test
    if strange := sorted(set(labels) - set(model.classes)):
        raise ValueError(f"{name} holds the label {strange[0]}, which {model_path} never saw")
    place = {label: k for k, label in enumerate(model.classes)}
    truth = np.asarray([place[label] for label in labels])
    xp = namespace_of(x)
    answers = backend.to_numpy(xp.argmax(model.network.scores(x), axis=-1))
    matrix = np.zeros((len(model.classes),) * 2, dtype=np.int64)
    np.add.at(matrix, (truth, answers), 1)
    if folder is not None:
        from dlfs_gpu.plots import plot_confusion_matrix

        plot_confusion_matrix(matrix, model.classes, folder / "confusion_matrix.png")
        with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "prediction"])
            writer.writerows(
                (label, model.classes[k]) for label, k in zip(labels, answers, strict=True)
            )
    return _table(matrix, model.classes, name)


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
        print("stopping after this update; the results are kept", file=sys.stderr)
        signal.signal(signal.SIGINT, previous)
        stop()

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _draw_curves(history: History, path: Path) -> None:
    from dlfs_gpu.plots import plot_curves

    plot_curves(
        history.losses, history.iterations, history.train_accuracy, history.test_accuracy, path
    )


def _table(matrix: np.ndarray, classes: Sequence[int], name: str) -> str:
    """Return accuracy and confusion matrix as text."""
    width = max(6, *(len(str(n)) + 2 for n in (*classes, matrix.max())))
    right, total = int(np.trace(matrix)), int(matrix.sum())
    rows = [
        f"{name}: accuracy {right / total:.4f} ({right} of {total})",
        "rows are labels, columns predictions",
        " " * width + "".join(f"{c:>{width}}" for c in classes),
    ]
    for label, row in zip(classes, matrix.tolist(), strict=True):
        rows.append(f"{label:>{width}}" + "".join(f"{n:>{width}}" for n in row))
    return os.linesep.join(rows)
