"""The chapter's networks and their gradients (sections 4.4.2 and 4.5)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Plot, Row, Section, Setting, to_host
from dlfs_gpu.data import load_digits
from dlfs_gpu.functions import cross_entropy_error, softmax
from dlfs_gpu.models import SimpleNet, TwoLayerNet

# Half a unit of the last digit that the sources print.
_EIGHT_DIGITS = 5e-9

FIRST_W = [[0.94205491, 2.00218723, -0.44365259], [0.11622554, -0.59436786, 0.83999679]]
SECOND_W = [[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]]
THIRD_W = [[-0.18257682, -0.8677132, -1.10735323], [-0.27386523, -1.30156981, -1.66102984]]


def networks(setting: Setting) -> Section:
    """Return the numbers and figures of sections 4.4.2 and 4.5.1."""
    return Section(
        "Networks",
        "simpleNet, scores x·W of x = (0.6, 0.9), with three sets of weights that the sources "
        "print; then the two-layer network, and its gradients computed in several ways.",
        [*_simple_net(setting), *_two_layer_net(setting), *_gradients(setting)],
    )


def _simple_net(setting: Setting) -> list[Row | Plot]:
    xp, x = setting.backend.xp, setting.array([0.6, 0.9])

    def net(W: Any) -> SimpleNet:
        return SimpleNet(W, backend=setting.backend)

    def loss(W: Any, t: Sequence[int]) -> Any:
        return net(W).loss(x, setting.array(t))

    def dW(W: Any, t: Sequence[int]) -> Any:  # noqa: N802 - the book's name
        return net(W).numerical_gradient(x, setting.array(t))["W1"]

    return [
        Row(
            "first W: scores",
            [0.669835932, 0.666381264, 0.489805557],
            lambda: net(FIRST_W).predict(x),
            5e-10,
        ),
        Row("first W: largest score", 0, lambda: xp.argmax(net(FIRST_W).predict(x))),
        Row(
            "first W: softmax",
            [0.35313277, 0.35191491, 0.29495232],
            lambda: softmax(net(FIRST_W).predict(x)),
            _EIGHT_DIGITS,
        ),
        Row(
            "first W: loss for class 2",
            1.220941561292,
            lambda: loss(FIRST_W, [0, 0, 1]),
            5e-13,
            "without the 1e-7, as all losses of networks here",
        ),
        Row(
            "first W: loss for class 0",
            1.040911186292,
            lambda: loss(FIRST_W, [1, 0, 0]),
            5e-13,
        ),
        Row(
            "first W: loss for class 0, with the 1e-7",
            1.040910903113,
            lambda: cross_entropy_error(softmax(net(FIRST_W).predict(x)), setting.array([1, 0, 0])),
            5e-13,
        ),
        Row(
            "first W: dW for class 0",
            [[-0.38812034, 0.21114895, 0.17697139], [-0.58218051, 0.31672342, 0.26545709]],
            lambda: dW(FIRST_W, [1, 0, 0]),
            _EIGHT_DIGITS,
        ),
        Row(
            "second W: scores",
            [1.054148091, 0.630716529, 1.132807401],
            lambda: net(SECOND_W).predict(x),
            5e-10,
        ),
        Row(
            "second W: loss for class 2",
            0.92806854,
            lambda: loss(SECOND_W, [0, 0, 1]),
            _EIGHT_DIGITS,
        ),
        Row(
            "second W: dW[0, 0] and dW[1, 2] for class 2",
            [0.219248, -0.544215],
            lambda: [dW(SECOND_W, [0, 0, 1])[0, 0], dW(SECOND_W, [0, 0, 1])[1, 2]],
            5e-7,
            "in the notes' counting from 1, dW₁₁ and dW₂₃",
        ),
        Row(
            "third W: dW for class 2",
            [[0.42027315, 0.11048601, -0.53075916], [0.63040973, 0.16572901, -0.79613874]],
            lambda: dW(THIRD_W, [0, 0, 1]),
            1e-8,
            "the source's own last digits are off by 5e-9",
        ),
        Row(
            "third W: dW by backpropagation",
            [[0.42027315, 0.11048601, -0.53075916], [0.63040973, 0.16572901, -0.79613874]],
            lambda: net(THIRD_W).gradient(x, setting.array([0, 0, 1]))["W1"],
            1e-8,
        ),
    ]


def _two_layer_net(setting: Setting) -> list[Row | Plot]:
    xp = setting.backend.xp

    @functools.cache
    def net() -> TwoLayerNet:
        return TwoLayerNet(784, 50, 10, seed=0, backend=setting.backend)

    def parameters() -> int:
        return sum(math.prod(param.shape) for param in net().params.values())

    def noise() -> Any:
        pixels = np.random.default_rng(0).random((100, 784))
        return setting.backend.asarray(pixels, "float32")

    return [
        Row(
            "shapes of W1, b1, W2, b2",
            "(784, 50), (50,), (50, 10), (10,)",
            lambda: ", ".join(str(tuple(param.shape)) for param in net().params.values()),
        ),
        Row("parameters of 784-50-10", 39760, parameters),
        Row(
            "forward passes for one gradient by central differences",
            79520,
            lambda: 2 * parameters(),
            note="13 s on two cores, 10,000 times: why the chapter gives them up",
        ),
        Row(
            "first weights: standard deviation",
            0.01,
            lambda: xp.std(net().params["W1"]),
            2e-4,
            "drawn; of 39,200 numbers",
        ),
        Row(
            "sum of the probabilities, farthest from 1",
            0.0,
            lambda: xp.max(xp.abs(xp.sum(net().predict(noise()), axis=1) - 1)),
            1e-6,
        ),
        Row(
            "loss before training, on noise",
            math.log(10),
            lambda: net().loss(noise(), setting.backend.asarray(np.arange(100) % 10)),
            0.02,
            "ln 10: as good as guessing",
        ),
    ]


def _gradients(setting: Setting) -> list[Row | Plot]:
    @functools.cache
    def data() -> tuple[Any, Any]:
        (x, t), _ = load_digits(backend=setting.backend)
        return x[:30], t[:30]

    @functools.cache
    def gradient(kind: str, h: float = 1e-4) -> np.ndarray:
        network = TwoLayerNet(64, 8, 10, 0.1, seed=0, dtype="float64", backend=setting.backend)
        if kind == "backpropagation":
            grads = network.gradient(*data())
        else:
            grads = network.numerical_gradient(*data(), h, kind)  # type: ignore[arg-type]
        return np.concatenate([np.ravel(to_host(grad)) for grad in grads.values()])

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))

    @functools.cache
    def errors(dtype: str) -> experiments.GradientErrors:
        return experiments.gradient_errors(dtype=dtype, backend=setting.backend)

    def at_chapters_step(which: str) -> float:
        single = experiments.gradient_errors([1e-4], backend=setting.backend)
        return float(getattr(single, which)[0])

    return [
        Row(
            "backpropagation against the chapter's loop",
            Between(high=1e-7),
            lambda: apart(gradient("backpropagation"), gradient("loop")),
            note="relative difference (norm) over all parameters of 64-8-10 on 30 digits, "
            "float64, h = 1e-4",
        ),
        Row(
            "all copies at once against the loop",
            Between(high=1e-8),
            lambda: apart(gradient("batched"), gradient("loop")),
            note='method="batched"',
        ),
        Row(
            "divided differences against the loop",
            Between(high=1e-8),
            lambda: apart(gradient("difference"), gradient("loop")),
            note='method="difference": to the rounding of the loop',
        ),
        Row(
            "the same with h = 0.5",
            Between(high=1e-12),
            lambda: apart(gradient("difference", 0.5), gradient("loop", 0.5)),
            note="the same finite difference, truncation error included",
        ),
        Row(
            "with h = 0.5 against backpropagation",
            Between(low=1e-4),
            lambda: apart(gradient("difference", 0.5), gradient("backpropagation")),
            note="a finite difference, not a derivative in disguise",
        ),
        Row(
            "error of differences of losses in float32, h = 1e-4",
            Between(low=0.05),
            lambda: at_chapters_step("evaluated"),
            note="64-20-10, against backpropagation in float64",
        ),
        Row(
            "error of divided differences in float32, h = 1e-4",
            Between(high=1e-6),
            lambda: at_chapters_step("difference"),
        ),
        Plot(
            "gradient-errors",
            "Error of numerical gradients of a network, by the step. Evaluating the loss twice "
            "and subtracting loses digits as h shrinks, in float32 nearly all of them. Divided "
            "differences lose none: what is left is the truncation of a central difference, and "
            "at large h, where it rules, the methods meet.",
            lambda: figures.lines(
                errors("float32").steps,
                {
                    "float32, two losses": errors("float32").evaluated,
                    "float64, two losses": errors("float64").evaluated,
                    "float32, divided difference": errors("float32").difference,
                    "float64, divided difference": errors("float64").difference,
                },
                xlabel="step h",
                ylabel="relative error",
                xscale="log",
                yscale="log",
            ),
        ),
    ]
