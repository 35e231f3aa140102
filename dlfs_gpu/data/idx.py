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
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pair: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images of shape (N, rows, columns) and their labels of shape (N,)."""

_DIMENSIONS = {"images": 3, "labels": 1}
_UNSIGNED_BYTES = 8


def load_idx(images: str | os.PathLike[str], labels: str | os.PathLike[str]) -> Pair:
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
        If a file is missing or cannot be read.
    ValueError
        If a file is not gzip though named so, is corrupted, truncated or too long, is not IDX, is
        empty, holds labels where images are expected or the reverse, or if the numbers of images
        and labels differ. The message names the file.
    """
    images, labels = Path(images), Path(labels)
    return parse_pair(
        images, unpack(images, images.read_bytes()), labels, unpack(labels, labels.read_bytes())
    )


def unpack(path: Path, data: bytes) -> bytes:
    """Return the content of a file that holds `data`; `load_idx` says what is raised."""
    if not data.startswith(b"\x1f\x8b"):
        if path.suffix == ".gz":
            raise ValueError(f"{path} is not a gzip file: it starts with {data[:4]!r}")
        return data
    try:
        return gzip.decompress(data)
    except EOFError:
        raise ValueError(f"{path} is truncated: its gzip stream has no end") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a corrupted gzip file: {error}") from error


def parse_pair(
    image_path: Path, image_content: bytes, label_path: Path, label_content: bytes
) -> Pair:
    """Turn the unpacked content of two files into arrays; `load_idx` says which."""
    x = _parse(image_path, image_content, "images")
    t = _parse(label_path, label_content, "labels")
    if len(x) != len(t):
        raise ValueError(
            f"{image_path} holds {len(x)} images and {label_path} {len(t)} labels: "
            "there must be as many of one as of the other"
        )
    return x, t.astype(np.int64)


def _parse(path: Path, content: bytes, kind: str) -> NDArray[np.uint8]:
    ndim = _DIMENSIONS[kind]
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise ValueError(
            f"{path} is not an IDX file: it starts with {magic!r}, "
            f"where {kind} start with {bytes([0, 0, _UNSIGNED_BYTES, ndim])!r}"
        )
    if magic[2] != _UNSIGNED_BYTES:
        raise ValueError(
            f"{path} holds elements of IDX type 0x{magic[2]:02x}; "
            f"it must hold unsigned bytes (0x{_UNSIGNED_BYTES:02x})"
        )
    if magic[3] != ndim:
        other = next((name for name, count in _DIMENSIONS.items() if count == magic[3]), None)
        raise ValueError(
            f"{path} holds {other}, where {kind} are expected: are the two files swapped?"
            if other
            else f"{path} has {magic[3]} dimensions; {kind} have {ndim}"
        )
    header = 4 + 4 * ndim
    if len(content) < header:
        raise ValueError(f"{path} is {len(content)} bytes long, too short for its IDX header")
    shape = np.frombuffer(content, ">u4", ndim, offset=4).tolist()
    if 0 in shape:
        raise ValueError(f"{path} is empty: its sizes are {shape}")
    # Python's integers: the sizes are not to be trusted, and their product may pass 64 bits.
    expected = header + math.prod(shape)
    if len(content) != expected:
        fault = "truncated" if len(content) < expected else "too long"
        raise ValueError(
            f"{path} is {fault}: {len(content)} bytes unpacked, where sizes {shape} make {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
