"""DeZero, the framework of the series' third volume."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from benchmarks.work import Array, Do, Job, Work


def training(work: Work, gpu: bool) -> Do:
    """`dezero.models.MLP` and `dezero.optimizers.SGD`."""
    # DeZero 0.0.13 still uses a name that NumPy dropped in 1.24.
    vars(np).setdefault("int", int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dezero: Any = importlib.import_module("dezero")
    model = dezero.models.MLP(work.sizes[1:], getattr(dezero.functions, work.activation))
    arrays = [array.astype(np.float32) for array in work.weights()]
    for layer, W, b in zip(model.layers, arrays[::2], arrays[1::2], strict=True):
        layer.W.data, layer.b.data = W, b
    optimizer = dezero.optimizers.SGD(work.lr).setup(model)
    x, t = work.images()

    def do(job: Job) -> Array:
        losses = []
        for rows in job:
            loss = dezero.functions.softmax_cross_entropy(model(x[rows]), t[rows])
            model.cleargrads()
            loss.backward()
            optimizer.update()
            losses.append(loss.data)
        return np.array(losses)

    return do
