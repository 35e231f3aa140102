"""Faults of the book's code, and what happens here."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from dlfs_gpu.chapter4 import experiments, figures
from dlfs_gpu.chapter4.model import Between, Row, Setting
from dlfs_gpu.chapter4.sections.networks import FIRST_W
from dlfs_gpu.data import load_idx
from dlfs_gpu.functions import cross_entropy_error, function_2, sigmoid
from dlfs_gpu.gradient import numerical_gradient
from dlfs_gpu.layers import Dropout, Relu
from dlfs_gpu.losses import SoftmaxWithLoss
from dlfs_gpu.models import SimpleNet


def faults(setting: Setting) -> list[Row]:
    """Return a row for each."""
    place, array = setting.backend, setting.array

    def label_gradients_differ() -> float:
        """Compare gradients for labels and one-hot targets where N is the number of classes."""
        x, labels = array(np.eye(3, 2)), place.asarray([2, 0, 1])
        net = SimpleNet(FIRST_W, backend=place)
        by_label = net.gradient(x, labels)["W1"]
        by_vector = net.gradient(x, array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]))["W1"]
        return float(place.xp.max(place.xp.abs(by_label - by_vector)))

    def sigmoid_far_left() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return sigmoid(array([-1000, 1000]))

    def relu_argument() -> Any:
        layer, dout = Relu(), array([[1, 2]])
        layer.forward(array([[-1, 1]]))
        layer.backward(dout)
        return dout

    def scaled_backward() -> float:
        layer = SoftmaxWithLoss()
        layer.forward(array([[1, 2, 3]]), array([[0, 0, 1]]))
        return float(layer.backward(2)[0, 0] / layer.backward(1)[0, 0])

    def dropout_mean() -> Any:
        ones = place.xp.ones((1000, 100))
        return place.xp.mean(Dropout(0.5, seed=0).forward(ones))

    def drawn_points() -> int:
        curve = figures.loss_curve([3.0, 2.0, 1.0, 1.0, 1.0]).axes[0].lines[0]
        return len(np.asarray(curve.get_xdata()))

    def damaged_file() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            images, labels = Path(folder) / "images", Path(folder) / "labels"
            images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 255]))
            labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
            try:
                return load_idx(images, labels)
            except ValueError as error:
                raise ValueError(str(error).replace(folder, "…")) from error

    return [
        Row(
            "gradient at the integers (3, 4)",
            [6.0, 8.0],
            lambda: numerical_gradient(function_2, place.asarray([3, 4])),
            1e-8,
            "an integer array cannot hold 3 + 1e-4: integers are promoted first",
            "[25000, 35000]",
        ),
        Row(
            "error of a gradient in float32, h = 1e-4",
            Between(high=1e-6),
            lambda: experiments.gradient_errors([1e-4], backend=place).difference[0],
            note="by divided differences; 64-20-10 on digits",
            printed="40 to 280 % wrong, by the chapter's loop",
        ),
        Row(
            "soft targets (½, ½, 0) for y = (½, ¼, ¼)",
            1.5 * math.log(2),
            lambda: cross_entropy_error(array([[0.5, 0.25, 0.25]]), array([[0.5, 0.5, 0]])),
            1e-6,
            "t.size == y.size cannot tell soft targets from one-hot: dimensions decide",
            "0.693: only the greatest target counts",
        ),
        Row(
            "labels of shape (N, 1)",
            ValueError,
            lambda: cross_entropy_error(array(np.full((2, 3), 1 / 3)), place.asarray([[0], [1]])),
            note="refused: they must have shape (N,)",
            printed="a wrong number, without a word",
        ),
        Row(
            "gradient for N labels of N classes, against one-hot",
            0.0,
            label_gradients_differ,
            1e-15,
            "N integers are labels, also where there are N classes",
            "a wrong gradient, without a word",
        ),
        Row(
            "sigmoid of −1000 and 1000",
            [0.0, 1.0],
            sigmoid_far_left,
            note="exp of a negative number only: no overflow, no warning",
            printed="a warning",
        ),
        Row(
            "argument of Relu.backward afterwards",
            [[1.0, 2.0]],
            relu_argument,
            note="left as it was",
            printed="overwritten with zeros",
        ),
        Row(
            "SoftmaxWithLoss.backward(2) over backward(1)",
            2.0,
            scaled_backward,
            1e-12,
            "dout counts",
            "dout ignored",
        ),
        Row(
            "mean of ones after Dropout(0.5)",
            1.0,
            dropout_mean,
            0.02,
            "inverted dropout scales up what it keeps; frozen, it serves gradient checks",
            "0.5, and random gradient checks",
        ),
        Row(
            "points in a curve of 5 losses",
            5,
            drawn_points,
            note="every loss is drawn; the mean is a curve of its own",
            printed="a smoothed series of another length",
        ),
        Row(
            "a damaged data file",
            ValueError,
            damaged_file,
            note="files are read as data and checked fully; no pickle is written or read",
            printed="a pickle in the package's folder, and no check",
        ),
    ]
