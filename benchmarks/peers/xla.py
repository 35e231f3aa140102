"""JAX."""

from __future__ import annotations

import importlib
import os
from typing import Any

from benchmarks.peers import GradientPeer, Job, Peer, TrainingPeer
from benchmarks.work import Work


class _Jax(Peer):
    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        # Without this the first JAX process would take most of the GPU's memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        self.jax: Any = importlib.import_module("jax")
        self.jax.config.update("jax_platforms", "cuda" if gpu else "cpu")
        # True float32, as the others compute by default, not TF32.
        self.jax.config.update("jax_default_matmul_precision", "highest")
        self.activation = {"sigmoid": self.jax.nn.sigmoid, "relu": self.jax.nn.relu}[
            work.activation
        ]
        self.params = [self.jax.numpy.asarray(array, "float32") for array in work.weights()]

    def loss(self, params: Any, x: Any, t: Any) -> Any:
        """Return the loss."""
        *hidden, (W, b) = zip(params[::2], params[1::2], strict=True)
        for V, c in hidden:
            x = self.activation(x @ V + c)
        log_y = self.jax.nn.log_softmax(x @ W + b)
        return -self.jax.numpy.take_along_axis(log_y, t[:, None], axis=1).mean()


class StepTraining(_Jax, TrainingPeer):
    """One `jax.jit` call for each update, gather included."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.x, self.t = map(self.jax.numpy.asarray, work.images())
        self.compiled = self.jax.jit(self.step, donate_argnums=0)

    def step(self, params: Any, x: Any, t: Any, rows: Any) -> tuple[Any, Any]:
        """Return the parameters after an update, and the loss before it."""
        loss, grads = self.jax.value_and_grad(self.loss)(params, x[rows], t[rows])
        params = self.jax.tree.map(lambda p, g: p - self.work.lr * g, params, grads)
        return params, loss

    def run(self, job: Job) -> Any:
        """Train."""
        losses = []
        for rows in self.jax.numpy.asarray(job):
            self.params, loss = self.compiled(self.params, self.x, self.t, rows)
            losses.append(loss)
        return losses

    def synchronize(self) -> None:
        """Wait for the last update, and so for all before it."""
        self.jax.block_until_ready(self.params)


class ScanTraining(StepTraining):
    """A whole block in one call, through `jax.lax.scan`."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)

        def block(params: Any, x: Any, t: Any, job: Any) -> Any:
            return self.jax.lax.scan(lambda p, rows: self.step(p, x, t, rows), params, job)

        self.compiled = self.jax.jit(block, donate_argnums=0)

    def run(self, job: Job) -> Any:
        """Train."""
        self.params, losses = self.compiled(self.params, self.x, self.t, job)
        return losses


class VmapGradient(_Jax, GradientPeer):
    """`jax.vmap` over perturbed variables, compiled, a chunk at a time."""

    elements = 1000

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.x, self.t = map(self.jax.numpy.asarray, work.minibatch())
        flatten_util = importlib.import_module("jax.flatten_util")
        count = len(work.variables())
        self.flat, self.unflatten = flatten_util.ravel_pytree(self.params[:count])
        self.fixed = self.params[count:]
        # What was fastest of 10 to 1,000 on two cores; a GPU takes all at once.
        self.chunk = 1000 if gpu else 10
        self.compiled = self.jax.jit(self.differences)
        self.results: Any = ()

    def differences(self, flat: Any, x: Any, t: Any, elements: Any) -> Any:
        """Return the derivatives with respect to some elements."""
        h = self.work.h

        def difference(element: Any) -> Any:
            upper = self.unflatten(flat.at[element].add(h)) + self.fixed
            lower = self.unflatten(flat.at[element].add(-h)) + self.fixed
            return (self.loss(upper, x, t) - self.loss(lower, x, t)) / (2 * h)

        return self.jax.lax.map(difference, elements, batch_size=self.chunk)

    def run(self, job: Job) -> Any:
        """Differentiate."""
        self.results = self.compiled(self.flat, self.x, self.t, job)
        return self.results

    def synchronize(self) -> None:
        """Wait for the results."""
        self.jax.block_until_ready(self.results)
