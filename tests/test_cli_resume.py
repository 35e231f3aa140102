"""Trainings from the command line that are killed, stopped, or cannot write, and go on."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_cli import (
    ENVIRONMENT,
    RESULTS,
    UNFINISHED,
    Result,
    Run,
    names_in,
    run,
    summary_in,
    write_flowers,
)

from dlfs_gpu.cli import resume as cli_resume
from dlfs_gpu.cli import train as cli_train
from dlfs_gpu.cli.lock import FolderLock
from dlfs_gpu.cli.settings import TrainingSettings
from dlfs_gpu.training import Trainer
from dlfs_gpu.training.checkpoint import read_checkpoint, write_checkpoint
from dlfs_gpu.training.update import Update

__all__ = ["run"]  # the fixture

CHECKPOINT = Path("a", "checkpoint.safetensors")
SAME = ("model.safetensors", "history.csv")
# Kills in each kind of training; more by the environment.
KILLS = int(os.environ.get("DLFS_GPU_TEST_KILLS", "5"))
DROPOUT, DECAY = ("--dropout-ratio", "0.2"), ("--weight-decay-lambda", "0.001")
EARLY = ("--validation-split", "0.2", "--patience", "3")
BACKPROP = ("--iterations", "1500", "--backend", "numpy")
DIFFERENCE = (
    *("--iterations", "150", "--gradient", "difference", "--hidden", "10", "--kernels", "off"),
    *("--mini-batch-size", "30", "--backend", "numpy"),
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")


@pytest.mark.once
@needs_fork
@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", *BACKPROP),
        ("--optimizer", "momentum", *DROPOUT, *BACKPROP),
        ("--optimizer", "adam", *DECAY, *EARLY, *BACKPROP),
        ("--optimizer", "sgd", *DROPOUT, *DECAY, *BACKPROP, "--dtype", "float64"),
        ("--optimizer", "momentum", *EARLY, *BACKPROP),
        ("--optimizer", "adam", *DROPOUT, *EARLY, *BACKPROP),
        ("--optimizer", "sgd", *EARLY, *DIFFERENCE),
        ("--optimizer", "momentum", *DECAY, *DIFFERENCE),
        ("--optimizer", "adam", *DROPOUT, *DIFFERENCE),
        ("--optimizer", "adam", *DROPOUT, *DECAY, *EARLY, *DIFFERENCE),
    ],
    ids=" ".join,
)
def test_killed_at_random_moments(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Half of them in the middle of training or of results, half between two file operations."""
    seed = str(len(options)) + options[1]
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(KILLS), seed, *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * KILLS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{KILLS} kills, ")


# Trainings in this process, from here on.

OPTIONS = (
    *("--optimizer", "adam", "--lr", 0.01, "--dropout-ratio", 0.2, "--iterations", 100, *EARLY),
    *("--hidden", 8, "--backend", "numpy", "--kernels", "off"),
)


@pytest.fixture
def straight(run: Run) -> dict[str, bytes]:
    """The results of a training that was never stopped."""
    assert run("train", *OPTIONS, "--out", "straight").status == 0
    return {name: Path("straight", name).read_bytes() for name in SAME}


@pytest.fixture
def stopped(run: Run, straight: Any, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A training in the folder a that Ctrl-C has stopped."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 30)
        return run("train", *OPTIONS, "--out", "a")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """Have Ctrl-C pressed after so many updates."""
    count = itertools.count(1)
    right = Update.__call__

    def update(self: Update, indices: Any) -> Any:
        if next(count) == updates:
            signal.raise_signal(signal.SIGINT)
        return right(self, indices)

    monkeypatch.setattr(Update, "__call__", update)


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def assert_same(straight: dict[str, bytes]) -> None:
    assert names_in("a") == RESULTS
    for name, content in straight.items():
        assert Path("a", name).read_bytes() == content


def refused(result: Result, *words: str) -> None:
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    for word in words:
        assert word in line


class TestResume:
    def test_after_ctrl_c(self, run: Run, stopped: Result, straight: dict[str, bytes]) -> None:
        assert stopped.status == 130
        assert stopped.out.splitlines()[-1] == "go on with: dlfs-gpu train --resume a"
        assert names_in("a") == UNFINISHED
        assert summary_in("a")["iterations"] == 30
        result = run("train", "--resume", "a")
        assert result.status == 0, result.err
        assert_same(straight)
        summary = summary_in("a") | {"out": "", "resume": ""}
        ignored = {"out": "", "resume": "", "seconds": 0, "iterations_per_second": 0}
        assert summary | ignored == summary_in("straight") | ignored

    def test_stopped_again_and_again(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place = "--out"
        for updates in (1, 20, 5, 1, 1):
            with monkeypatch.context() as patch:
                interrupt_after(patch, updates)
                assert (
                    run("train", *(OPTIONS if place == "--out" else ()), place, "a").status == 130
                )
            place = "--resume"
        assert summary_in("a")["iterations"] == 28
        assert run("train", "--resume", "a").status == 0
        assert_same(straight)

    def test_a_signal_before_the_first_update(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        train = Trainer.train

        def signalled(trainer: Trainer) -> Any:
            signal.raise_signal(signal.SIGINT)
            return train(trainer)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train", signalled)
            assert run("train", *OPTIONS, "--out", "a").status == 130
        assert names_in("a") == UNFINISHED
        assert summary_in("a")["iterations"] == 0
        assert run("train", "--resume", "a").status == 0
        assert_same(straight)

    def test_a_finished_training(self, run: Run, straight: Any) -> None:
        before = contents("straight")
        result = run("train", "--resume", "straight")
        assert result == (0, "the training in straight is finished: nothing is left to do\n", "")
        assert contents("straight") == before

    def test_a_training_that_began_over_a_finished_one(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What goes on is the new one, even if it was not given time for an update."""
        assert run("train", "--iterations", 1, "--out", "a").status == 0

        def fail(update: Update, indices: Any) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(Update, "__call__", fail)
            with pytest.raises(ZeroDivisionError):
                run("train", *OPTIONS, "--out", "a")
        assert names_in("a") == UNFINISHED
        assert run("train", "--resume", "a").status == 0
        assert_same(straight)

    def test_nothing_to_go_on_from(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("a").mkdir()
        refused(run("train", "--resume", "a"), "a holds no checkpoint.safetensors")
        refused(run("train", "--resume", "b"), "--resume is b")
        assert names_in(".") == {"a"}
        interrupt_after(monkeypatch, 5)
        assert run("train", *OPTIONS, "--checkpoint-every", 0, "--out", "a").status == 130
        assert names_in("a") == RESULTS
        refused(run("train", "--resume", "a"), "a holds no checkpoint.safetensors")

    @pytest.mark.parametrize(
        ("option", "value", "kept"),
        [
            ("--lr", 0.5, "0.01"),
            ("--optimizer", "sgd", "adam"),
            ("--hidden", 50, "8"),
            ("--data", "mnist", "digits"),
            ("--iterations", 200, "100"),
            ("--dtype", "float64", "float32"),
            ("--kernels", "auto", "off"),
            ("--out", "b", "a"),
            # The default, but not that of the training.
            ("--patience", 4, "3"),
            ("--dropout-ratio", 0.0, "0.2"),
        ],
    )
    def test_options_that_conflict(
        self, run: Run, stopped: Result, option: str, value: object, kept: str
    ) -> None:
        before = contents("a")
        refused(run("train", "--resume", "a", option, value), option, f"is {value}, ", f" {kept}")
        assert contents("a") == before

    def test_options_that_do_not(
        self, run: Run, stopped: Result, straight: dict[str, bytes]
    ) -> None:
        same = ("--out", "a", "--seed", 0, "--checkpoint-every", 5)
        assert run("train", "--resume", "a", *OPTIONS, *same).status == 0
        assert_same(straight)

    def test_a_training_that_is_not_finished_is_not_replaced(
        self, run: Run, stopped: Result
    ) -> None:
        before = contents("a")
        refused(run("train", "--out", "a"), "--out is a", "--resume a", str(CHECKPOINT))
        assert contents("a") == before

    @pytest.mark.parametrize("change", ["cut", "flipped", "other", "settings"])
    def test_a_checkpoint_that_cannot_be_used(self, run: Run, stopped: Result, change: str) -> None:
        content = bytearray(CHECKPOINT.read_bytes())
        content[len(content) // 2] ^= 1
        if change == "cut":
            CHECKPOINT.write_bytes(content[:-1])
        elif change == "flipped":
            CHECKPOINT.write_bytes(content)
        elif change == "other":
            shutil.copy("a/model.safetensors", CHECKPOINT)
        else:
            state = read_checkpoint(CHECKPOINT)
            del state["notes"]["seed"]
            write_checkpoint(CHECKPOINT, state)
        before = contents("a")
        refused(run("train", "--resume", "a"), str(CHECKPOINT))
        assert contents("a") == before

    def test_other_data(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        write_flowers("flowers.csv")
        data = ("--data", "flowers.csv", "--label-column", "species", "--mini-batch-size", 20)
        with monkeypatch.context() as patch:
            interrupt_after(patch, 30)
            assert run("train", *data, *BACKPROP, "--out", "a").status == 130
        before = contents("a")
        write_flowers("flowers.csv", seed=1)
        refused(run("train", "--resume", "a"), str(CHECKPOINT), "x_train")
        Path("flowers.csv").unlink()
        refused(run("train", "--resume", "a"), "flowers.csv")
        assert contents("a") == before
        write_flowers("moved.csv")
        refused(run("train", "--resume", "a", "--data", "digits"), "--data", "flowers.csv")
        assert run("train", "--resume", "a", "--data", "moved.csv").status == 0

    def test_on_another_machine(
        self, run: Run, stopped: Result, straight: dict[str, bytes]
    ) -> None:
        state = read_checkpoint(CHECKPOINT)
        state["origin"] |= {"backend": "cupy", "numpy": "1.0.0"}
        write_checkpoint(CHECKPOINT, state)
        result = run("train", "--resume", "a")
        assert result.status == 0
        message = result.err.splitlines()[0]
        assert message.startswith("dlfs-gpu: the checkpoint comes from backend cupy and not numpy")
        assert "numpy 1.0.0" in message
        assert_same(straight)

    def test_what_a_killed_run_left_is_removed(self, run: Run, stopped: Result) -> None:
        left = Path("a", ".dlfs_gpu-12345678", "checkpoint.safetensors")
        left.parent.mkdir()
        left.touch()
        assert run("train", "--resume", "a").status == 0
        assert names_in("a") == RESULTS

    def test_how_often(self, run: Run) -> None:
        refused(run("train", "--checkpoint-every", -1), "--checkpoint-every")
        assert names_in(".") == set()


@pytest.mark.parametrize(("took", "wait"), [(0.005, 30.0), (2.0, 200.0)])
def test_checkpoints_take_no_more_than_a_hundredth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took: float, wait: float
) -> None:
    now, waits = 0.0, []

    def save(path: Path, notes: object) -> None:
        nonlocal now
        path.touch()
        now += took

    def call_after(seconds: float, function: object) -> None:
        waits.append(seconds)

    monkeypatch.setattr(cli_resume, "time", SimpleNamespace(perf_counter=lambda: now))
    slow: Any = SimpleNamespace(save=save, _call_after=call_after)
    with FolderLock(tmp_path) as lock:
        cli_resume.Keeper(slow, lock, TrainingSettings()).keep()
    assert waits == [0.0, wait]


class TestCannotWrite:
    """Training goes on, and says so once; results are written where they can be."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli_resume, "_SHARE", 0)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
    @pytest.mark.parametrize("for_good", [False, True])
    def test_checkpoints(
        self,
        run: Run,
        straight: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        for_good: bool,
    ) -> None:
        save, tried = Trainer.save, itertools.count()
        kept: list[int] = []

        def saved(trainer: Trainer, *arguments: Any) -> None:
            if next(tried) < 3 or for_good:
                raise OSError(number, os.strerror(number), "somewhere")
            save(trainer, *arguments)
            kept.append(len(trainer.history.losses))

        monkeypatch.setattr(Trainer, "save", saved)
        result = run("train", *OPTIONS, "--checkpoint-every", 1e-9, "--out", "a")
        assert result.status == 0
        messages = [line for line in result.err.splitlines() if line.startswith("dlfs-gpu")]
        assert messages == [
            f"dlfs-gpu: {CHECKPOINT} is not written: {os.strerror(number)}; training goes on"
        ]
        assert next(tried) > 50
        assert bool(kept) is not for_good
        assert_same(straight)

    def test_the_last_checkpoint(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one before it is still there, to go on from."""
        save, tried = Trainer.save, itertools.count()

        def saved(trainer: Trainer, *arguments: Any) -> None:
            if next(tried):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(trainer, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", saved)
            interrupt_after(patch, 30)
            result = run("train", *OPTIONS, "--out", "a")
        assert result.status == 130
        assert result.out.splitlines()[-1] == "go on with: dlfs-gpu train --resume a"
        assert run("train", "--resume", "a").status == 0
        assert_same(straight)

    def test_nothing_at_all(self, run: Run, straight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(**options: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "TemporaryDirectory", full)
            result = run("train", *OPTIONS, "--checkpoint-every", 1e-9, "--out", "a")
        assert result.status == 1
        assert "\ntest accuracy " in result.out
        messages = [line for line in result.err.splitlines() if line.startswith("dlfs-gpu")]
        assert [message.split(" ", 4)[1] for message in messages] == [str(CHECKPOINT), "a"]
        assert names_in("a") == set()

    def test_results_alone(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A checkpoint is kept, from which they are written again."""

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(cli_train, "save_model", lambda *a, **k: full())
            result = run("train", *OPTIONS, "--out", "a")
        assert result.status == 1
        assert "go on with: dlfs-gpu train --resume a" in result.out
        assert names_in("a") == UNFINISHED - {"model.safetensors"}
        assert run("train", "--resume", "a").status == 0
        assert_same(straight)

    def test_a_folder_that_is_gone(
        self, run: Run, straight: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is made again, and locked."""
        update, count = Update.__call__, itertools.count()

        def remove(self: Update, indices: Any) -> Any:
            if next(count) == 40:
                shutil.rmtree("a")
            if next(count) == 60:
                with pytest.raises(BlockingIOError), FolderLock(Path("a")):
                    pass
            return update(self, indices)

        monkeypatch.setattr(Update, "__call__", remove)
        result = run("train", *OPTIONS, "--checkpoint-every", 1e-9, "--out", "a")
        assert result.status == 0
        assert_same(straight)

    def test_a_folder_that_is_another_runs_now(
        self, run: Run, straight: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        update, count = Update.__call__, itertools.count()
        other = FolderLock(Path("a"))

        def replaced(self: Update, indices: Any) -> Any:
            if next(count) == 40:
                shutil.rmtree("a")
                other.take()
                Path("a", "model.safetensors").write_text("of the other")
            return update(self, indices)

        monkeypatch.setattr(Update, "__call__", replaced)
        result = run("train", *OPTIONS, "--checkpoint-every", 1e-9, "--out", "a")
        with other:
            assert result.status == 1
            assert result.err.splitlines()[-1].endswith("another run is at work in a")
            assert contents("a") == {"model.safetensors": b"of the other"}


class TestLock:
    def test_two_runs_in_one_folder(self, run: Run, stopped: Result) -> None:
        before = contents("a")
        with FolderLock(Path("a")):
            for place in ("--out", "--resume"):
                refused(run("train", place, "a"), "another run is at work in a")
        assert contents("a") == before
        assert run("train", "--resume", "a").status == 0

    def test_a_killed_process_keeps_nobody_out(self, tmp_path: Path) -> None:
        script = (
            "import os, sys; from pathlib import Path; from dlfs_gpu.cli.lock import FolderLock\n"
            "FolderLock(Path(sys.argv[1])).take(); print('in', flush=True); sys.stdin.read()"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        with child:
            assert child.stdout is not None
            assert child.stdout.readline().strip() == b"in"
            with pytest.raises(BlockingIOError):
                FolderLock(tmp_path).take()
            child.kill()
        with FolderLock(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows locks in another way")
    def test_where_there_are_no_locks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("fcntl.flock", fail)
        with FolderLock(tmp_path):
            assert f"{tmp_path} cannot be locked" in capsys.readouterr().err
