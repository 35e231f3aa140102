"""Losses (section 4.2)."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting
from dlfs_gpu.functions import (
    binary_cross_entropy_error,
    cross_entropy_error,
    mean_squared_error,
    softmax_cross_entropy,
    sum_squared_error,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROUNDING = 2e-15


def losses(setting: Setting) -> Section:
    """Return the numbers and figures of section 4.2."""
    xp, array = setting.backend.xp, setting.array
    y1 = array([0.1, 0.05, 0.6, 0, 0.05, 0.1, 0, 0.1, 0, 0])
    y2 = array([0.1, 0.05, 0.1, 0, 0.05, 0.1, 0, 0.6, 0, 0])
    t = array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    batch, targets = xp.stack([y1, y2]), xp.stack([t, t])
    labels = setting.backend.asarray([2, 7, 0, 9, 4])
    answers = np.zeros((5, 10))
    answers[range(5), [2, 7, 0, 9, 4]] = [0.1, 0.2, 0.3, 0.4, 0.5]

    @functools.cache
    def moved() -> experiments.AccuracyAgainstLoss:
        return experiments.accuracy_against_loss(backend=setting.backend)

    def jump() -> float:
        heights = np.abs(np.diff(moved().accuracies))
        return float(heights[heights > 0].min())

    def saturated(z: float = -10.0) -> experiments.SaturatedSigmoid:
        return experiments.saturated_sigmoid(z, backend=setting.backend)

    return Section(
        "Losses",
        "Two answers to one question, y1 (0.6 on the right class, 2) and y2 (0.6 on the wrong "
        "one), and how wrong each loss finds them.",
        [
            Row(
                "½Σ(y − t)² of y1", 0.09750000000000003, lambda: sum_squared_error(y1, t), _ROUNDING
            ),
            Row("½Σ(y − t)² of y2", 0.5975, lambda: sum_squared_error(y2, t), _ROUNDING),
            Row("mean of (y − t)² of y1", 0.0195, lambda: mean_squared_error(y1, t), _ROUNDING),
            Row("mean of (y − t)² of y2", 0.1195, lambda: mean_squared_error(y2, t), _ROUNDING),
            Row(
                "cross entropy of y1",
                0.510825457099338,
                lambda: cross_entropy_error(y1, t),
                _ROUNDING,
                "−Σ t·log(y + 1e-7), as in the chapter",
            ),
            Row(
                "cross entropy of y2",
                2.302584092994546,
                lambda: cross_entropy_error(y2, t),
                _ROUNDING,
            ),
            Row(
                "the same of y1 without the 1e-7",
                0.5108256237659907,
                lambda: -xp.log(y1[2]),
                _ROUNDING,
            ),
            Row(
                "the same of y2 without the 1e-7",
                2.3025850929940455,
                lambda: -xp.log(y2[2]),
                _ROUNDING,
            ),
            Row(
                "least cross entropy, y = 1",
                -1.0e-7,
                lambda: cross_entropy_error(array([1, 0]), array([1, 0])),
                1e-13,
                "slightly negative because of the 1e-7",
            ),
            Row(
                "greatest cross entropy, y = 0",
                16.118095650958,
                lambda: cross_entropy_error(array([0, 1]), array([1, 0])),
                5e-13,
                "−log 1e-7: the 1e-7 caps the loss",
            ),
            Row(
                "least without it, from scores",
                0.0,
                lambda: softmax_cross_entropy(array([1000, 0]), array([1, 0])),
                note="what networks train on here: log-sum-exp needs no 1e-7",
            ),
            Row(
                "no cap without it, from scores",
                1000.0,
                lambda: softmax_cross_entropy(array([0, 1000]), array([1, 0])),
            ),
            Row(
                "batch of y1 and y2, one-hot",
                1.406704775046942,
                lambda: cross_entropy_error(batch, targets),
                _ROUNDING,
            ),
            Row(
                "batch of y1 and y2, labels 2 and 2",
                1.406704775046942,
                lambda: cross_entropy_error(batch, setting.backend.asarray([2, 2])),
                _ROUNDING,
            ),
            Row(
                "labels 2, 7, 0, 9, 4 pick y[0,2], y[1,7], y[2,0], y[3,9], y[4,4]",
                -math.log(0.1 * 0.2 * 0.3 * 0.4 * 0.5) / 5,
                lambda: cross_entropy_error(array(answers), labels),
                1e-6,
                "these hold 0.1, 0.2, 0.3, 0.4 and 0.5, all others 0",
            ),
            Row(
                "binary cross entropy, t = 1, p = 0.6",
                0.51083,
                lambda: binary_cross_entropy_error(array(0.6), array(1)),
                5e-6,
            ),
            Row(
                "binary cross entropy, t = 0, p = 0.6",
                0.91629,
                lambda: binary_cross_entropy_error(array(0.6), array(0)),
                5e-6,
            ),
            Row(
                "gradient of ½(p − t)² at z = −10, t = 1",
                -4.54e-5,
                lambda: saturated().squared_error,
                5e-8,
                "(p − t)·p·(1 − p), p = σ(z): wrong, sure, and it hardly learns",
            ),
            Row(
                "gradient of cross entropy there",
                -0.99995,
                lambda: saturated().cross_entropy,
                5e-6,
                "p − t: why classification uses cross entropy",
            ),
            Row(
                "ln x at the ends of its curve, 0.01 and 1",
                [-4.605170185988091, 0.0],
                lambda: xp.log(array(np.linspace(0.01, 1)))[[0, -1]],
                _ROUNDING,
            ),
            Row(
                "accuracy of 100 digits moves in jumps of",
                0.01,
                jump,
                1e-12,
                "from 32 % straight to 33 %",
            ),
            Row(
                "slope of that accuracy",
                0.0,
                lambda: moved().accuracy_slope,
                note="nothing to follow downhill",
            ),
            Row(
                "slope of the loss there",
                Between(high=-1e-4),
                lambda: moved().loss_slope,
                note="why networks learn by a loss",
            ),
            Plot(
                "ln-x",
                "The natural logarithm. Cross entropy is −ln of the probability given to the "
                "right class: 0 for certainty, and growing without bound as it goes to 0.",
                lambda: figures.lines(
                    x := np.linspace(0.01, 1), {"ln x": np.log(x)}, xlabel="x", ylabel="ln x"
                ),
            ),
            Plot(
                "saturated-sigmoid",
                "What two losses teach a sigmoid output whose target is 1. Where the answer is "
                "wrong and sure, left, the squared error has no slope left; cross entropy has "
                "the most.",
                lambda: _saturated_plot(setting),
            ),
            Plot(
                "accuracy-against-loss",
                "One bias of a half-trained network is moved. Accuracy on 100 digits is a "
                "staircase, flat almost everywhere; the loss answers to every change.",
                lambda: figures.stacked(
                    moved().changes,
                    {
                        "accuracy": {"accuracy": moved().accuracies},
                        "loss": {"loss": moved().losses},
                    },
                    xlabel="change of one bias",
                ),
            ),
        ],
    )


def _saturated_plot(setting: Setting) -> Figure:
    result = experiments.saturated_sigmoid(np.linspace(-10, 10, 201), backend=setting.backend)
    return figures.lines(
        result.z,
        {
            "cross entropy: p − t": result.cross_entropy,
            "½(p − t)²: (p − t)p(1 − p)": result.squared_error,
        },
        xlabel="score z, p = σ(z)",
        ylabel="gradient",
    )
