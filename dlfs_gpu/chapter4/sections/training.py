"""Training by minibatches (sections 4.5.2 and 4.5.3)."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu.backend import Backend
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting
from dlfs_gpu.data import load_digits, load_mnist
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.data.mnist import DATA_VARIABLE, cache_folder
from dlfs_gpu.data.splits import Splits
from dlfs_gpu.models import TwoLayerNet
from dlfs_gpu.training import History, Trainer

MNIST = "MNIST"
UPDATES = 10_000

SOURCE_LOG = {
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
"""Training and test accuracy that the source prints, by iteration; its run had no seed."""


def training_data(backend: Backend, data_dir: Path | None) -> tuple[str, Splits]:
    """Return MNIST if it is at hand, else the embedded digits; nothing is downloaded.

    Raises
    ------
    FileNotFoundError
        If a folder is named, by `data_dir` or ``DLFS_GPU_DATA``, and lacks some of the files.
    """
    if data_dir is not None or os.environ.get(DATA_VARIABLE):
        return MNIST, load_mnist(data_dir=data_dir, backend=backend)
    try:
        return MNIST, load_mnist(data_dir=cache_folder("mnist"), backend=backend)
    except FileNotFoundError:
        return "the embedded digits", load_digits(backend=backend)


def training(setting: Setting) -> Section:
    """Train the two-layer network by the chapter's recipe, and return its numbers and figures."""
    assert setting.data is not None
    name, (train, test) = setting.data
    network = _network(setting, train)
    trainer = Trainer(
        network,
        *train,
        *test,
        optimizer_param={"lr": 0.1},
        iterations=UPDATES,
        seed=0,
        verbose=False,
    )
    history = trainer.train()
    known = name == MNIST
    return Section(
        "Training",
        f"The chapter's recipe: batches of 100 drawn at random, learning rate 0.1, {UPDATES:,} "
        f"updates, on {name}. "
        + (
            "The source's log stands beside this run's. Neither network began with the other's "
            "weights, so they agree to a point or two, not in digits."
            if known
            else "MNIST is not at hand, so there is nothing to set beside the source's log: put "
            f"its four files into a folder, and name it with --data-dir or in {DATA_VARIABLE}."
        ),
        [
            *(_log_rows(history) if known else []),
            Row(
                "test accuracy at the end",
                Between(low=0.94 if known else 0.95),
                lambda: history.test_accuracy[-1],
            ),
            Row(
                "training and test accuracy at the end, difference",
                Between(high=0.02 if known else 0.06),
                lambda: abs(history.train_accuracy[-1] - history.test_accuracy[-1]),
                note="the network has learned digits, not its training data by heart",
            ),
            Row("loss at the first update", np.log(10), lambda: history.losses[0], 0.1, "ln 10"),
            Row(
                "loss over the last 100 updates",
                Between(high=0.3),
                lambda: history.losses[-100:].mean(),
            ),
            Row(
                "share of 60,000 images seen in 600 batches of 100",
                1 - np.exp(-1),
                share_seen,
                0.005,
                "drawn with replacement: 63.2 %",
            ),
            Row(
                "numerical gradients: losses of 20 updates",
                Between(high=1e-5),
                lambda: _numerical_losses(setting, train, history),
                note="greatest difference from backpropagation, same seed",
            ),
            Plot(
                "training-loss",
                f"Loss of each minibatch while learning {name}.",
                lambda: figures.loss_curve(history.losses),
            ),
            Plot(
                "training-accuracy",
                "Accuracy on all training and all test data, once per epoch. The curves lie on "
                "each other: no over-fitting."
                if known
                else "Accuracy on all training and all test data, once per epoch.",
                lambda: figures.accuracy_curve(
                    np.asarray(history.iterations) / trainer.iter_per_epoch,
                    history.train_accuracy,
                    history.test_accuracy,
                ),
            ),
        ],
    )


def _network(setting: Setting, train: Any) -> TwoLayerNet:
    return TwoLayerNet(train[0].shape[1], 50, 10, seed=0, backend=setting.backend)


def _log_rows(history: History) -> list[Row]:
    """Return a row for each line of the source's log."""
    found = dict(
        zip(
            history.iterations,
            zip(history.train_accuracy, history.test_accuracy, strict=True),
            strict=True,
        )
    )
    rows = []
    for iteration, accuracies in SOURCE_LOG.items():
        # The first line is chance, and the second on the steepest part of the curve.
        tolerance = 0.02 if iteration >= 1200 else 0.1
        rows.append(
            Row(
                f"training and test accuracy after {iteration} updates",
                list(accuracies),
                functools.partial(found.get, iteration),
                tolerance,
            )
        )
    return rows


def share_seen() -> float:
    """Return the share of 60,000 samples that is among 600 minibatches of 100."""
    drawn = MinibatchSampler(60_000, 100, seed=0).draw(600)
    return len(np.unique(drawn)) / 60_000


def _numerical_losses(setting: Setting, train: Any, history: History) -> float:
    """Train by numerical gradients for 20 updates, and compare with backpropagation."""
    x, t = train
    trainer = Trainer(
        _network(setting, train),
        x,
        t,
        optimizer_param={"lr": 0.1},
        iterations=20,
        gradient="difference",
        seed=0,
        evaluate_sample_num_per_epoch=100,
        verbose=False,
    )
    return float(np.abs(trainer.train().losses - history.losses[:20]).max())
