"""Loss functions (section 4.2)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dlfs_gpu as d
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, error_of, section

_ROUNDING = 2e-15


@section(
    "4.2 Loss functions",
    "Two answers to one question, y1 (0.6 on the right class, 2) and y2 (0.6 on a wrong one), and "
    "how wrong each loss finds them; then why networks are trained by a loss, and not by accuracy.",
)
def losses(backend: d.Backend) -> Iterator[Check | Plot]:
    """Yield the numbers and figures of section 4.2."""
    array = functools.partial(backend.asarray, dtype="float64")
    y1 = array([0.1, 0.05, 0.6, 0, 0.05, 0.1, 0, 0.1, 0, 0])
    y2 = array([0.1, 0.05, 0.1, 0, 0.05, 0.1, 0, 0.6, 0, 0])
    t = array([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    batch = backend.xp.stack([y1, y2])

    def of_both(loss: Any) -> list[Any]:
        return [loss(y1, t), loss(y2, t)]

    yield Check(
        "sum of squared errors, ½Σ(y − t)², of y1 and y2",
        [0.09750000000000003, 0.5975],
        of_both(d.sum_squared_error),
        _ROUNDING,
        printed_in="book 4.2.1",
    )
    yield Check(
        "mean squared error, (1/n)Σ(y − t)²",
        [0.0195, 0.1195],
        of_both(d.mean_squared_error),
        _ROUNDING,
        mistake="the notes: 0.0975, half the sum, under the name of mean squared error",
    )
    yield Check(
        "y and t of different lengths",
        ValueError,
        error_of(lambda: d.sum_squared_error(y1[:8], t)),
        mistake="the notes: arrays of 8 or 9 elements beside others of 10",
    )
    yield Check(
        "cross entropy of y1 and y2",
        [0.510825457099338, 2.302584092994546],
        of_both(d.cross_entropy_error),
        _ROUNDING,
        "−Σ t·log(y + 1e-7)",
        printed_in="book 4.2.2",
    )
    yield Check(
        "cross entropy where y is 1 and where it is 0",
        [-1.0e-7, 16.118095650958],
        [
            d.cross_entropy_error(array([1, 0]), array([1, 0])),
            d.cross_entropy_error(array([0, 1]), array([1, 0])),
        ],
        5e-13,
        "slightly negative because of the 1e-7, which also caps it at −log 1e-7",
        mistake="the notes: “log 0 overflows”; it divides by zero, and is −∞",
    )
    yield Check(
        "the same from scores, without the 1e-7",
        [0.0, 1000.0],
        [
            d.softmax_cross_entropy(array([1000, 0]), array([1, 0])),
            d.softmax_cross_entropy(array([0, 1000]), array([1, 0])),
        ],
        note="what networks train on here: no cap, and nothing overflows",
    )
    yield Check(
        "batch of y1 and y2, with one-hot targets and with labels",
        [1.406704775046942, 1.406704775046942],
        [
            d.cross_entropy_error(batch, backend.xp.stack([t, t])),
            d.cross_entropy_error(batch, backend.asarray([2, 2])),
        ],
        _ROUNDING,
        mistake="the notes: a formula without the 1e-7, in which the zeros of y1 make 0·(−∞), "
        "not a number",
    )
    yield Check(
        "binary cross entropy: t = 1 with p = 0.6 and p = 0.1, t = 0 with p = 0.6",
        [0.5108256237659907, 2.3025850929940455, 0.916290731874155],
        [
            d.binary_cross_entropy_error(array(p), array(t))
            for p, t in ((0.6, 1), (0.1, 1), (0.6, 0))
        ],
        _ROUNDING,
        "−(t·log p + (1 − t)·log(1 − p)); the first two are also the cross entropy of y1 and "
        "y2 without the 1e-7",
        mistake="the slides: brackets that do not match; the minus belongs to the whole sum",
    )
    labelled = np.zeros((5, 10))
    labelled[range(5), [2, 7, 0, 9, 4]] = [0.1, 0.2, 0.3, 0.4, 0.5]
    yield Check(
        "labels 2, 7, 0, 9, 4 pick y[0,2], y[1,7], y[2,0], y[3,9], y[4,4]",
        -math.log(0.1 * 0.2 * 0.3 * 0.4 * 0.5) / 5,
        d.cross_entropy_error(array(labelled), backend.asarray([2, 7, 0, 9, 4])),
        1e-6,
        "these hold 0.1, 0.2, 0.3, 0.4 and 0.5, all others 0 (book 4.2.4)",
    )
    yield Check(
        "soft targets (½, ½, 0) for y = (½, ¼, ¼)",
        1.5 * math.log(2),
        d.cross_entropy_error(array([[0.5, 0.25, 0.25]]), array([[0.5, 0.5, 0]])),
        1e-6,
        "dimensions decide whether t holds labels",
        mistake="the book's code: 0.693, because t.size == y.size takes them for one-hot, and "
        "only the greatest counts",
    )
    yield Check(
        "labels of shape (N, 1)",
        ValueError,
        error_of(lambda: d.cross_entropy_error(batch, backend.asarray([[2], [2]]))),
        mistake="the book's code: a wrong number, without a word",
    )
    axis = np.geomspace(0.01, 1, 400)
    yield Plot(
        "ln-x",
        "The natural logarithm. Cross entropy is −ln of the probability given to the right "
        "class: 0 for certainty, and growing without bound as it goes to 0.",
        lambda: figures.draw(axis, {"ln x": {"ln x": np.log(axis)}}, xlabel="x"),
    )
    score, one = backend.asarray([[-10.0]]), backend.asarray([[1.0]])
    sigmoid, squared, entropy = d.Sigmoid(), d.SumSquaredError(), d.SigmoidWithLoss()
    squared.forward(sigmoid.forward(score), one)
    entropy.forward(score, one)
    yield Check(
        "gradients of ½(p − t)² and of binary cross entropy at the score −10, t = 1",
        [-4.539374686e-5, -0.999954602131],
        [sigmoid.backward(squared.backward())[0, 0], entropy.backward()[0, 0]],
        5e-13,
        "(p − t)·p·(1 − p) for p = σ(−10): wrong, sure, and it hardly learns; and p − t: why "
        "classification uses cross entropy",
    )
    (x, t), _ = d.load_digits(backend=backend)
    x, t = x[:100], t[:100]
    network = d.TwoLayerNet(64, 20, 10, 0.1, seed=0, dtype="float64", backend=backend)
    optimizer = d.SGD(0.5)
    for _ in range(100):
        optimizer.update(network.params, network.gradient(x, t))
    bias = network.params["b2"]
    start = float(bias[0])

    def moved(changes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return accuracies and losses, (2, K), as one bias of the half-trained network changes."""
        found = []
        for change in changes.tolist():
            bias[0] = start + change
            found.append((network.accuracy(x, t), float(network.loss(x, t))))
        return np.asarray(found).T

    far, near = np.linspace(-2, 2, 1001), np.array([-1e-4, 1e-4])
    panels = {name: {name: y} for name, y in zip(("accuracy", "loss"), moved(far), strict=True)}
    steps = np.abs(np.diff(panels["accuracy"]["accuracy"]))
    slopes = np.diff(moved(near))[:, 0] / np.diff(near)
    yield Check(
        "accuracy of 100 digits as one bias moves: its jumps, and its slope",
        [0.01, 0.0],
        [steps[steps > 0].min(), slopes[0]],
        1e-12,
        "from 32 % straight to 33 % (book 4.2.5), and nothing to follow downhill",
    )
    yield Check(
        "slope of the loss there",
        Between(high=-1e-4),
        slopes[1],
        note="why networks learn by a loss",
    )
    yield Plot(
        "accuracy-against-loss",
        "One bias of a half-trained network is moved. Accuracy on 100 digits is a staircase, "
        "flat almost everywhere; the loss answers to every change.",
        lambda: figures.draw(far, panels, xlabel="change of one bias"),
    )
