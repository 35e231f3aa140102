"""What the commands do, without the command line; sources of data, and files for results."""

import csv
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlfs_gpu.backend import get_backend
from dlfs_gpu.checkpoint import load_model, save_model
from dlfs_gpu.cli.signals import stop_on_signals
from dlfs_gpu.cli.sources import Data, Source, load_data
from dlfs_gpu.cli.workflows import (
    default_folder,
    describe,
    gradcheck,
    make_network,
    predict,
    train,
)
from dlfs_gpu.layers import Sigmoid
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet

NUMPY = get_backend("numpy")
OPTIONS: dict[str, Any] = {
    "backend": NUMPY,
    "gradient": "backprop",
    "hidden": [20],
    "activation": "sigmoid",
    "optimizer": "sgd",
    "iterations": 30,
    "batch_size": 100,
    "lr": None,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "validation_split": 0.0,
    "patience": None,
    "seed": 0,
    "dtype": "float32",
}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(Source("digits"), None, NUMPY)


@pytest.fixture
def letters(tmp_path: Path) -> Callable[..., Path]:
    """Writes CSV files of points with the labels 3, 5 and 8, which are easily told apart."""

    def write(name: str, rows: int = 60, *, scale: float = 255, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        which = np.arange(rows) % 3
        x = (np.eye(3, 4)[which] + 0.1 * rng.standard_normal((rows, 4))) * scale
        table = np.column_stack([np.array([3, 5, 8])[which], x])
        path = tmp_path / name
        np.savetxt(path, table, "%.6g", ",", header="label,a,b,c,d", comments="")
        return path

    return write


class TestSources:
    def test_digits(self, digits: Data) -> None:
        assert digits.x_train.shape == (1437, 64)
        assert digits.x_test.shape == (360, 64)
        assert digits.classes == tuple(range(10))

    def test_mnist(self, mnist_dir: Path) -> None:
        data = load_data(Source("mnist"), mnist_dir, NUMPY)
        assert data.x_train.shape == (60_000, 784)
        assert data.t_test.shape == (10_000,)

    def test_csv(self, letters: Callable[..., Path]) -> None:
        train_path, test_path = letters("letters.csv"), letters("test.CSV", 30)
        split = load_data(Source(str(train_path)), None, NUMPY)
        assert (len(split.x_train), len(split.x_test)) == (48, 12)
        whole = load_data(Source(str(train_path), str(test_path), scale=51.0), None, NUMPY)
        assert (len(whole.x_train), len(whole.x_test)) == (60, 30)
        assert whole.classes == (3, 5, 8)
        assert whole.x_train.max() > 5
        assert load_data(Source(str(test_path)), None, NUMPY).classes == (3, 5, 8)

    @pytest.mark.parametrize(
        ("source", "data_dir", "message"),
        [
            (Source("mnits"), None, "--data is 'mnits'; it must be digits, mnist, fashion-mnist"),
            (Source("digits"), Path("d"), "--data-dir is d, but --data is digits, which needs no"),
            (Source("a.csv"), Path("d"), "--data-dir is d, but --data is a.csv, which needs no"),
            (Source("digits", "a.csv"), None, "--test-data is 'a.csv', but --data is digits"),
            (
                Source("digits", scale=1.0),
                None,
                "--scale is 1.0, but --data is digits, which is no",
            ),
            (Source("mnist", label_column="a"), None, "--label-column is a, but --data is mnist"),
        ],
    )
    def test_bad_input(self, source: Source, data_dir: Path | None, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_data(source, data_dir, NUMPY)

    def test_files_that_cannot_be_read(self, letters: Callable[..., Path], tmp_path: Path) -> None:
        good, folder = str(letters("good.csv")), tmp_path / "folder.csv"
        folder.mkdir()
        for source, error, message in (
            (Source("gone.csv"), FileNotFoundError, "--data is gone.csv: there is no such file"),
            (Source(str(folder)), IsADirectoryError, "--data is .*: that is a folder; it must be"),
            (Source(good, ""), ValueError, "--test-data is ''; it must be a .csv file"),
            (Source(good, "x.txt"), ValueError, "--test-data is 'x.txt'; it must be a .csv file"),
            (Source(good, "x.csv"), FileNotFoundError, "--test-data is x.csv: there is no such f"),
            (Source(good, str(folder)), IsADirectoryError, "--test-data is .*: that is a folder"),
        ):
            with pytest.raises(error, match=message):
                load_data(source, None, NUMPY)

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root"
    )
    def test_a_file_without_permission(self, letters: Callable[..., Path]) -> None:
        path = letters("secret.csv")
        path.chmod(0)
        with pytest.raises(PermissionError, match=r"--data is .*secret.csv: it may not be read"):
            load_data(Source(str(path)), None, NUMPY)


def test_default_folder() -> None:
    assert default_folder(Source("some/letters.csv")).parts[0] == "runs"
    assert default_folder(Source("some/letters.csv")).name.startswith("letters-2")


class TestNetwork:
    @pytest.mark.parametrize(
        ("hidden", "activation", "scales"),
        [
            ([400], "sigmoid", (0.01, 0.01)),
            ([400, 300], "sigmoid", (1 / 8, 1 / 20)),
            ([400], "tanh", (1 / 8, 1 / 20)),
            ([400], "relu", (np.sqrt(2) / 8, np.sqrt(2) / 20)),
        ],
    )
    def test_first_weights(
        self, digits: Data, hidden: list[int], activation: str, scales: tuple[float, float]
    ) -> None:
        network = make_network(digits, hidden, activation, 0.0, 0.0, 0, "float64", NUMPY)
        assert network.sizes == [64, *hidden, 10]
        for key, scale in zip(("W1", "W2"), scales, strict=True):
            assert network.params[key].std() == pytest.approx(scale, rel=0.05)


class TestTrain:
    def test_files_and_summary(self, digits: Data, tmp_path: Path) -> None:
        summary = train(digits, tmp_path / "out", **OPTIONS | {"lr": 0.5})
        files = ["curves.png", "history.csv", "model.safetensors", "summary.json"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
        assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
        expected = {"data": "digits", "seed": 0, "iterations": 30, "lr": 0.5, "stopped": "finished"}
        assert summary.items() >= expected.items()
        assert summary["sizes"] == [64, 20, 10]
        model = load_model(tmp_path / "out" / "model.safetensors", backend=NUMPY)
        right = model.network.accuracy(digits.x_test, digits.t_test)
        assert right == summary["test_accuracy"]
        right = model.network.accuracy(digits.x_train, digits.t_train)
        assert right == summary["train_accuracy"]

    @pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 0.1), ("SGD", 0.1), ("adam", 0.001)])
    def test_learning_rate_by_default(
        self, digits: Data, tmp_path: Path, optimizer: str, lr: float
    ) -> None:
        summary = train(digits, tmp_path, **OPTIONS | {"optimizer": optimizer, "iterations": 1})
        assert (summary["optimizer"], summary["lr"]) == (optimizer.lower(), lr)

    def test_validation_split(self, digits: Data, tmp_path: Path) -> None:
        options = OPTIONS | {
            "validation_split": 0.25,
            "patience": 2,
            "optimizer": "adam",
            "lr": 0.03,
            "iterations": 5000,
            "hidden": [50],
        }
        summary = train(digits, tmp_path, **options)
        assert summary["stopped"] == "early"
        assert 0 < summary["best_iteration"] < summary["iterations"] < 5000
        with (tmp_path / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses = {int(row["iteration"]): float(row["val_loss"]) for row in rows if row["val_loss"]}
        assert list(losses)[:2] == [0, 10], "1,078 of 1,437 samples are 10 batches"
        assert min(losses, key=losses.__getitem__) == summary["best_iteration"]

    def test_divergence(self, digits: Data, tmp_path: Path) -> None:
        options = OPTIONS | {"lr": 1e38, "activation": "relu"}
        assert train(digits, tmp_path, **options)["stopped"] == "diverged"
        assert "nan" in (tmp_path / "history.csv").read_text()

    def test_outside_of_the_main_thread(self, digits: Data, tmp_path: Path) -> None:
        thread = threading.Thread(target=train, args=(digits, tmp_path), kwargs=OPTIONS)
        thread.start()
        thread.join()
        assert (tmp_path / "summary.json").is_file()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"validation_split": 1.0}, "--validation-split is 1.0; it must be at least 0 and"),
            ({"validation_split": -0.1}, "--validation-split is -0.1; it must be at least 0"),
            ({"validation_split": np.nan}, "--validation-split is nan; it must be at least 0"),
            ({"validation_split": 0.9999}, "which leaves no samples to train on"),
            ({"validation_split": 0.99}, "batch_size is 100; .* number of samples, 14"),
            ({"patience": 3}, "--early-stopping is 3, but --validation-split is 0"),
            (
                {"patience": 0, "validation_split": 0.1},
                "--early-stopping is 0; it must be 1 or more",
            ),
            ({"dropout": 1.0}, "dropout_ratio is 1.0; it must be at least 0"),
            ({"weight_decay": -1.0}, "weight_decay_lambda is -1.0; it must be 0 or more"),
            ({"gradient": "loop", "dropout": 0.5}, "new mask at every pass"),
            ({"hidden": [0]}, "hidden_size is 0; it must be a positive whole number"),
        ],
    )
    def test_bad_input_leaves_no_folder(
        self, digits: Data, tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            train(digits, tmp_path / "out", **OPTIONS | options)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_told_first(
        self, digits: Data, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="nothing can be written"):
            train(digits, tmp_path / "file", **OPTIONS | {"iterations": 10**9})


class TestStopOnSignals:
    def test_a_second_one_does_what_it_ever_did(self) -> None:
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
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            with stop_on_signals(pytest.fail) as received:
                signal.raise_signal(signal.SIGTERM)
            assert received == []
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGTERM, before)


def summary_of(**values: Any) -> dict[str, Any]:
    return {
        "data": "digits", "backend": "numpy", "device": "CPU", "dtype": "float32",
        "sizes": [64, 50, 10], "activation": "relu", "optimizer": "sgd", "lr": 1e-05,
        "iterations": 12_345, "stopped": "finished", "best_iteration": None, "seconds": 2.0,
        "iterations_per_second": 6172.5, "train_accuracy": 1.0, "test_accuracy": 0.96666,
        "model": "model.safetensors",
    } | values  # fmt: skip


def test_description() -> None:
    assert "\nfinished after 1 update in " in describe(summary_of(iterations=1))
    assert describe(summary_of()).splitlines() == [
        "digits: 64-50-10, relu, sgd with lr 1e-05, float32 on numpy, CPU",
        "finished after 12,345 updates in 2.0 s, 6,172 a second",
        "train accuracy 1.0000",
        "test accuracy  0.9667",
    ]
    early = describe(summary_of(stopped="early", best_iteration=9000))
    assert (
        "\nstopped early after 12,345 updates in 2.0 s, 6,172 a second; the weights are " in early
    )
    assert "those after 9,000\n" in early


class TestGradcheck:
    OPTIONS: dict[str, Any] = {  # noqa: RUF012
        "backend": NUMPY,
        "hidden": [12, 8],
        "activation": "sigmoid",
        "batch_size": 5,
        "weight_decay": 0.01,
        "dropout": 0.5,
        "method": "difference",
        "h": None,
        "seed": 0,
        "dtype": "float32",
    }

    @pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
    @pytest.mark.parametrize("method", ["difference", "batched"])
    def test_right_code_passes(self, digits: Data, activation: str, method: str) -> None:
        options = self.OPTIONS | {"activation": activation, "method": method}
        report = gradcheck(digits, **options)
        assert report.ok
        assert set(report.checks) == {"W1", "b1", "W2", "b2", "W3", "b3"}
        assert report.checks["W1"].shape == (64, 12)

    def test_a_planted_fault_is_located(
        self, digits: Data, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = Sigmoid.backward
        monkeypatch.setattr(Sigmoid, "backward", lambda self, dout: 1.01 * right(self, dout))
        report = gradcheck(digits, **self.OPTIONS)
        faults = {key for key, check in report.checks.items() if not check.ok}
        assert faults == {"W1", "b1", "W2", "b2"}

    def test_step(self, digits: Data) -> None:
        assert gradcheck(digits, **self.OPTIONS | {"h": 1e-6}).h == 1e-6
        assert not gradcheck(digits, **self.OPTIONS | {"h": 0.5, "dropout": 0.0}).ok

    @pytest.mark.parametrize("size", [0, -1, 1438])
    def test_batch_size(self, digits: Data, size: int) -> None:
        with pytest.raises(ValueError, match=f"--batch-size is {size}; the data allow 1 to 1437"):
            gradcheck(digits, **self.OPTIONS | {"batch_size": size})


def answer(model: Path, name: str | None = None, folder: Path | None = None, **given: Any) -> str:
    options: dict[str, Any] = {"data_dir": None, "label_column": None, "scale": None} | given
    return predict(model, name, backend=NUMPY, folder=folder, **options)


class TestPredict:
    @pytest.fixture
    def model(self, letters: Callable[..., Path], tmp_path: Path) -> Path:
        """A model of points that are told apart only when divided by 1000."""
        path = letters("letters.csv", scale=1000)
        data = load_data(Source(str(path), scale=1000.0), None, NUMPY)
        options = OPTIONS | {"optimizer": "adam", "lr": 0.1, "batch_size": 20, "iterations": 200}
        assert train(data, tmp_path / "run", **options)["test_accuracy"] == 1
        return tmp_path / "run" / "model.safetensors"

    def test_by_default_the_part_held_out(self, model: Path, tmp_path: Path) -> None:
        assert answer(model).splitlines() == [
            f"{tmp_path / 'letters.csv'}, test part: accuracy 1.0000 (12 of 12)",
            "rows are labels, columns predictions",
            "   3 5 8",
            " 3 4 . .",
            " 5 . 4 .",
            " 8 . . 4",
        ]

    def test_by_default_the_test_file(self, letters: Callable[..., Path], tmp_path: Path) -> None:
        path, test_path = letters("letters.csv"), letters("test.csv", 9, seed=1)
        data = load_data(Source(str(path), str(test_path)), None, NUMPY)
        train(data, tmp_path / "run", **OPTIONS | {"batch_size": 10})
        text = answer(tmp_path / "run" / "model.safetensors")
        assert text.startswith(f"{test_path}: accuracy ")
        assert "of 9)" in text

    def test_another_file_with_the_labels_of_the_first(
        self, model: Path, letters: Callable[..., Path], tmp_path: Path
    ) -> None:
        path = letters("more.csv", 30, scale=1000, seed=1)
        lines = path.read_text().splitlines()
        # Without 5, the labels' own order would call 8 the second class.
        path.write_text("\n".join(line for line in lines if not line.startswith("5")))
        text = answer(model, str(path), tmp_path / "answers")
        assert text.startswith(f"{path}: accuracy 1.0000 (20 of 20)\n")
        assert [line.split() for line in text.splitlines()[3:]] == [
            ["3", "10", ".", "."],
            ["5", ".", ".", "."],
            ["8", ".", ".", "10"],
        ]
        rows = (tmp_path / "answers" / "predictions.csv").read_text().splitlines()
        assert rows == ["label,prediction", *["3,3", "8,8"] * 10]
        assert (tmp_path / "answers" / "confusion_matrix.png").stat().st_size > 1000

    def test_scale_may_differ(self, model: Path, letters: Callable[..., Path]) -> None:
        path = letters("small.csv", 30, scale=1)
        assert "accuracy 1.0000" in answer(model, str(path), scale=1.0)
        assert "accuracy 1.0000" not in answer(model, str(path))

    def test_label_column_may_differ(self, model: Path, letters: Callable[..., Path]) -> None:
        path = letters("named.csv", scale=1000)
        path.write_text(path.read_text().replace("label", "letter"))
        with pytest.raises(ValueError, match="0 columns named 'label'"):
            answer(model, str(path))
        assert "accuracy 1.0000" in answer(model, str(path), label_column="letter")

    def test_mistakes_are_counted_where_they_belong(self, tmp_path: Path) -> None:
        network = MultiLayerNet(2, [], 2, backend="numpy", weight_init_std=0.0)
        network.params["W1"][...] = np.eye(2)
        save_model(tmp_path / "m.safetensors", network, classes=[10, 20])
        path = tmp_path / "points.csv"
        path.write_text("label,a,b\n10,1,0\n10,0,1\n10,0,1\n20,0,1\n")
        text = answer(tmp_path / "m.safetensors", str(path), tmp_path)
        assert text.splitlines()[0] == f"{path}: accuracy 0.5000 (2 of 4)"
        assert text.splitlines()[2:] == ["    10 20", " 10  1  2", " 20  .  1"]
        rows = (tmp_path / "predictions.csv").read_text().split()
        assert rows == ["label,prediction", "10,10", "10,20", "10,20", "20,20"]

    def test_bad_input(self, model: Path, letters: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"digits, test part has 64 features .* trained on 4"):
            answer(model, "digits")
        path = letters("other.csv")
        path.write_text(path.read_text().replace("\n8", "\n9"))
        with pytest.raises(ValueError, match=r"other.csv holds the label 9, which .* never saw"):
            answer(model, str(path), tmp_path / "answers")
        assert not (tmp_path / "answers").exists()
        with pytest.raises(FileNotFoundError, match=r"gone.safetensors is not there"):
            answer(tmp_path / "gone.safetensors")
        save_model(tmp_path / "bare.safetensors", TwoLayerNet(4, 3, 3, backend="numpy"))
        with pytest.raises(ValueError, match="does not say what it was trained on: give --data"):
            answer(tmp_path / "bare.safetensors")
        lines = (tmp_path / "letters.csv").read_text().splitlines()
        start = f"no --data is given, and {model} was trained on {tmp_path / 'letters.csv'}: .*"
        (tmp_path / "letters.csv").write_text("\n".join(lines[:-3]))
        with pytest.raises(ValueError, match=f"{start}letters.csv had 60 rows then, and has 57"):
            answer(model)
        swapped = "\n".join(["label,b,a,c,d", *lines[1:]])
        (tmp_path / "letters.csv").write_text(swapped)
        with pytest.raises(ValueError, match=f"{start}has a column 'b' where .* has 'a'"):
            answer(model)
        (tmp_path / "letters.csv").unlink()
        message = f"no --data is given, and what {model} was trained on is .*: there is no such"
        with pytest.raises(FileNotFoundError, match=message):
            answer(model)

    def test_columns_must_be_those_of_training(
        self, model: Path, letters: Callable[..., Path]
    ) -> None:
        path = letters("other.csv", scale=1000)
        content = path.read_text()
        for header, message in {
            "label,b,a,c,d": f"other.csv has a column 'b' where {model} has 'a'",
            "label,a,b,c,e": f"other.csv has a column 'e' where {model} has 'd'",
            "label,a,b": f"other.csv has 2 columns beside the labels; .* 4, as {model} has",
        }.items():
            width = header.count(",") + 1
            rows = [",".join(row.split(",")[:width]) for row in content.splitlines()[1:]]
            path.write_text("\n".join([header, *rows]))
            with pytest.raises(ValueError, match=message):
                answer(model, str(path))

    def test_models_without_names_go_by_width(self, tmp_path: Path) -> None:
        save_model(tmp_path / "m.safetensors", TwoLayerNet(2, 3, 2, backend="numpy"))
        path = tmp_path / "points.csv"
        path.write_text("label,b,a\n0,1,0\n1,0,1\n")
        assert "of 2)" in answer(tmp_path / "m.safetensors", str(path))

    def test_from_another_folder(
        self, letters: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letters("letters.csv")
        monkeypatch.chdir(tmp_path)
        data = load_data(Source("letters.csv"), None, NUMPY)
        assert train(data, Path("run"), **OPTIONS | {"batch_size": 10})["data"] == "letters.csv"
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        text = answer(Path("../run/model.safetensors"))
        assert text.startswith(f"{tmp_path / 'letters.csv'}, test part: accuracy ")

    def test_options_of_csv_files_without_one(self, digits: Data, tmp_path: Path) -> None:
        train(digits, tmp_path, **OPTIONS)
        model = tmp_path / "model.safetensors"
        assert "of 360)" in answer(model)
        with pytest.raises(ValueError, match=r"--scale is 2.0, but --data is digits, which is no"):
            answer(model, scale=2.0)
        with pytest.raises(ValueError, match="--label-column is a, but --data is digits, which is"):
            answer(model, "digits", label_column="a")

    def test_models_of_earlier_versions(self, tmp_path: Path) -> None:
        old = {"name": "digits", "test_data": None, "label_column": "label", "scale": 255.0}
        save_model(tmp_path / "m.safetensors", TwoLayerNet(64, 3, 10, backend="numpy"), data=old)
        assert "of 360)" in answer(tmp_path / "m.safetensors")
