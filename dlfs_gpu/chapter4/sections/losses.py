"""Loss functions (section 4.2)."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from dlfs_gpu.backend import Backend
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.experiments.learning import (
    AccuracyAgainstLoss,
    accuracy_against_loss,
    saturated_gradients,
)
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section
from dlfs_gpu.functions import (
    binary_cross_entropy_error,
    cross_entropy_error,
    mean_squared_error,
    softmax_cross_entropy,
    sum_squared_error,
)

_ROUNDING = 2e-15


def losses(backend: Backend) -> Section:
    """Return the numbers and figures of section 4.2."""
    return Section(
        "4.2 Loss functions",
        "Two answers to one question, y1 (0.6 on the right class, 2) and y2 (0.6 on a wrong one), "
        "and how wrong each loss finds them; then why networks are trained by a loss, and not by "
        "accuracy.",
        [*_two_answers(backend), *_targets(backend), *_why(backend)],
    )


def _two_answers(backend: Backend) -> list[Check | Plot]:
    array = functools.partial(backend.asarray, dtype="float64")
    y1 = array([0.1, 0.05, 0.6, 0, 0.05, 0.1, 0, 0.1, 0, 0])
    y2 = array([0.1, 0.05, 0.1, 0, 0.05, 0.1, 0, 0.6, 0, 0])
    t = array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    batch, targets = backend.xp.stack([y1, y2]), backend.xp.stack([t, t])

    def of_both(loss: Any) -> list[Any]:
        return [loss(y1, t), loss(y2, t)]

    return [
        Check(
            "sum of squared errors, ½Σ(y − t)², of y1 and y2",
            [0.09750000000000003, 0.5975],
            lambda: of_both(sum_squared_error),
            _ROUNDING,
            printed_in="book 4.2.1",
        ),
        Check(
            "mean squared error, (1/n)Σ(y − t)²",
            [0.0195, 0.1195],
            lambda: of_both(mean_squared_error),
            _ROUNDING,
            mistake="the notes: 0.0975, half the sum, under the name of mean squared error",
        ),
        Check(
            "y and t of different lengths",
            ValueError,
            lambda: sum_squared_error(y1[:8], t),
            mistake="the notes: arrays of 8 or 9 elements beside others of 10",
        ),
        Check(
            "cross entropy of y1 and y2",
            [0.510825457099338, 2.302584092994546],
            lambda: of_both(cross_entropy_error),
            _ROUNDING,
            "−Σ t·log(y + 1e-7)",
            printed_in="book 4.2.2",
        ),
        Check(
            "cross entropy where y is 1 and where it is 0",
            [-1.0e-7, 16.118095650958],
            lambda: [
                cross_entropy_error(array([1, 0]), array([1, 0])),
                cross_entropy_error(array([0, 1]), array([1, 0])),
            ],
            5e-13,
            "slightly negative because of the 1e-7, which also caps it at −log 1e-7",
            mistake="the notes: “log 0 overflows”; it divides by zero, and is −∞",
        ),
        Check(
            "the same from scores, without the 1e-7",
            [0.0, 1000.0],
            lambda: [
                softmax_cross_entropy(array([1000, 0]), array([1, 0])),
                softmax_cross_entropy(array([0, 1000]), array([1, 0])),
            ],
            note="what networks train on here: no cap, and nothing overflows",
        ),
        Check(
            "batch of y1 and y2, with one-hot targets and with labels",
            [1.406704775046942, 1.406704775046942],
            lambda: [
                cross_entropy_error(batch, targets),
                cross_entropy_error(batch, backend.asarray([2, 2])),
            ],
            _ROUNDING,
            mistake="the notes: a formula without the 1e-7, in which the zeros of y1 make 0·(−∞), "
            "not a number",
        ),
        Check(
            "binary cross entropy of p = 0.6 and p = 0.1 for t = 1",
            [0.5108256237659907, 2.3025850929940455],
            lambda: [
                binary_cross_entropy_error(array(0.6), array(1)),
                binary_cross_entropy_error(array(0.1), array(1)),
            ],
            _ROUNDING,
            "−log p: also the cross entropy of y1 and y2 without the 1e-7",
        ),
        Check(
            "binary cross entropy of p = 0.6 for t = 0",
            0.91629,
            lambda: binary_cross_entropy_error(array(0.6), array(0)),
            5e-6,
            "−(t·log p + (1 − t)·log(1 − p))",
            printed_in="slides",
            mistake="the slides: brackets that do not match; the minus belongs to the whole sum",
        ),
        Plot(
            "ln-x",
            "The natural logarithm. Cross entropy is −ln of the probability given to the right "
            "class: 0 for certainty, and growing without bound as it goes to 0.",
            lambda: figures.lines(
                x := np.geomspace(0.01, 1, 400), {"ln x": np.log(x)}, xlabel="x", ylabel="ln x"
            ),
        ),
    ]


def _targets(backend: Backend) -> list[Check | Plot]:
    array = functools.partial(backend.asarray, dtype="float64")

    def picked() -> Any:
        y = np.zeros((5, 10))
        y[range(5), [2, 7, 0, 9, 4]] = [0.1, 0.2, 0.3, 0.4, 0.5]
        return cross_entropy_error(array(y), backend.asarray([2, 7, 0, 9, 4]))

    return [
        Check(
            "labels 2, 7, 0, 9, 4 pick y[0,2], y[1,7], y[2,0], y[3,9], y[4,4]",
            -math.log(0.1 * 0.2 * 0.3 * 0.4 * 0.5) / 5,
            picked,
            1e-6,
            "these hold 0.1, 0.2, 0.3, 0.4 and 0.5, all others 0 (book 4.2.4)",
        ),
        Check(
            "soft targets (½, ½, 0) for y = (½, ¼, ¼)",
            1.5 * math.log(2),
            lambda: cross_entropy_error(array([[0.5, 0.25, 0.25]]), array([[0.5, 0.5, 0]])),
            1e-6,
            "dimensions decide whether t holds labels",
            mistake="the book's code: 0.693, because t.size == y.size takes them for one-hot, and "
            "only the greatest counts",
        ),
        Check(
            "labels of shape (N, 1)",
            ValueError,
            lambda: cross_entropy_error(
                array([[0.5, 0.5], [0.5, 0.5]]), backend.asarray([[0], [1]])
            ),
            mistake="the book's code: a wrong number, without a word",
        ),
    ]


def _why(backend: Backend) -> list[Check | Plot]:
    @functools.cache
    def moved() -> AccuracyAgainstLoss:
        return accuracy_against_loss(backend)

    def jump() -> float:
        heights = np.abs(np.diff(moved().accuracies))
        return float(heights[heights > 0].min())

    return [
        Check(
            "gradient of ½(p − t)² at the score −10, t = 1",
            -4.54e-5,
            lambda: saturated_gradients(backend)[0],
            5e-8,
            "(p − t)·p·(1 − p) for p = σ(−10): wrong, sure, and it hardly learns",
        ),
        Check(
            "gradient of binary cross entropy there",
            -0.99995,
            lambda: saturated_gradients(backend)[1],
            5e-6,
            "p − t: why classification uses cross entropy",
        ),
        Check(
            "accuracy of 100 digits moves in jumps of",
            0.01,
            jump,
            1e-12,
            "from 32 % straight to 33 % (book 4.2.5)",
        ),
        Check(
            "slope of that accuracy",
            0.0,
            lambda: moved().accuracy_slope,
            note="nothing to follow downhill",
        ),
        Check(
            "slope of the loss there",
            Between(high=-1e-4),
            lambda: moved().loss_slope,
            note="why networks learn by a loss",
        ),
        Plot(
            "accuracy-against-loss",
            "One bias of a half-trained network is moved. Accuracy on 100 digits is a staircase, "
            "flat almost everywhere; the loss answers to every change.",
            lambda: figures.stacked(
                moved().changes,
                {"accuracy": {"accuracy": moved().accuracies}, "loss": {"loss": moved().losses}},
                xlabel="change of one bias",
            ),
        ),
    ]
