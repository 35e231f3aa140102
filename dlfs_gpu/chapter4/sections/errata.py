"""Faults of the book's code that belong to no number of the chapter, and what happens here."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dlfs_gpu as d
from dlfs_gpu.chapter4.model import Check, error_of, section
from dlfs_gpu.training.curves import draw_losses, new_figure


@section(
    "Errata of the book's code",
    "Faults of the book's layers, plots and loader that are not repeated here. The other mistakes "
    "of the sources stand beside the numbers they are about.",
)
def errata(backend: d.Backend) -> Iterator[Check]:
    """Yield a check for each."""
    array = functools.partial(backend.asarray, dtype="float64")

    relu, dout = d.Relu(), array([[1, 2]])
    relu.forward(array([[-1, 1]]))
    relu.backward(dout)
    yield Check(
        "argument of Relu.backward afterwards",
        [[1.0, 2.0]],
        dout,
        note="left as it was",
        mistake="the book's code: overwritten with zeros",
    )
    loss = d.SoftmaxWithLoss()
    loss.forward(array([[1, 2, 3]]), array([[0, 0, 1]]))
    yield Check(
        "SoftmaxWithLoss.backward(2) over backward(1)",
        2.0,
        loss.backward(2)[0, 0] / loss.backward(1)[0, 0],
        1e-12,
        mistake="the book's code: dout is ignored",
    )
    yield Check(
        "mean of ones after Dropout(0.5)",
        1.0,
        backend.xp.mean(d.Dropout(0.5, seed=0).forward(backend.xp.ones((1000, 100)))),
        0.02,
        "inverted dropout scales up what it keeps; frozen, it serves gradient checks",
        mistake="the book's code: 0.5, and random gradient checks",
    )
    _, axes = new_figure()
    draw_losses(axes, [3.0, 2.0, 1.0, 1.0, 1.0])
    yield Check(
        "points in a curve of 5 losses",
        5,
        len(axes.lines[0].get_xdata()),
        note="every loss is drawn; the mean is a curve of its own",
        mistake="the book's code: a smoothed series of another length",
    )
    with tempfile.TemporaryDirectory() as folder:
        images, labels = Path(folder) / "images", Path(folder) / "labels"
        images.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 255]))
        labels.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
        error = error_of(lambda: d.load_idx(images, labels))
    yield Check(
        "a damaged data file",
        d.DataError,
        # The folder's name would be another one in each run.
        error and type(error)(str(error).replace(folder, "…")),
        note="files are read as data and checked fully",
        mistake="the book's code: writes a pickle into its own folder, and checks nothing",
    )
