"""Data sets: what is loaded, where it comes from, how it is checked."""

import dataclasses
import gzip
import hashlib
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pooch
import pytest

from dlfs_gpu._validation import ArgumentError, DataError, namespace_of
from dlfs_gpu.backend import get_backend
from dlfs_gpu.data import load_digits, load_fashion_mnist, load_mnist, mnist
from dlfs_gpu.functions import one_hot

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
PUBLISHED = mnist._MNIST, mnist._FASHION_MNIST
rng = np.random.default_rng(0)
X_TRAIN, X_TEST = (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (20, 10))
T_TRAIN, T_TEST = (np.arange(n, dtype=np.uint8) % 10 for n in (20, 10))
CONTENTS = {
    file: bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes()
    for file, x in zip(FILES, (X_TRAIN, T_TRAIN, X_TEST, T_TEST), strict=True)
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's data or cache, or uses the network; arrays are on the host."""
    monkeypatch.delenv("DLFS_GPU_DATA", raising=False)
    monkeypatch.setenv("DLFS_GPU_BACKEND", "numpy")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    replace_both(monkeypatch, mirrors=())
    return tmp_path / "cache" / "dlfs_gpu" / "mnist"


def replace_both(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change what is known of both published sets."""
    for name in ("_MNIST", "_FASHION_MNIST"):
        monkeypatch.setattr(mnist, name, dataclasses.replace(getattr(mnist, name), **changes))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packed files, which pass for those of MNIST and of Fashion-MNIST."""
    result = tmp_path / "published"
    result.mkdir()
    for file, content in CONTENTS.items():
        (result / file).write_bytes(gzip.compress(content, mtime=0))
    replace_both(monkeypatch, sha256={path.name: digest(path) for path in result.iterdir()})
    return result


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpack(folder: Path, *files: str) -> None:
    for file in files:
        packed = folder / file
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()


class TestDigits:
    def test_arrays(self) -> None:
        (x_train, t_train), (x_test, t_test) = load_digits(backend="numpy")
        assert x_train.shape == (1437, 64)
        assert x_test.shape == (360, 64)
        assert x_train.dtype == x_test.dtype == np.float32
        assert t_train.dtype == t_test.dtype == np.int64
        assert x_train.min() == 0
        assert x_train.max() == 1
        assert set(np.bincount(t_test)) <= {35, 36, 37}

    def test_split_is_fixed_and_complete(self) -> None:
        from sklearn.datasets import load_digits as original

        (x_train, t_train), (x_test, t_test) = load_digits()
        images, labels = original(return_X_y=True)
        ours = np.column_stack([np.concatenate([x_train, x_test]) * 16, [*t_train, *t_test]])
        theirs = np.column_stack([images, labels])
        np.testing.assert_array_equal(np.unique(ours, axis=0), np.unique(theirs, axis=0))
        np.testing.assert_array_equal(load_digits()[1][0], x_test)

    def test_one_hot(self) -> None:
        (_, t_train), (_, t_test) = load_digits()
        (_, hot_train), (_, hot_test) = load_digits(one_hot_label=True)
        np.testing.assert_array_equal(hot_train, np.eye(10, dtype=np.float32)[t_train], strict=True)
        np.testing.assert_array_equal(hot_test, np.eye(10, dtype=np.float32)[t_test], strict=True)


class TestRealMnist:
    def test_golden(self, mnist_dir: Path) -> None:
        (x_train, t_train), (x_test, t_test) = load_mnist(data_dir=mnist_dir)
        assert x_train.shape == (60000, 784)
        assert x_test.shape == (10000, 784)
        assert x_train.dtype == np.float32
        assert x_train.max() == 1
        assert x_train.mean(dtype=np.float64) == pytest.approx(0.1306604762738429, abs=1e-8)
        assert np.count_nonzero(x_train) / x_train.size == pytest.approx(0.191, abs=5e-4)
        assert t_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
        assert t_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(t_train).tolist() == counts

    def test_unpacked(self, mnist_dir: Path, tmp_path: Path) -> None:
        for file in FILES:
            shutil.copyfile(mnist_dir / file, tmp_path / file)
        unpack(tmp_path, TRAIN_IMAGES, TRAIN_LABELS, TEST_LABELS)
        (_, t_train), (x_test, t_test) = load_mnist(False, data_dir=tmp_path)
        assert (t_train[-1], t_test[-1]) == (8, 6)
        assert x_test.dtype == np.uint8

    def test_every_unpacked_file_is_known(self, mnist_dir: Path) -> None:
        for file in FILES:
            content = gzip.decompress((mnist_dir / file).read_bytes())
            unpacked = file.removesuffix(".gz")
            assert hashlib.sha256(content).hexdigest() == mnist._MNIST.sha256[unpacked]

    def test_it_is_not_fashion_mnist(self, mnist_dir: Path) -> None:
        with pytest.raises(DataError, match=f"{TRAIN_IMAGES} is not Fashion-MNIST's"):
            load_fashion_mnist(data_dir=mnist_dir)


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
class TestForms:
    def test_default(self, load: Callable[..., Any], folder: Path) -> None:
        (x_train, t_train), (x_test, t_test) = load(data_dir=folder)
        flat = X_TRAIN.reshape(20, 784).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(x_train, flat, strict=True)
        np.testing.assert_array_equal(t_train, T_TRAIN.astype(np.int64), strict=True)
        assert x_test.shape == (10, 784)
        np.testing.assert_array_equal(t_test, T_TEST)

    def test_bytes_and_planes(self, load: Callable[..., Any], folder: Path) -> None:
        (x_train, _), (x_test, _) = load(normalize=False, flatten=False, data_dir=str(folder))
        np.testing.assert_array_equal(x_train, X_TRAIN[:, np.newaxis], strict=True)
        np.testing.assert_array_equal(x_test, X_TEST[:, np.newaxis], strict=True)

    def test_one_hot(self, load: Callable[..., Any], folder: Path) -> None:
        (_, t_train), _ = load(one_hot_label=True, data_dir=folder)
        np.testing.assert_array_equal(t_train, np.eye(10, dtype=np.float32)[T_TRAIN], strict=True)


def test_arrays_are_on_the_backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLFS_GPU_BACKEND")
    auto = get_backend("auto")
    for load in (load_digits, partial(load_mnist, data_dir=folder)):
        for one_hot_label in (False, True):
            host = load(one_hot_label=one_hot_label, backend="numpy")
            for here, there in zip(
                sum(load(one_hot_label=one_hot_label), ()), sum(host, ()), strict=True
            ):
                assert namespace_of(here) is auto.xp
                np.testing.assert_array_equal(auto.to_numpy(here), there, strict=True)


class TestLocalFiles:
    def test_environment_variable(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DLFS_GPU_DATA", str(folder))
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)

    def test_argument_before_variable(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DLFS_GPU_DATA", str(tmp_path / "nowhere"))
        np.testing.assert_array_equal(load_mnist(data_dir=folder)[1][1], T_TEST)

    def test_incomplete(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / TEST_IMAGES).unlink()
        with pytest.raises(FileNotFoundError, match=f"data_dir .*{TEST_IMAGES}") as caught:
            load_mnist(data_dir=folder)
        assert str(folder) in str(caught.value)
        monkeypatch.setenv("DLFS_GPU_DATA", str(folder))
        with pytest.raises(FileNotFoundError, match=f"DLFS_GPU_DATA .*{TEST_IMAGES}"):
            load_mnist()

    def test_folder_without_any(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(FileNotFoundError, match=", ".join(FILES)):
            load_mnist(data_dir=tmp_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_mnist(data_dir=tmp_path / "nowhere")
        monkeypatch.setenv("DLFS_GPU_DATA", "")
        with pytest.raises(ConnectionError, match=TRAIN_IMAGES):
            load_mnist()

    def test_unpacked_files_without_a_known_digest(self, folder: Path) -> None:
        unpack(folder, TEST_LABELS)
        with pytest.raises(FileNotFoundError, match=TEST_LABELS):
            load_fashion_mnist(data_dir=folder)

    @pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
    def test_changed(self, folder: Path, load: Callable[..., Any]) -> None:
        path = folder / TEST_LABELS
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(DataError, match=digest(path)) as caught:
            load(data_dir=folder)
        assert str(path) in str(caught.value)


def test_mirrors_are_authenticated() -> None:
    for published in PUBLISHED:
        assert len(published.mirrors) == 2
        assert all(mirror.startswith("https://") for mirror in published.mirrors)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder; yield its address and path."""
    root = tmp_path / "served"
    root.mkdir()
    handler = partial(QuietHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/", root
        httpd.shutdown()
        thread.join()


class TestDownload:
    @pytest.fixture
    def mirrors(
        self, server: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[Path, Path]:
        """The folders of two mirrors, the second one good and the first still to be made."""
        address, root = server
        shutil.copytree(folder, root / "second")
        replace_both(monkeypatch, mirrors=(f"{address}first/", f"{address}second/"))
        return root / "first", root / "second"

    @pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
    def test_good(
        self,
        load: Callable[..., Any],
        mirrors: tuple[Path, Path],
        cache: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        first, second = mirrors
        second.rename(first)
        (x_train, t_train), (_, t_test) = load(normalize=False)
        np.testing.assert_array_equal(x_train, X_TRAIN.reshape(20, 784))
        np.testing.assert_array_equal(t_train, T_TRAIN)
        np.testing.assert_array_equal(t_test, T_TEST)
        output = capsys.readouterr()
        assert "100%" in output.err
        assert output.out == ""
        here = cache.parent / load.__name__.removeprefix("load_").replace("_", "-")
        assert sorted(path.name for path in here.iterdir()) == sorted(FILES)
        shutil.rmtree(first)
        np.testing.assert_array_equal(load()[1][1], T_TEST)

    def test_first_mirror_has_no_such_file(self, mirrors: tuple[Path, Path], cache: Path) -> None:
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)
        assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)

    def test_first_mirror_has_another_file(self, mirrors: tuple[Path, Path], cache: Path) -> None:
        first, second = mirrors
        shutil.copytree(second, first)
        (first / TEST_LABELS).write_bytes(b"something else")
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)
        assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)

    def test_damaged_cache_is_mended(self, mirrors: tuple[Path, Path], cache: Path) -> None:
        load_mnist()
        (cache / TRAIN_IMAGES).write_bytes(b"damaged")
        np.testing.assert_array_equal(load_mnist(normalize=False)[1][0], X_TEST.reshape(10, 784))

    def test_truncated_on_the_way(
        self, mirrors: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = mirrors
        shutil.copytree(second, first)

        def send_half(handler: QuietHandler, source: Any, output: Any) -> None:
            content = source.read()
            halved = handler.path.startswith("/first/")
            output.write(content[: len(content) // 2] if halved else content)

        monkeypatch.setattr(QuietHandler, "copyfile", send_half)
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)
        shutil.rmtree(cache)
        shutil.rmtree(second)
        with pytest.raises(ConnectionError, match=r"(?s)first/: .*IncompleteRead.*second/: .*404"):
            load_mnist()
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize(
        ("limit", "value"), [("_LARGEST", 20_000), ("_LONGEST", 0.5)], ids=["bytes", "seconds"]
    )
    def test_a_mirror_without_an_end(
        self,
        mirrors: tuple[Path, Path],
        monkeypatch: pytest.MonkeyPatch,
        limit: str,
        value: float,
    ) -> None:
        """More and more bytes, or one now and then, as long as anybody reads."""
        first, second = mirrors
        shutil.copytree(second, first)

        def send(handler: QuietHandler, source: Any, output: Any) -> None:
            while handler.path.startswith("/first/"):
                try:
                    output.write(bytes(1 if limit == "_LONGEST" else 10_000))
                except OSError:
                    return
                time.sleep(0.05)
            shutil.copyfileobj(source, output)

        right = QuietHandler.send_header

        def send_header(handler: QuietHandler, keyword: str, text: str) -> None:
            endless = keyword == "Content-Length" and handler.path.startswith("/first/")
            right(handler, keyword, str(10**9) if endless else text)

        monkeypatch.setattr(QuietHandler, "copyfile", send)
        monkeypatch.setattr(QuietHandler, "send_header", send_header)
        monkeypatch.setattr(mnist, limit, value)
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)

    def test_wrong_on_both_mirrors(self, mirrors: tuple[Path, Path], cache: Path) -> None:
        first, second = mirrors
        (second / TRAIN_LABELS).write_bytes(b"something else")
        shutil.copytree(second, first)
        with pytest.raises(ConnectionError, match=f"{TRAIN_LABELS} is not there(?s:.*SHA256){{2}}"):
            load_mnist()
        assert [path.name for path in cache.iterdir()] == [TRAIN_IMAGES]

    def test_no_network(self, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        addresses = ("http://127.0.0.1:9/one/", "http://127.0.0.1:9/two/")
        replace_both(monkeypatch, mirrors=addresses)
        with pytest.raises(ConnectionError, match="cannot be downloaded") as caught:
            load_mnist()
        for part in (*addresses, *FILES, "refused", str(cache), "data_dir", "DLFS_GPU_DATA"):
            assert part in str(caught.value)
        assert list(cache.iterdir()) == []
        for file in FILES:
            shutil.copyfile(folder / file, cache / file)
        np.testing.assert_array_equal(load_mnist()[1][1], T_TEST)
        (cache / TEST_LABELS).write_bytes(b"damaged")
        with pytest.raises(ConnectionError, match=f"{TEST_LABELS} is not there, or is damaged"):
            load_mnist()


class TestOneHot:
    @pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0,)])
    @pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
    def test_numpy(self, shape: tuple[int, ...], dtype: str) -> None:
        labels = np.asarray(np.resize([3, 0, 2], shape), dtype=dtype)
        expected = np.eye(4, dtype=np.float32)[labels]
        np.testing.assert_array_equal(one_hot(labels, 4), expected, strict=True)

    def test_more_classes_than_the_labels_type_counts(self) -> None:
        assert one_hot(np.array([255], dtype=np.uint8), 300).argmax() == 255

    def test_array_api_strict(self) -> None:
        device = array_api_strict.Device("device1")
        labels = array_api_strict.asarray([2, 0], device=device)
        result = one_hot(labels, 3, dtype="float64")
        assert result.device == device
        assert result.dtype == array_api_strict.float64
        host = array_api_compat.to_device(result, array_api_strict.Device("CPU_DEVICE"))
        np.testing.assert_array_equal(np.asarray(host), [[0, 0, 1], [1, 0, 0]])

    @pytest.mark.parametrize(
        ("labels", "num_classes", "error", "word"),
        [
            (np.array([0.0, 1.0]), 2, TypeError, "labels"),
            (np.array([True]), 2, TypeError, "labels"),
            ([0, 1], 2, TypeError, "labels"),
            (np.array([0, 2]), 2, ArgumentError, "labels"),
            (np.array([-1, 1]), 2, ArgumentError, "labels"),
            (np.array([0]), 0, ArgumentError, "num_classes"),
            (np.array([0]), 2.0, ArgumentError, "num_classes"),
        ],
    )
    def test_refused(
        self, labels: Any, num_classes: Any, error: type[Exception], word: str
    ) -> None:
        with pytest.raises(error, match=f"^{word} "):
            one_hot(labels, num_classes)
