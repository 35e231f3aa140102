"""Archives: arrays of all types there and back, for this reader and for others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from dlfs_gpu import DataError
from dlfs_gpu.files.archive import _TYPES, read_archive, write_archive

KIND = "dlfs_gpu test"


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
def test_there_and_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: np.asarray(rng.integers(0, 100, shape)).astype(name) for name in _TYPES}
    arrays["a/b c"] = np.asfortranarray(rng.random(shape))
    arrays["swapped"] = rng.random(shape).astype(">f8") if shape else np.array(1.5, ">f8")
    content = {"text": 'ж\ud800"\\', "numbers": [1, 2.5, None]}
    path = tmp_path / "archive"
    write_archive(path, KIND, content, arrays)
    found, read = read_archive(path, KIND)
    assert found == content
    assert list(read) == list(arrays)
    for other in (read, safetensors.numpy.load_file(path)):
        for key, array in arrays.items():
            expected = array.astype(array.dtype.newbyteorder("="))
            np.testing.assert_array_equal(other[key], expected, strict=True)
    for array in read.values():
        array[...] = 0  # they are the caller's own


@pytest.mark.parametrize("content", [None, [], 3])
def test_without_arrays(tmp_path: Path, content: Any) -> None:
    write_archive(tmp_path / "archive", KIND, content, {})
    assert read_archive(tmp_path / "archive", KIND) == (content, {})


def test_another_kind(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive", KIND, 1, {})
    with pytest.raises(DataError, match="archive is not a dlfs_gpu network"):
        read_archive(tmp_path / "archive", "dlfs_gpu network")
