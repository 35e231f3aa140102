"""dlfs_gpu itself."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import numpy as np

from benchmarks.peers import GradientPeer, Job, Peer, TrainingPeer, Values
from benchmarks.work import Work
from benchmarks.worker import PeerError
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.gradient import Method, numerical_gradient
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD
from dlfs_gpu.training.update import Update


class _Library(Peer):
    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.backend = get_backend("cupy" if gpu else "numpy")

    def synchronize(self) -> None:
        """Wait for the device."""
        self.backend.synchronize()


class Training(_Library, TrainingPeer):
    """`Update` in float32, the default."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        x, t = map(self.backend.asarray, work.images())
        self.update = Update(network(work, self.backend), SGD(work.lr), x, t, work.batch)

    def run(self, job: Job) -> list[Any]:
        """Train."""
        return [self.update(rows) for rows in self.backend.asarray(job)]


class NetworkGradient(_Library, GradientPeer):
    """``Network.numerical_gradient`` by differences, of all parameters."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.network = network(work, self.backend)
        self.x, self.t = map(self.backend.asarray, work.minibatch())

    def run(self, job: Job) -> Any:
        """Differentiate."""
        return self.network.numerical_gradient(self.x, self.t, self.work.h)

    def values(self, results: Any) -> Values:
        """Return the gradient as one vector."""
        return _joined([self.backend.to_numpy(grad) for grad in results.values()])


class _FunctionGradient(_Library, GradientPeer):
    """`numerical_gradient` of plain NumPy code, of the work's variables."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        x, labels = work.minibatch()
        self.x = self.backend.asarray(x)
        self.t = self.backend.asarray(np.eye(work.sizes[-1], dtype=np.float32)[labels])
        self.params = [self.backend.asarray(array, "float32") for array in work.weights()]

    def loss(self, variables: list[Any]) -> Any:
        """Return the mean loss, or one for each of the variables stacked along a new first axis."""
        params = variables + self.params[len(variables) :]
        x = self.x
        *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
        for V, c in hidden:
            x = x @ V + c[..., None, :]
            x = 1 / (1 + np.exp(-x)) if self.work.activation == "sigmoid" else np.maximum(x, 0)
        scores = x @ W + b[..., None, :]
        e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        y = e / np.sum(e, axis=-1, keepdims=True)
        return -np.mean(np.sum(self.t * np.log(y), axis=-1), axis=-1)

    def values(self, results: Any) -> Values:
        """Return the derivatives as one vector."""
        return super().values(self.backend.to_numpy(results)).ravel()


class DifferenceGradient(_FunctionGradient):
    """``method="difference"``, of all elements of W1."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        if "difference" not in get_args(Method):
            raise PeerError("numerical_gradient has no method='difference' for functions yet")

    def run(self, job: Job) -> Any:
        """Differentiate."""
        method: Any = "difference"
        return numerical_gradient(
            lambda W1: self.loss([W1]), self.params[0], self.work.h, method=method
        )


class LoopGradient(_FunctionGradient):
    """``method="loop"``, of a part of the elements to extrapolate from."""

    elements = 200
    method: ClassVar[Method] = "loop"

    def run(self, job: Job) -> Any:
        """Differentiate."""
        elements = self.backend.asarray(job)
        variables = self.params[: len(self.work.variables())]
        flat = self.backend.xp.concatenate([array.ravel() for array in variables])

        def losses(moved: Any) -> Any:
            stack = moved.shape[:-1]
            copies = self.backend.xp.tile(flat, (*stack, 1))
            copies[..., elements] = moved
            parts, start = [], 0
            for array in variables:
                part = copies[..., start : start + array.size]
                parts.append(part.reshape(*stack, *array.shape))
                start += array.size
            return self.loss(parts)

        # As many copies of all variables at once as fit the library's default budget.
        budget = 2**28 * len(job) // self.work.parameters
        x = flat[elements]
        return numerical_gradient(
            losses, x, self.work.h, method=self.method, max_memory=budget
        )


class BatchedGradient(LoopGradient):
    """``method="batched"``, of a part of the elements to extrapolate from."""

    elements = 1000
    method = "batched"


def network(work: Work, backend: Backend, dtype: str = "float32") -> MultiLayerNet:
    """Return the network of a work with its weights."""
    inputs, *hidden, classes = work.sizes
    result = MultiLayerNet(inputs, hidden, classes, work.activation, dtype=dtype, backend=backend)
    for key, array in zip(result.params, work.weights(), strict=True):
        result.params[key] = backend.asarray(array, dtype)
    return result


def reference_gradient(work: Work) -> Values:
    """Return the central differences of the variables in float64, as one vector."""
    x, t = work.minibatch()
    grads = network(work, get_backend("numpy"), "float64").numerical_gradient(x, t, work.h)
    return _joined(list(grads.values()))[: work.parameters]


def _joined(arrays: list[Any]) -> Values:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
