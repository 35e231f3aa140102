"""Files of arrays and JSON in the format of safetensors, with a digest of all that they hold.

A file is the length of its header in eight bytes; the header, JSON, which says where each array
is; and the arrays. Any reader of safetensors can read it. It is written and read here because
the package safetensors copies all arrays, and ends or stops the process where memory is short.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dlfs_gpu._validation import DataError
from dlfs_gpu.files import open_regular, whole_file

_TYPES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int16": "I16", "uint16": "U16", "int32": "I32",
    "uint32": "U32", "int64": "I64", "uint64": "U64", "float16": "F16", "float32": "F32",
    "float64": "F64",
}  # fmt: skip
_DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in _TYPES.items()}
_DIGEST = 64  # hexadecimal digits of a SHA-256
_BLOCK = 2**20


def write_archive(
    path: str | os.PathLike[str], kind: str, content: Any, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write a file whole, or leave what was there; equal content makes equal files.

    Parameters
    ----------
    path : path
    kind : str
        What the file is, for people and for `read_archive`.
    content
        What JSON can hold.
    arrays : mapping of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    start = _start(kind)
    entry = f"{' ' * _DIGEST} {json.dumps(content)}"  # blanks in place of the digest
    fields: dict[str, Any] = {"__metadata__": {kind: entry}}
    end = 0
    for key, array in arrays.items():
        begin, end = end, end + array.nbytes
        dtype = _TYPES[array.dtype.name]
        fields[key] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    header = json.dumps(fields).encode()
    header += b" " * (-len(header) % 8)
    length, rest = len(header).to_bytes(8, "little"), header[len(start) + _DIGEST :]
    digest = _digest([length, rest, *map(_bytes, arrays.values())])
    with whole_file(path) as part, part.open("wb") as file:
        file.write(length + start + digest + rest)
        for array in arrays.values():
            file.write(_bytes(array))


def read_archive(path: str | os.PathLike[str], kind: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Return content and arrays of a file that `write_archive` wrote.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, or is not a regular file.
    DataError
        If the file is of another kind, or is damaged.
    """
    with open_regular(path) as file:
        length, start, digest = file.read(8), file.read(len(_start(kind))), file.read(_DIGEST)
        rest = iter(lambda: file.read(_BLOCK), b"")
        if start != _start(kind) or digest != _digest(itertools.chain([length], rest)):
            raise DataError(f"{path} is not a {kind}, or is damaged: its SHA-256 is wrong")
        # From here on, all is as `write_archive` wrote it.
        file.seek(8)
        fields = json.loads(file.read(int.from_bytes(length, "little")))
        content = json.loads(fields.pop("__metadata__")[kind][_DIGEST:])
        arrays = {}
        for key, field in fields.items():
            arrays[key] = np.empty(field["shape"], _DTYPES[field["dtype"]])
            file.readinto(arrays[key].data)
    return content, arrays


def _start(kind: str) -> bytes:
    """Return the header up to the digest."""
    return json.dumps({"__metadata__": {kind: ""}})[:-3].encode()


def _bytes(array: np.ndarray) -> memoryview:
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").data


def _digest(parts: Iterable[bytes | memoryview]) -> bytes:
    """Return the SHA-256 of all of a file but its start and the digest itself."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
