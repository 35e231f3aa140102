"""The chapter's networks: SimpleNet, TwoLayerNet, and MultiLayerNet of any depth (4.4.2, 4.5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlfs_gpu._validation import (
    ArgumentError,
    Array,
    as_float,
    check_choice,
    check_count,
    check_dtype,
    check_fraction,
    check_not_negative,
)
from dlfs_gpu.backend import Backend, get_backend
from dlfs_gpu.layers import Affine, Dropout, Relu, Sigmoid, Tanh
from dlfs_gpu.network import Network

ACTIVATIONS: dict[str, type] = {"relu": Relu, "sigmoid": Sigmoid, "tanh": Tanh}

# Of weights of a layer with n inputs: the variance is this divided by n.
_VARIANCES = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}


class MultiLayerNet(Network):
    """Affine layers with an activation between them, and softmax with cross entropy (6.5).

    Names may be written in upper or lower case.

    Parameters
    ----------
    input_size : int
        Features of a sample.
    hidden_size_list : sequence of int
        Sizes of the hidden layers, none or more.
    output_size : int
        Classes.
    activation : {"relu", "sigmoid", "tanh"}
        After each hidden layer.
    weight_init_std : float or {"relu", "he", "sigmoid", "xavier"}
        Standard deviation of the first weights: a number, √(2/n) for "relu" and "he", or √(1/n)
        for "sigmoid" and "xavier", for n inputs of the layer (6.2). Biases start at 0.
    weight_decay_lambda : float
        As in `Network`.
    dropout_ratio : float
        Share of the hidden units dropped while training, at least 0 and less than 1.
    seed : int, optional
        Weights are drawn on the host: the same for every backend, and but for rounding for every
        dtype.
    dtype : {"float32", "float64"}
    backend : str or Backend, optional
        As for `dlfs_gpu.get_backend`.

    Raises
    ------
    ArgumentError
        If an argument is none of these.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        *,
        dropout_ratio: float = 0.0,
        seed: int | None = None,
        dtype: Any = "float32",
        backend: str | Backend | None = None,
    ) -> None:
        activation = check_choice("activation", activation, ACTIVATIONS)
        dropout_ratio = check_fraction("dropout_ratio", dropout_ratio)
        try:
            hidden = [check_count("hidden_size_list", size) for size in hidden_size_list]
        except TypeError:
            problem = f"is {hidden_size_list!r}; it must be a list of sizes"
            raise ArgumentError("hidden_size_list", problem) from None
        sizes = [
            check_count("input_size", input_size),
            *hidden,
            check_count("output_size", output_size),
        ]
        backend = get_backend(backend)
        rng = np.random.default_rng(seed)
        (masks,) = rng.spawn(1)
        layers: list[Any] = []
        for n, m in itertools.pairwise(sizes):
            if layers:
                layers.append(ACTIVATIONS[activation]())
                if dropout_ratio:
                    layers.append(Dropout(dropout_ratio, seed=int(masks.integers(2**63))))
            scale = weight_scale(weight_init_std, n)
            # Of zeros, as a file's network has at first, nothing needs to be drawn in float64.
            W: Any = np.zeros((n, m), check_dtype(dtype))
            if scale:
                W = scale * rng.standard_normal((n, m))
            layers.append(_affine(W, np.zeros(m), backend, dtype))
        super().__init__(layers, weight_decay_lambda=weight_decay_lambda)
        self.backend = backend
        self.activation = activation


class TwoLayerNet(MultiLayerNet):
    """The chapter's network: sigmoid hidden layer, softmax output (4.5.1).

    Parameters
    ----------
    input_size, hidden_size, output_size : int
    weight_init_std : float
        Standard deviation of the first weights.
    seed, dtype, backend
        As in `MultiLayerNet`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        seed: int | None = None,
        dtype: Any = "float32",
        backend: str | Backend | None = None,
    ) -> None:
        super().__init__(
            input_size,
            [check_count("hidden_size", hidden_size)],
            output_size,
            "sigmoid",
            weight_init_std,
            seed=seed,
            dtype=dtype,
            backend=backend,
        )


class SimpleNet(Network):
    """The chapter's first network: scores x @ W from two inputs to three classes (4.4.2).

    Parameters
    ----------
    W : array_like, shape (inputs, outputs), optional
        Weights; by default (2, 3) of them, drawn from a normal distribution.
    seed, dtype, backend
        As in `MultiLayerNet`; float64 by default, as in the chapter.
    """

    def __init__(
        self,
        W: Any = None,
        *,
        seed: int | None = None,
        dtype: Any = "float64",
        backend: str | Backend | None = None,
    ) -> None:
        backend = get_backend(backend)
        if W is None:
            W = np.random.default_rng(seed).standard_normal((2, 3))
        super().__init__([_affine(W, None, backend, dtype)])
        self.backend = backend

    @property
    def W(self) -> Array:  # noqa: N802 - the book's name
        """The weights."""
        return self.params["W1"]

    def predict(self, x: Array) -> Array:
        """Return the scores x @ W; the chapter applies the softmax in the loss."""
        return self.scores(x)


simpleNet = SimpleNet  # noqa: N816 - the book's name


def weight_scale(weight_init_std: float | str, inputs: int) -> float:
    """Return the standard deviation that `weight_init_std` stands for in a layer of `inputs`."""
    if isinstance(weight_init_std, str):
        name = check_choice("weight_init_std", weight_init_std, _VARIANCES)
        return math.sqrt(_VARIANCES[name] / inputs)
    return check_not_negative("weight_init_std", weight_init_std)


def _affine(W: Any, b: Any, backend: Backend, dtype: Any) -> Affine:
    dtype = check_dtype(dtype)
    W = backend.asarray(as_float(W, "W"), dtype)
    return Affine(W, None if b is None else backend.asarray(b, dtype))
