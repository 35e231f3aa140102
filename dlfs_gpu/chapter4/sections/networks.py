"""The chapter's networks, their gradients, and training by minibatches (sections 4.4.2 and 4.5)."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section, section
from dlfs_gpu.data.mnist import DATA_VARIABLE, cache_folder
from dlfs_gpu.data.splits import Splits
from dlfs_gpu.training.curves import draw_accuracies, draw_losses, new_figure

# Half a unit of the last digit that the sources print.
_EIGHT_DIGITS = 5e-9

_WEIGHTS = (
    [[0.94205491, 2.00218723, -0.44365259], [0.11622554, -0.59436786, 0.83999679]],
    [[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]],
    [[-0.18257682, -0.8677132, -1.10735323], [-0.27386523, -1.30156981, -1.66102984]],
)


@section(
    "4.4.2 and 4.5.1 Networks and their gradients",
    "simpleNet, scores x·W of x = (0.6, 0.9), with three sets of weights that the sources print; "
    "then the two-layer network, and its gradients computed in several ways.",
)
def networks(backend: d.Backend) -> Iterator[Check]:
    """Yield the numbers of sections 4.4.2 and 4.5.1."""
    yield from _simple_net(backend)
    params = d.TwoLayerNet(784, 50, 10, seed=0, backend=backend).params
    count = sum(math.prod(param.shape) for param in params.values())
    yield Check(
        "shapes of W1, b1, W2, b2",
        "(784, 50), (50,), (50, 10), (10,)",
        ", ".join(str(tuple(param.shape)) for param in params.values()),
    )
    yield Check(
        "parameters of 784-50-10, and forward passes for one gradient by central differences",
        [39760, 79520],
        [count, 2 * count],
        note="and 10,000 times as many to train: why the chapter gives numerical gradients up",
    )
    yield Check(
        "standard deviation of the first weights, and the largest bias",
        [0.01, 0.0],
        [backend.xp.std(params["W1"]), backend.xp.max(params["b1"])],
        2e-4,
        "39,200 numbers, drawn",
    )
    yield from _gradients(backend)


def _simple_net(backend: d.Backend) -> Iterator[Check]:
    array = functools.partial(backend.asarray, dtype="float64")
    x = array([0.6, 0.9])

    first, second, third = (d.SimpleNet(W, backend=backend) for W in _WEIGHTS)
    scores = first.predict(x)

    def dW(net: d.SimpleNet, label: int) -> Array:  # noqa: N802 - the book's name
        return net.numerical_gradient(x, label)["W1"]

    yield Check(
        "first W: scores, and the class of the largest",
        [0.669835932, 0.666381264, 0.489805557, 0],
        [*scores, backend.xp.argmax(scores)],
        5e-10,
        printed_in="notes",
        mistake="the notes: beside this W also [-0.26373067, -0.61762066, -0.97157332], from "
        "another run; no W given there makes these scores",
    )
    yield Check(
        "first W: softmax",
        [0.35313277, 0.35191491, 0.29495232],
        d.softmax(scores),
        _EIGHT_DIGITS,
        printed_in="notes",
    )
    yield Check(
        "first W: loss for class 2 and for class 0",
        [1.220941561292, 1.040911186292],
        [first.loss(x, 2), first.loss(x, 0)],
        5e-13,
        "without the 1e-7, as all losses of networks here",
    )
    yield Check(
        "first W: dW for class 0",
        [[-0.38812034, 0.21114895, 0.17697139], [-0.58218051, 0.31672342, 0.26545709]],
        dW(first, 0),
        _EIGHT_DIGITS,
        printed_in="notes",
    )
    yield Check(
        "second W: scores, and loss for class 2",
        [1.054148091, 0.630716529, 1.132807401, 0.92806854],
        [*second.predict(x), second.loss(x, 2)],
        _EIGHT_DIGITS,
        printed_in="book 4.4.2",
    )
    yield Check(
        "second W: dW[0, 0] and dW[1, 2] for class 2",
        [0.219248, -0.544215],
        [dW(second, 2)[place] for place in ((0, 0), (1, 2))],
        5e-7,
        "in the book's counting from 1, w11 and w23",
        printed_in="book 4.4.2",
    )
    yield Check(
        "third W: dW for class 2",
        [[0.42027315, 0.11048601, -0.53075916], [0.63040973, 0.16572901, -0.79613874]],
        dW(third, 2),
        1e-8,
        "the source's own last digits are off by 5e-9",
        printed_in="notes",
    )
    targets = backend.asarray([2, 0, 1]), array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    by_label, by_vector = (first.gradient(array(np.eye(3, 2)), t)["W1"] for t in targets)
    yield Check(
        "gradients for 3 labels of 3 classes, and for one-hot vectors: greatest difference",
        0.0,
        backend.xp.max(backend.xp.abs(by_label - by_vector)),
        1e-15,
        "integers are labels, also where there are as many as classes",
        mistake="the book's code: a wrong gradient, without a word",
    )


def _gradients(backend: d.Backend) -> Iterator[Check]:
    (x, t), _ = d.load_digits(backend=backend)
    x, t = x[:30], t[:30]

    def gradient(
        method: Literal["backprop", "loop", "batched", "difference"],
        h: float = 1e-4,
        dtype: str = "float64",
    ) -> NDArray[np.float64]:
        """Return the gradient of 64-8-10 for all parameters in a row."""
        network = d.TwoLayerNet(64, 8, 10, 0.1, seed=0, dtype=dtype, backend=backend)
        # The same weights in both types: their rounding is none of the differences' doing.
        for param in network.params.values():
            param[...] = backend.asarray(backend.asarray(param, "float32"), dtype)
        if method == "backprop":
            grads = network.gradient(x, t)
        else:
            grads = network.numerical_gradient(x, t, h, method=method)
        return np.concatenate([np.ravel(backend.to_numpy(grad)) for grad in grads.values()])

    def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    backprop, loop = gradient("backprop"), gradient("loop")
    coarse = gradient("difference", 0.5)
    yield Check(
        "backpropagation, batched and divided differences, against the chapter's loop",
        Between(high=1e-8),
        max(apart(one, loop) for one in (backprop, gradient("batched"), gradient("difference"))),
        note="greatest relative difference (norm) over all parameters of 64-8-10 on 30 digits, "
        "float64, h = 1e-4",
    )
    yield Check(
        "divided differences with h = 0.5 against the loop",
        Between(high=1e-12),
        apart(coarse, gradient("loop", 0.5)),
        note="the same finite difference, truncation error included",
    )
    yield Check(
        "divided differences with h = 0.5 against backpropagation",
        Between(low=1e-4),
        apart(coarse, backprop),
        note="a finite difference, not a derivative in disguise",
    )
    yield Check(
        "error in float32, h = 1e-4, of differences of losses",
        Between(low=0.02),
        apart(gradient("batched", dtype="float32"), backprop),
        note="against backpropagation in float64",
    )
    yield Check(
        "error in float32, h = 1e-4, of divided differences",
        Between(high=1e-6),
        apart(gradient("difference", dtype="float32"), backprop),
        mistake="the book's code: 40 to 280 % wrong in float32",
    )


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
            f"the log of the notes: name the folder of its files in {DATA_VARIABLE}"
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

    def entries() -> Iterator[Check | Plot]:
        history = trainer("backprop", 10_000).train()
        accuracies = list(zip(history.train_accuracy, history.test_accuracy, strict=True))
        last = accuracies[-1]
        for number, (iteration, printed) in enumerate(_LOG.items() if mnist else ()):
            yield Check(
                f"training and test accuracy after {iteration:,} updates",
                printed,
                accuracies[number],
                # The first line is chance, and the second on the steepest part of the curve.
                0.02 if iteration >= 1200 else 0.1,
                printed_in="notes",
            )
        yield Check("final test accuracy", Between(low=0.94), last[1])
        yield Check(
            "final training and test accuracy, difference",
            Between(high=0.02 if mnist else 0.06),
            abs(last[0] - last[1]),
            note="no over-fitting: it has learned digits, not its training data by heart",
        )
        yield Check(
            "loss at the first update, ln 10: as good as guessing",
            np.log(10),
            history.losses[0],
            0.1,
        )
        yield Check(
            "share of 60,000 images among 600 minibatches of 100",
            1 - np.exp(-1),
            len(np.unique(d.MinibatchSampler(60_000, 100, seed=0).draw(600))) / 60_000,
            0.005,
            "drawn with replacement: 1 − 1/e",
            mistake="the notes: “an epoch sees all data once”",
        )
        numerical = trainer("difference", 20).train()
        yield Check(
            "numerical gradients: losses of 20 updates",
            Between(high=1e-5),
            np.abs(numerical.losses - history.losses[:20]).max(),
            note="greatest difference from backpropagation, same weights and minibatches",
        )

        def losses() -> Figure:
            figure, axes = new_figure()
            draw_losses(axes, history.losses)
            return figure

        def curves() -> Figure:
            figure, axes = new_figure()
            epochs = np.asarray(history.iterations) / (train[0].shape[0] // 100)
            draw_accuracies(
                axes, epochs, history.train_accuracy, history.test_accuracy, xlabel="epoch"
            )
            return figure

        yield Plot("training-loss", f"Loss of each minibatch while learning {name}.", losses)
        yield Plot(
            "training-accuracy",
            "Accuracy on all training and all test data, once per epoch.",
            curves,
        )

    return Section("4.5.2 and 4.5.3 Training", introduction, entries(), warning)


def _mnist(backend: d.Backend, data_dir: Path | None) -> Splits | None:
    """Return MNIST, or None if no folder is named and it has not been downloaded."""
    if data_dir is not None or os.environ.get(DATA_VARIABLE):
        return d.load_mnist(data_dir=data_dir, backend=backend)
    try:
        return d.load_mnist(data_dir=cache_folder("mnist"), backend=backend)
    except FileNotFoundError:
        return None
