"""The network that ``train`` and ``gradcheck`` make."""

from __future__ import annotations

from dlfs_gpu._validation import ArgumentError
from dlfs_gpu.backend import Backend
from dlfs_gpu.cli.settings import NetworkSettings
from dlfs_gpu.data import DataSet
from dlfs_gpu.models import MultiLayerNet

# Layers of this size lie beyond any memory, but not beyond the integers that count bytes.
_LARGEST_LAYER = 10**9


def make_network(settings: NetworkSettings, data: DataSet, backend: Backend) -> MultiLayerNet:
    """Return a new network for the data; with one sigmoid layer, that of the chapter.

    Raises
    ------
    ArgumentError
        If a setting is out of range.
    """
    text = settings.hidden
    try:
        hidden = [int(part) for part in text.split(",")] if text.strip() else []
    except ValueError:
        raise ArgumentError(
            "hidden", f"is {text!r}; it must be whole numbers with commas between, such as 512,512"
        ) from None
    if max(hidden, default=0) > _LARGEST_LAYER:
        raise ArgumentError("hidden", f"is {text!r}; a layer can have {_LARGEST_LAYER:,} units")
    weight_init_std: float | str = "relu" if settings.activation == "relu" else "sigmoid"
    if len(hidden) == 1 and settings.activation == "sigmoid":
        weight_init_std = 0.01
    return MultiLayerNet(
        data.x_train.shape[1],
        hidden,
        len(data.classes),
        settings.activation,
        weight_init_std,
        settings.weight_decay_lambda,
        dropout_ratio=settings.dropout_ratio,
        seed=settings.seed,
        dtype=settings.dtype,
        backend=backend,
    )
