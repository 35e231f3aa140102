"""Networks in files: the way there and back, and files that are none."""

import errno
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libraries import Library

from dlfs_gpu import ArgumentError, DataError, model_files
from dlfs_gpu.model_files import load_model, save_model
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


def test_classes_may_be_words(path: Path) -> None:
    classes = ("setosa", "versicolor", "ж\ud800")
    save_model(path, network(), classes=classes, data={"label_column": "species"})
    assert load_model(path, backend="numpy").classes == classes
    save_model(path, network(), classes=np.array(["b", "a", "c"]))  # type: ignore[arg-type]
    assert load_model(path, backend="numpy").classes == ("b", "a", "c")


def test_equal_networks_make_equal_files(path: Path) -> None:
    files = []
    for _ in range(5):
        save_model(path, network(), data={"name": "letters.csv", "scale": 2.5})
        files.append(path.read_bytes())
    assert files == files[:1] * 5


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
    saved.params["W2"] = saved.params["W2"].astype(">f4")
    save_model(path, saved)
    loaded = load_model(path, backend="numpy").network
    for key, param in saved.params.items():
        np.testing.assert_array_equal(loaded.params[key], param)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"classes": [0, 1]}, "classes"),
        ({"classes": [0, 1, 1]}, "classes"),
        ({"classes": [0, 1, 2.5]}, "classes"),
        ({"classes": [0, 1, "2"]}, "classes"),
        ({"classes": [0, 1, True]}, "classes"),
        ({"classes": ["a", "b", "b"]}, "classes"),
        ({"data": {"when": {1}}}, "data"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(
    path: Path, options: dict[str, Any], argument: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        save_model(path, network(), **options)
    assert caught.value.argument == argument
    assert not path.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(path: Path, value: float) -> None:
    diverged = network()
    diverged.params["b2"][1] = value
    with pytest.raises(ArgumentError) as caught:
        save_model(path, diverged)
    assert caught.value.argument == "b2"
    assert not path.exists()


def test_a_network_that_cannot_be_built_again(path: Path) -> None:
    other: Any = SimpleNet(backend="numpy")
    with pytest.raises(TypeError, match="network is a SimpleNet"):
        save_model(path, other)
    assert not path.exists()


def test_a_failed_write_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(path, network(seed=1))
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        save_model(path, network(seed=2))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_memory(path: Path) -> None:
    """Nothing is copied to be saved, and loading takes the file twice: a result needs little."""
    large = MultiLayerNet(1000, [], 1000, seed=0, backend="numpy")
    for share, do in (
        (0.4, lambda: save_model(path, large)),
        (2.4, lambda: load_model(path, backend="numpy")),
    ):
        tracemalloc.start()
        try:
            do()
            assert tracemalloc.get_traced_memory()[1] < share * 4_000_000
        finally:
            tracemalloc.stop()


class TestWhatCannotBeRead:
    def test_missing_and_folder(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
            load_model(path)
        with pytest.raises(IsADirectoryError, match=path.parent.name):
            load_model(path.parent)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
    def test_what_may_have_no_end(self, path: Path) -> None:
        os.mkfifo(path)
        for file in (path, Path("/dev/zero")):
            with pytest.raises(OSError, match="regular"):
                load_model(file)

    @pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind root"
    )
    def test_no_permission(self, path: Path) -> None:
        save_model(path, network())
        path.chmod(0)
        with pytest.raises(PermissionError, match=r"model\.safetensors"):
            load_model(path)


def refuses(path: Path, word: str) -> None:
    with pytest.raises(DataError, match=word) as caught:
        load_model(path, backend="numpy")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\xff" * 100])
def test_not_safetensors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refuses(path, "not a dlfs_gpu network")


def test_cut_off(path: Path) -> None:
    save_model(path, network())
    path.write_bytes(path.read_bytes()[:-10])
    refuses(path, "not a dlfs_gpu network")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {model_files._KIND: "0 {}"}])
def test_of_another_library(path: Path, metadata: dict[str, str] | None) -> None:
    safetensors.numpy.save_file({"W1": np.zeros((6, 5))}, path, metadata)
    refuses(path, "not a dlfs_gpu network")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sigmoid", "tanh"),
        ("[0, 1, 2]", "[0, 2, 1]"),
        ('"b1"', '"b9"'),
        ('"F32"', '"F16"'),
        ("[5]", "[1, 5]"),
        ("[5]", str([1] * 65)),
        ("", " "),
    ],
)
def test_changed(path: Path, old: str, new: str) -> None:
    """What is not as it was written is refused."""
    save_model(path, network(activation="sigmoid"))
    content = path.read_bytes().decode("latin-1")
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode("latin-1"))
    refuses(path, "SHA-256")


def test_any_reader_can_read_a_file(path: Path) -> None:
    saved = network(activation="tanh")
    save_model(path, saved, classes=[1, 2, 4])
    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["dlfs_gpu network"].partition(" ")[2])
    assert content["classes"] == [1, 2, 4]
    assert content["activation"] == "tanh"
    arrays = safetensors.numpy.load_file(path)
    assert arrays.keys() == {"W1", "b1", "W2", "b2", "W3", "b3"}
    np.testing.assert_array_equal(arrays["W2"], saved.params["W2"], strict=True)


on_one_folder = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@on_one_folder
@given(data=st.data())
def test_no_flipped_bit_changes_a_model(data: st.DataObject, path: Path) -> None:
    saved = network()
    save_model(path, saved, classes=["a", "b", "c"], data={"scale": 255.0, "features": ["x"]})
    content = bytearray(path.read_bytes())
    flipped = data.draw(st.integers(0, 8 * len(content) - 1))
    content[flipped // 8] ^= 1 << flipped % 8
    path.write_bytes(content)
    try:
        model = load_model(path, backend="numpy")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert model.classes == ("a", "b", "c")
    assert model.data == {"scale": 255.0, "features": ["x"]}
    for key, param in saved.params.items():
        np.testing.assert_array_equal(model.network.params[key], param)


@on_one_folder
@given(data=st.data())
def test_any_bytes(data: st.DataObject, path: Path) -> None:
    """Whatever a file holds, it is a model or a DataError."""
    save_model(path, network())
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, len(content)))
    put = data.draw(
        st.binary(max_size=8) | st.text('{}[]",:0123456789FWb_', max_size=8).map(str.encode)
    )
    path.write_bytes(content[:start] + put + content[stop:])
    try:
        load_model(path, backend="numpy")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
