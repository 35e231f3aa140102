"""DeZero, the framework of the series' third volume."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from benchmarks.peers import Job, TrainingPeer
from benchmarks.work import Work


class Training(TrainingPeer):
    """`dezero.models.MLP` and `dezero.optimizers.SGD`."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        # DeZero 0.0.13 still uses a name that NumPy dropped in 1.24.
        vars(np).setdefault("int", int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dezero: Any = importlib.import_module("dezero")
        self.functions = dezero.functions
        activation = getattr(dezero.functions, work.activation)
        self.model = dezero.models.MLP(work.sizes[1:], activation)
        arrays = [array.astype(np.float32) for array in work.weights()]
        for layer, W, b in zip(self.model.layers, arrays[::2], arrays[1::2], strict=True):
            layer.W.data, layer.b.data = W, b
        self.optimizer = dezero.optimizers.SGD(work.lr).setup(self.model)
        self.x, self.t = work.images()

    def run(self, job: Job) -> list[Any]:
        """Train."""
        losses = []
        for rows in job:
            scores = self.model(self.x[rows])
            loss = self.functions.softmax_cross_entropy(scores, self.t[rows])
            self.model.cleargrads()
            loss.backward()
            self.optimizer.update()
            losses.append(loss.data)
        return losses
