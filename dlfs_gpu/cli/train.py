"""The command ``train``."""

from __future__ import annotations

import contextlib
import datetime
import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    DataError,
    check_fraction,
    check_not_negative,
    namespace_of,
)
from dlfs_gpu.backend import get_backend
from dlfs_gpu.cli.data import is_csv, load_data
from dlfs_gpu.cli.errors import echo_error
from dlfs_gpu.cli.lock import FolderLock
from dlfs_gpu.cli.network import make_network
from dlfs_gpu.cli.results import cause_of, check_folder, write_results
from dlfs_gpu.cli.resume import CHECKPOINT, Keeper, is_finished, read_settings
from dlfs_gpu.cli.settings import TrainingSettings, command_with
from dlfs_gpu.cli.signals import stop_on_signals
from dlfs_gpu.data import DataSet
from dlfs_gpu.files import remove_abandoned
from dlfs_gpu.kernels import kernels_mode, report, use_kernels
from dlfs_gpu.model_files import save_model
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.processes import Processes, world
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.curves import plot_curves

# The model first, because it is what a training is for.
RESULTS = ("model.safetensors", "history.csv", "curves.png", "summary.json")


@command_with(TrainingSettings)
def train(settings: TrainingSettings, given: frozenset[str]) -> None:
    """Train a network on digits, MNIST or a CSV file.

    Writes model.safetensors, history.csv, curves.png and summary.json. Ctrl-C, SIGTERM and SIGHUP
    end it early: the results are written all the same, and the exit status is 128 plus the number
    of the signal, 130 for Ctrl-C. A second one ends it at once. Until it has finished, there is a
    checkpoint.safetensors too, from which --resume goes on, to the same results.
    """
    check_not_negative("checkpoint_every", settings.checkpoint_every)
    processes = Processes(world() if settings.mpi else None)
    processes.deal_gpus()
    if settings.resume is None:
        _start(settings, processes)
    else:
        _resume(settings.resume, settings, given, processes)


def _start(settings: TrainingSettings, processes: Processes) -> None:
    backend = get_backend(settings.backend)
    data = processes.from_root(lambda: load_data(settings, backend, settings.test_data))
    trainer = _trainer(settings, data, make_network(settings, data, backend), processes)
    name = Path(settings.data).stem
    # To the microsecond, because several may be started together.
    now = f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}"
    folder = settings.out or Path("runs", f"{name}-{now}")
    lock = FolderLock(folder)
    with contextlib.ExitStack() as locked:

        def begin() -> None:
            check_folder(folder, RESULTS, _inputs(settings))
            locked.enter_context(lock)
            if (folder / CHECKPOINT).exists():
                raise ArgumentError(
                    "out",
                    f"is {folder}, where a training is not finished: go on with --resume {folder}, "
                    f"or remove {folder / CHECKPOINT}",
                )

        processes.from_root(begin)
        chosen = {"kernels": settings.kernels or kernels_mode(), "lr": trainer.optimizer.lr}
        _run(replace(settings, **chosen), trainer, data, lock, processes)


def _resume(
    folder: Path, settings: TrainingSettings, given: frozenset[str], processes: Processes
) -> None:
    lock = FolderLock(folder)
    with contextlib.ExitStack() as locked:

        def begin() -> TrainingSettings | None:
            if not folder.is_dir():
                raise ArgumentError("resume", f"is {folder}, which is not a folder")
            locked.enter_context(lock)
            if is_finished(folder):
                typer.echo(f"the training in {folder} is finished: nothing is left to do")
                return None
            found = replace(read_settings(folder, settings, given), mpi=settings.mpi)
            check_folder(folder, RESULTS, _inputs(found))
            return found

        found = processes.from_root(begin)
        if found is None:
            return
        backend = get_backend(found.backend)
        data = processes.from_root(lambda: load_data(found, backend, found.test_data))
        arrays = _arrays(found, data)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = folder / CHECKPOINT
            try:
                trainer = Trainer.resume(path, **arrays, comm=processes.comm)
            except ArgumentError as error:
                raise DataError(f"{path} is of other data: {error}") from error
        if processes.rank == 0:
            for warning in caught:
                echo_error(str(warning.message))
        _run(found, trainer, data, lock, processes)


def _run(
    settings: TrainingSettings,
    trainer: Trainer,
    data: DataSet,
    lock: FolderLock,
    processes: Processes,
) -> None:
    """Train, with a checkpoint until there are results."""
    keeper: Keeper | None = None
    if processes.rank == 0:
        remove_abandoned(lock.folder)
        keeper = Keeper(trainer, lock, settings)
    kernels = use_kernels(settings.kernels or "auto")
    with kernels, stop_on_signals(trainer.stop) as received:
        history = trainer.train()
        signal = processes.first(received[0] if received else None)
        summary = _summary(settings, trainer, lock.folder)
        summary |= {"signal": signal and signal.name, "processes": processes.size}
        failures = processes.from_root(
            lambda: _finish(settings, trainer, data, lock, keeper, summary)
        )
    if history.stopped == "diverged":
        raise typer.Exit(2)
    if failures:
        raise typer.Exit(1)
    if signal:
        raise typer.Exit(128 + signal)


def _finish(
    settings: TrainingSettings,
    trainer: Trainer,
    data: DataSet,
    lock: FolderLock,
    keeper: Any,
    summary: dict[str, Any],
) -> list[str]:
    """Write and show the results, and return what could not be written."""
    folder, stopped = lock.folder, trainer.history.stopped
    unfinished = stopped == "interrupted"
    if unfinished:
        keeper.keep()
    failures = _write(lock, settings, data, trainer, summary)
    # Of a training that has diverged there is no model to be written.
    if failures and stopped in ("finished", "early"):
        keeper.keep()
    elif not unfinished:
        (folder / CHECKPOINT).unlink(missing_ok=True)
    typer.echo(_description(summary))
    typer.echo(f"results in {folder}")
    for failure in failures:
        echo_error(failure)
    if (folder / CHECKPOINT).exists():
        together = "--mpi " if settings.mpi else ""
        typer.echo(f"go on with: dlfs-gpu train {together}--resume {folder}")
    if stopped == "diverged":
        echo_error(f"training diverged: the loss is not finite any more; {_remedy(settings)}")
    return failures


def _inputs(settings: TrainingSettings) -> list[Path]:
    """Return the files that no result may replace."""
    if not is_csv(settings.data):
        return []
    return [Path(settings.data), *([settings.test_data] if settings.test_data else [])]


def _trainer(
    settings: TrainingSettings, data: DataSet, network: MultiLayerNet, processes: Processes
) -> Trainer:
    if settings.gradient in ("batched", "loop") and settings.dropout_ratio:
        raise ArgumentError(
            "gradient", f"is {settings.gradient}, which does not go with --dropout-ratio"
        )
    return Trainer(
        network,
        **_arrays(settings, data),
        mini_batch_size=settings.mini_batch_size,
        optimizer=settings.optimizer,
        optimizer_param={} if settings.lr is None else {"lr": settings.lr},
        iterations=settings.iterations,
        gradient=settings.gradient,
        seed=settings.seed,
        patience=settings.patience,
        comm=processes.comm,
    )


def _arrays(settings: TrainingSettings, data: DataSet) -> dict[str, Array]:
    """Return what a trainer gets of the data, by its arguments; the same on every backend."""
    arrays = {
        "x_train": data.x_train,
        "t_train": data.t_train,
        "x_test": data.x_test,
        "t_test": data.t_test,
    }
    share = check_fraction("validation_split", settings.validation_split)
    if share == 0:
        if settings.patience is not None:
            raise ArgumentError(
                "patience", f"is {settings.patience}, which needs --validation-split"
            )
        return arrays
    xp = namespace_of(data.x_train)
    n = data.x_train.shape[0]
    order = xp.asarray(np.random.default_rng(settings.seed).permutation(n))
    held = max(1, round(share * n))
    if held == n:
        raise ArgumentError("validation_split", f"is {share}, which leaves nothing to train on")
    for kind in "xt":
        samples = arrays[f"{kind}_train"]
        arrays[f"{kind}_train"] = xp.take(samples, order[held:], axis=0)
        arrays[f"{kind}_val"] = xp.take(samples, order[:held], axis=0)
    return arrays


def _summary(settings: TrainingSettings, trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Return the settings and what came of them; what was left open is what was chosen."""
    history, backend = trainer.history, trainer.network.backend
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
    lock: FolderLock,
    settings: TrainingSettings,
    data: DataSet,
    trainer: Trainer,
    summary: dict[str, Any],
) -> list[str]:
    """Write the results, and return what went wrong."""
    network: Any = trainer.network
    history = trainer.history
    try:
        lock.take()
    except OSError as error:
        return [f"{lock.folder} cannot be written: {cause_of(error)}"]
    origin: dict[str, Any] = {"name": settings.data}
    if data.features:
        origin = {
            "name": Path(settings.data).name,
            "label_column": settings.label_column,
            "scale": settings.scale,
            "features": data.features,
        }
    return write_results(
        lock.folder,
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
