"""The command line as its users meet it: what it prints, writes, and says of mistakes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.image
import numpy as np
import pytest

import dlfs_gpu
from dlfs_gpu import cli
from dlfs_gpu.chapter4 import SECTIONS
from dlfs_gpu.cli import data as cli_data
from dlfs_gpu.cli import train as cli_train
from dlfs_gpu.cli.signals import stop_on_signals
from dlfs_gpu.layers import Affine, Sigmoid
from dlfs_gpu.model_files import load_model, save_model
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.training import Trainer

COMMANDS = ("info", "train", "gradcheck", "predict", "chapter4")
RESULTS = {"model.safetensors", "history.csv", "curves.png", "summary.json"}
# Of a training that can go on.
UNFINISHED = RESULTS | {"checkpoint.safetensors"}
LETTERS = tuple(label for label in range(25) if label != 9)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dlfs_gpu.__file__).parents[1])}
MODEL = "a/model.safetensors"

not_on_windows = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has other signals and another shell"
)


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process, in a new folder: the same code, without the start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("DLFS_GPU_DATA", raising=False)

    def run_here(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["dlfs-gpu", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        status = ended.value.code or 0
        assert isinstance(status, int)
        return Result(status, *capsys.readouterr())

    return run_here


def run_process(*arguments: object, cwd: Path, **environment: str) -> Result:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dlfs_gpu", *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def summary_in(folder: str | Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    return summary


def rows_of(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_in(folder: str | Path) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def write_flowers(
    path: str | Path, rows: int = 60, *, words: bool = True, scale: float = 1, seed: int = 0
) -> None:
    """Write a CSV file of three kinds that are easily told apart."""
    rng = np.random.default_rng(seed)
    kinds = ("setosa", "versicolor", "virginica") if words else ("3", "5", "8")
    lines = ["species,petal,sepal"]
    for k in range(rows):
        petal, sepal = scale * (np.eye(3, 2)[k % 3] + 0.05 * rng.standard_normal(2))
        lines.append(f"{kinds[k % 3]},{petal:.6g},{sepal:.6g}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


# To train in a process of its own without scikit-learn, which takes longer than all other imports.
QUICK = (
    *("--data", "flowers.csv", "--test-data", "flowers.csv", "--label-column", "species"),
    *("--mini-batch-size", "20"),
)
FLOWERS = (
    *("train", "--data", "flowers.csv", "--label-column", "species", "--mini-batch-size", "20"),
    *("--optimizer", "adam", "--lr", "0.1", "--iterations", "150", "--out", "a"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """What a training on digits prints, and the folder it writes by default."""
    here = tmp_path_factory.mktemp("here")
    result = run_process("train", "--iterations", 2000, cwd=here)
    assert result.status == 0, result.err
    (folder,) = (here / "runs").iterdir()
    assert names_in(folder) == RESULTS
    return folder, result


class TestTrain:
    def test_summary(self, trained: tuple[Path, Result]) -> None:
        summary = summary_in(trained[0])
        expected = {
            "data": "digits", "seed": 0, "iterations": 2000, "stopped": "finished", "signal": None,
            "sizes": [64, 50, 10], "optimizer": "sgd", "lr": 0.1, "mini_batch_size": 100,
            "gradient": "backprop", "patience": None,
        }  # fmt: skip
        assert summary.items() >= expected.items()
        assert summary.keys() >= {"backend", "device", "seconds", "iterations_per_second"}
        assert summary["test_accuracy"] >= 0.85

    def test_printed(self, trained: tuple[Path, Result]) -> None:
        folder, result = trained
        summary = summary_in(folder)
        assert re.fullmatch(r"digits-\d{8}-\d{6}-\d{6}", folder.name)
        lines = result.out.splitlines()
        assert lines[0].startswith("digits: 64-50-10, sigmoid, sgd with lr 0.1, float32 on ")
        assert lines[1].startswith("finished after 2,000 iterations in ")
        assert lines[2:] == [
            f"train accuracy {summary['train_accuracy']:.4f}",
            f"test accuracy  {summary['test_accuracy']:.4f}",
            *(f"kernels: {status}" for status in summary["kernels"]),
            f"results in {Path('runs', folder.name)}",
        ]
        assert all(line.startswith("iteration ") for line in result.err.splitlines())

    def test_history(self, trained: tuple[Path, Result]) -> None:
        rows = rows_of(trained[0] / "history.csv")
        assert [int(row["iteration"]) for row in rows] == list(range(2001))
        losses = np.asarray([float(row["loss"]) for row in rows[:-1]])
        assert losses[0] == pytest.approx(np.log(10), abs=0.05)
        assert losses[-100:].mean() < 1
        evaluated = [int(row["iteration"]) for row in rows if row["test_accuracy"]]
        assert evaluated == [*range(0, 2000, 14), 2000]
        assert float(rows[-1]["test_accuracy"]) == summary_in(trained[0])["test_accuracy"]

    def test_curves(self, trained: tuple[Path, Result]) -> None:
        image = matplotlib.image.imread(trained[0] / "curves.png")
        assert min(image.shape[:2]) >= 400
        assert image.std() > 0.05

    def test_model(self, trained: tuple[Path, Result], run: Run) -> None:
        path = trained[0] / "model.safetensors"
        model = load_model(path, backend="numpy")
        assert model.network.sizes == [64, 50, 10]
        assert model.data == {"name": "digits"}
        accuracy = summary_in(trained[0])["test_accuracy"]
        result = run("predict", "--model", path)
        right = round(360 * accuracy)
        assert result.out == f"digits, test part: accuracy {accuracy:.4f} ({right} of 360)\n"

    def test_all_options(self, run: Run) -> None:
        result = run(
            *("train", "--hidden", "64,32", "--activation", "relu", "--optimizer", "Adam"),
            *("--weight-decay-lambda", "1e-4", "--dropout-ratio", "0.2", "--lr", "0.003"),
            *("--validation-split", "0.2", "--patience", "2", "--dtype", "float64", "--seed", "7"),
            *("--mini-batch-size", "50", "--iterations", "5000", "--backend", "numpy"),
            *("--out", "a/b"),
        )
        assert result.status == 0, result.err
        summary = summary_in("a/b")
        expected = {
            "hidden": "64,32", "sizes": [64, 64, 32, 10], "activation": "relu",
            "optimizer": "adam", "lr": 0.003, "weight_decay_lambda": 1e-4, "dropout_ratio": 0.2,
            "validation_split": 0.2, "patience": 2, "dtype": "float64", "seed": 7,
            "mini_batch_size": 50, "stopped": "early", "backend": "numpy",
        }  # fmt: skip
        assert summary.items() >= expected.items()
        assert "stopped early after " in result.out
        assert f"the weights are those after {summary['best_iteration']:,}" in result.out
        rows = {int(row["iteration"]): row for row in rows_of("a/b/history.csv")}
        losses = {k: float(row["val_loss"]) for k, row in rows.items() if row["val_loss"]}
        assert list(losses)[:2] == [0, 23], "1,150 of 1,437 samples are 23 minibatches"
        best = min(losses, key=losses.__getitem__)
        assert best == summary["best_iteration"] < summary["iterations"]
        assert summary["test_accuracy"] == float(rows[best]["test_accuracy"])
        _, (x, t) = dlfs_gpu.load_digits(backend="numpy")
        network = load_model("a/b/model.safetensors", backend="numpy").network
        assert network.accuracy(x, t) == summary["test_accuracy"]

    @pytest.mark.parametrize(
        ("hidden", "activation", "scales"),
        [
            ("400", "sigmoid", (0.01, 0.01)),
            ("400,300", "sigmoid", (1 / 8, 1 / 20)),
            ("400", "tanh", (1 / 8, 1 / 20)),
            ("400", "relu", (np.sqrt(2) / 8, np.sqrt(2) / 20)),
        ],
    )
    def test_first_weights(
        self, run: Run, hidden: str, activation: str, scales: tuple[float, float]
    ) -> None:
        options = ("--activation", activation, "--iterations", 1, "--lr", 1e-9, "--out", "a")
        assert run("train", "--hidden", hidden, *options).status == 0
        params = load_model(MODEL, backend="numpy").network.params
        for key, scale in zip(("W1", "W2"), scales, strict=True):
            assert params[key].std() == pytest.approx(scale, rel=0.05)

    def test_differences(self, run: Run) -> None:
        """The same training, but for the rounding of differences."""
        losses = {}
        for gradient in ("backprop", "difference"):
            options = ("--gradient", gradient, "--iterations", 40, "--lr", 1, "--out", gradient)
            result = run("train", "--hidden", "10", "--activation", "tanh", *options)
            assert result.status == 0, result.err
            assert summary_in(gradient)["gradient"] == gradient
            rows = rows_of(f"{gradient}/history.csv")
            losses[gradient] = [float(row["loss"]) for row in rows[:-1]]
        np.testing.assert_allclose(losses["difference"], losses["backprop"], 1e-4)
        assert losses["difference"][-1] < losses["difference"][0] - 0.1

    def test_no_hidden_layer(self, run: Run) -> None:
        result = run("train", "--hidden", "", "--iterations", 1, "--out", "a")
        assert result.out.startswith("digits: 64-10, ")
        assert "\nfinished after 1 iteration in " in result.out

    def test_mnist(self, run: Run, mnist_dir: Path) -> None:
        options = ("--data-dir", mnist_dir, "--iterations", 1, "--out", "a")
        result = run("train", "--data", "mnist", *options)
        assert result.out.startswith("mnist: 784-50-10, ")

    def test_a_folder_below_home(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        home = Path.cwd() / "home"
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("USERPROFILE", str(home))
        assert run("train", "--iterations", 1, "--out=~/a").status == 0
        assert names_in(home / "a") == RESULTS
        write_flowers(home / "flowers.csv")
        options = ("--label-column=species", "--mini-batch-size=9", "--iterations=1", "--out=~/b")
        assert run("train", "--data=~/flowers.csv", *options).status == 0

    @pytest.mark.parametrize(
        ("options", "remedies"),
        [
            (("--activation", "relu", "--lr", 1e30), {"--lr"}),
            (("--weight-decay-lambda", 1e30), {"--lr", "--weight-decay-lambda"}),
        ],
    )
    def test_divergence(self, run: Run, options: tuple[object, ...], remedies: set[str]) -> None:
        run("train", "--iterations", 1, "--out", "a")
        result = run("train", *options, "--out", "a")
        assert result.status == 2
        assert "\ndiverged after 14 iterations in " in result.out
        message = result.err.splitlines()[-1]
        assert message.startswith("dlfs-gpu: training diverged")
        assert set(re.findall(r"--[a-z-]+", message)) == remedies
        assert "Warning" not in result.err
        assert summary_in("a")["stopped"] == "diverged"
        assert "model.safetensors" in result.err
        assert names_in("a") == RESULTS - {"model.safetensors"}, "no model of another training"


class TestResults:
    """One result that cannot be written loses no other."""

    def test_a_plot_that_fails(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*arguments: object) -> None:
            raise RuntimeError("latex could not be found")

        run("train", "--iterations", 1, "--out", "a")
        monkeypatch.setattr(cli_train, "plot_curves", fail)
        result = run("train", "--iterations", 2, "--out", "a")
        assert result.status == 1
        (message,) = [line for line in result.err.splitlines() if line.startswith("dlfs-gpu")]
        assert "curves.png" in message
        assert "latex could not be found" in message
        assert summary_in("a")["iterations"] == 2
        assert names_in("a") == UNFINISHED - {"curves.png"}

    def test_settings_of_matplotlib_do_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 1e9\n")
        write_flowers(tmp_path / "flowers.csv")
        options = ("--iterations", 1, "--out", "a")
        result = run_process("train", *QUICK, *options, cwd=tmp_path, MPLBACKEND="garbage")
        assert result.status == 0, result.err
        assert names_in(tmp_path / "a") == RESULTS
        result = run_process("chapter4", "--out", "b", "--only", "derivatives", cwd=tmp_path)
        assert result.status == 0, result.err

    def test_a_report_on_a_full_disk(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of it or nothing: no figures without their page."""
        run("chapter4", "--only", "derivatives", "--out", "a")
        before = {path.name: path.stat().st_ino for path in Path("a").iterdir()}
        write_bytes = Path.write_bytes

        def fail(path: Path, content: bytes) -> int:
            if path.name == "index.html":
                raise OSError(28, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", fail)
        result = run("chapter4", "--only", "derivatives", "--out", "a")
        assert result == (2, "", "dlfs-gpu: a: No space left on device\n")
        assert {path.name: path.stat().st_ino for path in Path("a").iterdir()} == before

    def test_a_full_disk(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half a file is none, and the run's other files are kept."""
        write_text = Path.write_text

        def fail(path: Path, text: str, **options: Any) -> int:
            write_text(path, text[: len(text) // 2], **options)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", fail)
        result = run("train", "--iterations", 1, "--out", "a")
        assert result.status == 1
        assert "summary.json" in result.err
        assert "No space left on device" in result.err
        assert names_in("a") == UNFINISHED - {"summary.json"}

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_folder_removed_during_training(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, replaced: bool
    ) -> None:
        def train(trainer: Trainer) -> Any:
            shutil.rmtree("a")
            if replaced:
                Path("a").touch()
            return right(trainer)

        right = Trainer.train
        monkeypatch.setattr(Trainer, "train", train)
        result = run("train", "--iterations", 1, "--out", "a")
        assert result.status == (1 if replaced else 0)
        assert "\ntest accuracy " in result.out
        if replaced:
            assert result.err.splitlines()[-1].startswith("dlfs-gpu: a cannot be written: ")
        else:
            assert names_in("a") == RESULTS

    @pytest.mark.parametrize("name", ["history.csv", "curves.png"])
    def test_a_folder_in_the_way(self, run: Run, name: str) -> None:
        Path("a", name).mkdir(parents=True)
        result = run("train", "--out", "a")
        assert result.status == 2
        assert name in result.err


@not_on_windows
class TestInterruption:
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_results_are_kept(self, tmp_path: Path, name: str) -> None:
        write_flowers(tmp_path / "flowers.csv")
        options = (*QUICK, "--iterations", "100000000", "--out", "a")
        process = subprocess.Popen(
            [sys.executable, "-m", "dlfs_gpu", "train", *options],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A suite that runs in the background ignores some.
            preexec_fn=lambda: signal.signal(signal.Signals[name], signal.SIG_DFL),
        )
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("iteration      0")
            process.send_signal(signal.Signals[name])
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 128 + signal.Signals[name]
        assert "stopping after this iteration" in err
        assert "Traceback" not in err
        summary = summary_in(tmp_path / "a")
        assert (summary["stopped"], summary["signal"]) == ("interrupted", name)
        assert f"\ninterrupted after {summary['iterations']:,} iteration" in out
        rows = rows_of(tmp_path / "a" / "history.csv")
        assert len(rows) == summary["iterations"] + 1
        assert rows[-1]["test_accuracy"], "evaluated where it stopped"
        assert names_in(tmp_path / "a") == UNFINISHED

    @pytest.mark.parametrize(
        ("shell", "status"),
        [
            ("2>&-", 0),
            ("2>/dev/full", None),
            ("2>&1 | head -1", None),
            ("| true", 1),
            (">/dev/full", None),
            (">&- 2>&-", 0),
        ],
    )
    def test_nobody_reads(self, tmp_path: Path, shell: str, status: int | None) -> None:
        write_flowers(tmp_path / "flowers.csv")
        options = " ".join((*QUICK, "--iterations", "30", "--out", "a"))
        command = f"{sys.executable} -m dlfs_gpu train {options} {shell}"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status
        assert "Traceback" not in done.stdout + done.stderr
        assert names_in(tmp_path / "a") == RESULTS
        assert len(rows_of(tmp_path / "a" / "history.csv")) == 31

    def test_the_second_signal_has_its_usual_effect(self) -> None:
        stops, seen = [], []
        before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
        try:
            with stop_on_signals(lambda: stops.append(1)) as received:
                signal.raise_signal(signal.SIGINT)
                assert (stops, received, seen) == ([1], [signal.SIGINT], [])
                signal.raise_signal(signal.SIGTERM)
                assert (stops, received, seen) == ([1], [signal.SIGINT], [signal.SIGTERM])
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_what_is_ignored_stays_so(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with stop_on_signals(pytest.fail) as received:
                signal.raise_signal(signal.SIGHUP)
            assert received == []
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_outside_of_training(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(**options: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli_data, "load_digits", interrupt)
        assert run("gradcheck") == Result(130, "", "")

    @pytest.mark.parametrize("module", ["numpy", "typer"])
    def test_during_imports(self, module: str) -> None:
        script = (
            "import signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {module!r}: signal.raise_signal(signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "from dlfs_gpu.cli import main\n"
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, "--version"],
            env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


class TestPredict:
    @pytest.fixture
    def flowers(self, run: Run) -> Run:
        """A model of flowers in the folder a, whose measures are divided by 1000."""
        write_flowers("flowers.csv", scale=1000)
        assert run(*FLOWERS, "--scale", 1000).status == 0
        assert summary_in("a")["test_accuracy"] == 1
        return run

    def test_what_a_model_keeps(self, flowers: Run) -> None:
        model = load_model(MODEL, backend="numpy")
        assert model.classes == ("setosa", "versicolor", "virginica")
        assert model.data == {
            "name": "flowers.csv",
            "label_column": "species",
            "scale": 1000.0,
            "features": ["petal", "sepal"],
        }

    def test_labels(self, flowers: Run) -> None:
        write_flowers("more.csv", 12, scale=1000, seed=1)
        result = flowers("predict", "--model", MODEL, "--data", "more.csv", "--out", "b")
        assert result == (0, "more.csv: accuracy 1.0000 (12 of 12)\nresults in b\n", "")
        rows = rows_of("b/predictions.csv")
        assert [row["label"] for row in rows] == ["setosa", "versicolor", "virginica"] * 4
        assert all(row["label"] == row["prediction"] for row in rows)

    def test_a_table_without_labels(self, flowers: Run) -> None:
        Path("new.csv").write_text("colour,sepal,petal\nred,990,10\nblue,20,1010\n")
        answer = ("predict", "--model", MODEL, "--data", "new.csv")
        assert flowers(*answer) == (0, "versicolor\nsetosa\n", "")
        assert flowers(*answer, "--out", "b") == (0, "results in b\n", "")
        lines = Path("b/predictions.csv").read_text().split()
        assert lines == ["prediction", "versicolor", "setosa"]

    def test_labels_unknown_to_the_network(self, flowers: Run) -> None:
        Path("new.csv").write_text("species,petal,sepal\nsetosa,1000,0\nrose,0,1000\n7,0,0\n")
        result = flowers("predict", "--model", MODEL, "--data", "new.csv")
        assert result.out.startswith("new.csv: accuracy 0.3333 (1 of 3); 2 have labels that ")

    def test_another_scale_and_label_column(self, flowers: Run) -> None:
        write_flowers("new.csv", 12, scale=2)
        table = Path("new.csv").read_text().replace("species", "kind")
        Path("new.csv").write_text(table)
        answer = ("predict", "--model", MODEL, "--data", "new.csv", "--label-column", "kind")
        assert "accuracy 1.0000" in flowers(*answer, "--scale", 2).out
        assert "accuracy 1.0000" not in flowers(*answer).out

    def test_whole_numbers_that_skip_some(self, run: Run) -> None:
        """Labels of the sign-language alphabet: 0 to 24 without 9; a file to test on."""
        shapes = np.random.default_rng(0).integers(0, 256, (len(LETTERS), 16))
        for name, repeats in (("train.csv", 10), ("test.csv", 3)):
            pixels = np.clip(np.repeat(shapes, repeats, axis=0) + repeats, 0, 255)
            table = np.column_stack([np.repeat(LETTERS, repeats), pixels])
            header = ",".join(["label", *(f"pixel{i}" for i in range(1, 17))])
            np.savetxt(name, table, "%d", ",", header=header, comments="")
        result = run(
            *("train", "--data", "train.csv", "--test-data", "test.csv", "--scale", 255),
            *("--activation", "relu", "--optimizer", "adam", "--lr", 0.01, "--iterations", 300),
            *("--out", "a"),
        )
        assert result.status == 0, result.err
        assert summary_in("a")["sizes"] == [16, 50, 24]
        assert load_model(MODEL, backend="numpy").classes == LETTERS
        result = run("predict", "--model", MODEL, "--data", "test.csv", "--out", "b")
        accuracy = summary_in("a")["test_accuracy"]
        assert accuracy >= 0.95
        assert f"accuracy {accuracy:.4f} " in result.out
        labels = [int(row["label"]) for row in rows_of("b/predictions.csv")]
        assert labels == np.repeat(LETTERS, 3).tolist()

    def test_a_model_of_the_library(self, run: Run) -> None:
        """One saved without names: all columns are read, in their order."""
        network = MultiLayerNet(2, [], 2, backend="numpy", weight_init_std=0.0)
        network.params["W1"][...] = np.eye(2)
        save_model("m.safetensors", network, classes=[10, 20])
        Path("points.csv").write_text("x,y\n1,0\n0,1\n")
        answer = ("predict", "--model", "m.safetensors")
        assert run(*answer, "--data", "points.csv").out == "10\n20\n"
        result = run(*answer)
        assert result.status == 2
        assert "--data" in result.err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("", "--data"),
            ("--data digits", "64 features"),
            ("--data roses.csv", "roses.csv"),
            ("--data new.csv --label-column kind", "'kind'"),
            ("--data new.csv --label-column petal", "--label-column"),
            ("--data new.csv --scale 0", "--scale"),
            ("--data digits --scale 2", "--scale"),
            ("--data digits --label-column petal", "--label-column"),
            ("--data new.csv --data-dir .", "--data-dir"),
            ("--data short.csv", "'sepal'"),
            ("--data new.csv --out flowers.csv", "flowers.csv"),
        ],
    )
    def test_bad_input(self, flowers: Run, options: str, message: str) -> None:
        Path("new.csv").write_text("petal,sepal\n1,0\n")
        Path("short.csv").write_text("petal\n1\n")
        result = flowers("predict", "--model", MODEL, *options.split())
        assert (result.status, result.out) == (2, "")
        assert message in result.err
        assert "Traceback" not in result.err


class TestInputIsKept:
    def test_train(self, run: Run) -> None:
        for name in ("history.csv", "test.csv"):
            write_flowers(name)
        before = Path("history.csv").read_bytes()
        options = (*FLOWERS[3:-1], ".")
        for data in (("history.csv",), ("test.csv", "--test-data", "history.csv")):
            result = run("train", "--data", *data, *options)
            assert result.status == 2
            assert "--out" in result.err
        assert Path("history.csv").read_bytes() == before
        assert names_in(".") == {"history.csv", "test.csv"}

    def test_predict(self, run: Run) -> None:
        write_flowers("flowers.csv")
        assert run(*FLOWERS).status == 0
        write_flowers("b.csv")
        Path("b").mkdir()
        Path("b.csv").rename("b/predictions.csv")
        before = Path("b/predictions.csv").read_bytes()
        options = ("--data", Path("b/predictions.csv"), "--out", Path("b").absolute())
        result = run("predict", "--model", MODEL, *options)
        assert result.status == 2
        assert "--out" in result.err
        assert Path("b/predictions.csv").read_bytes() == before


class TestGradcheck:
    @pytest.mark.parametrize("method", ["difference", "batched"])
    def test_right_code(self, run: Run, method: str) -> None:
        options = ("--dropout-ratio", 0.5, "--weight-decay-lambda", 0.01, "--mini-batch-size", 5)
        result = run("gradcheck", "--hidden", "9,8", "--method", method, *options)
        assert result.status == 0, result.err
        assert [line.split()[0] for line in result.out.splitlines()[1:-1]] == [
            *("W1", "b1", "W2", "b2", "W3", "b3")
        ]
        assert result.out.splitlines()[-1].startswith(f"gradients agree (method '{method}', ")

    def test_a_planted_fault_is_located(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        right = Sigmoid.backward
        monkeypatch.setattr(Sigmoid, "backward", lambda self, dout: 1.01 * right(self, dout))
        # Compiling kernels, where nobody has before, says so.
        options = ("--mini-batch-size", 5, "--backend", "numpy", "--kernels", "off")
        result = run("gradcheck", "--hidden", "8", *options)
        assert result.status == 1
        assert result.out.splitlines()[-1].startswith("gradients differ in W1, b1 (")
        assert result.err == ""

    def test_step(self, run: Run) -> None:
        options = ("gradcheck", "--hidden", "8", "--mini-batch-size", 5)
        assert "h = 1e-06" in run(*options, "--step", 1e-6).out
        assert run(*options, "--step", 0.5).status == 1


class TestInfo:
    def test_what_it_shows(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DLFS_GPU_BACKEND", "numpy")
        result = run("info")
        assert result.status == 0
        shown = dict(line.split(maxsplit=1) for line in result.out.splitlines())
        assert shown["numpy"] == np.__version__
        assert shown["backend"] == "numpy"
        assert shown["why"] == "DLFS_GPU_BACKEND=numpy"
        assert shown["device"].startswith("CPU (")
        assert re.search(r"^free memory +\d+\.\d GiB$", result.out, re.MULTILINE)

    def test_version(self, run: Run) -> None:
        assert re.fullmatch(r"dlfs-gpu (\d+\.\d+.*|not installed)\n", run("--version").out)

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_help(self, run: Run, command: str) -> None:
        result = run(*command.split(), "--help")
        assert (result.status, result.err) == (0, "")
        assert result.out.isascii(), "terminals need not have other letters"
        assert "..." not in result.out.replace("[ARGS]...", ""), "nothing is cut short"
        if not command:
            assert all(f"\n  {name} " in result.out for name in COMMANDS)

    def test_help_names_the_sections(self, run: Run) -> None:
        shown = run("chapter4", "--help").out
        assert all(re.search(rf"\b{name}\b", shown) for name in SECTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --data mnits", "--data"),
        ("train --data file", "--data"),
        ("train --data=", "--data"),
        ("train --data mnist --data-dir .", "train-images"),
        ("train --data mnist --data-dir=", "--data-dir"),
        ("train --data gone.csv", "gone.csv"),
        ("train --data .csv --test-data a.csv", ".csv"),
        ("train --data-dir .", "--data-dir"),
        ("train --test-data a.csv", "--test-data"),
        ("train --test-data=", "--test-data"),
        ("train --label-column a", "--label-column"),
        ("train --scale 16", "--scale"),
        ("train --data a.csv --scale 0", "--scale"),
        ("gradcheck --scale 16", "--scale"),
        ("train --backend cuda", "--backend"),
        ("info --backend cuda", "--backend"),
        ("train --activation swish", "--activation"),
        ("train --optimizer sgdm", "--optimizer"),
        ("train --dtype float16", "--dtype"),
        ("train --gradient exact", "--gradient"),
        ("train --gradient numerical", "--gradient"),
        ("train --gradient loop --dropout-ratio 0.5", "--gradient"),
        ("train --hidden 50;20", "--hidden"),
        ("train --hidden 50,", "--hidden"),
        ("train --hidden 0", "--hidden"),
        ("train --hidden -5", "--hidden"),
        ("train --hidden 100000000000000000000", "--hidden"),
        ("train --mini-batch-size 1438", "--mini-batch-size"),
        ("train --mini-batch-size 0", "--mini-batch-size"),
        ("train --lr 0", "--lr"),
        ("train --lr nan", "--lr"),
        ("train --lr inf", "--lr"),
        ("train --lr fast", "--lr"),
        ("train --iterations 0", "--iterations"),
        ("train --iterations 1.5", "--iterations"),
        ("train --seed -1", "--seed"),
        ("train --dropout-ratio 1", "--dropout-ratio"),
        ("train --weight-decay-lambda -1", "--weight-decay-lambda"),
        ("train --validation-split 1", "--validation-split"),
        ("train --validation-split 0.9999", "--validation-split"),
        ("train --validation-split 0.99", "--mini-batch-size"),
        ("train --patience 5", "--patience"),
        ("train --patience 0 --validation-split 0.2", "--patience"),
        ("train --out file", "out is file"),
        ("train --out file/below", "out is file/below"),
        ("train --out=", "--out"),
        ("train --epochs 5", "--epochs"),
        ("gradcheck --method exact", "--method"),
        ("gradcheck --mini-batch-size 0", "--mini-batch-size"),
        ("gradcheck --step 0", "--step"),
        ("gradcheck --step nan", "--step"),
        ("predict", "--model"),
        ("predict --model gone.safetensors", "gone.safetensors"),
        ("predict --model file", "file"),
        ("predict --model .", "."),
        ("predict --model=", "--model"),
        ("chapter4 --out=", "--out"),
        ("chapter4 --out a --only losses --data-dir .", "--data-dir"),
        ("chapter4 --out a --only intro", "--only"),
        ("chapter4 --out file", "out is file"),
        ("chapter5", "chapter5"),
    ],
)
def test_bad_input(run: Run, arguments: str, message: str) -> None:
    Path("file").write_text("in the way")
    result = run(*arguments.split())
    assert result.status == 2
    assert message in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    assert names_in(".") == {"file"}


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    result = run_process("train", "--backend", "cupy", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert result.status == 2
    message, remedy = result.err.splitlines()
    assert message.startswith("dlfs-gpu: backend asks for 'cupy', which cannot run here: ")
    assert re.search(r"pip install|CUDA_VISIBLE_DEVICES", remedy)
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize("text", ["", "Unable to allocate 9 GiB"])
def test_memory_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fail(**options: object) -> None:
        raise MemoryError(*filter(None, [text]))

    monkeypatch.setattr(cli_data, "load_digits", fail)
    result = run("gradcheck")
    assert (result.status, result.out) == (2, "")
    assert text in result.err
    assert "smaller" in result.err


@pytest.mark.parametrize("defect", [TypeError, ValueError, ZeroDivisionError])
def test_a_defect_is_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, defect: type[Exception]
) -> None:
    def fail(*arguments: object) -> None:
        raise defect("only length-1 arrays can be converted")

    monkeypatch.setattr(Affine, "forward", fail)
    with pytest.raises(defect, match="only length-1 arrays"):
        run("train", "--backend", "numpy", "--out", "a")


def test_kernels_can_be_turned_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    # As in a new process.
    monkeypatch.setattr("dlfs_gpu.kernels.proof._statuses", {})
    monkeypatch.setattr("dlfs_gpu.kernels.proof._passed", set())
    monkeypatch.setenv("DLFS_GPU_BACKEND", "numpy")
    arguments = ("train", "--gradient", "difference", "--iterations", 3, "--out", "a")
    assert "kernels: differences on cpu: passed" in run(*arguments).out
    assert any("passed" in line for line in summary_in("a")["kernels"])
    out = run("info").out
    assert "differences on cpu: passed" in out
    assert "training on cpu: passed" in out
    assert run("gradcheck", "--kernels", "off", "--mini-batch-size", 3).status == 0
    result = run(*arguments, "--kernels", "none")
    assert result.status == 2
    assert "--kernels" in result.err
