"""Faults of the book's code that belong to no number of the chapter, and what happens here."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import dlfs_gpu as d
from dlfs_gpu._validation import Array
from dlfs_gpu.chapter4.model import Check, Section
from dlfs_gpu.training.curves import draw_losses, new_figure


def errata(backend: d.Backend) -> Section:
    """Return a check for each."""
    array = functools.partial(backend.asarray, dtype="float64")

    def relu_argument() -> Array:
        layer, dout = d.Relu(), array([[1, 2]])
        layer.forward(array([[-1, 1]]))
        layer.backward(dout)
        return dout

    def scaled_backward() -> Array:
        layer = d.SoftmaxWithLoss()
        layer.forward(array([[1, 2, 3]]), array([[0, 0, 1]]))
        return layer.backward(2)[0, 0] / layer.backward(1)[0, 0]

    def dropout_mean() -> Array:
        ones = backend.xp.ones((1000, 100))
        return backend.xp.mean(d.Dropout(0.5, seed=0).forward(ones))

    def drawn_points() -> int:
        _, axes = new_figure()
        draw_losses(axes, [3.0, 2.0, 1.0, 1.0, 1.0])
        return len(axes.lines[0].get_xdata())

    def damaged_file() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            images, labels = Path(folder) / "images", Path(folder) / "labels"
            images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 255]))
            labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
            try:
                return d.load_idx(images, labels)
            except ValueError as error:
                # The folder's name would be another one in each run.
                raise ValueError(str(error).replace(folder, "…")) from error

    return Section(
        "Errata of the book's code",
        "Faults of the book's layers, plots and loader that are not repeated here. The other "
        "mistakes of the sources stand beside the numbers they are about.",
        [
            Check(
                "argument of Relu.backward afterwards",
                [[1.0, 2.0]],
                relu_argument,
                note="left as it was",
                mistake="the book's code: overwritten with zeros",
            ),
            Check(
                "SoftmaxWithLoss.backward(2) over backward(1)",
                2.0,
                scaled_backward,
                1e-12,
                mistake="the book's code: dout is ignored",
            ),
            Check(
                "mean of ones after Dropout(0.5)",
                1.0,
                dropout_mean,
                0.02,
                "inverted dropout scales up what it keeps; frozen, it serves gradient checks",
                mistake="the book's code: 0.5, and random gradient checks",
            ),
            Check(
                "points in a curve of 5 losses",
                5,
                drawn_points,
                note="every loss is drawn; the mean is a curve of its own",
                mistake="the book's code: a smoothed series of another length",
            ),
            Check(
                "a damaged data file",
                ValueError,
                damaged_file,
                note="files are read as data and checked fully",
                mistake="the book's code: writes a pickle into its own folder, and checks nothing",
            ),
        ],
    )
