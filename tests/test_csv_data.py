"""CSV files: what is read, and what is refused."""

import csv
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlfs_gpu import ArgumentError, DataError
from dlfs_gpu._validation import namespace_of
from dlfs_gpu.backend import get_backend
from dlfs_gpu.data import load_csv
from dlfs_gpu.data.csv import read_table

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
FLOWERS = ["length,species,width", "5.1,setosa,3.5", "7.0,versicolor,3.2", "4.9,setosa,3"]


class TestLoadCsv:
    def test_sign_language_layout(self, tmp_path: Path) -> None:
        pixels, labels = sign_language(tmp_path / "train.csv", 240)
        test_pixels, test_labels = sign_language(tmp_path / "test.csv", 30, seed=1)
        data = load_csv(tmp_path / "train.csv", str(tmp_path / "test.csv"), scale=255)
        assert data.classes == CLASSES
        scaled = pixels.astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(data.x_train, scaled, strict=True)
        assert data.t_train.dtype == np.int64
        np.testing.assert_array_equal(np.take(data.classes, data.t_train), labels)
        assert data.x_test.shape == test_pixels.shape
        np.testing.assert_array_equal(np.take(data.classes, data.t_test), test_labels)

    def test_split(self, tmp_path: Path) -> None:
        pixels, labels = sign_language(tmp_path / "train.csv", 480)
        data, again = load_csv(tmp_path / "train.csv"), load_csv(tmp_path / "train.csv")
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

    def test_words(self, write: Write) -> None:
        path = write(*FLOWERS)
        data = load_csv(path, path, label_column="species")
        assert data.classes == ("setosa", "versicolor")
        assert data.features == ("length", "width")
        np.testing.assert_array_equal(data.t_test, [0, 1, 0])
        np.testing.assert_array_equal(
            data.x_test, np.array([[5.1, 3.5], [7, 3.2], [4.9, 3]], np.float32)
        )

    def test_one_hot(self, write: Write) -> None:
        path = write("label,a", "7,0", "-3,1", "7,2")
        data = load_csv(path, path, one_hot_label=True)
        assert data.classes == (-3, 7)
        expected = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32)
        np.testing.assert_array_equal(data.t_train, expected, strict=True)

    def test_arrays_are_on_the_backend(self, write: Write) -> None:
        auto, path = get_backend("auto"), write(*GOOD)
        data = load_csv(path, path, backend=auto)
        for array in (data.x_train, data.t_train, data.x_test, data.t_test):
            assert namespace_of(array) is auto.xp

    def test_columns_of_the_test_file_are_found_by_name(self, write: Write) -> None:
        test = write("b,note,label,a", "30,hello,1,20", name="test.csv")
        data = load_csv(write(*GOOD), test)
        np.testing.assert_array_equal(data.x_test, [[20, 30]])
        np.testing.assert_array_equal(data.t_test, [1])

    def test_a_test_file_of_numbers_for_one_of_words(self, write: Write) -> None:
        train = write("label,a", "1,0", "x,1", "1,2")
        data = load_csv(train, write("label,a", "1,5", name="test.csv"))
        assert data.classes == ("1", "x")
        np.testing.assert_array_equal(data.t_test, [0])

    @pytest.mark.parametrize(
        ("lines", "word"),
        [
            (["label,a", "1,2"], "'b'"),
            (["a,b", "1,2"], "'label'"),
            (["label,a,b", "1,2,3", "2,2,3"], "label '2'"),
            (["label,a,b", "1,2,3", "two,2,3"], "label 'two'"),
        ],
    )
    def test_unlike_test_file(self, lines: list[str], word: str, write: Write) -> None:
        test = write(*lines, name="test.csv")
        with pytest.raises(DataError, match=word) as caught:
            load_csv(write(*GOOD), test)
        assert str(caught.value).startswith(str(test))

    @pytest.mark.parametrize(
        ("lines", "word"),
        [
            (["label,a,b", "7,2,3", "7,4,5"], "only the label 7"),
            (GOOD, "split"),
            (["label,a", "0,1", "0,2", "1,1", "1,2"], "split"),
        ],
    )
    def test_too_little_to_learn_from(self, lines: list[str], word: str, write: Write) -> None:
        path = write(*lines)
        with pytest.raises(DataError, match=word) as caught:
            load_csv(path)
        assert str(caught.value).startswith(str(path))

    @pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, "255", True])
    def test_bad_scale(self, scale: Any, tmp_path: Path) -> None:
        with pytest.raises(ArgumentError) as caught:
            load_csv(tmp_path / "any.csv", scale=scale)
        assert caught.value.argument == "scale"


class TestReadTable:
    def test_features_by_name(self, write: Write) -> None:
        table = read_table(write(*FLOWERS), "species", 2, ["width", "length"])
        assert table.features == ("width", "length")
        assert table.labels is not None
        assert table.labels.tolist() == ["setosa", "versicolor", "setosa"]
        expected = np.array([[1.75, 2.55], [1.6, 3.5], [1.5, 2.45]], np.float32)
        np.testing.assert_array_equal(table.x, expected, strict=True)

    def test_without_labels(self, write: Write) -> None:
        path = write("note,a", "hello,1", '"two, with a comma",2')
        assert read_table(path, "label", features=["a"]).labels is None
        assert read_table(path, None, features=["a"]).labels is None
        np.testing.assert_array_equal(read_table(path, "label", features=["a"]).x, [[1], [2]])

    def test_without_a_label_column(self, write: Write) -> None:
        table = read_table(write("a,b", "1,2"), None)
        assert (table.features, table.labels) == (("a", "b"), None)

    def test_label_among_the_features(self, write: Write) -> None:
        with pytest.raises(ArgumentError) as caught:
            read_table(write(*GOOD), "a", features=["a", "b"])
        assert caught.value.argument == "label_column"

    def test_variants_of_the_format(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        path.write_bytes(b'\xef\xbb\xbf"a", class ,b\r\n"1", 2 ,3.5\r\n\r\n1e1,3.0,-4\r\n0,2,1\r\n')
        table = read_table(path, "class", 2)
        np.testing.assert_array_equal(table.x, [[0.5, 1.75], [5, -2], [0, 0.5]])
        assert table.labels is not None
        np.testing.assert_array_equal(table.labels, np.array([2, 3, 2]), strict=True)

    @pytest.mark.parametrize("value", [2**63, 2**64, -(2**64), 10**30])
    def test_features_beyond_int64(self, value: int, write: Write) -> None:
        table = read_table(write("label,a", f"0,{value}", "1,1"), "label")
        np.testing.assert_array_equal(table.x, np.array([[value], [1]], np.float32))

    def test_a_scale_beyond_float32(self, write: Write) -> None:
        table = read_table(write("label,a", "0,1e60", "1,1e61"), "label", 1e60)
        np.testing.assert_array_equal(table.x, [[1], [10]])

    @pytest.mark.parametrize(
        "labels", [["16777216", "16777217"], [str(2**63), str(2**64)], ["1.5", "2"], ["nan", "1"]]
    )
    def test_no_two_labels_become_one(self, labels: list[str], write: Write) -> None:
        table = read_table(write("label,a", *(f"{label},0.5" for label in labels)), "label")
        assert table.labels is not None
        assert [str(label) for label in table.labels] == labels

    @pytest.mark.parametrize(
        ("lines", "word"),
        [
            ([], "label"),
            (["", *GOOD], "label"),
            (["label,a,b"], "no rows"),
            (["label", "1"], "no column"),
            (["digit,a,b", "1,2,3"], "'label'"),
            (["label,a,label", "1,2,3"], "'label'"),
            (["label,a,b,a", "1,2,3,4"], "'a'"),
            ([*GOOD, "1,x,3"], "'x'"),
            ([*GOOD, "1,2,"], "''"),
            ([*GOOD, "1,1_0,2"], "'1_0'"),
            ([*GOOD, "1,2,٣"], "'٣'"),
            ([*GOOD, "1,2,3-4"], "'3-4'"),
            ([*GOOD, '1,"2,3', "1,2,3"], "columns"),
            ([*GOOD, ",2,3"], "label ''"),
            ([*GOOD, '"1,2,3', '1",2,3'], "quote"),
            ([*GOOD, f"{'x' * 2000},2,3"], "label"),
            (['label,"a,b', "1,2,3"], "CSV"),
            ([*GOOD, "1,2"], "columns"),
            ([*GOOD, "1,2,3,4"], "columns"),
            (["label,a,b", "1,2", "3,4"], "2"),
            (["label,a,b", "1,2,3,4", "3,4,5,6"], "4 cells"),
            ([*GOOD, "   "], "columns"),
            ([*GOOD, "", "1,2,nan"], "'b' in row 4"),
            ([*GOOD, "1,-inf,0"], "'a' in row 4"),
            ([*GOOD, "1,0,1e39"], "'b' in row 4"),
        ],
    )
    def test_faulty_file(self, lines: list[str], word: str, write: Write) -> None:
        path = write(*lines)
        with pytest.raises(DataError, match=word) as caught:
            read_table(path, "label")
        assert str(caught.value).startswith(str(path))

    def test_a_quote_that_is_not_closed_hides_no_rows(self, write: Write) -> None:
        path = write("label,a,note", "1,2,\"five o'clock", "0,4,", "1,6,")
        with pytest.raises(DataError, match="quote"):
            read_table(path, "label", features=["a"])

    def test_missing_columns_are_named(self, write: Write) -> None:
        with pytest.raises(DataError, match="'c', 'd'"):
            read_table(write(*GOOD), "label", features=["c", "a", "d"])

    def test_errors_stay_short(self, write: Write) -> None:
        path = write(",".join(string.ascii_letters), "1")
        with pytest.raises(DataError, match=r"\.\.\.") as caught:
            read_table(path, "label")
        assert len(str(caught.value)) < 200 + len(str(path))

    def test_not_text(self, tmp_path: Path) -> None:
        path = tmp_path / "table.xlsx"
        path.write_bytes(b"PK\x03\x04\xff\xfe")
        with pytest.raises(DataError, match=r"table\.xlsx"):
            read_table(path, "label")

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
            read_table(tmp_path / "nowhere.csv", "label")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
    def test_what_may_have_no_end(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.csv")
        for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
            with pytest.raises(OSError, match="regular"):
                read_table(path, "label")


on_one_folder = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
words = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='"'),
    min_size=1,
    max_size=8,
)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@on_one_folder
@given(data=st.data())
def test_what_is_written_is_read(data: st.DataObject, tmp_path: Path) -> None:
    header = data.draw(st.lists(words, min_size=2, max_size=5, unique=True))
    numbers = st.tuples(words, *[finite] * (len(header) - 1))
    rows = data.draw(st.lists(numbers, min_size=1, max_size=6))
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    features = data.draw(st.permutations(header[1:]))
    table = read_table(tmp_path / "table.csv", header[0], features=features)
    expected = [[row[header.index(name)] for name in features] for row in rows]
    np.testing.assert_array_equal(table.x, np.array(expected, np.float32), strict=True)
    assert table.labels is not None
    if table.labels.dtype == np.int64:
        assert table.labels.tolist() == [float(row[0]) for row in rows]
    else:
        assert table.labels.tolist() == [row[0] for row in rows]


@on_one_folder
@given(
    content=st.binary(max_size=60)
    | st.text('label,a\n\r0123456789.eE+-_" x\0#;nai\ufeff٣', max_size=60).map(str.encode)
    | st.lists(
        st.sampled_from(["label", "a", "1", "0.5", "x", ",", "\n", '"', "nan", str(2**63), "\r"])
    ).map(lambda parts: b"label,a\n1,2\n0,3\n" + "".join(parts).encode())
)
def test_any_bytes(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "any.csv"
    path.write_bytes(content)
    for label_column, features in (("label", None), (None, None), ("label", ["a"])):
        try:
            table = read_table(path, label_column, features=features)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert table.x.shape == (len(table.x), len(table.features))
            assert np.isfinite(table.x).all()
            assert table.labels is None or table.labels.shape == table.x.shape[:1]
