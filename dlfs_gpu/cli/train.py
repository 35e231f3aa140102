"""The command ``train``."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from dlfs_gpu._validation import ArgumentError, Array, check_fraction, namespace_of
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.cli.data import Data, is_csv, load_data
from dlfs_gpu.cli.errors import echo_error
from dlfs_gpu.cli.network import make_network
from dlfs_gpu.cli.results import check_folder, write_results
from dlfs_gpu.cli.settings import TrainingSettings, command_with
from dlfs_gpu.cli.signals import stop_on_signals
from dlfs_gpu.kernels import kernels_mode, report, use_kernels
from dlfs_gpu.model_files import save_model
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.processes import Processes, world
from dlfs_gpu.training import History, Trainer
from dlfs_gpu.training.curves import plot_curves

# The model first, because it is what a training is for.
RESULTS = ("model.safetensors", "history.csv", "curves.png", "summary.json")


@command_with(TrainingSettings)
def train(settings: TrainingSettings) -> None:
    """Train a network on digits, MNIST or a CSV file.

    Writes model.safetensors, history.csv, curves.png and summary.json. Ctrl-C, SIGTERM and SIGHUP
    end it early: the results are written all the same, and the exit status is 128 and the number
    of the signal, 130 for Ctrl-C. A second one ends it at once.
    """
    processes = Processes(world() if settings.mpi else None)
    processes.deal_gpus()
    backend = get_backend(settings.backend)
    data = processes.from_root(lambda: load_data(settings, backend, settings.test_data))
    network = make_network(settings, data, backend)
    trainer = _trainer(settings, data, network, processes)
    name = Path(settings.data).stem
    # To the microsecond, because several may be started together.
    now = f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
    folder = settings.out or Path("runs", f"{name}-{now}")
    inputs = [Path(settings.data), settings.test_data] if is_csv(settings.data) else []
    processes.from_root(lambda: check_folder(folder, RESULTS, filter(None, inputs)))

    kernels = use_kernels(settings.kernels or kernels_mode())
    with kernels, stop_on_signals(trainer.stop) as received:
        history = trainer.train()
        signal = processes.first(received[0] if received else None)
        summary = _summary(settings, trainer, backend, folder)
        summary |= {"signal": signal and signal.name, "processes": processes.size}
        failures = processes.from_root(
            lambda: _report(folder, settings, data, network, history, summary)
        )
    if history.stopped == "diverged":
        raise typer.Exit(2)
    if failures:
        raise typer.Exit(1)
    if signal:
        raise typer.Exit(128 + signal)


def _report(
    folder: Path,
    settings: TrainingSettings,
    data: Data,
    network: MultiLayerNet,
    history: History,
    summary: dict[str, Any],
) -> list[str]:
    """Write and show the results, and return what could not be written."""
    failures = _write(folder, settings, data, network, history, summary)
    typer.echo(_description(summary))
    typer.echo(f"results in {folder}")
    for failure in failures:
        echo_error(failure)
    if history.stopped == "diverged":
        echo_error(f"training diverged: the loss is not finite any more; {_remedy(settings)}")
    return failures


def _trainer(
    settings: TrainingSettings, data: Data, network: MultiLayerNet, processes: Processes
) -> Trainer:
    if settings.gradient in ("batched", "loop") and settings.dropout_ratio:
        raise ArgumentError(
            "gradient", f"is {settings.gradient}, which does not go with --dropout-ratio"
        )
    x, t, x_val, t_val = _split(settings, data)
    return Trainer(
        network,
        x,
        t,
        data.x_test,
        data.t_test,
        mini_batch_size=settings.mini_batch_size,
        optimizer=settings.optimizer,
        optimizer_param={} if settings.lr is None else {"lr": settings.lr},
        iterations=settings.iterations,
        gradient=settings.gradient,
        seed=settings.seed,
        x_val=x_val,
        t_val=t_val,
        patience=settings.patience,
        comm=processes.comm,
    )


def _split(settings: TrainingSettings, data: Data) -> tuple[Array, Array, Array, Array]:
    """Return training and validation data; the same samples on every backend."""
    share = check_fraction("validation_split", settings.validation_split)
    if share == 0:
        if settings.patience is not None:
            raise ArgumentError(
                "patience", f"is {settings.patience}, which needs --validation-split"
            )
        return data.x_train, data.t_train, None, None
    xp = namespace_of(data.x_train)
    n = data.x_train.shape[0]
    order = xp.asarray(np.random.default_rng(settings.seed).permutation(n))
    held = max(1, round(share * n))
    if held == n:
        raise ArgumentError("validation_split", f"is {share}, which leaves nothing to train on")
    parts = (order[held:], order[:held])
    x, x_val = (xp.take(data.x_train, part, axis=0) for part in parts)
    t, t_val = (xp.take(data.t_train, part, axis=0) for part in parts)
    return x, t, x_val, t_val


def _summary(
    settings: TrainingSettings, trainer: Trainer, backend: Backend, folder: Path
) -> dict[str, Any]:
    """Return the settings and what came of them; what was left open is what was chosen."""
    history = trainer.history
    best = history.best_iteration
    last = -1 if best is None else history.iterations.index(best)
    return asdict(settings) | {
        "backend": backend.name,
        "device": backend.device,
        "kernels": [str(status) for status in report()],
        "sizes": trainer.network.sizes,
        "optimizer": settings.optimizer.lower(),
        "lr": trainer.optimizer.lr,
        "out": folder,
        "iterations": history.iterations[-1],
        "stopped": history.stopped,
        "best_iteration": best,
        "seconds": history.seconds,
        "iterations_per_second": history.iterations_per_second,
        "train_accuracy": history.train_accuracy[last],
        "test_accuracy": history.test_accuracy[last],
    }


def _write(
    folder: Path,
    settings: TrainingSettings,
    data: Data,
    network: MultiLayerNet,
    history: History,
    summary: dict[str, Any],
) -> list[str]:
    """Write the results, and return what went wrong."""
    origin: dict[str, Any] = {"name": settings.data}
    if data.features:
        origin = {
            "name": Path(settings.data).name,
            "label_column": settings.label_column,
            "scale": settings.scale,
            "features": data.features,
        }
    return write_results(
        folder,
        {
            "model.safetensors": lambda path: save_model(
                path, network, classes=data.classes, data=origin
            ),
            "history.csv": history.write_csv,
            "curves.png": lambda path: plot_curves(history, path),
            "summary.json": lambda path: path.write_text(
                json.dumps(summary, indent=2, default=str) + "\n", encoding="utf-8"
            ),
        },
    )


def _description(summary: dict[str, Any]) -> str:
    """Return what a training came to, for people to read."""
    stopped = "stopped early" if summary["stopped"] == "early" else summary["stopped"]
    plural = "" if summary["iterations"] == 1 else "s"
    best = summary["best_iteration"]
    return "\n".join(
        [
            f"{summary['data']}: {'-'.join(map(str, summary['sizes']))}, {summary['activation']}, "
            f"{summary['optimizer']} with lr {summary['lr']:g}, {summary['dtype']} on "
            f"{summary['backend']}, {summary['device']}",
            f"{stopped} after {summary['iterations']:,} iteration{plural} in "
            f"{summary['seconds']:.1f} s, {summary['iterations_per_second']:,.0f} a second"
            + ("" if best is None else f"; the weights are those after {best:,}"),
            f"train accuracy {summary['train_accuracy']:.4f}",
            f"test accuracy  {summary['test_accuracy']:.4f}",
            *(f"kernels: {status}" for status in summary["kernels"]),
        ]
    )


def _remedy(settings: TrainingSettings) -> str:
    """Return what may keep a loss finite."""
    remedy = "lower --lr"
    if settings.weight_decay_lambda:
        remedy += " or --weight-decay-lambda"
    if is_csv(settings.data):
        remedy += ", or raise --scale"
    return remedy
