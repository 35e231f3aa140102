"""The command line as its users meet it: what it prints, writes, and says of mistakes."""

import csv
import json
import os
import re
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
from dlfs_gpu.checkpoint import load_model
from dlfs_gpu.cli.workflows import RESULTS
from dlfs_gpu.layers import Affine

COMMANDS = ("info", "train", "gradcheck", "predict", "chapter4")
LETTERS = tuple(label for label in range(25) if label != 9)
SOURCES = str(Path(dlfs_gpu.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCES, "COLUMNS": "100"}


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


def run_process(*arguments: object, cwd: Path, **environment: str) -> Result:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "dlfs_gpu", *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process, in a new folder: the same code, without the start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The first command of the README, and the folder it wrote."""
    here = tmp_path_factory.mktemp("here")
    result = run_process("train", cwd=here)
    assert result.status == 0, result.err
    (folder,) = (here / "runs").iterdir()
    return folder, result


def summary_in(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


class TestTrain:
    def test_summary(self, trained: tuple[Path, Result]) -> None:
        summary = summary_in(trained[0])
        assert summary.keys() >= {
            "data", "backend", "device", "seed", "iterations", "seconds", "iterations_per_second",
            "train_accuracy", "test_accuracy",
        }  # fmt: skip
        assert summary["data"] == "digits"
        assert summary["iterations"] == 10_000
        assert summary["test_accuracy"] >= 0.95
        assert summary["stopped"] == "finished"

    def test_printed(self, trained: tuple[Path, Result]) -> None:
        folder, result = trained
        summary = summary_in(folder)
        assert re.fullmatch(r"digits-\d{8}-\d{6}-\d{6}", folder.name)
        lines = result.out.splitlines()
        assert lines[0].startswith("digits: 64-50-10, sigmoid, sgd with lr 0.1, float32 on ")
        assert lines[1].startswith("finished after 10,000 updates in ")
        assert lines[2:] == [
            f"train accuracy {summary['train_accuracy']:.4f}",
            f"test accuracy  {summary['test_accuracy']:.4f}",
            f"results in {Path('runs', folder.name)}",
        ]
        lines = result.err.splitlines()
        assert all(re.fullmatch(r"update +\d+  (loss [.\d]+  )?train [.\d]+  test [.\d]+", line)
                   for line in lines)  # fmt: skip
        assert [int(line.split()[1]) for line in lines[:2]] == [0, 14 * 17], "every 17th epoch"

    def test_history(self, trained: tuple[Path, Result]) -> None:
        with (trained[0] / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["iteration"]) for row in rows] == list(range(10_001))
        losses = np.asarray([float(row["loss"]) for row in rows[:-1]])
        assert losses[0] == pytest.approx(np.log(10), abs=0.05)
        assert losses[-100:].mean() < 0.15
        evaluated = [int(row["iteration"]) for row in rows if row["test_accuracy"]]
        assert evaluated == [*range(0, 10_000, 14), 10_000]
        assert float(rows[-1]["test_accuracy"]) == summary_in(trained[0])["test_accuracy"]

    def test_curves(self, trained: tuple[Path, Result]) -> None:
        image = matplotlib.image.imread(trained[0] / "curves.png")
        assert min(image.shape[:2]) >= 400
        assert image.std() > 0.05

    def test_model(self, trained: tuple[Path, Result]) -> None:
        folder, _ = trained
        assert {path.name for path in folder.iterdir()} == set(RESULTS)
        model = load_model(folder / "model.safetensors", backend="numpy")
        assert model.network.sizes == [64, 50, 10]
        _, (x, t) = dlfs_gpu.load_digits(backend="numpy")
        accuracy = summary_in(folder)["test_accuracy"]
        assert model.network.accuracy(x, t) == pytest.approx(accuracy, abs=1 / 360)

    def test_all_options(self, run: Run) -> None:
        result = run(
            *("train", "--hidden", "64,32", "--activation", "relu", "--optimizer", "adam"),
            *("--weight-decay", "1e-4", "--dropout", "0.2", "--validation-split", "0.2"),
            *("--early-stopping", "3", "--dtype", "float64", "--seed", "7", "--batch-size", "50"),
            *("--iterations", "5000", "--backend", "numpy", "--out", "a/b"),
        )
        assert result.status == 0, result.err
        summary = summary_in(Path("a/b"))
        expected = {
            "sizes": [64, 64, 32, 10], "activation": "relu", "optimizer": "adam", "lr": 0.001,
            "weight_decay": 1e-4, "dropout": 0.2, "validation_split": 0.2, "early_stopping": 3,
            "dtype": "float64", "seed": 7, "batch_size": 50, "stopped": "early",
            "backend": "numpy",
        }  # fmt: skip
        assert summary.items() >= expected.items()
        assert summary["test_accuracy"] >= 0.93
        assert f"the weights are those after {summary['best_iteration']:,}" in result.out

    def test_numerical_gradients(self, run: Run) -> None:
        """The same training, but for the rounding of differences."""
        losses = {}
        for gradient in ("backprop", "numerical"):
            options = ("--gradient", gradient, "--iterations", 60, "--lr", 1, "--out", gradient)
            result = run("train", "--hidden", "10", "--activation", "tanh", *options)
            assert result.status == 0, result.err
            assert summary_in(Path(gradient))["gradient"] == gradient
            with (Path(gradient) / "history.csv").open(newline="") as file:
                losses[gradient] = [float(row["loss"]) for row in list(csv.DictReader(file))[:-1]]
        np.testing.assert_allclose(losses["numerical"], losses["backprop"], 1e-4)
        assert losses["numerical"][-1] < losses["numerical"][0] - 0.1

    def test_no_hidden_layer(self, run: Run) -> None:
        result = run("train", "--hidden", "", "--iterations", 20, "--out", "a")
        assert result.out.startswith("digits: 64-10, ")

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to one process")
    @pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
    def test_interruption(self, tmp_path: Path, name: str) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "dlfs_gpu", "train", "--iterations", "100000000", "--out", "a"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("update      0")
            process.send_signal(signal.Signals[name])
            out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.Signals[name]
        assert "stopping after this update; the results are kept" in err
        assert "Traceback" not in err
        summary = summary_in(tmp_path / "a")
        assert (summary["stopped"], summary["signal"]) == ("interrupted", name)
        assert f"\ninterrupted after {summary['iterations']:,} update" in out
        rows = (tmp_path / "a" / "history.csv").read_text().splitlines()
        assert len(rows) == summary["iterations"] + 2
        assert rows[-1].count(".") == 2, "accuracies where it stopped"
        assert (tmp_path / "a" / "curves.png").is_file()
        load_model(tmp_path / "a" / "model.safetensors", backend="numpy")

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has another shell")
    @pytest.mark.parametrize(
        ("shell", "status"),
        [
            ("2>&-", 0),
            ("2>/dev/full", 0),
            ("2>&1 | head -1", None),
            ("| true", 1),
            (">/dev/full", 1),
            (">&- 2>&-", 0),
        ],
    )
    def test_nobody_reads(self, tmp_path: Path, shell: str, status: int | None) -> None:
        command = f"{sys.executable} -m dlfs_gpu train --iterations 300 --out a"
        if shell[0] == "|":
            command = f"set -o pipefail; {command}"
        done = subprocess.run(
            ["bash", "-c", f"{command} {shell}"],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status
        assert "Traceback" not in done.stdout + done.stderr
        assert "Exception" not in done.stdout + done.stderr
        assert len((tmp_path / "a" / "history.csv").read_text().splitlines()) == 302
        load_model(tmp_path / "a" / "model.safetensors", backend="numpy")
        assert {path.name for path in (tmp_path / "a").iterdir()} == set(RESULTS)

    def test_divergence(self, run: Run) -> None:
        run("train", "--iterations", 1, "--out", "a")
        result = run("train", "--activation", "relu", "--lr", 1e30, "--out", "a")
        assert result.status == 2
        assert "\ndiverged after 14 updates in " in result.out
        message = "dlfs-gpu: training diverged: the loss is not finite any more; lower --lr"
        assert result.err.splitlines()[-1] == message
        assert "Warning" not in result.err
        assert summary_in(Path("a"))["stopped"] == "diverged"
        assert "\nno model is written: its weights are not finite\n" in result.out
        assert {path.name for path in Path("a").iterdir()} == {*RESULTS} - {"model.safetensors"}


class TestSignLanguage:
    """CSV files in the layout of the sign-language alphabet: 784 pixels, labels 0-24 without 9."""

    @pytest.fixture
    def write(self, tmp_path: Path) -> Callable[[str, int], None]:
        shapes = np.random.default_rng(0).integers(0, 256, (len(LETTERS), 784))

        def write_file(name: str, repeats: int) -> None:
            rng = np.random.default_rng(repeats)
            pixels = np.repeat(shapes, repeats, axis=0)
            pixels = np.clip(pixels + rng.normal(0, 60, pixels.shape), 0, 255)
            table = np.column_stack([np.repeat(LETTERS, repeats), pixels])
            header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
            np.savetxt(tmp_path / name, table, "%d", ",", header=header, comments="")

        return write_file

    def test_train_and_predict(
        self, run: Run, write: Callable[[str, int], None], tmp_path: Path
    ) -> None:
        write("train.csv", 10)
        write("test.csv", 3)
        options = ("--hidden", "128,128", "--activation", "relu", "--optimizer", "adam")
        result = run(
            *("train", "--data", "train.csv", "--test-data", "test.csv", *options),
            *("--batch-size", 60, "--iterations", 100, "--out", "a"),
        )
        assert result.status == 0, result.err
        summary = summary_in(Path("a"))
        assert summary["data"] == "train.csv"
        assert summary["sizes"] == [784, 128, 128, 24]
        assert summary["test_accuracy"] >= 0.95
        assert load_model("a/model.safetensors", backend="numpy").classes == LETTERS

        result = run("predict", "--model", "a/model.safetensors", "--out", "b")
        assert result.status == 0, result.err
        lines = result.out.splitlines()
        right = round(72 * summary["test_accuracy"])
        assert lines[0] == f"{tmp_path / 'test.csv'}: accuracy {right / 72:.4f} ({right} of 72)"
        assert lines[2].split() == [str(label) for label in LETTERS]
        table = [[0 if cell == "." else int(cell) for cell in line.split()] for line in lines[3:-1]]
        assert [row[0] for row in table] == list(LETTERS)
        assert np.trace(np.asarray(table)[:, 1:]) == right
        assert lines[-1] == "results in b"
        with Path("b/predictions.csv").open(newline="") as file:
            rows = [(int(row["label"]), int(row["prediction"])) for row in csv.DictReader(file)]
        assert [label for label, _ in rows] == np.repeat(LETTERS, 3).tolist()
        assert sum(label == prediction for label, prediction in rows) == right
        assert {prediction for _, prediction in rows} <= set(LETTERS)
        image = matplotlib.image.imread("b/confusion_matrix.png")
        assert image.std() > 0.05


class TestGradcheck:
    def test_right_code(self, run: Run) -> None:
        result = run("gradcheck", "--hidden", "20,10", "--activation", "relu")
        assert result.status == 0
        assert result.out.splitlines()[-1].startswith("gradients agree (method 'difference', ")

    @pytest.mark.parametrize("method", ["difference", "batched"])
    def test_planted_fault(self, run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        right = Affine.backward

        def without_last_row(self: Affine, dout: np.ndarray) -> np.ndarray:
            dx: np.ndarray = right(self, dout)
            self.db = self.db - dout[-1]
            return dx

        monkeypatch.setattr(Affine, "backward", without_last_row)
        options = ("--batch-size", 5, "--method", method, "--backend", "numpy")
        result = run("gradcheck", "--hidden", "8", *options)
        assert result.status == 1
        assert result.out.splitlines()[-1].startswith("gradients differ in b1, b2 (")
        assert result.err == ""


class TestInfo:
    def test_what_it_shows(self, tmp_path: Path) -> None:
        result = run_process("info", cwd=tmp_path, DLFS_GPU_BACKEND="numpy")
        assert (result.status, result.err) == (0, "")
        shown = dict(line.split(maxsplit=1) for line in result.out.splitlines())
        assert shown["numpy"] == np.__version__
        assert shown["backend"] == "numpy"
        assert shown["why"] == "DLFS_GPU_BACKEND=numpy"
        assert shown["device"].startswith("CPU (")
        assert re.search(r"^free memory +\d+\.\d GiB$", result.out, re.MULTILINE)

    @pytest.mark.parametrize("command", ["", *COMMANDS])
    def test_help(self, run: Run, command: str) -> None:
        result = run(*command.split(), "--help")
        assert (result.status, result.err) == (0, "")
        assert "..." not in result.out.replace("[ARGS]...", ""), "nothing is cut short"
        if not command:
            assert all(f"\n  {name} " in result.out for name in COMMANDS)

    def test_help_names_the_sections(self, run: Run) -> None:
        shown = run("chapter4", "--help").out
        assert all(re.search(rf"\b{name}\b", shown) for name in SECTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --data mnits", "--data is 'mnits'; it must be digits, mnist, fashion-mnist, or a"),
        ("train --data mnist --data-dir .", "--data-dir is ., which lacks train-images"),
        ("train --data gone.csv", "--data is gone.csv: there is no such file"),
        ("train --data-dir .", "--data-dir is ., but --data is digits, which needs no folder"),
        ("train --test-data a.csv", "--test-data is 'a.csv', but --data is digits, which has it"),
        ("train --backend cuda", "--backend is 'cuda'; it must be one of 'auto', 'numpy', 'c"),
        ("train --activation swish", "--activation is 'swish'; it must be one of relu, sigmoid, "),
        ("train --optimizer sgdm", "--optimizer is 'sgdm'; it must be one of sgd, momentum, ne"),
        ("train --dtype float16", "--dtype is 'float16'; it must be 'float32' or 'float64'"),
        ("train --gradient exact", "'exact' is not one of 'backprop', 'numerical', 'batched'"),
        ("train --hidden 50;20", "--hidden is '50;20'; it must be whole numbers with commas"),
        ("train --hidden 50,", "--hidden is '50,'; it must be whole numbers with commas"),
        ("train --hidden 0", "--hidden is 0; it must be a positive whole number"),
        ("train --hidden -5", "--hidden is -5; it must be a positive whole number"),
        ("train --batch-size 1438", "--batch-size is 1438; it must not be above the number of s"),
        ("train --batch-size 0", "--batch-size is 0; it must be at least 1"),
        ("train --lr 0", "--lr is 0.0; it must be positive and finite"),
        ("train --lr -1", "--lr is -1.0; it must be positive and finite"),
        ("train --lr nan", "--lr is nan; it must be positive and finite"),
        ("train --lr inf", "--lr is inf; it must be positive and finite"),
        ("train --lr fast", "Invalid value for '--lr'"),
        ("train --iterations 0", "--iterations is 0; it must be a whole number, 1 or more"),
        ("train --iterations -1", "--iterations is -1; it must be a whole number, 1 or m"),
        ("train --iterations 1.5", "Invalid value for '--iterations'"),
        ("train --data a.csv --scale 0", "--scale is 0.0; it must be positive and finite"),
        ("train --seed -1", "Invalid value for '--seed'"),
        ("train --dropout 1", "--dropout is 1.0; it must be at least 0"),
        ("train --weight-decay -1", "--weight-decay is -1.0; it must be 0 or more"),
        ("train --validation-split 1", "--validation-split is 1.0; it must be at least 0 and"),
        ("train --early-stopping 5", "--early-stopping is 5, but --validation-split is 0"),
        ("train --early-stopping 0 --validation-split 0.2", "--early-stopping is 0; it must be 1 "),
        ("train --out file", "--out is file, where nothing can be written: "),
        ("train --out file/below", "--out is file/below, where nothing can be written: "),
        ("train --epochs 5", "No such option: --epochs"),
        ("gradcheck --method exact", "'exact' is not one of 'loop', 'batched', 'difference'"),
        ("gradcheck --batch-size 0", "--batch-size is 0; the data allow 1 to 1437"),
        ("gradcheck --step 0", "--step is 0"),
        ("gradcheck --step -1", "--step is -1"),
        ("gradcheck --step nan", "--step is nan"),
        ("predict", "Missing option '--model'"),
        ("predict --model gone.safetensors", "gone.safetensors is not there; it must be a model"),
        ("predict --model file", "file is not a safetensors file, or is damaged"),
        ("train --test-data=", "--test-data is '', but --data is digits, which has its own"),
        ("chapter4 --out=", "Invalid value for '--out': it must not be empty"),
        ("chapter4 --out a --only losses --data-dir .", "--data-dir is ., but the section losses"),
        ("chapter4 --out a --only intro", "--only is 'intro'; it must be one of "),
        ("chapter4 --out file", "--out is file, where nothing can be written: "),
        ("train --data file", "--data is 'file'; it must be digits, mnist, fashion-mnist, or a"),
        ("train --data .csv --test-data a.csv", "--data is .csv: there is no such file"),
        ("train --label-column a", "--label-column is a, but --data is digits, which is no CSV f"),
        ("train --scale 16", "--scale is 16.0, but --data is digits, which is no CSV file"),
        ("gradcheck --scale 16", "--scale is 16.0, but --data is digits, which is no CSV file"),
        ("train --early-stopping 0", "--early-stopping is 0; it must be 1 or more"),
        ("train --hidden 100000000000", "--hidden is 100000000000, whose weights take 55,134.3 "),
        ("train --out=", "Invalid value for '--out': it must not be empty"),
        ("train --data mnist --data-dir=", "Invalid value for '--data-dir': it must not be empty"),
        ("predict --model=", "Invalid value for '--model': it must not be empty"),
        ("predict --model .", ". is a folder; it must be a model.safetensors file"),
        ("info --backend cuda", "--backend is 'cuda'; it must be one of"),
        ("chapter5", "No such command 'chapter5'"),
    ],
)
def test_bad_input(run: Run, arguments: str, message: str) -> None:
    Path("file").write_text("in the way")
    result = run(*arguments.split())
    assert result.status == 2
    assert message in " ".join(result.err.split())
    assert result.out == ""
    assert "Traceback" not in result.err
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    result = run_process("train", "--backend", "cupy", cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert result.status == 2
    message, remedy = result.err.splitlines()
    assert message.startswith("dlfs-gpu: --backend asks for 'cupy', which cannot run here: ")
    assert re.search(r"pip install|CUDA_VISIBLE_DEVICES", remedy)
    assert list(tmp_path.iterdir()) == []


def test_version(run: Run) -> None:
    assert re.fullmatch(r"dlfs-gpu (\d+\.\d+.*|not installed)\n", run("--version").out)


def test_where_an_error_comes_from(tmp_path: Path) -> None:
    result = run_process("--traceback", "train", "--lr", "0", cwd=tmp_path)
    assert result.status == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1] == "ValueError: lr is 0.0; it must be positive and finite"


def test_help_without_its_letters(tmp_path: Path) -> None:
    result = run_process("train", "--help", cwd=tmp_path, PYTHONIOENCODING="iso8859-5")
    assert (result.status, result.err) == (0, "")
    assert "?(2/n)" in result.out


def test_an_interruption_outside_of_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_data", interrupt)
    assert run("gradcheck") == Result(130, "", "")


def test_memory_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "load_data", fail)
    assert run("gradcheck") == Result(2, "", "dlfs-gpu: MemoryError\n")
