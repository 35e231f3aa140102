"""The chapter's networks and their gradients (sections 4.4.2 and 4.5.1)."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4 import figures
from dlfs_gpu.chapter4.model import Between, Check, Plot, Section, to_host

# Half a unit of the last digit that the sources print.
_EIGHT_DIGITS = 5e-9

_FIRST_W = [[0.94205491, 2.00218723, -0.44365259], [0.11622554, -0.59436786, 0.83999679]]
_SECOND_W = [[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]]
_THIRD_W = [[-0.18257682, -0.8677132, -1.10735323], [-0.27386523, -1.30156981, -1.66102984]]


def networks(backend: d.Backend) -> Section:
    """Return the numbers and figures of sections 4.4.2 and 4.5.1."""
    return Section(
        "4.4.2 and 4.5.1 Networks and their gradients",
        "simpleNet, scores x·W of x = (0.6, 0.9), with three sets of weights that the sources "
        "print; then the two-layer network, and its gradients computed in several ways.",
        [*_simple_net(backend), *_two_layer_net(backend), *_gradients(backend)],
    )


def _simple_net(backend: d.Backend) -> Iterator[Check | Plot]:
    array = functools.partial(backend.asarray, dtype="float64")
    x = array([0.6, 0.9])

    def net(W: list[list[float]]) -> d.SimpleNet:
        return d.SimpleNet(W, backend=backend)

    def loss(W: list[list[float]], label: int) -> Array:
        return net(W).loss(x, backend.asarray(label))

    def dW(W: list[list[float]], label: int) -> Array:  # noqa: N802 - the book's name
        return net(W).numerical_gradient(x, backend.asarray(label))["W1"]

    def scores_and_answer() -> list[Array]:
        scores = net(_FIRST_W).predict(x)
        return [*scores, backend.xp.argmax(scores)]

    def label_gradients_differ() -> Array:
        inputs = array(np.eye(3, 2))
        by_label = net(_FIRST_W).gradient(inputs, backend.asarray([2, 0, 1]))["W1"]
        one_hot = array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        by_vector = net(_FIRST_W).gradient(inputs, one_hot)["W1"]
        return backend.xp.max(backend.xp.abs(by_label - by_vector))

    yield Check(
        "first W: scores, and the class of the largest",
        [0.669835932, 0.666381264, 0.489805557, 0],
        scores_and_answer,
        5e-10,
        printed_in="notes",
        mistake="the notes: beside this W also [-0.26373067, -0.61762066, -0.97157332], from "
        "another run; no W given there makes these scores",
    )
    yield Check(
        "first W: softmax",
        [0.35313277, 0.35191491, 0.29495232],
        lambda: d.softmax(net(_FIRST_W).predict(x)),
        _EIGHT_DIGITS,
        printed_in="notes",
    )
    yield Check(
        "first W: loss for class 2 and for class 0",
        [1.220941561292, 1.040911186292],
        lambda: [loss(_FIRST_W, 2), loss(_FIRST_W, 0)],
        5e-13,
        "without the 1e-7, as all losses of networks here",
    )
    yield Check(
        "first W: dW for class 0",
        [[-0.38812034, 0.21114895, 0.17697139], [-0.58218051, 0.31672342, 0.26545709]],
        lambda: dW(_FIRST_W, 0),
        _EIGHT_DIGITS,
        printed_in="notes",
    )
    yield Check(
        "second W: scores, and loss for class 2",
        [1.054148091, 0.630716529, 1.132807401, 0.92806854],
        lambda: [*net(_SECOND_W).predict(x), loss(_SECOND_W, 2)],
        _EIGHT_DIGITS,
        printed_in="book 4.4.2",
    )
    yield Check(
        "second W: dW[0, 0] and dW[1, 2] for class 2",
        [0.219248, -0.544215],
        lambda: [dW(_SECOND_W, 2)[0, 0], dW(_SECOND_W, 2)[1, 2]],
        5e-7,
        "in the book's counting from 1, w11 and w23",
        printed_in="book 4.4.2",
    )
    yield Check(
        "third W: dW for class 2",
        [[0.42027315, 0.11048601, -0.53075916], [0.63040973, 0.16572901, -0.79613874]],
        lambda: dW(_THIRD_W, 2),
        1e-8,
        "the source's own last digits are off by 5e-9",
        printed_in="notes",
    )
    yield Check(
        "gradients for 3 labels of 3 classes, and for one-hot vectors: greatest difference",
        0.0,
        label_gradients_differ,
        1e-15,
        "integers are labels, also where there are as many as classes",
        mistake="the book's code: a wrong gradient, without a word",
    )


def _two_layer_net(backend: d.Backend) -> Iterator[Check | Plot]:
    @functools.cache
    def params() -> Mapping[str, Array]:
        return d.TwoLayerNet(784, 50, 10, seed=0, backend=backend).params

    def count() -> int:
        return sum(math.prod(param.shape) for param in params().values())

    yield Check(
        "shapes of W1, b1, W2, b2",
        "(784, 50), (50,), (50, 10), (10,)",
        lambda: ", ".join(str(tuple(param.shape)) for param in params().values()),
    )
    yield Check(
        "parameters of 784-50-10, and forward passes for one gradient by central differences",
        [39760, 79520],
        lambda: [count(), 2 * count()],
        note="10,000 times so many: why the chapter gives numerical gradients up",
    )
    yield Check(
        "standard deviation of the first weights, and the largest bias",
        [0.01, 0.0],
        lambda: [backend.xp.std(params()["W1"]), backend.xp.max(params()["b1"])],
        2e-4,
        "39,200 numbers, drawn",
    )


def _gradients(backend: d.Backend) -> Iterator[Check | Plot]:
    (x, t), _ = d.load_digits(backend=backend)
    x, t = x[:30], t[:30]

    @functools.cache
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
        return np.concatenate([np.ravel(to_host(grad)) for grad in grads.values()])

    def apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    def error(method: Literal["batched", "difference"], h: float, dtype: str) -> float:
        return apart(gradient(method, h, dtype), gradient("backprop"))

    def errors() -> Figure:
        steps = [1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3]
        curves = {
            "float32, two losses": [error("batched", h, "float32") for h in steps],
            "float64, two losses": [error("batched", h, "float64") for h in steps],
            "float32, divided difference": [error("difference", h, "float32") for h in steps],
            "float64, divided difference": [error("difference", h, "float64") for h in steps],
        }
        return figures.lines(
            steps, curves, xlabel="step h", ylabel="relative error", xscale="log", yscale="log"
        )

    yield Check(
        "backpropagation, all copies at once, and divided differences against the chapter's loop",
        Between(high=1e-8),
        lambda: max(
            apart(gradient("backprop"), gradient("loop")),
            apart(gradient("batched"), gradient("loop")),
            apart(gradient("difference"), gradient("loop")),
        ),
        note="greatest relative difference (norm) over all parameters of 64-8-10 on 30 digits, "
        "float64, h = 1e-4",
    )
    yield Check(
        "divided differences against the loop with h = 0.5",
        Between(high=1e-12),
        lambda: apart(gradient("difference", 0.5), gradient("loop", 0.5)),
        note="the same finite difference, truncation error included",
    )
    yield Check(
        "with h = 0.5 against backpropagation",
        Between(low=1e-4),
        lambda: error("difference", 0.5, "float64"),
        note="a finite difference, not a derivative in disguise",
    )
    yield Check(
        "error in float32, h = 1e-4, of differences of losses",
        Between(low=0.02),
        lambda: error("batched", 1e-4, "float32"),
        note="against backpropagation in float64",
    )
    yield Check(
        "error in float32, h = 1e-4, of divided differences",
        Between(high=1e-6),
        lambda: error("difference", 1e-4, "float32"),
        mistake="the book's code: 40 to 280 % wrong in float32",
    )
    yield Plot(
        "gradient-errors",
        "Error of numerical gradients of a network, by the step. Evaluating the loss twice "
        "and subtracting loses digits as h shrinks, in float32 nearly all of them. Divided "
        "differences lose none: what is left is the truncation of a central difference, and "
        "at large h, where it rules, the methods meet.",
        errors,
    )
