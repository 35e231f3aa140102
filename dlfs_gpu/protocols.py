"""What a network asks of its layers and its loss, and what else they may offer.

Whatever has the methods is a layer: nothing is inherited from, and no class is preferred. What a
layer offers besides is told by its attributes, with `hasattr`: Python's own test of protocols
takes as long as a small layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dlfs_gpu._validation import Array


class Layer(Protocol):
    """A pass forward, and one back."""

    def forward(self, x: Array) -> Array:
        """Return the output for a batch, (N, features), or for K of them, (K, N, features)."""

    def backward(self, dout: Array) -> Array:
        """Return the gradient of the loss by the input, given that by the output."""


class Loss(Protocol):
    """The last layer: the mean loss over the samples, and its gradient."""

    def check(self, t: Array, shape: tuple[int, ...], like: Array) -> Array:
        """Return targets ready for outputs of `shape`, (N, C) or (C,), or raise ArgumentError."""

    def forward(self, x: Array, t: Array) -> Array:
        """Return the loss, (), for scores (N, C), or K losses, (K,), for (K, N, C)."""

    def predict(self, x: Array) -> Array:
        """Return what scores mean: probabilities, for a classifier."""

    def backward(self, dout: Any = 1) -> Array:
        """Return the gradient by the scores, (N, C)."""


class Trainable(Protocol):
    """A layer with parameters, by name, and after ``backward`` a gradient of each.

    For differences by evaluation, ``forward`` must also take a parameter with K copies stacked.
    """

    params: dict[str, Array]
    grads: dict[str, Array]


class Switched(Protocol):
    """A layer that does something else while training."""

    train_flg: bool


class Random(Protocol):
    """A layer that draws random numbers in each pass of training, unless it is frozen."""

    frozen: bool


class Lasting(Protocol):
    """A layer that keeps more than parameters from one update to the next."""

    @property
    def lasting(self) -> Sequence[str]:
        """Names of its attributes that checkpoints must hold.

        They may be numbers, texts, arrays, ``numpy.random.Generator``, None, and lists, tuples and
        dictionaries of these.
        """


class Kinked(Protocol):
    """A layer that has no slope at some inputs."""

    def kinks(self, reach: Array | float) -> int:
        """Return how many inputs of the last ``forward`` are no further than that from a kink."""


class Differencing(Protocol):
    """A layer, or a loss, that says by how much its output changes.

    A layer's ``difference(d, *saved)`` returns the change of its output for changes d of its
    input, (N, features, P). A loss's ``difference(d, e, *saved)`` returns by how much each
    sample's loss for x + d is above that for x + e, (N, P) for d and e of shape (N, C, P).
    """

    def saved(self) -> tuple[Array, ...]:
        """Return what `difference` needs of the last ``forward``, samples first."""

    @property
    def difference(self) -> Any:
        """The method."""


class Elementwise(Protocol):
    """A layer each of whose outputs depends on one input, and changes no more than so much."""

    @property
    def lipschitz(self) -> float:
        """Bound of |change of the output| / |change of the input|."""


class Linear(Differencing, Trainable, Protocol):
    """A layer x @ W, only whose column j moves when a weight W[i, j] does."""

    x: Array

    def weight_difference(self, x: Array, h: float) -> Array:
        """Return what moving a weight does; see `dlfs_gpu.layers.Affine`."""


def is_linear(layer: Any) -> bool:
    """Say whether a layer is `Linear`."""
    return hasattr(layer, "weight_difference")


class ColumnDifferencing(Differencing, Protocol):
    """A loss that says the same for changes of one score each, one at a time."""

    def column_saved(self) -> tuple[Array, ...]:
        """Return what `column_difference` needs, each (N, C, 1) or (N, 1, 1)."""

    def column_difference(self, d: Array, e: Array, *saved: Array) -> Array:
        """Return the change for d[n, c, p] of score c alone against e[n, c, p], (N, C, P)."""


class LineDifferencing(Differencing, Protocol):
    """A loss that says the same for changes of the scores along given lines."""

    def line_saved(
        self, W: Array | None, reach: float, eps: float, budget: int
    ) -> tuple[Array, ...] | None:
        """Return what `line_difference` needs for the rows of W, each (N, J, 1), or None.

        Without W for those of the identity: single scores.
        """

    def line_difference(self, s: Array, r: Array, *saved: Array) -> Array:
        """Return the change for s·W[j, :] against r·W[j, :], (N, J, P), from s, r of that shape."""
