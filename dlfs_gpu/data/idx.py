"""Reading IDX files, the format of MNIST and its like.

A file is big-endian: the magic ``00 00 08 nd`` (08: unsigned bytes, nd: number of dimensions),
`nd` sizes of four bytes, and then the bytes themselves.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._files import open_regular
from dlfs_gpu._validation import DataError

_DIMENSIONS = {"images": 3, "labels": 1}

_DEFLATE_LIMIT = 1032
"""More bytes than this cannot come out of one packed byte (zlib's technical details)."""


def load_idx(
    images: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a pair of IDX files, each gzip-packed or not.

    Packed files carry a checksum; in unpacked ones only the header and the length can be checked.

    Parameters
    ----------
    images, labels : path
        The two files.

    Returns
    -------
    x : ndarray of uint8, shape (N, rows, columns)
    t : ndarray of int64, shape (N,)

    Raises
    ------
    OSError
        If a file is missing, cannot be read, or is not a regular file.
    DataError
        If a file is not gzip though named so, is corrupted, truncated or too long, is not IDX, is
        empty, holds labels where images are expected or the reverse, or if the numbers of images
        and labels differ. The message names the file.
    """
    x, t = _read(Path(images), "images"), _read(Path(labels), "labels")
    if len(x) != len(t):
        raise DataError(
            f"{images} holds {len(x)} images and {labels} {len(t)} labels: "
            "there must be as many of one as of the other"
        )
    return x, t.astype(np.int64)


def _read(path: Path, kind: str) -> NDArray[np.uint8]:
    """Read no more than the header says, and no more than the file can hold."""
    with open_regular(path) as file:
        largest = os.fstat(file.fileno()).st_size
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        if path.suffix == ".gz" and not packed:
            raise DataError(f"{path} is not a gzip file")
        if packed:
            largest *= _DEFLATE_LIMIT
        stream = gzip.GzipFile(fileobj=file) if packed else file
        try:
            shape = _shape(path, stream.read(4 + 4 * _DIMENSIONS[kind]), kind)
            length = math.prod(shape)
            # One byte more, for files that are too long; it also makes gzip see its checksum.
            content = stream.read(min(length, largest) + 1)
        except EOFError:
            raise DataError(f"{path} is truncated: its gzip stream has no end") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is a corrupted gzip file: {error}") from error
    if len(content) != length:
        fault = "truncated" if len(content) < length else "too long"
        raise DataError(f"{path} is {fault}: its sizes {shape} make {length} bytes")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()


def _shape(path: Path, header: bytes, kind: str) -> tuple[int, ...]:
    """Return the sizes that the header of a file of images or labels gives."""
    magic = {name: bytes([0, 0, 8, ndim]) for name, ndim in _DIMENSIONS.items()}
    if header[:4] != magic[kind]:
        swapped = header[:4] in magic.values()
        raise DataError(
            f"{path} starts with {header[:4]!r}; {kind} start with {magic[kind]!r}"
            + (": are the two files swapped?" if swapped else "")
        )
    if len(header) < 4 + 4 * _DIMENSIONS[kind]:
        raise DataError(f"{path} is truncated: its header has {len(header)} bytes")
    # Python's integers: the product of sizes that a file makes up may pass 64 bits.
    shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
    if 0 in shape:
        raise DataError(f"{path} is empty: its sizes are {shape}")
    return shape
