"""What kernels know of a network: plain arrays and names, so that they need none of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dlfs_gpu._validation import Array, namespace_of

ActivationName = Literal["sigmoid", "tanh", "relu"]


class UnfitError(Exception):
    """A kernel does not take this network, data or device; the message says why."""


@dataclass(frozen=True)
class DenseNetwork:
    """Affine layers with activations between them, and softmax cross entropy behind.

    Attributes
    ----------
    weights : tuple of array
        W of each layer, (inputs, outputs): the parameters themselves, no copies.
    biases : tuple of array
        b of each layer, (outputs,).
    activations : tuple of {"sigmoid", "tanh", "relu"}
        One fewer than layers.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activations: tuple[ActivationName, ...]

    @property
    def dtype(self) -> Any:
        """Type of the first weights; a kernel checks that the others have the same."""
        return self.weights[0].dtype

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features of the input, of each hidden layer, and of the output."""
        return (self.weights[0].shape[0], *(W.shape[1] for W in self.weights))

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by their names: W1, b1, W2, and so on."""
        params = {}
        for number, (W, b) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            params[f"W{number}"], params[f"b{number}"] = W, b
        return params

    def copy(self) -> DenseNetwork:
        """Return one with parameters of its own."""
        weights, biases = (
            tuple(namespace_of(p).asarray(p, copy=True) for p in params)
            for params in (self.weights, self.biases)
        )
        return DenseNetwork(weights, biases, self.activations)
