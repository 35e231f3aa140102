"""Trained networks in safetensors files, with what is needed to build them again."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlfs_gpu._validation import ArgumentError, check_finite
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.files.archive import read_archive, write_archive
from dlfs_gpu.models import MultiLayerNet

_KIND = "dlfs_gpu network"


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
        different; or if `data` holds what JSON cannot.
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
    kinds = {type(label) for label in labels}
    if kinds not in ({int}, {str}) or not len(labels) == len(set(labels)) == outputs:
        raise ArgumentError(
            "classes",
            f"is {reprlib.repr(labels)}; it must hold {outputs} different whole numbers or words, "
            "one for each output",
        )
    data = dict(data or {})
    try:
        json.dumps(data)
    except (TypeError, ValueError) as error:
        raise ArgumentError("data", f"is {data!r}; it must be what JSON can hold") from error
    arrays = {key: network.backend.to_numpy(param) for key, param in network.params.items()}
    for key, array in arrays.items():
        check_finite(key, array)
    content = {
        "sizes": network.sizes,
        "activation": network.activation,
        "classes": labels,
        "data": data,
    }
    write_archive(path, _KIND, content, arrays)


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
    chosen = get_backend(backend)
    # What is read is as save_model checked and wrote it.
    content, arrays = read_archive(path, _KIND)
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
