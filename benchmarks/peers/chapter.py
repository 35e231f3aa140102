"""The chapter's own way, written as it describes it: NumPy, float64 weights, one-hot labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import GradientPeer, Job, TrainingPeer
from benchmarks.work import Work

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(−x)) (3.2.4)."""
    return 1 / (1 + np.exp(-x))


def sigmoid_grad(x: Array) -> Array:
    """Return the sigmoid's slope."""
    return (1.0 - sigmoid(x)) * sigmoid(x)


def relu(x: Array) -> Array:
    """Return max(x, 0) (3.2.7)."""
    return np.maximum(0, x)


def relu_grad(x: Array) -> Array:
    """Return the slope of ReLU."""
    grad = np.zeros_like(x)
    grad[x >= 0] = 1
    return grad


def softmax(x: Array) -> Array:
    """Return the softmax of each row (3.5.2)."""
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    y: Array = e / np.sum(e, axis=1, keepdims=True)
    return y


def cross_entropy_error(y: Array, t: Array) -> Any:
    """Return the mean cross entropy of a batch, with the chapter's 1e-7 (4.2.4)."""
    labels = t.argmax(axis=1)
    return -np.sum(np.log(y[np.arange(len(y)), labels] + 1e-7)) / len(y)


class Network:
    """The chapter's TwoLayerNet, with as many layers as the work has (4.5.1)."""

    def __init__(self, work: Work) -> None:
        arrays = work.weights()
        self.params = list(zip(arrays[::2], arrays[1::2], strict=True))
        self.activation, self.slope = {
            "sigmoid": (sigmoid, sigmoid_grad),
            "relu": (relu, relu_grad),
        }[work.activation]

    def predict(self, x: Any) -> Array:
        """Return the probabilities of each class."""
        for W, b in self.params[:-1]:
            x = self.activation(np.dot(x, W) + b)
        W, b = self.params[-1]
        return softmax(np.dot(x, W) + b)

    def loss(self, x: Any, t: Array) -> Any:
        """Return the loss, by a forward pass."""
        return cross_entropy_error(self.predict(x), t)

    def gradient(self, x: Any, t: Array) -> list[tuple[Array, Array]]:
        """Return the gradient, by a forward pass and backpropagation."""
        inputs, sums = [x], []
        for W, b in self.params[:-1]:
            sums.append(np.dot(inputs[-1], W) + b)
            inputs.append(self.activation(sums[-1]))
        W, b = self.params[-1]
        delta = (softmax(np.dot(inputs[-1], W) + b) - t) / len(x)
        grads = [(np.dot(inputs[-1].T, delta), np.sum(delta, axis=0))]
        for layer in range(len(sums) - 1, -1, -1):
            delta = self.slope(sums[layer]) * np.dot(delta, self.params[layer + 1][0].T)
            grads.insert(0, (np.dot(inputs[layer].T, delta), np.sum(delta, axis=0)))
        return grads


class Training(TrainingPeer):
    """Backpropagation and SGD, with a second forward pass for the loss (4.5.2)."""

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.x, labels = work.images()
        self.t = np.eye(work.sizes[-1])[labels]
        self.network = Network(work)

    def run(self, job: Job) -> list[Any]:
        """Train.

        The chapter takes the loss after the update; here it is taken before, for the same time,
        so that all record the same number.
        """
        losses = []
        for rows in job:
            x, t = self.x[rows], self.t[rows]
            grads = self.network.gradient(x, t)
            losses.append(self.network.loss(x, t))
            for (W, b), (dW, db) in zip(self.network.params, grads, strict=True):
                W -= self.work.lr * dW
                b -= self.work.lr * db
        return losses


class LoopGradient(GradientPeer):
    """numerical_gradient one element at a time: two forward passes for each (4.4)."""

    elements = 200

    def __init__(self, work: Work, gpu: bool) -> None:
        super().__init__(work, gpu)
        self.x, labels = work.minibatch()
        self.t = np.eye(work.sizes[-1])[labels]
        self.network = Network(work)
        arrays = [array for layer in self.network.params for array in layer]
        self.places = [(array, i) for array in arrays for i in np.ndindex(*array.shape)]

    def run(self, job: Job) -> list[Any]:
        """Differentiate."""
        h = self.work.h
        grad = []
        for element in job:
            x, index = self.places[element]
            original = x[index]
            x[index] = original + h
            upper = self.network.loss(self.x, self.t)
            x[index] = original - h
            lower = self.network.loss(self.x, self.t)
            grad.append((upper - lower) / (2 * h))
            x[index] = original
        return grad
