"""Fixtures of the pytest-benchmark suites: run them by ``python -m pytest benchmarks``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dlfs_gpu.backend import Backend, BackendError, get_backend
from dlfs_gpu.models import MultiLayerNet


@dataclass(frozen=True)
class Place:
    """A backend and a floating-point type to make arrays of."""

    backend: Backend
    dtype: str

    def normal(self, *shape: int) -> Any:
        """Return random numbers."""
        return self.backend.asarray(np.random.default_rng(0).standard_normal(shape), self.dtype)

    def images(self, count: int) -> Any:
        """Return images that are 80 % zeros, as MNIST's are, of 256 shades."""
        rng = np.random.default_rng(1)
        shades = rng.integers(256, size=(count, 784)) * (rng.random((count, 784)) < 0.2)
        return self.backend.asarray(shades / 255, self.dtype)

    def labels(self, count: int, classes: int = 10) -> Any:
        """Return random labels."""
        return self.backend.asarray(np.random.default_rng(2).integers(classes, size=count))

    def network(self, sizes: tuple[int, ...]) -> MultiLayerNet:
        """Return a network with those sizes: sigmoid with one hidden layer, ReLU with more."""
        inputs, *hidden, classes = sizes
        activation = "sigmoid" if len(hidden) == 1 else "relu"
        return MultiLayerNet(
            inputs, hidden, classes, activation, seed=0, dtype=self.dtype, backend=self.backend
        )


def _places() -> Iterator[Any]:
    for name in ("numpy", "cupy"):
        try:
            backend = get_backend(name)
        except BackendError as error:
            skip = pytest.mark.skip(reason=str(error).partition("\n")[0])
            yield pytest.param(None, id=name, marks=skip)
            continue
        for dtype in ("float32", "float64"):
            yield pytest.param(Place(backend, dtype), id=f"{name}-{dtype}")


@pytest.fixture(params=_places())
def place(request: pytest.FixtureRequest) -> Any:
    """Each backend that runs here, with each dtype."""
    return request.param
