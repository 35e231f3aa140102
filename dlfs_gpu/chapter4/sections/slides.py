"""The slide deck on training methods."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section
from dlfs_gpu.chapter4.sections.methods import optimizers, overfitting
from dlfs_gpu.data import CsvData
from dlfs_gpu.training.curves import COLOURS, new_figure


def slides(backend: d.Backend) -> Section:
    """Return the numbers and figures of the slide deck."""
    return Section(
        "The slide deck",
        "Data preparation, deeper networks, what a hidden layer is for, linear regression, "
        "optimizers and over-fitting.",
        [
            *_data(backend),
            *_networks(backend),
            *_regression(backend),
            *optimizers(backend),
            *overfitting(backend),
        ],
    )


def _data(backend: d.Backend) -> Iterator[Check | Plot]:
    labels = [*range(9), *range(10, 25)]

    @functools.cache
    def alphabet() -> CsvData:
        """Load a table in the layout of the sign-language alphabet, with the deck's pixels."""
        header = ",".join(["label", *(f"pixel{i}" for i in range(1, 8))])
        lines = [f"{label},24,75,184,185,78,32,55" for label in labels for _ in range(5)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "alphabet.csv"
            path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
            return d.load_csv(path, scale=255, backend=backend)

    def squares_of_answers() -> list[list[Array]]:
        numbers = backend.asarray([[4.0], [9.0], [5.0]])
        vectors = d.one_hot(backend.asarray([4, 9, 5]), 10)
        return [[d.sum_squared_error(y[k], y[2]) for k in (0, 1)] for y in (numbers, vectors)]

    yield Check(
        "pixels 24, 75, 184, 185, 78, 32, 55, divided by 255",
        [0.0941176, 0.2941176, 0.7215686, 0.7254902, 0.3058824, 0.1254902, 0.2156863],
        lambda: alphabet().x_train[0],
        1e-7,
        printed_in="slides",
    )
    yield Check(
        "sign-language labels, 0 to 24 without 9",
        labels,
        lambda: alphabet().classes,
        note="24 classes; J needs motion. The loader maps them to 0 to 23",
        printed_in="slides",
    )
    yield Check(
        "½Σ(y − t)² for the truth 5 and the answers 4 and 9: of labels, and of one-hot vectors",
        [[0.5, 8.0], [1.0, 1.0]],
        squares_of_answers,
        note="a wrong class is wrong, however near its number: labels are not numbers",
        printed_in="slides",
    )


def _networks(backend: d.Backend) -> Iterator[Check | Plot]:
    def parameters(outputs: int) -> list[int]:
        """Return how many parameters each layer has, and the network."""
        net = d.MultiLayerNet(784, [512, 512], outputs, seed=0, backend=backend)
        sizes = {key: math.prod(param.shape) for key, param in net.params.items()}
        return [*(sizes[f"W{k}"] + sizes[f"b{k}"] for k in (1, 2, 3)), sum(sizes.values())]

    def collapse() -> Array:
        rng = np.random.default_rng(0)
        first, second, third = (
            d.Affine(backend.asarray(rng.normal(size=(n, m))), backend.asarray(rng.normal(size=m)))
            for n, m in ((4, 6), (6, 5), (5, 3))
        )
        single = d.Affine(
            first.W @ second.W @ third.W, (first.b @ second.W + second.b) @ third.W + third.b
        )
        x = backend.asarray(rng.normal(size=(8, 4)))
        stacked = third.forward(second.forward(first.forward(x)))
        return backend.xp.max(backend.xp.abs(stacked - single.forward(x)))

    x = backend.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = backend.asarray([0, 1, 1, 0])

    @functools.cache
    def xor(*hidden_sizes: int) -> d.MultiLayerNet:
        """Train a network on exclusive or for 1000 updates."""
        network = d.MultiLayerNet(
            2, list(hidden_sizes), 2, "tanh", "xavier", seed=0, dtype="float64", backend=backend
        )
        optimizer = d.SGD(0.5)
        for _ in range(1000):
            optimizer.update(network.params, network.gradient(x, t))
        return network

    def activations() -> Figure:
        x = np.linspace(-3, 3, 601)
        panels = {
            "unbounded": {"linear": d.identity_function(x), "ReLU": d.relu(x)},
            "bounded": {"step": d.step_function(x), "sigmoid": d.sigmoid(x), "tanh": np.tanh(x)},
        }
        return figures.draw(x, panels, xlabel="x")

    yield Check(
        "parameters of 784-512-512-10: of each layer, and all",
        [401920, 262656, 5130, 669706],
        lambda: parameters(10),
        printed_in="slides",
    )
    yield Check("all with 24 outputs, for the alphabet", 676888, lambda: parameters(24)[-1])
    yield Check(
        "three linear layers against the one they collapse to",
        Between(high=1e-12),
        collapse,
        note="W′ = W1·W2·W3, b′ = (b1·W2 + b2)·W3 + b3; greatest difference of the outputs",
    )
    yield Check(
        "XOR: loss without a hidden layer, and accuracy with 4 hidden units",
        [math.log(2), 1.0],
        lambda: [xor().loss(x, t), xor(4).accuracy(x, t)],
        1e-6,
        "no straight line separates the answers: without one, the best it can do is to say one "
        "half to everything, ln 2",
    )
    yield Plot(
        "activations",
        "Activations: linear, which stacked collapse to one layer; ReLU, step, sigmoid and "
        "tanh, which do not.",
        activations,
    )


def _regression(backend: d.Backend) -> Iterator[Check | Plot]:
    start, uphill = backend.asarray([-1.0, 5.0]), backend.asarray([-1.7, 5.3])
    x, y = backend.asarray([1.0, 2.0]), backend.asarray([3.0, 5.0])

    def loss(line: Array) -> Array:
        return d.sum_squared_error(line[0] * x + line[1], y)

    def counted_twice(line: Array) -> Array:
        return loss(line) + d.sum_squared_error(line[0] * x[1:] + line[1], y[1:])

    @functools.cache
    def walk(lr: float = 0.1) -> Array:
        """Return the lines from the start on, (2001, 2)."""
        return d.gradient_descent(loss, start, lr, 2000)[1]

    def descent() -> Figure:
        figure, axes = new_figure(figures.SQUARE)
        m, b = np.meshgrid(np.linspace(-3, 6, 181), np.linspace(-2, 7, 181))
        values = np.clip(0.5 * ((m + b - 3) ** 2 + (2 * m + b - 5) ** 2), 0.01, 300)
        levels = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
        filled = axes.contourf(m, b, values, levels, norm="log", cmap="viridis")
        for lr, colour in ((0.28, "#ffffff"), (0.1, COLOURS[1])):
            path = backend.to_numpy(walk(lr)[:301])
            axes.plot(*path.T, ".-", color=colour, label=f"λ = {lr:g}", linewidth=1.2)
        figure.colorbar(filled, ax=axes, label="½Σ(y − ŷ)²", format="%g", shrink=0.85)
        axes.set(xlabel="slope m", ylabel="intercept b")
        axes.legend(facecolor="#404652", labelcolor="#ffffff")
        return figure

    yield Check(
        "regression: gradient at the start, and with (2, 5) counted twice",
        [[-3, -1], [-7, -3]],
        lambda: [d.numerical_gradient(f, start) for f in (loss, counted_twice)],
        1e-8,
        "ŷ = mx + b through (1, 3) and (2, 5), from m = −1, b = 5: "
        "∂m = 5m + 3b − 13, ∂b = 3m + 2b − 8",
        mistake="the slides: (−7, −3), which counts the point (2, 5) twice",
    )
    yield Check(
        "regression: first step, with λ = 0.1",
        [-0.7, 5.1],
        lambda: walk()[1],
        1e-9,
        "it subtracts λ times the gradient",
        mistake="the slides: (−1.7, 5.3), adding it for m: uphill",
    )
    yield Check(
        "regression: ½Σ(y − ŷ)² at the start, after that step, and at (−1.7, 5.3)",
        [2.5, 1.825, 4.985],
        lambda: [loss(start), loss(walk()[1]), loss(uphill)],
        1e-9,
        mistake="the slides: a step down to where it is 4.985",
    )
    yield Check("regression: after 1000 steps", [1.9999989, 1.0000018], lambda: walk()[1000], 5e-8)
    yield Check(
        "regression: optimum, and ½Σ(y − ŷ)² there",
        [2, 1, 0],
        lambda: [*walk()[-1], loss(walk()[-1])],
        1e-9,
    )
    yield Check(
        "regression: after 1000 steps, is ½Σ(y − ŷ)² less, with λ = 0.2917 and with 0.2919?",
        [True, False],
        lambda: [loss(walk(lr)[1000]) < loss(start) for lr in (0.2917, 0.2919)],
        note="descent is stable below 0.29180",
    )
    yield Plot(
        "regression-descent",
        "Gradient descent over the loss of a line's slope and intercept, from (−1, 5) to the "
        "optimum (2, 1). λ = 0.28 is almost too large.",
        descent,
    )
