"""The work that all competitors share: network, data, weights, minibatches."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Job: TypeAlias = NDArray[np.int64]
Do: TypeAlias = Callable[[Job], Array]

_SAMPLES = 60_000
# What a timed block should compute, roughly, and the most updates it is given for that.
_BLOCK_FLOPS = 3e10
_BLOCK_UPDATES = 200


@dataclass(frozen=True)
class Work:
    """A network to train, or to differentiate, on given data.

    Attributes
    ----------
    data : Path
        Folder of `write_data`.
    sizes : tuple of int
        Features, hidden units of each layer, classes.
    activation : {"sigmoid", "relu"}
        Of the hidden layers; softmax with cross entropy comes last.
    batch : int
        Samples in a minibatch.
    lr : float
        Learning rate of plain SGD.
    h : float
        Step of numerical gradients.
    only_w1 : bool
        Whether gradients are with respect to the first layer's weights alone.
    """

    data: Path
    sizes: tuple[int, ...] = (784, 50, 10)
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    batch: int = 100
    lr: float = 0.1
    h: float = 1e-4
    only_w1: bool = False

    @property
    def name(self) -> str:
        """The network and batch in words."""
        return f"{'-'.join(map(str, self.sizes))} {self.activation}, batch {self.batch:,}"

    @property
    def updates(self) -> int:
        """Updates in a block: enough to time, few enough to take turns often."""
        weights = sum(n * m for n, m in itertools.pairwise(self.sizes))
        return max(5, min(_BLOCK_UPDATES, int(_BLOCK_FLOPS / (6 * self.batch * weights))))

    def weights(self) -> list[Array]:
        """Return W1, b1, W2, b2, ...: the chapter's 0.01·normal, or He's for ReLU; zeros.

        They are float32 numbers, so that all start from the same network in either type.
        """
        rng = np.random.default_rng(0)
        arrays = []
        for n, m in itertools.pairwise(self.sizes):
            scale = 0.01 if self.activation == "sigmoid" else np.sqrt(2 / n)
            W = (scale * rng.standard_normal((n, m))).astype(np.float32)
            arrays += [W.astype(np.float64), np.zeros(m)]
        return arrays

    def variables(self) -> list[Array]:
        """Return those of the weights that gradients are with respect to."""
        return self.weights()[:1] if self.only_w1 else self.weights()

    @property
    def parameters(self) -> int:
        """Number of elements of the variables."""
        return sum(array.size for array in self.variables())

    def images(self) -> tuple[Array, Array]:
        """Return all images, (samples, 784) between 0 and 1 in float32, and their labels."""
        images = np.load(self.data / "images.npy") / np.float32(255)
        return images, np.load(self.data / "labels.npy")

    def minibatch(self) -> tuple[Array, Array]:
        """Return the images and labels of the first minibatch."""
        images, labels = self.images()
        rows = self.minibatches(0)[0]
        return images[rows], labels[rows]

    def minibatches(self, block: int) -> Job:
        """Return the rows of a block's minibatches, (updates, batch), drawn with replacement."""
        samples = len(np.load(self.data / "labels.npy"))
        rng = np.random.default_rng([1, block])
        return rng.integers(samples, size=(self.updates, self.batch))

    def elements(self, block: int, count: int | None) -> Job:
        """Return which elements of the variables a block moves: `count` at random, or all.

        They are counted through all variables laid end to end.
        """
        if count is None:
            return np.arange(self.parameters)
        return np.random.default_rng([2, block]).choice(self.parameters, count, replace=False)


def write_data(folder: Path) -> str:
    """Write the images and labels that all competitors read, and return what they are.

    MNIST from the folder that ``DLFS_GPU_DATA`` names, or else generated: 60,000 images that are
    80 % zeros, as MNIST's are, of ten kinds that can be told apart.
    """
    if os.environ.get("DLFS_GPU_DATA"):
        from dlfs_gpu.data import load_mnist

        (images, labels), _ = load_mnist(normalize=False, backend="numpy")
        source = "MNIST"
    else:
        rng = np.random.default_rng(0)
        labels = rng.integers(10, size=_SAMPLES)
        inked = rng.random((10, 784)) < 0.4
        ink = rng.integers(1, 256, size=(_SAMPLES, 784), dtype=np.uint8)
        images = ink * (inked[labels] & (rng.random((_SAMPLES, 784)) < 0.5))
        source = "generated"
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    return source
