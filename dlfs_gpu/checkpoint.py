"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.networks import MultiLayerNet

_FORMAT = "dlfs_gpu network 1"


@dataclass(frozen=True)
class Model:
    """A network from a file.

    Attributes
    ----------
    network : MultiLayerNet
    classes : tuple of int
        The label that each output stands for.
    data : str
        What it was trained on: a name, or the path of a CSV file.
    """

    network: MultiLayerNet
    classes: tuple[int, ...]
    data: str


def save_model(
    path: str | os.PathLike[str],
    network: MultiLayerNet,
    *,
    classes: Sequence[int] | None = None,
    data: str = "",
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
    data : str, optional
        What it was trained on.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    metadata = {
        "format": _FORMAT,
        "sizes": json.dumps(network.sizes),
        "activation": network.activation,
        "classes": json.dumps(list(classes or range(network.sizes[-1]))),
        "data": data,
    }
    arrays = {key: network.backend.to_numpy(param) for key, param in network.params.items()}
    part = path.with_name(path.name + ".part")
    save_file(arrays, part, metadata)
    os.replace(part, path)


def load_model(path: str | os.PathLike[str], *, backend: str | Backend | None = None) -> Model:
    """Read a network that `save_model` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not one of `save_model`'s, or is damaged.
    """
    import numpy as np
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
    sizes = json.loads(metadata["sizes"])
    network = MultiLayerNet(
        sizes[0],
        sizes[1:-1],
        sizes[-1],
        metadata["activation"],
        0.0,
        dtype=arrays["W1"].dtype.name,
        backend=place,
    )
    for key, param in network.params.items():
        if key not in arrays or arrays[key].shape != param.shape:
            raise ValueError(f"{path} must hold {key} with shape {param.shape}")
        if not np.isfinite(arrays[key]).all():
            raise ValueError(f"{path} holds NaN or infinity in {key}")
        param[...] = place.asarray(arrays[key])
    return Model(network, tuple(json.loads(metadata["classes"])), metadata.get("data", ""))
