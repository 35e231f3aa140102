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
from dlfs_gpu.models import MultiLayerNet, SimpleNet, TwoLayerNet

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


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"classes": [0, 1]}, ValueError, "classes has 2 labels; the network has 3 outputs"),
        ({"classes": [0, 1, 1]}, ValueError, r"classes is \[0, 1, 1\]; no label may be there"),
        ({"classes": [0, 1, 2.5]}, TypeError, r"classes is .*; it must hold whole numbers"),
        ({"classes": [0, 1, "2"]}, TypeError, r"classes is .*; it must hold whole numbers"),
        ({"data": {"name": 5}}, ValueError, "name in data is 5; it must be a string"),
        ({"data": {"when": {1}}}, TypeError, "data is .*; it must be what JSON can hold: "),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(
    path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save_model(path, network(), **options)
    assert not path.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(path: Path, value: float) -> None:
    diverged = network()
    diverged.params["b2"][1] = value
    with pytest.raises(ValueError, match="b2 holds NaN or infinity; every number must be finite"):
        save_model(path, diverged)
    assert not path.exists()


def test_a_network_that_cannot_be_built_again(path: Path) -> None:
    other: Any = SimpleNet(backend="numpy")
    with pytest.raises(TypeError, match="network is a SimpleNet; it must be a MultiLayerNet"):
        save_model(path, other)
    assert not path.exists()


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder; it must be a model"):
        load_model(tmp_path)


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
    # As newer versions write it.
    metadata = {key: value for key, value in FILE.items() if key != "sizes"}
    safetensors.numpy.save_file(PARAMS, path, metadata)
    assert load_model(path, backend="numpy").network.sizes == [2, 3]


@pytest.mark.parametrize(
    ("metadata", "params", "message"),
    [
        (
            {"sizes": "[2, 4]", "classes": "[0, 1, 2, 3]"},
            {},
            r"sizes is \[2, 4\], but its arrays are of a network of sizes \[2, 3\]",
        ),
        ({"sizes": "[1000000000000, 3]"}, {}, r"sizes is \[1000000000000, 3\], but its arrays"),
        ({"sizes": "[2, 3"}, {}, "sizes is not JSON: Expecting"),
        ({"sizes": "[]"}, {}, r"sizes is \[\], but"),
        ({}, {"b1": np.zeros((1, 3), np.float32)}, r"b1 is .*\(1, 3\); .* of shape \(3,\)"),
        ({}, {"b1": np.zeros(3)}, "b1 is float64 .*; it must be float32"),
        ({}, {"b1": None}, "it holds W1; it must hold W1, b1, W2, b2, ..."),
        ({}, {"W1": None}, "it holds b1; it must hold W1, b1"),
        ({}, {"W3": np.zeros((3, 3), np.float32)}, "it holds W1, W3, b1; it must hold W1, b1"),
        (
            {},
            {"W2": np.zeros((4, 2), np.float32), "b2": np.zeros(2, np.float32)},
            r"W2 is .*\(4, 2\); it must be float32 of shape \(3, 2\)",
        ),
        ({}, {"W1": np.zeros((2, 3), np.int64)}, "W1 is int64 .*; it must be a float32 or float64"),
        ({}, {"W1": np.zeros((2, 0), np.float32), "b1": np.zeros(0, np.float32)}, "sizes is .*0"),
        ({"activation": "swish"}, {}, "activation is 'swish'"),
        ({"activation": None}, {}, "its metadata lack 'activation'"),
        ({"classes": None}, {}, "its metadata lack 'classes'"),
        ({"classes": "0"}, {}, "classes is 0; it must be a list of whole numbers"),
        ({"classes": "[0, [1], 2]"}, {}, r"classes is \[0, \[1\], 2\]; it must be a list of whole"),
        ({"classes": '[0, "1", 2]'}, {}, "classes is .*; it must be a list of whole numbers"),
        ({"classes": "[0, 1.5, 2]"}, {}, "classes is .*; it must be a list of whole numbers"),
        ({"classes": "[0, true, 2]"}, {}, "classes is .*; it must be a list of whole numbers"),
        ({"classes": f"[0, 1, {2**63}]"}, {}, "classes is .*; it must be a list of whole numbers"),
        ({"classes": "[0, 1, 1]"}, {}, r"classes is \[0, 1, 1\]; no label may be there twice"),
        ({"classes": "[0, 1]"}, {}, "classes has 2 labels; the network has 3 outputs"),
        ({"data": None}, {}, "its metadata lack 'data'"),
        ({"data": "null"}, {}, "data is None; it must be an object"),
        ({"data": "[1]"}, {}, r"data is \[1\]; it must be an object"),
        ({"data": "[" * 100_000}, {}, "data is not JSON: maximum recursion"),
        ({"data": '{"name": 5}'}, {}, "name in data is 5; it must be a string"),
        ({"data": '{"test_data": 5}'}, {}, "test_data in data is 5; it must be a string or null"),
        (
            {"data": '{"label_column": []}'},
            {},
            r"label_column in data is \[\]; it must be a string",
        ),
        ({"data": '{"scale": "x"}'}, {}, "scale in data is 'x'; it must be a positive number"),
        ({"data": '{"scale": NaN}'}, {}, "scale in data is nan; it must be a positive number"),
        ({"data": '{"scale": -1}'}, {}, "scale in data is -1; it must be a positive number"),
        ({"data": '{"features": [1]}'}, {}, r"features in data is \[1\]; it must be a list of st"),
        ({"data": '{"rows": {"a": "b"}}'}, {}, "rows in data is .*; it must be an object of whole"),
        ({}, {"b1": np.full(3, np.nan, np.float32)}, "b1 holds NaN or infinity"),
        ({}, {"W1": np.full((2, 3), -np.inf, np.float32)}, "W1 holds NaN or infinity"),
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
    with pytest.raises(ValueError, match=f"model.safetensors does not describe .*: {message}"):
        load_model(path, backend="numpy")


def test_metadata_can_be_read_by_any_reader(path: Path) -> None:
    save_model(path, network(activation="tanh"), classes=[1, 2, 4])
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {"W1", "b1", "W2", "b2", "W3", "b3"}
    assert json.loads(metadata["classes"]) == [1, 2, 4]
    assert metadata["activation"] == "tanh"
