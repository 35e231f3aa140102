"""The chapter's own way, written as it describes it: NumPy, float64 weights, one-hot labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.work import Array, Do, Job, Work


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


def training(work: Work, gpu: bool) -> Do:
    """Backpropagation and SGD, with a second forward pass for the loss (4.5.2).

    The chapter takes the loss after the update; here it is taken before, for the same time, so
    that all return the same number.
    """
    images, labels = work.images()
    one_hot = np.eye(work.sizes[-1])[labels]
    network = Network(work)

    def do(job: Job) -> Array:
        losses = []
        for rows in job:
            x, t = images[rows], one_hot[rows]
            grads = network.gradient(x, t)
            losses.append(network.loss(x, t))
            for (W, b), (dW, db) in zip(network.params, grads, strict=True):
                W -= work.lr * dW
                b -= work.lr * db
        return np.array(losses)

    return do


def gradient(work: Work, gpu: bool) -> Do:
    """numerical_gradient one element at a time: two forward passes for each (4.4)."""
    x, labels = work.minibatch()
    t = np.eye(work.sizes[-1])[labels]
    network = Network(work)
    arrays = [array for layer in network.params for array in layer]
    places = [(array, index) for array in arrays for index in np.ndindex(*array.shape)]

    def do(job: Job) -> Array:
        grad = []
        for element in job:
            array, index = places[element]
            original = array[index]
            array[index] = original + work.h
            upper = network.loss(x, t)
            array[index] = original - work.h
            lower = network.loss(x, t)
            grad.append((upper - lower) / (2 * work.h))
            array[index] = original
        return np.array(grad)

    return do
