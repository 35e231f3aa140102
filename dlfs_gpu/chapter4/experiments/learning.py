"""What networks can and cannot learn, and from which loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.data import load_digits
from dlfs_gpu.layers import Affine, Sigmoid
from dlfs_gpu.losses import SigmoidWithLoss, SumSquaredError
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.optimizers import SGD

XOR_POINTS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
XOR_ANSWERS = [0, 1, 1, 0]


class Xor(NamedTuple):
    """A network trained on XOR, its accuracy and its loss."""

    network: MultiLayerNet
    accuracy: float
    loss: float


def learn_xor(hidden_size: int, backend: Backend) -> Xor:
    """Train a network on exclusive or, which no line separates, for 1000 updates.

    Parameters
    ----------
    hidden_size : int
        Units of the hidden layer, with tanh; 0 for none. Then the best the network can do is to
        answer one half to everything, at a loss of ln 2.
    backend : Backend
    """
    x, t = backend.asarray(XOR_POINTS), backend.asarray(XOR_ANSWERS)
    hidden = [hidden_size] if hidden_size else []
    network = MultiLayerNet(
        2, hidden, 2, "tanh", "xavier", seed=0, dtype="float64", backend=backend
    )
    optimizer = SGD(0.5)
    for _ in range(1000):
        optimizer.update(network.params, network.gradient(x, t))
    return Xor(network, network.accuracy(x, t), float(network.loss(x, t)))


def collapse_linear_layers(backend: Backend) -> float:
    """Replace three affine layers, 4-6-5-3, by one: W1·W2·W3 and (b1·W2 + b2)·W3 + b3.

    Returns
    -------
    float
        The greatest difference between the outputs, for 8 random samples.
    """
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return backend.asarray(rng.standard_normal(shape))

    first, second, third = (Affine(normal(n, m), normal(m)) for n, m in ((4, 6), (6, 5), (5, 3)))
    single = Affine(
        first.W @ second.W @ third.W, (first.b @ second.W + second.b) @ third.W + third.b
    )
    x = normal(8, 4)
    stacked = third.forward(second.forward(first.forward(x)))
    return float(backend.xp.max(backend.xp.abs(stacked - single.forward(x))))


def saturated_gradients(backend: Backend) -> tuple[float, float]:
    """Differentiate two losses of a sigmoid output p with respect to its score, −10; t = 1.

    Half the squared error has the gradient (p − t)·p·(1 − p), which vanishes where p is near 0 or
    1, right or wrong; binary cross entropy has p − t.

    Returns
    -------
    squared_error, cross_entropy : float
    """
    score, t = backend.asarray([[-10.0]]), backend.asarray([[1.0]])
    sigmoid, squared, entropy = Sigmoid(), SumSquaredError(), SigmoidWithLoss()
    squared.forward(sigmoid.forward(score), t)
    entropy.forward(score, t)
    return float(sigmoid.backward(squared.backward())[0, 0]), float(entropy.backward()[0, 0])


class AccuracyAgainstLoss(NamedTuple):
    """Accuracy and loss as one bias changes, and their slopes at its own value."""

    changes: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    losses: NDArray[np.float64]
    accuracy_slope: float
    loss_slope: float


def accuracy_against_loss(backend: Backend) -> AccuracyAgainstLoss:
    """Move one bias of a half-trained network by up to 2, and watch 100 digits (4.2.5).

    Accuracy moves in jumps of 1/100 and is flat between them, so its slope is 0 almost
    everywhere and teaches nothing; the loss moves with every change. The slopes are central
    differences with h = 1e-4.
    """
    (x, t), _ = load_digits(backend=backend)
    x, t = x[:100], t[:100]
    network = TwoLayerNet(64, 20, 10, 0.1, seed=0, dtype="float64", backend=backend)
    optimizer = SGD(0.5)
    for _ in range(100):
        optimizer.update(network.params, network.gradient(x, t))
    bias = network.params["b2"]
    start = float(bias[0])

    def at(change: float) -> tuple[float, float]:
        bias[0] = start + change
        return network.accuracy(x, t), float(network.loss(x, t))

    changes = np.linspace(-2, 2, 201)
    accuracies, losses = np.asarray([at(change) for change in changes.tolist()]).T
    h = 1e-4
    slopes = (np.asarray(at(h)) - np.asarray(at(-h))) / (2 * h)
    return AccuracyAgainstLoss(changes, accuracies, losses, *slopes.tolist())
