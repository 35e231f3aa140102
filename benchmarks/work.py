"""The work that all rows of a comparison share: network, data, weights, minibatches."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Parameters = list[tuple[NDArray[np.float64], NDArray[np.float64]]]

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
    samples : int
        Images to draw from; more than there are repeat them.
    lr : float
        Learning rate of plain SGD.
    h : float
        Step of numerical gradients.
    """

    data: Path
    sizes: tuple[int, ...] = (784, 50, 10)
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    batch: int = 100
    samples: int = _SAMPLES
    lr: float = 0.1
    h: float = 1e-4

    @property
    def name(self) -> str:
        """The network and batch in words."""
        return f"{'-'.join(map(str, self.sizes))} {self.activation}, batch {self.batch:,}"

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(n * m + m for n, m in itertools.pairwise(self.sizes))

    @property
    def updates(self) -> int:
        """Updates in a block: enough to time, few enough to take turns often."""
        flops = 6 * self.batch * self.parameters
        return max(5, min(_BLOCK_UPDATES, int(_BLOCK_FLOPS / flops)))

    def weights(self) -> Parameters:
        """Return W and b of each layer: the chapter's 0.01·normal, or He's for ReLU; zeros.

        They are float32 numbers, so that rows of either type start from the same network.
        """
        rng = np.random.default_rng(0)
        layers = []
        for n, m in itertools.pairwise(self.sizes):
            scale = 0.01 if self.activation == "sigmoid" else np.sqrt(2 / n)
            W = (scale * rng.standard_normal((n, m))).astype(np.float32)
            layers.append((W.astype(np.float64), np.zeros(m)))
        return layers

    def flat_weights(self) -> NDArray[np.float64]:
        """Return all parameters as one vector: W1, b1, W2, b2, ..."""
        return np.concatenate([array.ravel() for layer in self.weights() for array in layer])

    def images(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return all images, (samples, 784) between 0 and 1, and their labels."""
        return self._rows(np.arange(self.samples))

    def minibatch(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the images and labels of the first minibatch."""
        return self._rows(self.minibatches(0)[0])

    def minibatches(self, block: int) -> NDArray[np.int64]:
        """Return the rows of a block's minibatches, (updates, batch), drawn with replacement."""
        rng = np.random.default_rng([1, block])
        return rng.integers(self.samples, size=(self.updates, self.batch))

    def elements(self, block: int, count: int | None) -> NDArray[np.int64]:
        """Return which of the parameters a block differentiates: `count` at random, or all."""
        if count is None:
            return np.arange(self.parameters)
        return np.random.default_rng([2, block]).choice(self.parameters, count, replace=False)

    def _rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        images = np.load(self.data / "images.npy", mmap_mode="r")
        labels = np.load(self.data / "labels.npy")
        rows = rows % len(labels)
        return images[rows] / np.float32(255), labels[rows]


def write_data(folder: Path) -> str:
    """Write the images and labels that all peers read, and return what they are.

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
