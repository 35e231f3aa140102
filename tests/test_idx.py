"""IDX files: what is read, and what is refused."""

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlfs_gpu import DataError
from dlfs_gpu.data import load_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 3), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 255, 1, 1, 2], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.write_bytes(idx(IMAGES))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels"
    path.write_bytes(idx(LABELS))
    return path


def packed(path: Path) -> Path:
    result = path.with_name(path.name + ".gz")
    result.write_bytes(gzip.compress(path.read_bytes()))
    return result


def refuses(images: Path, labels: Path, faulty: Path, word: str) -> None:
    """The pair is refused in a message that names the faulty file."""
    with pytest.raises(DataError, match=word) as caught:
        load_idx(images, labels)
    assert str(faulty) in str(caught.value)


def test_pair_unpacked(images: Path, labels: Path) -> None:
    x, t = load_idx(images, str(labels))
    np.testing.assert_array_equal(x, IMAGES, strict=True)
    np.testing.assert_array_equal(t, LABELS.astype(np.int64), strict=True)
    x[0] = 0  # the arrays are the caller's own


def test_pair_packed(images: Path, labels: Path) -> None:
    x, t = load_idx(packed(images), packed(labels))
    np.testing.assert_array_equal(x, IMAGES, strict=True)
    np.testing.assert_array_equal(t, LABELS.astype(np.int64), strict=True)


def test_packed_content_is_known_by_itself(images: Path, labels: Path) -> None:
    unpacked = images.with_suffix(".gz")
    images.rename(unpacked)
    images.write_bytes(gzip.compress(unpacked.read_bytes()))
    for path in (images, unpacked):
        np.testing.assert_array_equal(load_idx(path, labels)[0], IMAGES)


def test_missing_file(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_idx(images, tmp_path / "nowhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_what_may_have_no_end(labels: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="regular"):
            load_idx(path, labels)


def test_swapped(images: Path, labels: Path) -> None:
    refuses(labels, images, labels, "swapped")
    refuses(images, images, images, "swapped")


def test_counts_differ(images: Path, labels: Path) -> None:
    labels.write_bytes(idx(LABELS[:5]))
    refuses(images, labels, images, "7 images")
    refuses(images, labels, labels, "5 labels")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "starts with"),
        (b"\0\0\x08", "starts with"),
        (b"PK\x03\x04" + bytes(40), "starts with b'PK"),
        (b"\0\0\x0d\x03" + bytes(40), "starts with"),
        (b"\0\0\x08\x04" + bytes(40), "starts with"),
        (idx(IMAGES)[:15], "sizes"),
        (idx(IMAGES)[:-1], "truncated"),
        (idx(IMAGES) + b"\0", "too long"),
        (idx(IMAGES[:0]), "empty"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),
    ],
)
def test_faulty_content(content: bytes, word: str, images: Path, labels: Path) -> None:
    images.write_bytes(content)
    refuses(images, labels, images, word)
    refuses(packed(images), labels, packed(images), word)


def test_faulty_gzip(images: Path, labels: Path) -> None:
    path = packed(images)
    good = path.read_bytes()
    path.write_bytes(good[:-9])
    refuses(path, labels, path, "truncated")
    for bad in (good[:-8] + bytes(4) + good[-4:], good[:10] + b"\xff" + good[11:], good + b"more"):
        path.write_bytes(bad)
        refuses(path, labels, path, "corrupted")


@pytest.mark.parametrize(
    ("sizes", "word"), [((7, 4, 3), "too long"), ((60_000, 2**32 - 1, 2**32 - 1), "truncated")]
)
def test_no_more_is_unpacked_than_the_header_says(
    sizes: tuple[int, ...], word: str, images: Path, labels: Path
) -> None:
    header = struct.pack(">BBBBIII", 0, 0, 8, 3, *sizes)
    images.write_bytes(gzip.compress(header + bytes(2**26 if word == "too long" else 100)))
    tracemalloc.start()
    try:
        refuses(images, labels, images, word)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


@st.composite
def mutations(draw: st.DrawFn, original: bytes, end: int) -> bytes:
    """One fault in the first `end` bytes: a changed byte, inserted bytes, or a cut."""
    place = draw(st.integers(0, end - 1))
    kind = draw(st.sampled_from(["flip", "insert", "cut"]))
    if kind == "flip":
        flipped = bytes([original[place] ^ draw(st.integers(1, 255))])
        return original[:place] + flipped + original[place + 1 :]
    if kind == "insert":
        # Seven bytes could make the header of another file that is right.
        return original[:place] + draw(st.binary(min_size=1, max_size=6)) + original[place:]
    return original[:place]


def read_or_refuse(folder: Path, name: str, content: bytes) -> np.ndarray | None:
    """Return the images read; None if the file is refused in words that name it."""
    path = folder / name
    path.write_bytes(content)
    try:
        return load_idx(path, folder / "labels")[0]
    except DataError as error:
        assert name in str(error)  # noqa: PT017
        return None


on_one_folder = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@on_one_folder
@given(content=mutations(original=gzip.compress(idx(IMAGES)), end=len(gzip.compress(idx(IMAGES)))))
def test_mutated_packed_file(content: bytes, tmp_path: Path, labels: Path) -> None:
    x = read_or_refuse(tmp_path, "images.gz", content)
    assert x is None or np.array_equal(x, IMAGES)


@on_one_folder
@given(content=mutations(original=idx(IMAGES), end=16))
def test_mutated_header(content: bytes, tmp_path: Path, labels: Path) -> None:
    assert read_or_refuse(tmp_path, "images", content) is None


@on_one_folder
@given(content=st.binary(max_size=64) | st.binary(max_size=60).map(b"\0\0\x08\x03".__add__))
def test_any_bytes(content: bytes, tmp_path: Path, labels: Path) -> None:
    x = read_or_refuse(tmp_path, "images", content)
    assert x is None or idx(x) == content
