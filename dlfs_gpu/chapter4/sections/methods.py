"""What the slide deck tells of optimizers, and of over-fitting and what helps against it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot
from dlfs_gpu.optimizers import Optimizer
from dlfs_gpu.training.curves import COLOURS, new_figure


def optimizers(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield a step of each optimizer, and a comparison of them on the embedded digits."""
    kinds = (d.SGD, d.Momentum, d.Nesterov, d.AdaGrad, d.RMSprop, d.Adam)

    def step(optimizer: Optimizer) -> Array:
        params = {"W": backend.asarray([1.0])}
        optimizer.update(params, {"W": backend.asarray([0.5])})
        return params["W"][0]

    def comparison() -> Figure:
        train, _ = d.load_digits(backend=backend)
        losses = {}
        # The book's rates, and Adam's for RMSprop too.
        ours = (d.SGD(0.01), d.Momentum(), d.Nesterov(), d.AdaGrad(), d.RMSprop(0.001), d.Adam())
        for optimizer in ours:
            network = d.MultiLayerNet(64, [50, 50], 10, seed=0, backend=backend)
            trainer = d.Trainer(
                network, *train, optimizer=optimizer, iterations=500, seed=0, verbose=False
            )
            means = trainer.train().losses.reshape(-1, 20).mean(axis=1)
            losses[type(optimizer).__name__] = means
        middles = range(10, 500, 20)
        return figures.draw(middles, {"loss": losses}, xlabel="update", yscale="log")

    yield Check(
        "1 after a step of SGD, Momentum, Nesterov, AdaGrad, RMSprop and Adam; gradient 0.5, "
        "lr 0.1",
        [0.95, 0.95, 0.905, 0.9, 0.0, 0.9],
        lambda: [step(kind(0.1)) for kind in kinds],
        1e-5,
        "the first step of the last three is lr, whatever the gradient; that of RMSprop "
        "lr / √(1 − 0.99), because its mean of squares starts at 0 and is not corrected",
    )
    yield Plot(
        "optimizers",
        "Loss on the embedded digits by each optimizer, from the same weights, on the same "
        "minibatches, at the book's default rates: means of 20 updates.",
        comparison,
    )


def overfitting(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield what a large network makes of 300 digits, three in ten of them labelled at random.

    It learns the wrong labels by heart, unless something keeps it from that. It is watched on 400
    other digits, all labelled right. Both sets come from the training part of the embedded digits;
    the test part is for nothing but a last look, and is not touched.
    """

    @functools.cache
    def data() -> list[Array]:
        (x, t), _ = d.load_digits(backend="numpy")
        rng = np.random.default_rng(0)
        order = rng.permutation(len(x))
        train, val = order[:300], order[300:700]
        labels = t[train]
        wrong = rng.random(300) < 0.3
        labels[wrong] = rng.integers(10, size=np.count_nonzero(wrong))
        return [backend.asarray(part) for part in (x[train], labels, x[val], t[val])]

    @functools.cache
    def course(patience: int | None = None, **regularisation: Any) -> d.History:
        """Train for 100 epochs of 6 updates, and watch accuracy and loss on the other digits."""
        x_train, t_train, x_val, t_val = data()
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

    def gained() -> float:
        """Return by how much each is better than no help, and of these the least."""
        stopped = course(patience=10)
        best = stopped.iterations.index(stopped.best_iteration or 0)
        helped = min(
            course(dropout_ratio=0.5).test_accuracy[-1],
            course(weight_decay_lambda=0.01).test_accuracy[-1],
            stopped.test_accuracy[best],
        )
        return helped - course().test_accuracy[-1]

    def stop_on_test_data() -> d.Trainer:
        train, test = d.load_digits(backend=backend)
        return d.Trainer(d.TwoLayerNet(64, 10, 10, backend=backend), *train, *test, patience=5)

    def drifting_apart() -> Figure:
        figure, axes = new_figure()
        epochs = np.arange(1, 101)
        val_loss, stopped = course().val_loss[1:], course(patience=10)
        best = (stopped.best_iteration or 0) // 6
        axes.plot(epochs, course().losses.reshape(100, 6).mean(axis=1), label="training")
        axes.plot(epochs, val_loss, "--", label="validation")
        axes.plot(best, val_loss[best - 1], "o", color=COLOURS[3], label="weights kept")
        end = stopped.iterations[-1] / 6
        axes.axvline(end, color=COLOURS[5], linestyle=":", label="training stopped")
        axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
        axes.legend()
        return figure

    yield Check(
        "over-fitting: training accuracy after 100 epochs, less validation accuracy",
        Between(low=0.2),
        lambda: course().train_accuracy[-1] - course().test_accuracy[-1],
        note="300 digits, three in ten of them labelled at random: it learns those by heart, "
        "and does worse on 400 others",
    )
    yield Check(
        "validation accuracy gained by dropout, weight decay and early stopping: the least",
        Between(low=0.03),
        gained,
        note="dropout 0.5; ½λΣW² added to the loss, λ = 0.01; the weights of the epoch after "
        "which the validation loss has not fallen for ten epochs",
    )
    yield Check(
        "early stopping without validation data",
        ValueError,
        stop_on_test_data,
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
