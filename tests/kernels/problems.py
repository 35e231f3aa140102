"""Networks and data for the kernels' tests, and what must come of them, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlfs_gpu.kernels.cuda import Params
from dlfs_gpu.models import MultiLayerNet
from kernels.fake_cupy import fake

Arrays = dict[str, Any]
ActivationName = Literal["sigmoid", "tanh", "relu"]

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


@dataclass(frozen=True)
class Problem:
    """A network with one hidden layer, and a data set of which most numbers are 0."""

    params: Arrays
    x: Any
    labels: Any
    activation: ActivationName

    @property
    def uploaded(self) -> Params:
        """The parameters on the device, each time anew."""
        W1, b1, W2, b2 = (fake.asarray(p, copy=True) for p in self.params.values())
        return W1, b1, W2, b2

    def network(self, backend: str = "cupy", dtype: Any = None) -> MultiLayerNet:
        """Return a network with these parameters."""
        W1, b1, W2, _ = self.params.values()
        sizes = W1.shape[0], [len(b1)], W2.shape[1]
        network = MultiLayerNet(*sizes, self.activation, dtype=dtype or W1.dtype, backend=backend)
        for key, param in self.params.items():
            network.params[key] = network.backend.asarray(param.copy(), network.dtype)
        return network


def make_problem(
    sizes: tuple[int, int, int] = (20, 7, 3),
    activation: ActivationName = "sigmoid",
    dtype: str = "float32",
    *,
    samples: int = 40,
    scale: float = 0.5,
) -> Problem:
    """Return a problem drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    inputs, hidden, classes = sizes
    shapes = {"W1": (inputs, hidden), "b1": (hidden,), "W2": (hidden, classes), "b2": (classes,)}
    params = {k: rng.normal(0, scale, shape).astype(dtype) for k, shape in shapes.items()}
    x = rng.random((samples, inputs)) * (rng.random((samples, inputs)) < 0.3)
    return Problem(params, x.astype(dtype), rng.integers(classes, size=samples), activation)


def make_sure(problem: Problem, margin: float = 25) -> Any:
    """Scale the last layer so that likeliest classes lead by about `margin`; return who leads.

    Labels become the likeliest classes. Returned are the samples, nearest to that margin first.
    """
    params = problem.params
    out, _ = activated(problem.x @ params["W1"] + params["b1"], problem.activation)
    scores = out @ params["W2"] + params["b2"]
    problem.labels[...] = np.argmax(scores, axis=1)
    ascending = np.sort(scores, axis=1)
    margins = ascending[:, -1] - ascending[:, -2]
    for key in ("W2", "b2"):
        params[key] *= margin / np.median(margins)
    return np.argsort(np.abs(margins - np.median(margins)))


def updated(problem: Problem, indices: Any, lr: float) -> tuple[Arrays, Any]:
    """Return the parameters after updates by SGD, and the losses before each."""
    W1, b1, W2, b2 = (p.astype(np.float64) for p in problem.params.values())
    losses = []
    for rows in indices:
        x, labels = problem.x[rows].astype(np.float64), problem.labels[rows]
        out, slope = activated(x @ W1 + b1, problem.activation)
        loss, delta = cross_entropy(out @ W2 + b2, labels)
        delta /= len(rows)
        before = delta @ W2.T * slope
        losses.append(loss.mean())
        W2, b2 = W2 - lr * out.T @ delta, b2 - lr * delta.sum(axis=0)
        W1, b1 = W1 - lr * x.T @ before, b1 - lr * before.sum(axis=0)
    return {"W1": W1, "b1": b1, "W2": W2, "b2": b2}, np.array(losses)


def activated(z: Any, activation: ActivationName) -> tuple[Any, Any]:
    """Return an activation's output and slope."""
    if activation == "relu":
        return np.maximum(z, 0), (z > 0).astype(float)
    q = np.exp(-np.abs(z))
    if activation == "tanh":
        return np.tanh(z), 4 * q**2 / (1 + q**2) ** 2
    return np.where(z < 0, q, 1) / (1 + q), q / (1 + q) ** 2


def cross_entropy(scores: Any, labels: Any) -> tuple[Any, Any]:
    """Return each sample's loss and its gradient, exact however sure the network is."""
    n = np.arange(len(labels))
    shifted = scores - scores.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    own, score = e[n, labels].copy(), shifted[n, labels]
    e[n, labels] = 0
    rest = e.sum(axis=1)
    e[n, labels] = -rest
    return np.log1p(rest + np.expm1(score)) - score, e / (rest + own)[:, None]


def error(actual: Any, desired: Any) -> float:
    """Return the norm of the difference as a share of the norm."""
    actual = getattr(actual, "host", actual)
    return float(np.linalg.norm(actual - desired) / np.linalg.norm(desired))
