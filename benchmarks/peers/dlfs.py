"""dlfs_gpu itself."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Device, GradientPeer, Job, Peer, TrainingPeer
from benchmarks.work import Work
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.gradient import numerical_gradient
from dlfs_gpu.losses import as_one_hot
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD
from dlfs_gpu.training.update import Update


class _Library(Peer):
    dtype = "float32"

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        self.backend = get_backend("cupy" if device == "GPU" else "numpy")
        if device == "GPU":
            self.pool = self.backend.xp.get_default_memory_pool()
        self.network = network(work, self.backend, self.dtype)

    def synchronize(self) -> None:
        """Wait for the device."""
        self.backend.synchronize()


class Training(_Library, TrainingPeer):
    """`Update` in float32, the default."""

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        x, t = map(self.backend.asarray, work.images())
        x, t = self.network.check(x, t)
        self.update = Update(self.network, SGD(work.lr), x, t, work.batch)

    def run(self, job: Job) -> list[Any]:
        """Train."""
        return [self.update(rows) for rows in self.backend.asarray(job)]


class DifferenceGradient(_Library, GradientPeer):
    """``numerical_gradient(method="difference")`` of all parameters."""

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        self.x, self.t = map(self.backend.asarray, work.minibatch())

    def run(self, job: Job) -> dict[str, Any]:
        """Differentiate."""
        return self.network.numerical_gradient(self.x, self.t, self.work.h)

    def values(self, results: dict[str, Any]) -> NDArray[np.float64]:
        """Return the gradient as one vector."""
        arrays = [self.backend.to_numpy(results[key]).ravel() for key in self.network.params]
        return np.concatenate(arrays).astype(np.float64)


class BatchedGradient(_Library, GradientPeer):
    """``numerical_gradient(method="batched")``, of a part of the parameters to extrapolate from."""

    elements = 1000

    def __init__(self, work: Work, device: Device) -> None:
        super().__init__(work, device)
        x, t = map(self.backend.asarray, work.minibatch())
        self.x, t = self.network.check(x, t)
        self.t = as_one_hot(t, work.sizes[-1], self.network.dtype)
        self.flat = self.backend.asarray(work.flat_weights(), self.dtype)

    def run(self, job: Job) -> Any:
        """Differentiate."""
        elements = self.backend.asarray(job)

        def losses(moved: Any) -> Any:
            stacked = self.backend.xp.tile(self.flat, (len(moved), 1))
            stacked[:, elements] = moved
            return self.network.mean_loss(self.x, self.t, training=True, **self._params(stacked))

        # As many copies of all parameters at once as fit the library's default budget.
        budget = 2**28 * len(job) // self.work.parameters
        x = self.flat[elements]
        return numerical_gradient(losses, x, self.work.h, method="batched", max_memory=budget)

    def values(self, results: Any) -> NDArray[np.float64]:
        """Return the derivatives."""
        return self.backend.to_numpy(results).astype(np.float64)

    def _params(self, stacked: Any) -> dict[str, Any]:
        params, start = {}, 0
        for key, param in self.network.params.items():
            stop = start + math.prod(param.shape)
            params[key] = stacked[:, start:stop].reshape(-1, *param.shape)
            start = stop
        return params


def network(work: Work, backend: Backend, dtype: str) -> MultiLayerNet:
    """Return the network of a work with its weights."""
    inputs, *hidden, classes = work.sizes
    result = MultiLayerNet(inputs, hidden, classes, work.activation, dtype=dtype, backend=backend)
    arrays = itertools.chain.from_iterable(work.weights())
    for key, array in zip(result.params, arrays, strict=True):
        result.params[key] = backend.asarray(array, dtype)
    return result


def reference_gradient(work: Work) -> NDArray[np.float64]:
    """Return the central differences of all parameters in float64, as one vector."""
    place = get_backend("numpy")
    x, t = work.minibatch()
    grads = network(work, place, "float64").numerical_gradient(x, t, work.h)
    return np.concatenate([grad.ravel() for grad in grads.values()])
