"""Networks in files: the way there and back, and files that are none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from libraries import Library

from dlfs_gpu import checkpoint
from dlfs_gpu.checkpoint import load_model, save_model
from dlfs_gpu.networks import MultiLayerNet, TwoLayerNet

SIZES = 6, [5, 4], 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def network(**options: Any) -> MultiLayerNet:
    return MultiLayerNet(*SIZES, **{"seed": 0, "backend": "numpy", **options})


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_there_and_back(lib: Library, path: Path, activation: str) -> None:
    if lib.name == "strict":
        pytest.skip("networks of named backends only are saved")
    saved = network(activation=activation, dtype=lib.dtype, backend=lib.name)
    classes = (7, 0, 20)
    save_model(path, saved, classes=classes, data={"name": "letters.csv", "scale": 2.5})
    model = load_model(path, backend=lib.name)
    assert model.classes == classes
    assert model.data == {"name": "letters.csv", "scale": 2.5}
    assert model.network.sizes == saved.sizes == [6, 5, 4, 3]
    assert model.network.activation == activation
    assert model.network.dtype == saved.dtype
    for key, param in saved.params.items():
        np.testing.assert_array_equal(
            lib.to_numpy(model.network.params[key]), lib.to_numpy(param), strict=True
        )
    x = lib.asarray(np.random.default_rng(1).standard_normal((4, 6)))
    np.testing.assert_array_equal(
        lib.to_numpy(model.network.predict(x)), lib.to_numpy(saved.predict(x))
    )


def test_defaults(path: Path) -> None:
    save_model(str(path), TwoLayerNet(6, 5, 3, backend="numpy"))
    model = load_model(str(path), backend="numpy")
    assert model.classes == (0, 1, 2)
    assert model.data == {}


def test_training_options_are_left_behind(path: Path) -> None:
    saved = network(dropout_ratio=0.5, weight_decay_lambda=0.1)
    save_model(path, saved)
    loaded = load_model(path, backend="numpy").network
    x = np.ones((2, 6))
    np.testing.assert_array_equal(loaded.predict(x), saved.predict(x))
    assert loaded.weight_decay_lambda == 0


def test_arrays_in_another_memory_order(path: Path) -> None:
    saved = network()
    saved.params["W1"] = np.asfortranarray(saved.params["W1"])
    save_model(path, saved)
    loaded = load_model(path, backend="numpy").network
    np.testing.assert_array_equal(loaded.params["W1"], saved.params["W1"])


def test_classes_must_fit(path: Path) -> None:
    with pytest.raises(ValueError, match="classes has 2 labels; the network has 3 outputs"):
        save_model(path, network(), classes=[0, 1])
    assert not path.exists()


def test_a_failed_write_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(path, network(seed=1))
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(path, network(seed=2))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_missing(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is not there; it must be a"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100])
def test_not_safetensors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.safetensors is not a safetensors file, or is dam"):
        load_model(path)


def test_cut_off(path: Path) -> None:
    save_model(path, network())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model.safetensors is not a safetensors file, or is dam"):
        load_model(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_of_another_library(path: Path, metadata: dict[str, str] | None) -> None:
    safetensors.numpy.save_file({"W1": np.zeros((6, 5))}, path, metadata)
    with pytest.raises(ValueError, match=r"model.safetensors was not written by dlfs_gpu"):
        load_model(path)


FILE = {
    "format": checkpoint._FORMAT,
    "sizes": "[2, 3]",
    "activation": "relu",
    "classes": "[0, 1, 2]",
    "data": "{}",
}
PARAMS = {"W1": np.zeros((2, 3), np.float32), "b1": np.zeros(3, np.float32)}


def test_a_file_by_hand(path: Path) -> None:
    safetensors.numpy.save_file(PARAMS, path, FILE)
    assert load_model(path, backend="numpy").network.sizes == [2, 3]


@pytest.mark.parametrize(
    ("metadata", "params", "message"),
    [
        (
            {"sizes": "[2, 4]", "classes": "[0, 1, 2, 3]"},
            {},
            r"W1 must be float32 of shape \(2, 4\); .* shape \(2, 3\)",
        ),
        ({}, {"b1": np.zeros((1, 3), np.float32)}, r"b1 must be .* shape \(3,\); the file has"),
        ({}, {"b1": np.zeros(3)}, "b1 must be float32 of .*; the file has float64"),
        ({}, {"b1": None}, "b1 must be float32 .*; the file lacks it"),
        ({}, {"W1": None}, "does not describe a network: KeyError"),
        ({}, {"W1": np.zeros((2, 3), np.int64)}, "does not describe a network: .*dtype is 'int64'"),
        ({"sizes": None}, {}, "does not describe a network: KeyError"),
        ({"sizes": "[2, 3"}, {}, "does not describe a network: JSONDecodeError"),
        ({"sizes": "[]"}, {}, "does not describe a network: IndexError"),
        ({"sizes": "[2, -3]"}, {}, "does not describe a network: .*output_size is -3"),
        ({"activation": "swish"}, {}, "does not describe a network: .*activation is 'swish'"),
        ({"classes": "0"}, {}, "does not describe a network: TypeError"),
        ({"classes": "[0, 1]"}, {}, "has 2 classes; its network has 3 outputs"),
        ({}, {"b1": np.full(3, np.nan, np.float32)}, "holds NaN or infinity in b1"),
        ({}, {"W1": np.full((2, 3), -np.inf, np.float32)}, "holds NaN or infinity in W1"),
    ],
)
def test_damaged(
    path: Path, metadata: dict[str, Any], params: dict[str, Any], message: str
) -> None:
    safetensors.numpy.save_file(
        {key: value for key, value in (PARAMS | params).items() if value is not None},
        path,
        {key: value for key, value in (FILE | metadata).items() if value is not None},
    )
    with pytest.raises(ValueError, match=f"model.safetensors.* {message}"):
        load_model(path, backend="numpy")


def test_metadata_can_be_read_by_any_reader(path: Path) -> None:
    save_model(path, network(activation="tanh"), classes=[1, 2, 4])
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {"W1", "b1", "W2", "b2", "W3", "b3"}
    assert json.loads(metadata["sizes"]) == [6, 5, 4, 3]
    assert json.loads(metadata["classes"]) == [1, 2, 4]
    assert metadata["activation"] == "tanh"
