"""dlfs_gpu itself, in float32."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from benchmarks.work import Array, Do, Job, Work
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.gradient import numerical_gradient
from dlfs_gpu.kernels import use_kernels
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD
from dlfs_gpu.training.update import Update


def training(work: Work, gpu: bool) -> Do:
    """`Update`, as `Trainer` calls it."""
    backend = _backend(gpu)
    x, t = map(backend.asarray, work.images())
    update = Update(network(work, backend), SGD(work.lr), x, t, work.batch)

    def do(job: Job) -> Array:
        with update.threads():
            losses = list(update.run(backend.asarray(job)))
        return backend.to_numpy(backend.xp.concat(losses))

    return do


def array_training(work: Work, gpu: bool) -> Do:
    """`training`, by array operations alone."""
    with_kernels = training(work, gpu)

    def do(job: Job) -> Array:
        with use_kernels("off"):
            return with_kernels(job)

    return do


def network_gradient(work: Work, gpu: bool) -> Do:
    """``Network.numerical_gradient`` by differences, of all parameters."""
    backend = _backend(gpu)
    stack = network(work, backend)
    x, t = map(backend.asarray, work.minibatch())
    return lambda _: _joined(backend, stack.numerical_gradient(x, t, work.h))


def function_gradient(work: Work, gpu: bool) -> Do:
    """`numerical_gradient` by differences, of plain code as a function of W1."""
    backend = _backend(gpu)
    loss = _plain_loss(work, backend)
    W1 = backend.asarray(work.weights()[0], "float32")

    def do(job: Job) -> Array:
        grad = numerical_gradient(lambda W: loss([W]), W1, work.h, method="difference")
        return backend.to_numpy(grad).ravel()

    return do


def loop_gradient(work: Work, gpu: bool) -> Do:
    """`numerical_gradient` by evaluating plain code once for each point."""
    return _evaluated(work, _backend(gpu), "loop")


def batched_gradient(work: Work, gpu: bool) -> Do:
    """`numerical_gradient` by evaluating plain code on many points together."""
    return _evaluated(work, _backend(gpu), "batched")


def network(work: Work, backend: Backend, dtype: str = "float32") -> MultiLayerNet:
    """Return the network of a work with its weights."""
    inputs, *hidden, classes = work.sizes
    result = MultiLayerNet(inputs, hidden, classes, work.activation, dtype=dtype, backend=backend)
    for key, array in zip(result.params, work.weights(), strict=True):
        result.params[key] = backend.asarray(array, dtype)
    return result


def reference_gradient(work: Work) -> Array:
    """Return the central differences of the variables in float64, as one vector."""
    backend = get_backend("numpy")
    x, t = work.minibatch()
    grads = network(work, backend, "float64").numerical_gradient(x, t, work.h)
    return _joined(backend, grads)[: work.parameters]


def _backend(gpu: bool) -> Backend:
    return get_backend("cupy" if gpu else "numpy")


def _joined(backend: Backend, grads: dict[str, Any]) -> Array:
    return np.concatenate([backend.to_numpy(grad).ravel() for grad in grads.values()])


def _plain_loss(work: Work, backend: Backend) -> Any:
    """Return the mean loss as a function of the variables, in plain NumPy code.

    Of variables that are each stacked along a new first axis it returns a loss for each.
    """
    x, labels = work.minibatch()
    x = backend.asarray(x)
    t = backend.asarray(np.eye(work.sizes[-1], dtype=np.float32)[labels])
    weights = [backend.asarray(array, "float32") for array in work.weights()]

    def loss(variables: list[Any]) -> Any:
        params = variables + weights[len(variables) :]
        *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
        z: Any = x
        for V, c in hidden:
            a = z @ V + c[..., None, :]
            z = 1 / (1 + np.exp(-a)) if work.activation == "sigmoid" else np.maximum(a, 0)
        scores = z @ W + b[..., None, :]
        e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        y = e / np.sum(e, axis=-1, keepdims=True)
        return -np.mean(np.sum(t * np.log(y), axis=-1), axis=-1)

    return loss


def _evaluated(work: Work, backend: Backend, method: Literal["loop", "batched"]) -> Do:
    """Return a function that differentiates by those elements of the variables that it is given."""
    loss = _plain_loss(work, backend)
    variables = work.variables()
    flat = backend.asarray(np.concatenate([array.ravel() for array in variables]), "float32")
    ends = np.cumsum([array.size for array in variables])[:-1].tolist()

    def do(job: Job) -> Array:
        elements = backend.asarray(job)

        def losses(moved: Any) -> Any:
            copies = backend.xp.tile(flat, (*moved.shape[:-1], 1))
            copies[..., elements] = moved
            parts = zip(backend.xp.split(copies, ends, axis=-1), variables, strict=True)
            return loss([part.reshape(*moved.shape[:-1], *a.shape) for part, a in parts])

        # As many copies of all variables at once as fit the library's default budget.
        budget = 2**28 * len(job) // work.parameters
        x = flat[elements]
        grad = numerical_gradient(losses, x, work.h, method=method, max_memory=budget)
        return backend.to_numpy(grad)

    return do
