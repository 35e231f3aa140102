"""The slide deck on training methods."""

from __future__ import annotations

import functools
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import Backend
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.experiments.descent import compare_optimizers, fit_line
from dlfs_gpu.chapter4.experiments.learning import (
    XOR_ANSWERS,
    XOR_POINTS,
    Xor,
    collapse_linear_layers,
    learn_xor,
)
from dlfs_gpu.chapter4.experiments.overfitting import Course, overfitting
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section
from dlfs_gpu.data import CsvData, load_csv, load_digits
from dlfs_gpu.functions import (
    identity_function,
    one_hot,
    relu,
    sigmoid,
    step_function,
    sum_squared_error,
)
from dlfs_gpu.models import MultiLayerNet, TwoLayerNet
from dlfs_gpu.optimizers import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop
from dlfs_gpu.training import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS = [24, 75, 184, 185, 78, 32, 55]


def slides(backend: Backend) -> Section:
    """Return the numbers and figures of the slide deck."""
    return Section(
        "The slide deck",
        "Data preparation, deeper networks, what a hidden layer is for, linear regression, "
        "optimizers and over-fitting.",
        [
            *_data(backend),
            *_networks(backend),
            *_regression(backend),
            *_optimizers(backend),
            *_overfitting(backend),
        ],
    )


def _data(backend: Backend) -> list[Check | Plot]:
    @functools.cache
    def alphabet() -> CsvData:
        """Load a table in the layout of the sign-language alphabet, with the deck's pixels."""
        header = ",".join(["label", *(f"pixel{i + 1}" for i in range(len(_PIXELS)))])
        cells = ",".join(map(str, _PIXELS))
        lines = [f"{label},{cells}" for label in range(25) if label != 9 for _ in range(5)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "alphabet.csv"
            path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
            return load_csv(path, scale=255, backend=backend)

    def of_labels(answer: int) -> Array:
        return sum_squared_error(
            backend.asarray([answer], "float64"), backend.asarray([5], "float64")
        )

    def of_vectors(answer: int) -> Array:
        return sum_squared_error(
            one_hot(backend.asarray(answer), 10), one_hot(backend.asarray(5), 10)
        )

    return [
        Check(
            "pixels 24, 75, 184, 185, 78, 32, 55, divided by 255",
            [0.0941176, 0.2941176, 0.7215686, 0.7254902, 0.3058824, 0.1254902, 0.2156863],
            lambda: alphabet().x_train[0],
            1e-7,
            printed_in="slides",
        ),
        Check(
            "sign-language labels, 0 to 24 without 9",
            [*range(9), *range(10, 25)],
            lambda: alphabet().classes,
            note="24 classes; J needs motion. The loader maps them to 0 to 23",
            printed_in="slides",
        ),
        Check(
            "½Σ(y − t)² of labels: truth 5, answers 4 and 9",
            [0.5, 8.0],
            lambda: [of_labels(4), of_labels(9)],
            printed_in="slides",
        ),
        Check(
            "½Σ(y − t)² of one-hot vectors: truth 5, answers 4 and 9",
            [1.0, 1.0],
            lambda: [of_vectors(4), of_vectors(9)],
            note="a wrong class is wrong, however near its number: labels are not numbers",
            printed_in="slides",
        ),
    ]


def _networks(backend: Backend) -> list[Check | Plot]:
    def parameters(outputs: int) -> list[int]:
        """Return how many parameters each layer has."""
        net = MultiLayerNet(784, [512, 512], outputs, seed=0, backend=backend)
        sizes = {key: math.prod(param.shape) for key, param in net.params.items()}
        return [sizes[f"W{k}"] + sizes[f"b{k}"] for k in (1, 2, 3)]

    @functools.cache
    def xor(hidden_size: int) -> Xor:
        return learn_xor(hidden_size, backend)

    def regions() -> Figure:
        axis = np.linspace(-0.5, 1.5, 81)
        points = backend.asarray(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
        probabilities = {
            title: backend.to_numpy(xor(size).network.predict(points))[:, 1].reshape(81, 81)
            for title, size in (("no hidden layer", 0), ("4 hidden units", 4))
        }
        return figures.decision_regions(axis, probabilities, XOR_POINTS, XOR_ANSWERS)

    return [
        Check(
            "parameters of the layers of 784-512-512-10",
            [401920, 262656, 5130],
            lambda: parameters(10),
            printed_in="slides",
        ),
        Check("all of them", 669706, lambda: sum(parameters(10)), printed_in="slides"),
        Check("all with 24 outputs, for the alphabet", 676888, lambda: sum(parameters(24))),
        Check(
            "three linear layers against the one they collapse to",
            Between(high=1e-12),
            lambda: collapse_linear_layers(backend),
            note="W′ = W1·W2·W3, b′ = (b1·W2 + b2)·W3 + b3; greatest difference of the outputs",
        ),
        Check(
            "XOR without a hidden layer: loss",
            math.log(2),
            lambda: xor(0).loss,
            1e-6,
            "ln 2: the best it can do is to say one half to everything",
        ),
        Check("XOR with 4 hidden units: accuracy", 1.0, lambda: xor(4).accuracy),
        Plot(
            "activations",
            "Activations: linear, which stacked collapse to one layer; ReLU, step, sigmoid and "
            "tanh, which do not.",
            _activations,
        ),
        Plot(
            "xor",
            "Exclusive or, learned without and with a hidden layer. No straight line separates "
            "the squares from the circles.",
            regions,
        ),
    ]


def _activations() -> Figure:
    x = np.linspace(-3, 3, 601)
    return figures.stacked(
        x,
        {
            "unbounded": {"linear": identity_function(x), "ReLU": relu(x)},
            "bounded": {"step": step_function(x), "sigmoid": sigmoid(x), "tanh": np.tanh(x)},
        },
        xlabel="x",
    )


def _regression(backend: Backend) -> list[Check | Plot]:
    fit = functools.cache(functools.partial(fit_line, backend))

    def descent() -> Figure:
        m, b = np.linspace(-3, 6, 181), np.linspace(-2, 7, 181)
        first, second = m + b[:, None] - 3, 2 * m + b[:, None] - 5
        paths = {
            "λ = 0.28, almost too large": fit(lr=0.28, steps=40).path,
            "λ = 0.1": fit(steps=300).path,
        }
        return figures.line_fit_path(m, b, 0.5 * (first**2 + second**2), paths)

    return [
        Check(
            "regression: gradient at the start",
            [-3, -1],
            lambda: fit(steps=1).first_gradient,
            1e-8,
            "ŷ = mx + b through (1, 3) and (2, 5), from m = −1, b = 5: "
            "∂m = 5m + 3b − 13, ∂b = 3m + 2b − 8",
            mistake="the slides: (−7, −3), which counts the point (2, 5) twice",
        ),
        Check(
            "regression: the same with (2, 5) counted twice",
            [-7, -3],
            lambda: fit(steps=1, points=((1, 3), (2, 5), (2, 5))).first_gradient,
            1e-8,
            printed_in="slides",
        ),
        Check(
            "regression: first step, with λ = 0.1",
            [-0.7, 5.1],
            lambda: fit(steps=1).path[1],
            1e-9,
            "it subtracts λ times the gradient",
            mistake="the slides: (−1.7, 5.3), adding it for m: uphill",
        ),
        Check(
            "regression: ½Σ(y − ŷ)² at the start, and after that step",
            [2.5, 1.825],
            lambda: [fit(steps=1).first_loss, fit(steps=1).last_loss],
            1e-9,
            mistake="the slides: a step down to where it is 4.985",
        ),
        Check(
            "regression: ½Σ(y − ŷ)² at (−1.7, 5.3)",
            4.985,
            lambda: fit(steps=1, start=(-1.7, 5.3)).first_loss,
            1e-12,
        ),
        Check("regression: after 1000 steps", [1.9999989, 1.0000018], lambda: fit().path[-1], 5e-8),
        Check(
            "regression: optimum, and ½Σ(y − ŷ)² there",
            [2, 1, 0],
            lambda: [*fit(steps=2000).path[-1], fit(steps=2000).last_loss],
            1e-9,
        ),
        Check(
            "regression: loss after 1000 steps, λ = 0.2917",
            Between(high=1),
            lambda: fit(lr=0.2917).last_loss,
            note="descent is stable below 0.29180",
        ),
        Check(
            "regression: loss after 1000 steps, λ = 0.2919",
            Between(low=2.5),
            lambda: fit(lr=0.2919).last_loss,
        ),
        Plot(
            "regression-descent",
            "Gradient descent over the loss of a line's slope and intercept, from (−1, 5) to the "
            "optimum (2, 1).",
            descent,
        ),
    ]


def _optimizers(backend: Backend) -> list[Check | Plot]:
    def step(optimizer: Optimizer) -> Array:
        params = {"W": backend.asarray([1.0])}
        optimizer.update(params, {"W": backend.asarray([0.5])})
        return params["W"][0]

    @functools.cache
    def losses() -> dict[str, Any]:
        return compare_optimizers(backend)

    return [
        Check(
            "1 after a step of SGD, Momentum and Nesterov; gradient 0.5, lr 0.1",
            [0.95, 0.95, 0.905],
            lambda: [step(SGD(0.1)), step(Momentum(0.1)), step(Nesterov(0.1))],
            1e-15,
        ),
        Check(
            "the same for AdaGrad, RMSprop and Adam",
            [0.9, 0.0, 0.9],
            lambda: [step(AdaGrad(0.1)), step(RMSprop(0.1)), step(Adam(0.1))],
            1e-5,
            "the first step is lr, whatever the gradient; that of RMSprop lr / √(1 − 0.99), "
            "because its mean of squares starts at 0 and is not corrected",
        ),
        Check(
            "digits, loss after 500 updates: greatest of all but SGD",
            Between(high=0.3),
            lambda: max(loss[-50:].mean() for name, loss in losses().items() if name != "SGD"),
            note="64-50-50-10 with ReLU, mean of 50 updates; that of SGD is above 0.8",
        ),
        Plot(
            "optimizers",
            "Loss on the embedded digits by each optimizer, from the same weights, on the same "
            "minibatches, at the book's default rates: means of 20 updates.",
            lambda: figures.lines(
                10 + 20 * np.arange(25),
                {name: loss.reshape(-1, 20).mean(axis=1) for name, loss in losses().items()},
                xlabel="update",
                ylabel="loss",
                yscale="log",
            ),
        ),
    ]


def _overfitting(backend: Backend) -> list[Check | Plot]:
    result = functools.cache(functools.partial(overfitting, backend))

    def gained(course: Course) -> float:
        """Return by how much the weights kept are better than those of the plain course."""
        plain = result().plain.val_accuracy[-1]
        return float(course.val_accuracy[course.kept_epoch - 1] - plain)

    def stop_on_test_data() -> Trainer:
        train, test = load_digits(backend=backend)
        network = TwoLayerNet(64, 10, 10, backend=backend)
        return Trainer(network, *train, *test, patience=5, verbose=False)

    return [
        Check(
            "over-fitting: training accuracy after 100 epochs",
            Between(low=0.98),
            lambda: result().plain.train_accuracy,
            note="300 digits, three in ten of them labelled at random: it learns those by heart",
        ),
        Check(
            "over-fitting: validation accuracy",
            Between(high=0.8),
            lambda: result().plain.val_accuracy[-1],
            note="400 other digits",
        ),
        Check(
            "over-fitting: validation loss, last over least",
            Between(low=1.3),
            lambda: result().plain.val_loss[-1] / result().plain.val_loss.min(),
        ),
        Check(
            "validation accuracy gained by dropout or weight decay, whichever gained less",
            Between(low=0.03),
            lambda: min(gained(result().dropout), gained(result().weight_decay)),
            note="dropout 0.5; ½λΣW² added to the loss, λ = 0.01",
        ),
        Check(
            "validation accuracy gained by early stopping",
            Between(low=0.03),
            lambda: gained(result().early_stop),
            note="when the validation loss has not fallen for ten epochs",
        ),
        Check(
            "early stopping without validation data",
            ValueError,
            stop_on_test_data,
            note="data that decided when to stop cannot test any more: hold some training data out",
            mistake="the slides: early stopping on the test data",
        ),
        Plot(
            "overfitting",
            "Training and validation loss drift apart: the network has the capacity to learn "
            "wrong labels by heart (variance); one too small for the task would keep both high "
            "(bias). Early stopping ends the training when the validation loss has not fallen "
            "for ten epochs, and keeps the best weights.",
            lambda: figures.overfitting_pair(
                result().plain.train_loss,
                result().plain.val_loss,
                result().early_stop.kept_epoch,
                len(result().early_stop.val_loss),
            ),
        ),
        Plot(
            "regularisation",
            "Validation loss of the same network left alone, with dropout, and with weight decay.",
            lambda: figures.lines(
                1 + np.arange(100),
                {
                    "left alone": result().plain.val_loss,
                    "dropout 0.5": result().dropout.val_loss,
                    "weight decay 0.01": result().weight_decay.val_loss,
                },
                xlabel="epoch",
                ylabel="validation loss",
                ylim=(0, None),
            ),
        ),
    ]
