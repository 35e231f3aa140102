"""The slide deck on training methods."""

from __future__ import annotations

import functools
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting
from dlfs_gpu.data import CsvData, load_csv
from dlfs_gpu.functions import (
    identity_function,
    one_hot,
    relu,
    sigmoid,
    step_function,
    sum_squared_error,
)
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import make_optimizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = [24, 75, 184, 185, 78, 32, 55]


def slides(setting: Setting) -> Section:
    """Return the numbers and figures of the slide deck."""
    return Section(
        "The slide deck",
        "Data preparation, deeper networks, what a hidden layer is for, linear regression, "
        "optimizers and over-fitting.",
        [
            *_data(setting),
            *_networks(setting),
            *_regression(setting),
            *_optimizers(setting),
            *_overfitting(setting),
        ],
    )


def _data(setting: Setting) -> list[Row | Plot]:
    def squared_error(truth: list[float], answer: list[float]) -> Any:
        return sum_squared_error(setting.array(answer), setting.array(truth))

    def hot(label: int) -> Any:
        return one_hot(setting.backend.asarray(label), 10)

    @functools.cache
    def table() -> CsvData:
        return _sign_language_csv(setting)

    return [
        Row(
            "inputs of a flattened 28 × 28 image",
            784,
            lambda: setting.backend.xp.reshape(setting.array(np.zeros((28, 28))), (-1,)).shape[0],
        ),
        Row(
            "pixels 24, 75, 184, 185, 78, 32, 55, divided by 255",
            [0.0941176, 0.2941176, 0.7215686, 0.7254902, 0.3058824, 0.1254902, 0.2156863],
            lambda: table().x_train[0],
            1e-7,
        ),
        Row(
            "sign-language labels, 0 to 24 without 9",
            [*range(9), *range(10, 25)],
            lambda: table().classes,
            note="24 classes; J needs motion. The loader maps them to 0 to 23",
        ),
        Row("½SSE of labels: truth 5, answer 4", 0.5, lambda: squared_error([5], [4])),
        Row("½SSE of labels: truth 5, answer 9", 8.0, lambda: squared_error([5], [9])),
        Row(
            "½SSE of one-hot vectors: truth 5, answer 4",
            1.0,
            lambda: sum_squared_error(hot(4), hot(5)),
            note="a wrong class is wrong, however near its number: labels are not numbers",
        ),
        Row(
            "½SSE of one-hot vectors: truth 5, answer 9",
            1.0,
            lambda: sum_squared_error(hot(9), hot(5)),
        ),
    ]


def _sign_language_csv(setting: Setting) -> CsvData:
    """Load a table in the layout of the sign-language alphabet, with the deck's pixels."""
    header = ",".join(["label", *(f"pixel{i + 1}" for i in range(len(PIXELS)))])
    cells = ",".join(map(str, PIXELS))
    lines = [f"{label},{cells}" for label in range(25) if label != 9 for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alphabet.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return load_csv(path, scale=255, backend=setting.backend)


def _networks(setting: Setting) -> list[Row | Plot]:
    def parameters(outputs: int) -> list[int]:
        net = MultiLayerNet(784, [512, 512], outputs, seed=0, backend=setting.backend)
        sizes = {key: math.prod(param.shape) for key, param in net.params.items()}
        return [sizes[f"W{k}"] + sizes[f"b{k}"] for k in (1, 2, 3)]

    @functools.cache
    def xor(hidden_size: int) -> experiments.Xor:
        return experiments.xor(hidden_size, backend=setting.backend)

    def collapse_error() -> float:
        result = experiments.collapse_linear_layers(backend=setting.backend)
        return float(np.abs(result.stacked - result.single).max())

    def regions() -> Figure:
        axis = np.linspace(-0.5, 1.5, 81)
        points = setting.array(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))
        probabilities = {
            title: setting.backend.to_numpy(xor(size).network.predict(points))[:, 1].reshape(81, 81)
            for title, size in (("no hidden layer", 0), ("4 hidden units", 4))
        }
        return figures.decision_regions(
            axis, probabilities, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
        )

    return [
        Row(
            "parameters of the layers of 784-512-512-10",
            [401920, 262656, 5130],
            lambda: parameters(10),
        ),
        Row("parameters of 784-512-512-10", 669706, lambda: sum(parameters(10))),
        Row("parameters with 24 outputs, for the alphabet", 676888, lambda: sum(parameters(24))),
        Row(
            "three linear layers against the one they collapse to",
            Between(high=1e-12),
            collapse_error,
            note="W′ = W1·W2·W3, b′ = (b1·W2 + b2)·W3 + b3; greatest difference of the outputs",
        ),
        Row(
            "XOR without a hidden layer: loss",
            math.log(2),
            lambda: xor(0).losses[-1],
            1e-6,
            "ln 2: the best it can do is to say one half to everything",
        ),
        Row("XOR without a hidden layer: accuracy", Between(high=0.75), lambda: xor(0).accuracy),
        Row("XOR with 4 hidden units: accuracy", 1.0, lambda: xor(4).accuracy),
        Row(
            "XOR with 4 hidden units: probabilities of 1",
            [0, 1, 1, 0],
            lambda: xor(4).probabilities,
            0.02,
        ),
        Plot(
            "activations",
            "Activations: linear, which stacked collapse to one layer; step, sigmoid, tanh and "
            "ReLU, which do not.",
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
    return figures.lines(
        x,
        {
            "linear": identity_function(x),
            "step": step_function(x),
            "sigmoid": sigmoid(x),
            "tanh": np.tanh(x),
            "ReLU": relu(x),
        },
        xlabel="x",
        ylabel="activation",
        ylim=(-1.5, 3),
    )


def _regression(setting: Setting) -> list[Row | Plot]:
    def fit(**options: Any) -> experiments.LinearRegression:
        return experiments.linear_regression(backend=setting.backend, **options)

    def descent() -> Figure:
        paths = {
            "λ = 0.28, almost too large": fit(steps=40, lr=0.28).path,
            "λ = 0.1": fit(steps=300).path,
        }
        m, b = np.linspace(-3, 6, 181), np.linspace(-2, 7, 181)
        first, second = m + b[:, None] - 3, 2 * m + b[:, None] - 5
        return figures.line_fit_path(m, b, 0.5 * (first**2 + second**2), paths)

    return [
        Row(
            "regression: gradient at the start",
            [-3, -1],
            lambda: fit(steps=0).first_gradient,
            note="ŷ = mx + b through (1, 3) and (2, 5) from m = −1, b = 5: "
            "∂m = 5m + 3b − 13, ∂b = 3m + 2b − 8",
        ),
        Row(
            "regression: numerical gradient at the start",
            [-3, -1],
            lambda: fit(steps=0, gradient="numerical").first_gradient,
            1e-9,
        ),
        Row("regression: ½Σ(y − ŷ)² at the start", 2.5, lambda: fit(steps=0).losses[0], 1e-12),
        Row("regression: first step", [-0.7, 5.1], lambda: fit(steps=1).path[1], 1e-12),
        Row("regression: ½Σ(y − ŷ)² after it", 1.825, lambda: fit(steps=1).losses[1], 1e-12),
        Row("regression: after 1000 steps", [1.9999989, 1.0000018], lambda: fit().path[-1], 5e-8),
        Row(
            "regression: after 1000 numerical steps",
            [1.9999989, 1.0000018],
            lambda: fit(gradient="numerical").path[-1],
            5e-8,
        ),
        Row("regression: optimum", [2, 1], lambda: fit(steps=5000).path[-1], 1e-9),
        Row("regression: loss there", 0.0, lambda: fit(steps=5000).losses[-1], 1e-12),
        Row("regression: largest stable rate", 0.29180, lambda: fit(steps=0).largest_rate, 5e-6),
        Row(
            "regression: loss after 1000 steps, λ = 0.2917",
            Between(high=1),
            lambda: _end(fit, 0.2917),
        ),
        Row(
            "regression: loss after 1000 steps, λ = 0.2919",
            Between(low=2.5),
            lambda: _end(fit, 0.2919),
        ),
        Plot(
            "regression-descent",
            "Gradient descent over the loss of a line's slope and intercept, from (−1, 5) to the "
            "optimum (2, 1).",
            descent,
        ),
    ]


def _end(fit: Any, lr: float) -> float:
    return float(fit(lr=lr).losses[-1])


def _optimizers(setting: Setting) -> list[Row | Plot]:
    def steps(name: str, count: int = 1) -> Any:
        params = {"W": setting.array([1.0])}
        optimizer = make_optimizer(name, lr=0.1)
        for _ in range(count):
            optimizer.update(params, {"W": setting.array([0.5])})
        return params["W"][0]

    @functools.cache
    def compared() -> dict[str, Any]:
        return experiments.compare_optimizers(backend=setting.backend)

    def smoothed() -> dict[str, Any]:
        return {name: losses.reshape(-1, 20).mean(axis=1) for name, losses in compared().items()}

    return [
        Row("SGD: 1 after a step, gradient 0.5, lr 0.1", 0.95, lambda: steps("SGD"), 1e-15),
        Row("Momentum: after two such steps", 0.855, lambda: steps("Momentum", 2), 1e-15),
        Row("Nesterov: after one", 0.905, lambda: steps("Nesterov"), 1e-15),
        Row(
            "AdaGrad: after one",
            0.9,
            lambda: steps("AdaGrad"),
            1e-6,
            "the first step is lr, whatever the gradient",
        ),
        Row(
            "RMSprop: after one",
            0.0,
            lambda: steps("RMSprop"),
            1e-5,
            "lr / √(1 − 0.99): its mean of g² starts at 0, uncorrected",
        ),
        Row("Adam: after one", 0.9, lambda: steps("Adam"), 1e-5, "lr: corrected"),
        Row(
            "digits, loss after 500 updates: greatest of all but SGD",
            Between(high=0.3),
            lambda: max(losses[-50:].mean() for key, losses in compared().items() if key != "SGD"),
            note="64-50-50-10 with ReLU from the same weights, mean of 50 updates",
        ),
        Row(
            "digits, loss after 500 updates: SGD",
            Between(low=0.3),
            lambda: compared()["SGD"][-50:].mean(),
            note="at the book's default rates",
        ),
        Plot(
            "optimizers",
            "Loss on the embedded digits by each optimizer, from the same weights, on the same "
            "minibatches: means of 20 updates.",
            lambda: figures.lines(
                10 + 20 * np.arange(25),
                smoothed(),
                xlabel="update",
                ylabel="loss",
                yscale="log",
            ),
        ),
    ]


def _overfitting(setting: Setting) -> list[Row | Plot]:
    @functools.cache
    def result() -> experiments.Overfitting:
        return experiments.overfitting(backend=setting.backend)

    def accuracy(name: str) -> float:
        return float(getattr(result(), name).val_accuracy[-1])

    return [
        Row(
            "over-fitting: training accuracy after 100 epochs",
            Between(low=0.98),
            lambda: result().plain.train_accuracy[-1],
            note="300 digits, three in ten of them labelled at random: it learns those by heart",
        ),
        Row(
            "over-fitting: validation accuracy",
            Between(high=0.8),
            lambda: accuracy("plain"),
            note="400 other digits",
        ),
        Row(
            "over-fitting: validation loss, last over least",
            Between(low=1.3),
            lambda: result().plain.val_loss[-1] / result().plain.val_loss.min(),
        ),
        Row(
            "with dropout: validation accuracy gained",
            Between(low=0.03),
            lambda: accuracy("dropout") - accuracy("plain"),
        ),
        Row(
            "with weight decay: validation accuracy gained",
            Between(low=0.03),
            lambda: accuracy("weight_decay") - accuracy("plain"),
            note="½λΣW² added to the loss, λ = 0.01",
        ),
        Row(
            "with early stopping: validation accuracy gained",
            Between(low=0.03),
            lambda: result().early_stop.val_accuracy - accuracy("plain"),
        ),
        Row(
            "with early stopping: loss of the weights kept against the least seen",
            0.0,
            lambda: result().early_stop.val_loss - _least_until_stop(result()),
            1e-3,
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
                result().early_stop.best_epoch,
                result().early_stop.stopped_epoch,
            ),
        ),
        Plot(
            "regularisation",
            "Validation loss of the same network left alone, with dropout, and with weight decay.",
            lambda: figures.lines(
                np.arange(len(result().plain.val_loss)),
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


def _least_until_stop(result: experiments.Overfitting) -> float:
    return float(result.plain.val_loss[: result.early_stop.stopped_epoch + 1].min())
