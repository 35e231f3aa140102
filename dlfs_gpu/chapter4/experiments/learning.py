"""Worked examples of what networks can and cannot learn, and from which loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.layers import Affine, Sigmoid
from dlfs_gpu.losses import SigmoidWithLoss, SumSquaredError
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.optimizers import SGD


class Xor(NamedTuple):
    """A network trained on XOR.

    Attributes
    ----------
    network : MultiLayerNet
    losses : array, shape (updates,)
    probabilities : array, shape (4,)
        Of the answer 1 for (0, 0), (0, 1), (1, 0) and (1, 1).
    accuracy : float
    """

    network: MultiLayerNet
    losses: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    accuracy: float


def xor(
    hidden_size: int = 4,
    *,
    activation: str = "tanh",
    lr: float = 0.5,
    updates: int = 1000,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> Xor:
    """Train a network on exclusive or, which no line separates.

    Parameters
    ----------
    hidden_size : int
        Units of the hidden layer; 0 for none. Then the best the network can do is to answer one
        half to everything, at a loss of log 2.
    activation : {"relu", "sigmoid", "tanh"}
        Of the hidden layer.
    lr : float
        Learning rate.
    updates : int
        Number of updates, each on all four points.
    seed : int
        Of the weights.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    x = place.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], "float64")
    t = place.asarray([0, 1, 1, 0])
    hidden = [hidden_size] if hidden_size else []
    network = MultiLayerNet(
        2, hidden, 2, activation, "xavier", seed=seed, dtype="float64", backend=place
    )
    optimizer = SGD(lr)
    losses = []
    for _ in range(updates):
        loss, gradient = network.loss_and_gradient(x, t)
        optimizer.update(network.params, gradient)
        losses.append(loss)
    return Xor(
        network,
        place.to_numpy(place.xp.stack(losses)),
        place.to_numpy(network.predict(x)[:, 1]),
        network.accuracy(x, t),
    )


class LinearCollapse(NamedTuple):
    """Stacked linear layers, and the one that does the same; outputs have the shape (N, J)."""

    stacked: NDArray[np.float64]
    single: NDArray[np.float64]
    W: NDArray[np.float64]
    b: NDArray[np.float64]


def collapse_linear_layers(
    sizes: Sequence[int] = (4, 6, 5, 3),
    samples: int = 8,
    *,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> LinearCollapse:
    """Replace affine layers without activations by one: W = W1·W2·W3, b = (b1·W2 + b2)·W3 + b3.

    Parameters
    ----------
    sizes : sequence of int
        Features of the input, and of the output of each layer.
    samples : int
        Random inputs to compare the two on.
    seed : int
        Of weights, biases and inputs.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return place.asarray(rng.standard_normal(shape))

    layers = [Affine(normal(n, m), normal(m)) for n, m in itertools.pairwise(sizes)]
    x = normal(samples, sizes[0])
    stacked, W, b = x, layers[0].W, layers[0].b
    for layer in layers:
        stacked = layer.forward(stacked)
    for layer in layers[1:]:
        W, b = W @ layer.W, b @ layer.W + layer.b
    single = Affine(W, b).forward(x)
    return LinearCollapse(*map(place.to_numpy, (stacked, single, W, b)))


class SaturatedSigmoid(NamedTuple):
    """Gradients of two losses with respect to the score z, each of the shape of z."""

    z: NDArray[np.float64]
    squared_error: NDArray[np.float64]
    cross_entropy: NDArray[np.float64]


def saturated_sigmoid(
    z: ArrayLike = -10.0, t: float = 1.0, *, backend: str | Backend | None = None
) -> SaturatedSigmoid:
    """Compare what two losses teach a sigmoid output that is wrong and sure of it.

    Half the squared error has the gradient (p − t)·p·(1 − p) with respect to the score, which
    vanishes where p is near 0 or 1, right or wrong; binary cross entropy has p − t.

    Parameters
    ----------
    z : array_like
        Scores; p = σ(z).
    t : float
        Target, 0 or 1.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.
    """
    place = get_backend(backend)
    # One sample with many outputs: its losses are summed, so each output has its own gradient.
    scores = place.xp.reshape(place.asarray(z, "float64"), (1, -1))
    target = place.xp.full_like(scores, t)
    sigmoid, squared = Sigmoid(), SumSquaredError()
    squared.forward(sigmoid.forward(scores), target)
    entropy = SigmoidWithLoss()
    entropy.forward(scores, target)
    gradients = sigmoid.backward(squared.backward()), entropy.backward()
    shape = np.shape(z)
    return SaturatedSigmoid(
        np.asarray(z, np.float64), *(place.to_numpy(g).reshape(shape) for g in gradients)
    )


class AccuracyAgainstLoss(NamedTuple):
    """Accuracy and loss as one weight changes, and their slopes at its own value."""

    changes: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    losses: NDArray[np.float64]
    accuracy_slope: float
    loss_slope: float


def accuracy_against_loss(
    samples: int = 100,
    width: float = 2.0,
    *,
    seed: int = 0,
    backend: str | Backend | None = None,
) -> AccuracyAgainstLoss:
    """Move one bias of a half-trained network and watch accuracy and loss (4.2.5).

    Accuracy moves in jumps of 1/samples and is flat between them, so its slope is 0 almost
    everywhere and teaches nothing; the loss moves with every change.

    Parameters
    ----------
    samples : int
        Number of the embedded digits to use.
    width : float
        The bias is moved by up to this, both ways, in 800 steps.
    seed : int
        Of the weights.
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Returns
    -------
    AccuracyAgainstLoss
        The slopes are central differences with h = 1e-4.
    """
    place = get_backend(backend)
    (x, t), _ = load_digits(backend=place)
    x, t = x[:samples], t[:samples]
    network = TwoLayerNet(64, 20, 10, 0.1, seed=seed, dtype="float64", backend=place)
    optimizer = SGD(0.5)
    for _ in range(100):
        optimizer.update(network.params, network.gradient(x, t))
    bias = network.params["b2"]
    start = float(bias[0])

    def at(change: float) -> tuple[float, float]:
        bias[0] = start + change
        return network.accuracy(x, t), float(network.loss(x, t))

    changes = np.linspace(-width, width, 801)
    accuracies, losses = np.asarray([at(change) for change in changes.tolist()]).T
    h = 1e-4
    slopes = (np.asarray(at(h)) - np.asarray(at(-h))) / (2 * h)
    return AccuracyAgainstLoss(changes, accuracies, losses, *slopes.tolist())
