"""CSV files: what is read, what is refused, and with which words."""

import re
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dlfs_gpu._validation import namespace_of
from dlfs_gpu.backend import get_backend
from dlfs_gpu.data.datasets import load_csv

Write = Callable[..., Path]

CLASSES = tuple(label for label in range(25) if label != 9)


def sign_language(path: Path, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write a file in the layout of the sign-language alphabet; return its pixels and labels."""
    rng = np.random.default_rng(seed)
    labels = np.resize(CLASSES, rows)
    pixels = rng.integers(0, 256, (rows, 784))
    header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
    np.savetxt(path, np.column_stack([labels, pixels]), "%d", ",", header=header, comments="")
    return pixels, labels


@pytest.fixture(autouse=True)
def arrays_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFS_GPU_BACKEND", "numpy")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(*lines: str, name: str = "train.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")
        return path

    return write_file


GOOD = ["label,a,b", "1,2,3", "0,4,5", "1,6,7"]


def test_sign_language_layout(tmp_path: Path) -> None:
    pixels, labels = sign_language(tmp_path / "train.csv", 240)
    test_pixels, test_labels = sign_language(tmp_path / "test.csv", 30, seed=1)
    data = load_csv(tmp_path / "train.csv", str(tmp_path / "test.csv"))
    assert data.classes == CLASSES
    scaled = pixels.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(data.x_train, scaled, strict=True)
    assert data.t_train.dtype == np.int64
    np.testing.assert_array_equal(np.take(data.classes, data.t_train), labels)
    assert data.x_test.shape == test_pixels.shape
    np.testing.assert_array_equal(np.take(data.classes, data.t_test), test_labels)


def test_split(tmp_path: Path) -> None:
    pixels, labels = sign_language(tmp_path / "train.csv", 480)
    data = load_csv(tmp_path / "train.csv", scale=1.0)
    again = load_csv(tmp_path / "train.csv", scale=1.0)
    assert data.x_train.shape == (384, 784)
    assert (np.bincount(data.t_train) == 16).all()
    assert (np.bincount(data.t_test) == 4).all()
    np.testing.assert_array_equal(data.x_test, again.x_test)
    both = {
        (*x, CLASSES[t])
        for xs, ts in ((data.x_train, data.t_train), (data.x_test, data.t_test))
        for x, t in zip(xs.tolist(), ts.tolist(), strict=True)
    }
    assert both == {(*x, t) for x, t in zip(pixels.tolist(), labels.tolist(), strict=True)}


def test_one_hot(write: Write) -> None:
    path = write("label,a", "7,0", "-3,1", "7,2")
    data = load_csv(path, path, one_hot_label=True)
    assert data.classes == (-3, 7)
    expected = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(data.t_train, expected, strict=True)


def test_arrays_are_on_the_backend(write: Write) -> None:
    auto, path = get_backend("auto"), write(*GOOD)
    data = load_csv(path, path, backend=auto)
    for array in (data.x_train, data.t_train, data.x_test, data.t_test):
        assert namespace_of(array) is auto.xp


def test_variants_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"a", class ,b\r\n"1", 2 ,3.5\r\n\r\n1e1,3.0,-4\r\n# not a comment,2,1\r\n'
    )
    with pytest.raises(ValueError, match="line 5, column 'a': '# not a comment' is not a number"):
        load_csv(path, path, label_column="class")
    path.write_bytes(path.read_bytes().replace(b"# not a comment", b"0"))
    data = load_csv(path, path, label_column="class", scale=2)
    np.testing.assert_array_equal(data.x_train, [[0.5, 1.75], [5, -2], [0, 0.5]])
    assert data.classes == (2, 3)


def test_errors_stay_short(write: Write) -> None:
    path = write("label,a", *(f"{label},1" for label in range(10_000)))
    with pytest.raises(ValueError, match="10000 of its 10000 labels, 0 for one") as caught:
        load_csv(path)
    assert len(str(caught.value)) < 300


def test_features_beyond_int64(write: Write) -> None:
    path = write("label,a", f"0,{10**30}", "1,1")
    data = load_csv(path, path, scale=1e30)
    np.testing.assert_array_equal(data.x_train, np.array([[1], [1e-30]], np.float32))


def test_names_of_features(write: Write) -> None:
    path = write("b,label,a", "1,2,3", "4,5,6")
    assert load_csv(path, path).features == ("b", "a")


def test_large_labels_stay_apart(write: Write) -> None:
    path = write("label,a", "16777216,0.5", "16777217,1")
    assert load_csv(path, path).classes == (16777216, 16777217)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        (["label,a,b"], "has no rows below its header"),
        (["label", "1"], "has no column beside 'label'"),
        (["digit,a,b", "1,2,3"], "has 0 columns named 'label'.* are digit, a, b$"),
        (["label,a,label", "1,2,3"], "has 2 columns named 'label'"),
        ([",".join(string.ascii_letters), "1"], r"are a, b, c, ..., Z \(52 in all\)"),
        ([*GOOD, "1,x,3"], "line 5, column 'a': 'x' is not a number"),
        ([*GOOD, "", "1,2,"], "line 6, column 'b': '' is not a number"),
        ([*GOOD, "1,1_0,2"], "line 5, column 'a': '1_0' is not a number"),
        ([*GOOD, "1,2,٣"], "line 5, column 'b': '٣' is not a number"),
        ([*GOOD, "1,2,3-4"], "line 5, column 'b': '3-4' is not a number"),
        ([*GOOD, '1,"2,3', "1,2,3"], "line 5: a quote opens that the line does not close"),
        ([*GOOD, '1,"2,3', *["1,2,3"] * 30_000], "line 5: field larger .*; is a quote not closed"),
        (['label,"a,b', "1,2,3"], "line 1: a quote opens that the line does not close"),
        (["label,a,b,a", "1,2,3,4"], "has two columns named 'a'; names must differ"),
        (["label,a,b", "7,2,3", "7,4,5"], "has only the label 7; there must be two or more"),
        (
            [*GOOD, f"{-(2**63)},2,3"],
            f"line 5: the label is '{-(2**63)}'; it must be an integer below",
        ),
        ([*GOOD, f"{2**63},2,3"], f"line 5: the label is '{2**63}'; it must be an integer below"),
        ([*GOOD, "1,2"], "line 5 has 2 cells; it must have 3"),
        ([*GOOD, "1,2,3,4"], "line 5 has 4 cells; it must have 3"),
        (["label,a,b", "1,2", "3,4"], "line 2 has 2 cells; it must have 3"),
        ([*GOOD, "   "], "line 5 has 1 cells; it must have 3"),
        ([*GOOD, "", "1,2,nan"], "line 6, column 'b': 'nan' .* not a finite float32 number"),
        ([*GOOD, "1,-inf,0"], "line 5, column 'a': '-inf' .* not a finite float32 number"),
        ([*GOOD, "1,0,1e39"], "line 5, column 'b': '1e39' .* not a finite float32 number"),
        ([*GOOD, "", "1.5,2,3"], "line 6: the label is '1.5'; it must be an integer"),
        ([*GOOD, "nan,2,3"], "line 5: the label is 'nan'; it must be an integer"),
        ([*GOOD, "1e300,2,3"], "line 5: the label is '1e300'; it must be an integer"),
        (GOOD, "cannot be split .*: 1 of its 2 labels, 0 for one, occur only once. Add rows, or"),
        (["label,a", "0,1", "0,2", "1,1", "1,2"], "a fifth of it is 1 rows, fewer than its 2 lab"),
    ],
)
def test_faulty_file(lines: list[str], message: str, write: Write) -> None:
    path = write(*lines)
    with pytest.raises(ValueError, match=f"(?s)^{re.escape(str(path))}.*{message}"):
        load_csv(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["label,a", "1,2"], "has 1 columns beside the labels; it must have 2, as .*train.csv has"),
        (["label,a,c", "1,2,3"], "has a column 'c' where .*train.csv has 'b'"),
        (["label,a,b", "1,2,3", "", "2,2,3"], "line 4: label 2 does not occur in .*train.csv"),
    ],
)
def test_unlike_test_file(lines: list[str], message: str, write: Write) -> None:
    test = write(*lines, name="test.csv")
    with pytest.raises(ValueError, match=f"^{re.escape(str(test))}.*{message}"):
        load_csv(write(*GOOD), test)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "table.xlsx"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ValueError, match=r"table\.xlsx is not CSV in UTF-8"):
        load_csv(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        load_csv(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, 1e-60, 1e60])
def test_bad_scale(scale: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"scale is {re.escape(str(scale))}; it must be positive"):
        load_csv(tmp_path / "any.csv", scale=scale)
