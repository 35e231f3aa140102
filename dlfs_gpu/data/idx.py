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

from dlfs_gpu._validation import DataError
from dlfs_gpu.files import open_regular

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
        If a file is corrupted, truncated or too long, is not IDX, is empty, holds labels where
        images are expected or the reverse, or if the numbers of images and labels differ. The
        message names the file.
    """
    x, t = _read(Path(images), "images", 3), _read(Path(labels), "labels", 1)
    if len(x) != len(t):
        raise DataError(f"{images} holds {len(x)} images, but {labels} {len(t)} labels")
    return x, t.astype(np.int64)


def _read(path: Path, kind: str, dimensions: int) -> NDArray[np.uint8]:
    """Read no more than the header says, and no more than the file can hold."""
    magic = bytes([0, 0, 8, dimensions])
    with open_regular(path) as file:
        largest = os.fstat(file.fileno()).st_size
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        if packed:
            largest *= _DEFLATE_LIMIT
        stream = gzip.GzipFile(fileobj=file) if packed else file
        try:
            header = stream.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise DataError(
                    f"{path} starts with {header!r}; {kind} start with {magic!r} and "
                    f"{dimensions} sizes of four bytes: are images and labels swapped?"
                )
            # Python's integers: the product of sizes that a file makes up may pass 64 bits.
            shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
            length = math.prod(shape)
            # One byte more, for files that are too long; it also makes gzip see its checksum.
            content = stream.read(min(length, largest) + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is a truncated or corrupted gzip file: {error}") from error
    if length == 0 or len(content) != length:
        raise DataError(
            f"{path} is empty, truncated or too long: its sizes {shape} make {length} bytes"
        )
    return np.frombuffer(content, np.uint8).reshape(shape).copy()
