"""Files of arrays and JSON: safetensors, with a digest of all that they hold."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dlfs_gpu._files import open_regular, whole_file
from dlfs_gpu._validation import DataError


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
    import safetensors.numpy

    text = json.dumps(content)
    native = {
        key: np.asarray(array, array.dtype.newbyteorder("="), order="C")
        for key, array in arrays.items()
    }
    # The metadata are one entry, because safetensors writes several in random order.
    entry = f"{_digest(text, native)} {text}"
    with whole_file(path) as part:
        part.write_bytes(safetensors.numpy.save(native, {kind: entry}))


def read_archive(path: str | os.PathLike[str], kind: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Return content and arrays of a file that `write_archive` wrote.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, or is not a regular file.
    DataError
        If the file is of another kind, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    with open_regular(path):
        pass  # safetensors calls every file that it cannot read missing
    try:
        with safe_open(path, framework="numpy") as file:
            entry = (file.metadata() or {}).get(kind, "")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # The others are of types and shapes that NumPy has not.
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    digest, _, text = entry.partition(" ")
    if digest != _digest(text, arrays):
        raise DataError(f"{path} is not a {kind}, or is damaged: its SHA-256 is wrong")
    return json.loads(text), arrays


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that a file holds, in hexadecimal digits."""
    digest = hashlib.sha256(text.encode())
    for key, array in sorted(arrays.items()):
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
