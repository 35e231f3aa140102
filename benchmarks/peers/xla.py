"""JAX."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from benchmarks.work import Array, Do, Job, Work

# Without this the first JAX process would take most of the GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# Imported by name, so that mypy takes them as they are.
jax: Any = importlib.import_module("jax")
flatten_util: Any = importlib.import_module("jax.flatten_util")
# True float32, as the others compute by default, not TF32.
jax.config.update("jax_default_matmul_precision", "highest")


def step_training(work: Work, gpu: bool) -> Do:
    """One `jax.jit` call for each update, gather included."""
    params, step = _start(work, gpu)
    x, t = map(jax.numpy.asarray, work.images())
    compiled = jax.jit(step, donate_argnums=0)

    def do(job: Job) -> Array:
        nonlocal params
        losses = []
        for rows in jax.numpy.asarray(job):
            params, loss = compiled(params, x, t, rows)
            losses.append(loss)
        return np.array(jax.device_get(losses))

    return do


def scan_training(work: Work, gpu: bool) -> Do:
    """`jax.lax.scan` over a whole block, in one call."""
    params, step = _start(work, gpu)
    x, t = map(jax.numpy.asarray, work.images())

    def block(params: Any, x: Any, t: Any, job: Any) -> Any:
        return jax.lax.scan(lambda p, rows: step(p, x, t, rows), params, job)

    compiled = jax.jit(block, donate_argnums=0)

    def do(job: Job) -> Array:
        nonlocal params
        params, losses = compiled(params, x, t, jax.numpy.asarray(job))
        return np.array(losses)

    return do


def vmap_gradient(work: Work, gpu: bool) -> Do:
    """`jax.vmap` over perturbed variables, compiled, a chunk at a time."""
    params = _params(work, gpu)
    x, t = map(jax.numpy.asarray, work.minibatch())
    count = len(work.variables())
    flat, unflatten = flatten_util.ravel_pytree(params[:count])
    # What was fastest of 10 to 1,000 on two cores; a GPU takes all at once.
    chunk = 1000 if gpu else 10

    def differences(flat: Any, elements: Any, x: Any, t: Any) -> Any:
        def difference(element: Any) -> Any:
            def loss(h: float) -> Any:
                moved = unflatten(flat.at[element].add(h))
                return _loss(moved + params[count:], x, t, work.activation)

            return (loss(work.h) - loss(-work.h)) / (2 * work.h)

        return jax.lax.map(difference, elements, batch_size=chunk)

    compiled = jax.jit(differences)

    def do(job: Job) -> Array:
        return np.array(compiled(flat, jax.numpy.asarray(job), x, t))

    return do


def _params(work: Work, gpu: bool) -> list[Any]:
    jax.config.update("jax_platforms", "cuda" if gpu else "cpu")
    return [jax.numpy.asarray(array, "float32") for array in work.weights()]


def _start(work: Work, gpu: bool) -> tuple[Any, Any]:
    """Return the parameters, and a function that returns them after an update, and the loss."""

    def step(params: Any, x: Any, t: Any, rows: Any) -> tuple[Any, Any]:
        loss, grads = jax.value_and_grad(_loss)(params, x[rows], t[rows], work.activation)
        return jax.tree.map(lambda p, g: p - work.lr * g, params, grads), loss

    return _params(work, gpu), step


def _loss(params: Any, x: Any, t: Any, activation: str) -> Any:
    """Return the loss, as a function of the parameters."""
    *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
    for V, c in hidden:
        x = getattr(jax.nn, activation)(x @ V + c)
    log_y = jax.nn.log_softmax(x @ W + b)
    return -jax.numpy.take_along_axis(log_y, t[:, None], axis=1).mean()
