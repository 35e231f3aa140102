"""Training by minibatches (sections 4.5.2 and 4.5.3)."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

import dlfs_gpu as d
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section
from dlfs_gpu.data.mnist import DATA_VARIABLE, cache_folder
from dlfs_gpu.data.splits import Splits
from dlfs_gpu.training.curves import draw_accuracies, draw_losses, new_figure

_LOG = {
    0: (0.112366666667, 0.1135),
    600: (0.783283333333, 0.7899),
    1200: (0.88015, 0.8839),
    1800: (0.900133333333, 0.9031),
    2400: (0.908633333333, 0.9124),
    3000: (0.915183333333, 0.9175),
    3600: (0.92, 0.9224),
    4200: (0.924433333333, 0.9264),
    4800: (0.928233333333, 0.9296),
    5400: (0.931233333333, 0.9319),
    6000: (0.9332, 0.9337),
    6600: (0.936716666667, 0.9374),
    7200: (0.938533333333, 0.9392),
    7800: (0.941383333333, 0.9403),
    8400: (0.942583333333, 0.942),
    9000: (0.944716666667, 0.9436),
    9600: (0.945733333333, 0.9449),
}
"""Training and test accuracy that the notes print, by iteration; their run had no seed."""


def training(backend: d.Backend, data_dir: Path | None = None) -> Section:
    """Return the numbers and figures of the chapter's training, on MNIST if it is at hand.

    Else it is on the embedded digits; nothing is downloaded.

    Raises
    ------
    FileNotFoundError
        If a folder is named, by `data_dir` or ``DLFS_GPU_DATA``, and lacks some of the files.
    """
    mnist = _mnist(backend, data_dir)
    train, test = mnist or d.load_digits(backend=backend)
    name = "MNIST" if mnist else "the embedded digits"
    introduction = (
        "The chapter's recipe: a network with 50 hidden units, minibatches of 100 drawn at "
        f"random, learning rate 0.1, 10,000 updates, on {name}."
    )
    if mnist:
        warning = ""
        introduction += (
            " The log that the notes print stands beside this run's. Neither network began with "
            "the other's weights, so they agree to a point or two, not in digits."
        )
    else:
        warning = (
            "MNIST is not at hand, so the embedded digits were learned, and nothing stands beside "
            "the log of the notes: name the folder of its files with --data-dir or in "
            f"{DATA_VARIABLE}"
        )

    def trainer(gradient: Literal["backprop", "difference"], iterations: int) -> d.Trainer:
        return d.Trainer(
            d.TwoLayerNet(train[0].shape[1], 50, 10, seed=0, backend=backend),
            *train,
            *test,
            optimizer_param={"lr": 0.1},
            iterations=iterations,
            gradient=gradient,
            seed=0,
            verbose=False,
        )

    @functools.cache
    def history() -> d.History:
        return trainer("backprop", 10_000).train()

    def numerical_losses_differ() -> float:
        """Train by numerical gradients for 20 updates, and compare with backpropagation."""
        losses = trainer("difference", 20).train().losses
        return float(np.abs(losses - history().losses[:20]).max())

    def accuracies(epoch: int) -> tuple[float, float]:
        return history().train_accuracy[epoch], history().test_accuracy[epoch]

    def loss_plot() -> Figure:
        figure, axes = new_figure()
        draw_losses(axes, history().losses)
        return figure

    def accuracy_plot() -> Figure:
        figure, axes = new_figure()
        epochs = np.asarray(history().iterations) / (train[0].shape[0] // 100)
        accuracies = history().train_accuracy, history().test_accuracy
        draw_accuracies(axes, epochs, *accuracies, xlabel="epoch")
        return figure

    def entries() -> Iterator[Check | Plot]:
        for number, (iteration, printed) in enumerate(_LOG.items() if mnist else ()):
            yield Check(
                f"training and test accuracy after {iteration:,} updates",
                list(printed),
                functools.partial(accuracies, number),
                # The first line is chance, and the second on the steepest part of the curve.
                0.02 if iteration >= 1200 else 0.1,
                printed_in="notes",
            )
        yield Check("final test accuracy", Between(low=0.94), lambda: history().test_accuracy[-1])
        yield Check(
            "final training and test accuracy, difference",
            Between(high=0.02 if mnist else 0.06),
            lambda: abs(history().train_accuracy[-1] - history().test_accuracy[-1]),
            note="no over-fitting: it has learned digits, not its training data by heart",
        )
        yield Check(
            "loss at the first update, ln 10: as good as guessing",
            np.log(10),
            lambda: history().losses[0],
            0.1,
        )
        yield Check(
            "share of 60,000 images among 600 minibatches of 100",
            1 - np.exp(-1),
            lambda: len(np.unique(d.MinibatchSampler(60_000, 100, seed=0).draw(600))) / 60_000,
            0.005,
            "drawn with replacement: 1 − 1/e",
            mistake="the notes: “an epoch sees all data once”",
        )
        yield Check(
            "numerical gradients: losses of 20 updates",
            Between(high=1e-5),
            numerical_losses_differ,
            note="greatest difference from backpropagation, same weights and minibatches",
        )
        yield Plot("training-loss", f"Loss of each minibatch while learning {name}.", loss_plot)
        yield Plot(
            "training-accuracy",
            "Accuracy on all training and all test data, once per epoch.",
            accuracy_plot,
        )

    return Section("4.5.2 and 4.5.3 Training", introduction, [*entries()], warning)


def _mnist(backend: d.Backend, data_dir: Path | None) -> Splits | None:
    """Return MNIST, or None if no folder is named and it has not been downloaded."""
    if data_dir is not None or os.environ.get(DATA_VARIABLE):
        return d.load_mnist(data_dir=data_dir, backend=backend)
    try:
        return d.load_mnist(data_dir=cache_folder("mnist"), backend=backend)
    except FileNotFoundError:
        return None
