"""The slide deck on training methods."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, error_of, section
from dlfs_gpu.training.curves import COLOURS, new_figure


@section(
    "The slide deck",
    "Data preparation, deeper networks, what a hidden layer is for, linear regression, optimizers "
    "and over-fitting.",
)
def slides(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield the numbers and figures of the slide deck."""
    yield from _data(backend)
    yield from _networks(backend)
    yield from _regression(backend)
    yield from _optimizers(backend)
    yield from _overfitting(backend)


def _data(backend: d.Backend) -> Iterator[Check | Plot]:
    labels = [*range(9), *range(10, 25)]
    # A table in the layout of the sign-language alphabet, with the deck's pixels.
    header = ",".join(["label", *(f"pixel{i}" for i in range(1, 8))])
    lines = [f"{label},24,75,184,185,78,32,55" for label in labels for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alphabet.csv"
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        alphabet = d.load_csv(path, scale=255, backend=backend)
    yield Check(
        "pixels 24, 75, 184, 185, 78, 32, 55, divided by 255",
        [0.0941176, 0.2941176, 0.7215686, 0.7254902, 0.3058824, 0.1254902, 0.2156863],
        alphabet.x_train[0],
        1e-7,
        printed_in="slides",
    )
    yield Check(
        "sign-language labels, 0 to 24 without 9",
        labels,
        alphabet.classes,
        note="24 classes; J needs motion. The loader maps them to 0 to 23",
        printed_in="slides",
    )
    numbers = backend.asarray([[4.0], [9.0], [5.0]])
    vectors = d.one_hot(backend.asarray([4, 9, 5]), 10)
    yield Check(
        "½Σ(y − t)² for the truth 5 and the answers 4 and 9: of labels, and of one-hot vectors",
        [[0.5, 8.0], [1.0, 1.0]],
        [[d.sum_squared_error(y[k], y[2]) for k in (0, 1)] for y in (numbers, vectors)],
        note="a wrong class is wrong, however near its number: labels are not numbers",
        printed_in="slides",
    )


def _networks(backend: d.Backend) -> Iterator[Check | Plot]:
    def parameters(outputs: int) -> list[int]:
        """Return how many parameters each layer has, and the network."""
        net = d.MultiLayerNet(784, [512, 512], outputs, seed=0, backend=backend)
        sizes = {key: math.prod(param.shape) for key, param in net.params.items()}
        return [*(sizes[f"W{k}"] + sizes[f"b{k}"] for k in (1, 2, 3)), sum(sizes.values())]

    yield Check(
        "parameters of 784-512-512-10: of each layer, and all",
        [401920, 262656, 5130, 669706],
        parameters(10),
        printed_in="slides",
    )
    yield Check("all with 24 outputs, for the alphabet", 676888, parameters(24)[-1])
    rng = np.random.default_rng(0)
    first, second, third = (
        d.Affine(backend.asarray(rng.normal(size=(n, m))), backend.asarray(rng.normal(size=m)))
        for n, m in ((4, 6), (6, 5), (5, 3))
    )
    single = d.Affine(
        first.W @ second.W @ third.W, (first.b @ second.W + second.b) @ third.W + third.b
    )
    inputs = backend.asarray(rng.normal(size=(8, 4)))
    stacked = third.forward(second.forward(first.forward(inputs)))
    yield Check(
        "three linear layers against the one they collapse to",
        Between(high=1e-12),
        backend.xp.max(backend.xp.abs(stacked - single.forward(inputs))),
        note="W′ = W1·W2·W3, b′ = (b1·W2 + b2)·W3 + b3; greatest difference of the outputs",
    )
    x = backend.asarray([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    t = backend.asarray([0, 1, 1, 0])
    flat, hidden = (
        d.MultiLayerNet(2, sizes, 2, "tanh", "xavier", seed=0, dtype="float64", backend=backend)
        for sizes in ([], [4])
    )
    optimizer = d.SGD(0.5)
    for _ in range(1000):
        for network in (flat, hidden):
            optimizer.update(network.params, network.gradient(x, t))
    yield Check(
        "XOR: loss without a hidden layer, and accuracy with 4 hidden units",
        [math.log(2), 1.0],
        [flat.loss(x, t), hidden.accuracy(x, t)],
        1e-6,
        "no straight line separates the answers: without one, the best it can do is to say one "
        "half to everything, ln 2",
    )
    axis = np.linspace(-3, 3, 601)
    panels = {
        "unbounded": {"linear": d.identity_function(axis), "ReLU": d.relu(axis)},
        "bounded": {
            "step": d.step_function(axis),
            "sigmoid": d.sigmoid(axis),
            "tanh": np.tanh(axis),
        },
    }
    yield Plot(
        "activations",
        "Activations: linear, which stacked collapse to one layer; ReLU, step, sigmoid and "
        "tanh, which do not.",
        lambda: figures.draw(axis, panels, xlabel="x"),
    )


def _regression(backend: d.Backend) -> Iterator[Check | Plot]:
    start, uphill = backend.asarray([-1.0, 5.0]), backend.asarray([-1.7, 5.3])
    x, y = backend.asarray([1.0, 2.0]), backend.asarray([3.0, 5.0])

    def loss(line: Array) -> Array:
        return d.sum_squared_error(line[0] * x + line[1], y)

    def counted_twice(line: Array) -> Array:
        return loss(line) + d.sum_squared_error(line[0] * x[1:] + line[1], y[1:])

    # The lines from the start on, (2001, 2), by learning rate.
    walks = {lr: d.gradient_descent(loss, start, lr, 2000)[1] for lr in (0.1, 0.28, 0.2917, 0.2919)}
    walk = walks[0.1]

    def descent() -> Figure:
        figure, axes = new_figure(figures.SQUARE)
        m, b = np.meshgrid(np.linspace(-3, 6, 181), np.linspace(-2, 7, 181))
        values = np.clip(0.5 * ((m + b - 3) ** 2 + (2 * m + b - 5) ** 2), 0.01, 300)
        levels = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300]
        filled = axes.contourf(m, b, values, levels, norm="log", cmap="viridis")
        for lr, colour in ((0.28, "#ffffff"), (0.1, COLOURS[1])):
            path = backend.to_numpy(walks[lr][:301])
            axes.plot(*path.T, ".-", color=colour, label=f"λ = {lr:g}", linewidth=1.2)
        figure.colorbar(filled, ax=axes, label="½Σ(y − ŷ)²", format="%g", shrink=0.85)
        axes.set(xlabel="slope m", ylabel="intercept b")
        axes.legend(facecolor="#404652", labelcolor="#ffffff")
        return figure

    yield Check(
        "regression: gradient at the start, and with (2, 5) counted twice",
        [[-3, -1], [-7, -3]],
        [d.numerical_gradient(f, start) for f in (loss, counted_twice)],
        1e-8,
        "ŷ = mx + b through (1, 3) and (2, 5), from m = −1, b = 5: "
        "∂m = 5m + 3b − 13, ∂b = 3m + 2b − 8",
        mistake="the slides: (−7, −3), which counts the point (2, 5) twice",
    )
    yield Check(
        "regression: first step, with λ = 0.1",
        [-0.7, 5.1],
        walk[1],
        1e-9,
        "it subtracts λ times the gradient",
        mistake="the slides: (−1.7, 5.3), adding it for m: uphill",
    )
    yield Check(
        "regression: ½Σ(y − ŷ)² at the start, after that step, and at (−1.7, 5.3)",
        [2.5, 1.825, 4.985],
        [loss(line) for line in (start, walk[1], uphill)],
        1e-9,
        mistake="the slides: a step down to where it is 4.985",
    )
    yield Check("regression: after 1000 steps", [1.9999989, 1.0000018], walk[1000], 5e-8)
    yield Check(
        "regression: optimum, and ½Σ(y − ŷ)² there",
        [2, 1, 0],
        [*walk[-1], loss(walk[-1])],
        1e-9,
    )
    yield Check(
        "regression: after 1000 steps, is ½Σ(y − ŷ)² less, with λ = 0.2917 and with 0.2919?",
        [True, False],
        [loss(walks[lr][1000]) < loss(start) for lr in (0.2917, 0.2919)],
        note="descent is stable below 0.29180",
    )
    yield Plot(
        "regression-descent",
        "Gradient descent over the loss of a line's slope and intercept, from (−1, 5) to the "
        "optimum (2, 1). λ = 0.28 is almost too large.",
        descent,
    )


def _optimizers(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield a step of each optimizer, and a comparison of them on the embedded digits."""
    # The book's rates, and Adam's for RMSprop too.
    rates = {d.SGD: 0.01, d.Momentum: 0.01, d.Nesterov: 0.01, d.AdaGrad: 0.01, d.RMSprop: 0.001}
    train, _ = d.load_digits(backend=backend)
    moved, losses = [], {}
    for kind, rate in (rates | {d.Adam: 0.001}).items():
        params = {"W": backend.asarray([1.0])}
        kind(0.1).update(params, {"W": backend.asarray([0.5])})
        moved.append(params["W"][0])
        network = d.MultiLayerNet(64, [50, 50], 10, seed=0, backend=backend)
        trainer = d.Trainer(
            network, *train, optimizer=kind(rate), iterations=500, seed=0, verbose=False
        )
        losses[kind.__name__] = trainer.train().losses.reshape(-1, 20).mean(axis=1)
    yield Check(
        "1 after a step of SGD, Momentum, Nesterov, AdaGrad, RMSprop and Adam; gradient 0.5, "
        "lr 0.1",
        [0.95, 0.95, 0.905, 0.9, 0.0, 0.9],
        moved,
        1e-5,
        "the first step of AdaGrad and Adam is lr, whatever the gradient; that of RMSprop is "
        "lr / √(1 − 0.99), because its mean of squares starts at 0 and is not corrected",
    )
    yield Plot(
        "optimizers",
        "Loss on the embedded digits by each optimizer, from the same weights, on the same "
        "minibatches, at the book's default rates: means of 20 updates.",
        lambda: figures.draw(range(10, 500, 20), {"loss": losses}, xlabel="update", yscale="log"),
    )


def _overfitting(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield what a large network makes of 300 digits, three in ten of them labelled at random.

    It learns the wrong labels by heart, unless something keeps it from that. It is watched on 400
    other digits, all labelled right. Both sets come from the training part of the embedded digits;
    the test part is for nothing but a last look, and is not touched.
    """
    (x, t), _ = d.load_digits(backend="numpy")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    train, val = order[:300], order[300:700]
    labels = t[train]
    wrong = rng.random(300) < 0.3
    labels[wrong] = rng.integers(10, size=np.count_nonzero(wrong))
    x_train, t_train, x_val, t_val = map(backend.asarray, (x[train], labels, x[val], t[val]))

    def course(patience: int | None = None, **regularisation: Any) -> d.History:
        """Train for 100 epochs of 6 updates, and watch accuracy and loss on the other digits."""
        network = d.MultiLayerNet(64, [100], 10, seed=0, backend=backend, **regularisation)
        trainer = d.Trainer(
            network,
            *(x_train, t_train, x_val, t_val),
            mini_batch_size=50,
            optimizer=d.Adam(0.01),
            iterations=600,
            seed=0,
            x_val=x_val,
            t_val=t_val,
            patience=patience,
            verbose=False,
        )
        return trainer.train()

    free, stopped = course(), course(patience=10)
    best = stopped.iterations.index(stopped.best_iteration or 0)
    helped = (
        course(dropout_ratio=0.5).test_accuracy[-1],
        course(weight_decay_lambda=0.01).test_accuracy[-1],
        stopped.test_accuracy[best],
    )

    def drifting_apart() -> Figure:
        losses = {
            "training": free.losses.reshape(100, 6).mean(axis=1),
            "validation": free.val_loss[1:],
        }
        figure = figures.draw(range(1, 101), {"loss": losses}, xlabel="epoch", ylim=(0, None))
        (axes,) = figure.axes
        axes.plot(best, free.val_loss[best], "o", color=COLOURS[3], label="weights kept")
        end = stopped.iterations[-1] / 6
        axes.axvline(end, color=COLOURS[5], linestyle=":", label="training stopped")
        axes.legend()
        return figure

    yield Check(
        "over-fitting: training accuracy after 100 epochs, less validation accuracy",
        Between(low=0.2),
        free.train_accuracy[-1] - free.test_accuracy[-1],
        note="300 digits, three in ten of them labelled at random: it learns those by heart, "
        "and does worse on 400 others",
    )
    yield Check(
        "validation accuracy gained by dropout, weight decay and early stopping: the least",
        Between(low=0.03),
        min(helped) - free.test_accuracy[-1],
        note="dropout 0.5; ½λΣW² added to the loss, λ = 0.01; the weights of the epoch after "
        "which the validation loss has not fallen for ten epochs",
    )
    network = d.TwoLayerNet(64, 10, 10, backend=backend)
    yield Check(
        "early stopping without validation data",
        ValueError,
        error_of(lambda: d.Trainer(network, x_train, t_train, x_val, t_val, patience=5)),
        note="data that decided when to stop cannot test any more: hold some training data out",
        mistake="the slides: early stopping on the test data",
    )
    yield Plot(
        "overfitting",
        "Training and validation loss drift apart: the network has the capacity to learn "
        "wrong labels by heart (variance); one too small for the task would keep both high "
        "(bias). Early stopping ends the training when the validation loss has not fallen "
        "for ten epochs, and keeps the best weights.",
        drifting_apart,
    )
