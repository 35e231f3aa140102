"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlfs_gpu._files import open_regular, whole_file
from dlfs_gpu._validation import ArgumentError, DataError, check_finite, check_positive
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.models import MultiLayerNet

# All metadata are in one entry: safetensors writes several in an order that changes.
_ENTRY = "dlfs_gpu network"


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
    import safetensors.numpy

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
    kinds = {type(label) for label in labels}
    if kinds not in ({int}, {str}) or not len(labels) == len(set(labels)) == outputs:
        raise ArgumentError(
            "classes",
            f"is {reprlib.repr(labels)}; it must hold {outputs} different whole numbers or words, "
            "one for each output",
        )
    try:
        told = json.loads(json.dumps(dict(data or {})))
    except (TypeError, ValueError) as error:
        raise ArgumentError("data", f"is {data!r}; it must be what JSON can hold") from error
    _check_data(told)
    arrays = {}
    for key, param in network.params.items():
        array = network.backend.to_numpy(param)
        check_finite(key, array)
        arrays[key] = np.ascontiguousarray(array, array.dtype.name)
    content = {
        "sizes": network.sizes,
        "activation": network.activation,
        "classes": labels,
        "data": told,
    }
    entry = json.dumps(content | {"sha256": _digest(content, arrays)})
    with whole_file(path) as part:
        part.write_bytes(safetensors.numpy.save(arrays, {_ENTRY: entry}))


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
            content = dict(json.loads((file.metadata() or {})[_ENTRY]))
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # Of types that NumPy has not, safetensors raises AttributeError or TypeError.
    except (
        SafetensorError,
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(f"{path} is not a file of save_model, or is damaged: {error}") from error
    if content.pop("sha256", None) != _digest(content, arrays):
        raise DataError(f"{path} is damaged: its SHA-256 is not that of its content")
    # From here on, all is as save_model checked and wrote it.
    inputs, *hidden, outputs = content["sizes"]
    network = MultiLayerNet(
        inputs,
        hidden,
        outputs,
        content["activation"],
        weight_init_std=0.0,
        dtype=arrays["W1"].dtype,
        backend=chosen,
    )
    for key, param in network.params.items():
        param[...] = chosen.asarray(arrays[key])
    return Model(network, tuple(content["classes"]), content["data"])


def _digest(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that a file holds, in hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for key, array in sorted(arrays.items()):
        digest.update(f"{key} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _check_data(data: dict[str, Any]) -> None:
    """Raise ArgumentError if what a network was trained on is not told as `save_model` says."""
    features = data.get("features", [])
    fits = {
        "name": isinstance(data.get("name"), str | None),
        "label_column": isinstance(data.get("label_column"), str | None),
        "features": isinstance(features, list) and {type(name) for name in features} <= {str},
    }
    for key, fit in fits.items():
        if not fit:
            kind = "a list of strings" if key == "features" else "a string"
            raise ArgumentError(key, f"in data is {reprlib.repr(data[key])}; it must be {kind}")
    if data.get("scale") is not None:
        check_positive("scale", data["scale"])
