"""The checkpoint in the folder of a run: keeping it, and the settings to go on with."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dlfs_gpu._validation import ArgumentError, DataError
from dlfs_gpu.cli.data import is_csv
from dlfs_gpu.cli.errors import echo_error
from dlfs_gpu.cli.lock import FolderLock
from dlfs_gpu.cli.results import cause_of
from dlfs_gpu.cli.settings import TrainingSettings
from dlfs_gpu.files import whole_results
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.checkpoint import read_checkpoint

CHECKPOINT = "checkpoint.safetensors"
# Of the time, at most one part in so many is spent on checkpoints.
_SHARE = 100
# What may change between a run and its continuation: where things are, and how often they are kept.
_PLACES = ("backend", "data_dir", "checkpoint_every", "mpi")


class Keeper:
    """Keeps the checkpoint of a training: from its first update on, and then every so often.

    Parameters
    ----------
    trainer : Trainer
    lock : FolderLock
        Of the folder to keep it in.
    settings : TrainingSettings
        Kept with it.
    """

    def __init__(self, trainer: Trainer, lock: FolderLock, settings: TrainingSettings) -> None:
        self._trainer = trainer
        self._lock = lock
        self._every = settings.checkpoint_every
        self._notes = {name: _plain(value) for name, value in asdict(settings).items()}
        self._failed = False
        if self._every:
            trainer._call_after(0.0, self.keep)

    def keep(self) -> None:
        """Write a checkpoint, unless there should be none.

        That it cannot be written is said once; it is tried again later.
        """
        if not self._every:
            return
        folder, start = self._lock.folder, time.perf_counter()
        try:
            self._lock.take()
            with whole_results(folder, (CHECKPOINT,)) as part:
                self._trainer.save(part / CHECKPOINT, self._notes)
        except (MemoryError, OSError) as error:
            if not self._failed:
                echo_error(
                    f"{folder / CHECKPOINT} is not written: {cause_of(error)}; training goes on"
                )
            self._failed = True
        finally:
            took = time.perf_counter() - start
            self._trainer._call_after(max(self._every, _SHARE * took), self.keep)


def read_settings(
    folder: Path, settings: TrainingSettings, given: Collection[str]
) -> TrainingSettings:
    """Return the settings of the training in a folder.

    Parameters
    ----------
    folder : Path
    settings : TrainingSettings
        What to go on with.
    given : collection of str
        The names of those that were really given.

    Raises
    ------
    ArgumentError
        If one that was given is another there.
    OSError, DataError
        If there is no checkpoint that can be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no {CHECKPOINT} to go on from")
    there = read_checkpoint(path)["notes"]
    if not isinstance(there, dict) or there.keys() != {field.name for field in fields(settings)}:
        raise DataError(f"{path} is not of a training by this version's train")
    there["out"] = str(folder)
    there["resume"] = str(folder)
    for name in given:
        value = _plain(getattr(settings, name))
        moved = name in ("data", "test_data") and is_csv(str(value)) and is_csv(str(there[name]))
        if name in _PLACES or moved:
            there[name] = value
        elif value != there[name]:
            raise ArgumentError(
                name, f"is {value}, but that of the training in {folder} is {there[name]}"
            )
    for name in ("data_dir", "test_data", "out", "resume"):
        there[name] = there[name] and Path(there[name])
    return TrainingSettings(**there)


def is_finished(folder: Path) -> bool:
    """Say whether a folder holds the results of a training that has nothing left to do."""
    try:
        summary: Any = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return not (folder / CHECKPOINT).exists() and summary["stopped"] != "interrupted"
    except (KeyError, OSError, TypeError, ValueError):
        return False


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
