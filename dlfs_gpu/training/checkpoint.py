"""The state of a training in a file, from which it goes on as if it had never stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from array_api_compat import is_array_api_obj

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import to_numpy
from dlfs_gpu.files.archive import read_archive, write_archive

_KIND = "dlfs_gpu checkpoint"
# Elements of data that are copied from the device together, in whole rows.
_BLOCK = 2**22


def write_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state to a file that is whole, or leave the one that was there.

    Parameters
    ----------
    path : path
    state : mapping of str to Any
        Numbers, texts, arrays of any library, ``numpy.random.Generator``, None, and lists, tuples
        and dictionaries of these.

    Raises
    ------
    TypeError
        If something else is in it; the message names it.
    OSError
        If the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    content = {name: _encoded(value, name, arrays) for name, value in state.items()}
    write_archive(path, _KIND, content, arrays)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state in a file of `write_checkpoint`, with NumPy arrays.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, or is not a regular file.
    DataError
        If the file is not a checkpoint, or is damaged.
    """
    content, arrays = read_archive(path, _KIND)
    return {name: _decoded(value, arrays) for name, value in content.items()}


def with_arrays(value: Any, put: Callable[[np.ndarray], Array]) -> Any:
    """Return a state with `put` of each array in it."""
    if isinstance(value, np.ndarray):
        return put(value)
    if isinstance(value, dict):
        return {key: with_arrays(part, put) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(with_arrays(part, put) for part in value)
    return value


def digest_of(*arrays: Array) -> str:
    """Return the SHA-256 of arrays: of types, shapes and elements, on any device."""
    digest = hashlib.sha256()
    for x in arrays:
        rows = max(1, _BLOCK * x.shape[0] // x.size)
        for start in range(0, x.shape[0], rows):
            block = np.ascontiguousarray(to_numpy(x[start : start + rows, ...]))
            if start == 0:
                digest.update(f"{block.dtype} {tuple(x.shape)}".encode())
            digest.update(block.data)
    return digest.hexdigest()


def _encoded(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return what JSON can hold for a part of a state; arrays are put into `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic) or is_array_api_obj(value):
        arrays[name] = to_numpy(value)
        return {"number" if isinstance(value, np.generic) else "array": name}
    if isinstance(value, np.random.Generator):
        bits: Any = value.bit_generator
        # The seeds too: which generators are spawned next is no part of the state.
        return {"generator": _encoded([bits.state, bits.seed_seq.state], name, arrays)}
    if type(value) in (list, tuple):
        parts = [_encoded(part, f"{name}[{k}]", arrays) for k, part in enumerate(value)]
        return {type(value).__name__: parts}
    if type(value) is dict and all(type(key) is str for key in value):
        return {
            "dict": {key: _encoded(part, f"{name}.{key}", arrays) for key, part in value.items()}
        }
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint cannot hold")


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "number":
        return arrays[content][()]
    if kind == "dict":
        return {key: _decoded(part, arrays) for key, part in content.items()}
    if kind == "generator":
        state, seeds = _decoded(content, arrays)
        bits = getattr(np.random, state["bit_generator"])(np.random.SeedSequence(**seeds))
        bits.state = state
        return np.random.Generator(bits)
    parts = [_decoded(part, arrays) for part in content]
    return parts if kind == "list" else tuple(parts)
