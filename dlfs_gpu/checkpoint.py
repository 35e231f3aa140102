"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.files import whole_file
from dlfs_gpu.networks import MultiLayerNet

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
        Its parameters are written as they are, in their type; its sizes and activation as
        metadata.
    classes : sequence of int, optional
        The label that each output stands for; 0, 1, 2, ... by default.
    data : mapping of str to what JSON can hold, optional
        What it was trained on.

    Raises
    ------
    ValueError
        If there are not as many classes as outputs.
    OSError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    outputs = network.sizes[-1]
    labels = [int(label) for label in (range(outputs) if classes is None else classes)]
    if len(labels) != outputs:
        raise ValueError(f"classes has {len(labels)} labels; the network has {outputs} outputs")
    metadata = {
        "format": _FORMAT,
        "sizes": json.dumps(network.sizes),
        "activation": network.activation,
        "classes": json.dumps(labels),
        "data": json.dumps(dict(data or {})),
    }
    host = network.backend.to_numpy
    # Contiguous, because safetensors writes the memory of any array as if it were.
    arrays = {key: np.ascontiguousarray(host(param)) for key, param in network.params.items()}
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
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of `save_model`'s, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; it must be a model.safetensors file")
    place = get_backend(backend)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} was not written by dlfs_gpu: its metadata lack {_FORMAT!r}")
    try:
        sizes = json.loads(metadata["sizes"])
        network = MultiLayerNet(
            *(sizes[0], sizes[1:-1], sizes[-1]),
            activation=metadata["activation"],
            dtype=str(arrays["W1"].dtype),
            backend=place,
        )
        model = Model(network, tuple(json.loads(metadata["classes"])), json.loads(metadata["data"]))
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a network: {error!r}") from error
    if len(model.classes) != sizes[-1]:
        raise ValueError(
            f"{path} has {len(model.classes)} classes; its network has {sizes[-1]} outputs"
        )
    for key, param in network.params.items():
        array = arrays.get(key)
        if array is None or array.shape != param.shape or array.dtype != param.dtype:
            found = "lacks it" if array is None else f"has {array.dtype} of shape {array.shape}"
            raise ValueError(
                f"{path}: {key} must be {param.dtype} of shape {param.shape}; the file {found}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{path} holds NaN or infinity in {key}")
        param[...] = place.asarray(array)
    return model
