"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from dlfs_gpu._files import open_regular, whole_file
from dlfs_gpu._validation import (
    ArgumentError,
    DataError,
    check_choice,
    check_finite,
    check_positive,
)
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.models import ACTIVATIONS, MultiLayerNet

_FORMAT = "dlfs_gpu network 1"
_DTYPES = {"F32": "float32", "F64": "float64"}


@dataclass(frozen=True, eq=False)
class Model:
    """A network from a file.

    Attributes
    ----------
    network : MultiLayerNet
        As it predicts: weight decay and dropout are no part of the file.
    classes : tuple of int or of str
        The label that each output stands for.
    data : dict of str to Any
        What it was trained on, as `save_model` was told.
    """

    network: MultiLayerNet
    classes: tuple[int, ...] | tuple[str, ...]
    data: dict[str, Any]


def save_model(
    path: str | os.PathLike[str],
    network: MultiLayerNet,
    *,
    classes: Sequence[int] | Sequence[str] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to a safetensors file; an existing one stays whole until it is replaced.

    Equal networks make equal files.

    Parameters
    ----------
    path : path
    network : MultiLayerNet
        Its parameters are written as they are, in their type; its activation as metadata.
    classes : sequence of int or of str, optional
        The label that each output stands for; 0, 1, 2, ... by default.
    data : mapping of str to what JSON can hold, optional
        What it was trained on: "name", and of CSV files "label_column", "scale" and "features", as
        for `dlfs_gpu.load_csv`.

    Raises
    ------
    TypeError
        If `network` is not a MultiLayerNet.
    ArgumentError
        If a parameter holds NaN or infinity; if there are not as many classes as outputs, all
        different; or if `data` holds something else.
    OSError
        If the file cannot be written.
    """
    if not isinstance(network, MultiLayerNet):
        raise TypeError(
            f"network is a {type(network).__name__}; it must be a MultiLayerNet, such as "
            "TwoLayerNet, to be built again from a file"
        )
    outputs = network.sizes[-1]
    labels = [
        label.item() if isinstance(label, np.generic) else label
        for label in (range(outputs) if classes is None else classes)
    ]
    _check_classes(labels, outputs)
    try:
        described = json.dumps(dict(data or {}))
    except (TypeError, ValueError) as error:
        raise ArgumentError("data", f"is {data!r}; it must be what JSON can hold") from error
    _check_data(json.loads(described))
    to_numpy = network.backend.to_numpy
    arrays = {key: _little_endian(to_numpy(param)) for key, param in network.params.items()}
    for key, array in arrays.items():
        check_finite(key, array)
    metadata = {
        "format": _FORMAT,
        "activation": network.activation,
        "classes": json.dumps(labels),
        "data": described,
    }
    digest = _digest(metadata)
    for array in arrays.values():
        digest.update(array)
    with whole_file(path) as part, part.open("wb") as file:
        _write(file, arrays, {**metadata, "sha256": digest.hexdigest()})


def load_model(path: str | os.PathLike[str], *, backend: str | Backend | None = None) -> Model:
    """Read a network that `save_model` wrote.

    Parameters
    ----------
    path : path
    backend : str or Backend, optional
        Where to put it, as for `dlfs_gpu.get_backend`.

    Raises
    ------
    OSError
        If the file is missing, cannot be read, or is not a regular file.
    DataError
        If the file is not one of `save_model`'s, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    chosen = get_backend(backend)
    with open_regular(path):
        pass  # safetensors calls every file that it cannot read missing
    try:
        with safe_open(path, framework="numpy") as file:
            return _read(file, chosen)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    except ArgumentError as error:
        raise DataError(f"{path} does not hold a network: {error}") from error


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: the header's length, the header in JSON, and the arrays' bytes.

    The library's own function writes metadata in random order, needs twice the memory, and has
    errors of its own for a full disk.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    names = {dtype: name for name, dtype in _DTYPES.items()}
    end = 0
    for key, array in arrays.items():
        start, end = end, end + array.nbytes
        header[key] = {
            "dtype": names[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(array.data)


def _read(file: Any, backend: Backend) -> Model:
    """Read an open file: all that can be checked first, then one array after the other."""
    metadata = file.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise ArgumentError("format", f"in its metadata is not {_FORMAT!r}")
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
    sizes = _sizes({key: tuple(part.get_shape()) for key, part in slices.items()})
    dtypes = {part.get_dtype() for part in slices.values()}
    if len(dtypes) > 1 or not dtypes <= _DTYPES.keys():
        raise ArgumentError("dtypes", f"are {sorted(dtypes)}; they must be all F32, or all F64")
    activation = check_choice("activation", metadata.get("activation"), ACTIVATIONS)
    classes, data = _parsed(metadata, "classes"), _parsed(metadata, "data")
    _check_classes(classes, sizes[-1])
    _check_data(data)
    network = MultiLayerNet(
        sizes[0],
        sizes[1:-1],
        sizes[-1],
        activation,
        weight_init_std=0.0,
        dtype=_DTYPES[dtypes.pop()],
        backend=backend,
    )
    digest = _digest(metadata)
    for key, param in network.params.items():
        array = file.get_tensor(key)
        check_finite(key, array)
        digest.update(_little_endian(array))
        param[...] = backend.asarray(array)
    # Earlier versions wrote none.
    if metadata.get("sha256", digest.hexdigest()) != digest.hexdigest():
        raise ArgumentError("sha256", "is not that of its content: the file is damaged")
    return Model(network, tuple(classes), data)


def _little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array as safetensors files hold it, itself where it is so already."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _digest(metadata: Mapping[str, str]) -> Any:
    """Return a SHA-256 of the metadata, its own aside, to be updated with the arrays."""
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode())


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Return the sizes of the network whose parameters have these shapes.

    They are taken from the arrays, which are as large as the file, and from nothing that a file
    may claim without holding it.
    """
    layers = range(1, len(shapes) // 2 + 1)
    if not shapes or set(shapes) != {f"{kind}{k}" for k in layers for kind in "Wb"}:
        raise ArgumentError("arrays", f"are {reprlib.repr(sorted(shapes))}; W1, b1, ... must be")
    sizes: list[int] = []
    for k in layers:
        W, b = shapes[f"W{k}"], shapes[f"b{k}"]
        if len(W) != 2 or 0 in W or b != W[1:] or (sizes and W[0] != sizes[-1]):
            raise ArgumentError(
                f"W{k}",
                f"has shape {reprlib.repr(W)} and b{k} {reprlib.repr(b)}; they must be "
                f"({sizes[-1] if sizes else 'inputs'}, outputs) and (outputs,)",
            )
        sizes += W if not sizes else W[1:]
    return sizes


def _parsed(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata[key])
    except KeyError:
        raise ArgumentError(key, "is missing from its metadata") from None
    except (ValueError, RecursionError) as error:
        raise ArgumentError(key, f"in its metadata is not JSON: {error}") from error


def _check_classes(classes: Any, outputs: int) -> None:
    """Raise ArgumentError if these cannot be the classes of so many outputs."""
    kinds = {type(label) for label in classes} if isinstance(classes, list) else set()
    fit = kinds == {str} or (kinds == {int} and all(-(2**63) <= k < 2**63 for k in classes))
    if not fit or len(classes) != outputs or len(set(classes)) != outputs:
        raise ArgumentError(
            "classes",
            f"is {reprlib.repr(classes)}; it must hold {outputs} different whole numbers or words, "
            "one for each output",
        )


def _check_data(data: Any) -> None:
    """Raise ArgumentError if what a network was trained on is not told as `save_model` says."""
    if not isinstance(data, dict):
        raise ArgumentError("data", f"is {reprlib.repr(data)}; it must be an object")
    for key in ("name", "label_column"):
        if not isinstance(data.get(key), str | None):
            raise ArgumentError(key, f"in data is {reprlib.repr(data[key])}; it must be a string")
    if data.get("scale") is not None:
        check_positive("scale", data["scale"])
    features = data.get("features", [])
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ArgumentError(
            "features", f"in data is {reprlib.repr(features)}; it must be a list of strings"
        )
