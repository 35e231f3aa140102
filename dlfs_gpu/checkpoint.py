"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import json
import math
import operator
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu._files import whole_file
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.models import MultiLayerNet

_FORMAT = "dlfs_gpu network 1"


@dataclass(frozen=True, eq=False)
class Model:
    """A network from a file.

    Attributes
    ----------
    network : MultiLayerNet
        As it predicts: weight decay and dropout are no part of the file.
    classes : tuple of int
        The label that each output stands for.
    data : dict of str to Any
        What it was trained on, as `save_model` was told.
    """

    network: MultiLayerNet
    classes: tuple[int, ...]
    data: dict[str, Any]


def save_model(
    path: str | os.PathLike[str],
    network: MultiLayerNet,
    *,
    classes: Sequence[int] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write a network to a safetensors file; an existing one stays whole until it is replaced.

    Parameters
    ----------
    path : path
    network : MultiLayerNet
        Its parameters are written as they are, in their type; its activation as metadata.
    classes : sequence of int, optional
        The label that each output stands for; 0, 1, 2, ... by default.
    data : mapping of str to what JSON can hold, optional
        What it was trained on; `dlfs_gpu.cli.sources.Source` says which keys mean what.

    Raises
    ------
    TypeError
        If `network` is not a MultiLayerNet, or `classes` or `data` hold something else.
    ValueError
        If a parameter holds NaN or infinity, or there are not as many classes as outputs, all
        different.
    OSError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    if not isinstance(network, MultiLayerNet):
        raise TypeError(
            f"network is a {type(network).__name__}; it must be a MultiLayerNet, such as "
            "TwoLayerNet, to be built again from a file"
        )
    outputs = network.sizes[-1]
    try:
        labels = [
            operator.index(label) for label in (range(outputs) if classes is None else classes)
        ]
    except TypeError as error:
        raise TypeError(f"classes is {classes!r}; it must hold whole numbers") from error
    _check_classes(labels, outputs)
    try:
        described = json.dumps(dict(data or {}))
    except TypeError as error:
        raise TypeError(f"data is {data!r}; it must be what JSON can hold: {error}") from error
    _check_data(json.loads(described))
    host = network.backend.to_numpy
    # Contiguous, because safetensors writes the memory of any array as if it were.
    arrays = {key: np.ascontiguousarray(host(param)) for key, param in network.params.items()}
    _check_finite(arrays)
    metadata = {
        "format": _FORMAT,
        "activation": network.activation,
        "classes": json.dumps(labels),
        "data": described,
    }
    with whole_file(path) as part:
        part.write_bytes(save(arrays, metadata))


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
        If there is no such file.
    ValueError
        If the file is not one of `save_model`'s, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; it must be a model.safetensors file")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; it must be a model.safetensors file")
    place = get_backend(backend)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # TypeError and AttributeError: a type of numbers that NumPy lacks.
    except (SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} was not written by dlfs_gpu: its metadata lack {_FORMAT!r}")
    try:
        sizes = _sizes(arrays)
        # Earlier versions wrote the sizes too.
        if "sizes" in metadata and (told := _parsed(metadata, "sizes")) != sizes:
            raise ValueError(f"sizes is {told}, but its arrays are of a network of sizes {sizes}")
        _check_finite(arrays)
        classes, data = _parsed(metadata, "classes"), _parsed(metadata, "data")
        _check_classes(classes, sizes[-1])
        _check_data(data)
        network = MultiLayerNet(
            *(sizes[0], sizes[1:-1], sizes[-1]),
            activation=_known(metadata, "activation"),
            dtype=str(arrays["W1"].dtype),
            backend=place,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a network: {error}") from error
    for key, param in network.params.items():
        param[...] = place.asarray(arrays[key])
    return Model(network, tuple(classes), data)


def _sizes(arrays: Mapping[str, np.ndarray]) -> list[int]:
    """Return the sizes of the network whose parameters these are.

    They are taken from the arrays, which are as large as the file, and from nothing that a file
    may claim without holding it.
    """
    keys = [f"{kind}{k}" for k in range(1, len(arrays) // 2 + 1) for kind in "Wb"]
    if not keys or set(keys) != set(arrays):
        raise ValueError(f"it holds {', '.join(sorted(arrays))}; it must hold W1, b1, W2, b2, ...")
    W1 = arrays["W1"]
    if W1.dtype not in (np.float32, np.float64) or W1.ndim != 2:
        raise ValueError(f"W1 is {_described(W1)}; it must be a float32 or float64 matrix")
    sizes = [W1.shape[0]]
    for W, b in zip(keys[::2], keys[1::2], strict=True):
        outputs = arrays[W].shape[-1] if arrays[W].ndim else 0
        for key, shape in ((W, (sizes[-1], outputs)), (b, (outputs,))):
            if arrays[key].shape != shape or arrays[key].dtype != W1.dtype:
                raise ValueError(
                    f"{key} is {_described(arrays[key])}; it must be {W1.dtype} of shape {shape}"
                )
        sizes.append(outputs)
    return sizes


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _known(metadata: Mapping[str, str], key: str) -> str:
    if key not in metadata:
        raise ValueError(f"its metadata lack {key!r}")
    return metadata[key]


def _parsed(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(_known(metadata, key))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{key} is not JSON: {error}") from error


def _check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{key} holds NaN or infinity; every number must be finite")


def _check_classes(classes: Any, outputs: int) -> None:
    if not isinstance(classes, list) or not all(
        type(label) is int and -(2**63) <= label < 2**63 for label in classes
    ):
        raise ValueError(f"classes is {reprlib.repr(classes)}; it must be a list of whole numbers")
    if len(classes) != outputs:
        raise ValueError(f"classes has {len(classes)} labels; the network has {outputs} outputs")
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes is {reprlib.repr(classes)}; no label may be there twice")


def _check_data(data: Any) -> None:
    """Raise ValueError if what a network was trained on is not told as `train` tells it."""
    if not isinstance(data, dict):
        raise ValueError(f"data is {reprlib.repr(data)}; it must be an object")
    for key, (is_right, description) in _DATA.items():
        if key in data and not is_right(data[key]):
            raise ValueError(
                f"{key} in data is {reprlib.repr(data[key])}; it must be {description}"
            )


def _is_scale(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 < value < math.inf)


_DATA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a string"),
    "test_data": (lambda value: isinstance(value, str | None), "a string or null"),
    "label_column": (lambda value: isinstance(value, str | None), "a string or null"),
    "scale": (_is_scale, "a positive number or null"),
    "features": (
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
        "a list of strings",
    ),
    "rows": (
        lambda value: isinstance(value, dict) and all(type(n) is int for n in value.values()),
        "an object of whole numbers",
    ),
}
"""What the keys of `Model.data` must hold where they are there, and how to say so."""
