"""Fixtures of the pytest-benchmark suites: run them by ``python -m pytest benchmarks``."""

from __future__ import annotations

import functools
import itertools
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dlfs_gpu.backend import Backend, BackendError, get_backend
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.gradient import GradientMethod
from dlfs_gpu.models import MultiLayerNet
from dlfs_gpu.optimizers import SGD
from dlfs_gpu.training.update import Update


@dataclass(frozen=True)
class Place:
    """A backend and a floating-point type to make arrays of."""

    backend: Backend
    dtype: str

    def images(self, count: int) -> Any:
        """Return images that are 80 % zeros, as MNIST's are, of 256 shades."""
        return _images(self, count)

    def labels(self, count: int) -> Any:
        """Return random labels of ten classes."""
        return self.backend.asarray(np.random.default_rng(2).integers(10, size=count))

    def network(self, sizes: tuple[int, ...]) -> MultiLayerNet:
        """Return a network with those sizes: sigmoid with one hidden layer, ReLU with more."""
        inputs, *hidden, classes = sizes
        activation = "sigmoid" if len(hidden) == 1 else "relu"
        return MultiLayerNet(
            inputs, hidden, classes, activation, seed=0, dtype=self.dtype, backend=self.backend
        )

    def updates(
        self,
        sizes: tuple[int, ...] = (784, 50, 10),
        batch: int = 100,
        images: int = 10_000,
        optimizer: Any = None,
    ) -> Callable[[], Any]:
        """Return a function that updates a network, by another minibatch in each call."""
        x, t = self.images(images), self.labels(images)
        update = Update(self.network(sizes), optimizer or SGD(1e-3), x, t, batch)
        sampler = MinibatchSampler(images, batch, seed=0)
        rows = itertools.cycle(self.backend.asarray(sampler.draw(100)))

        def run() -> Any:
            with update.threads():
                return update(next(rows))

        return run

    def differences(
        self,
        sizes: tuple[int, ...] = (784, 50, 10),
        batch: int = 100,
        method: GradientMethod = "difference",
    ) -> Callable[[], Any]:
        """Return a function that differentiates a network numerically."""
        network, x, t = self.network(sizes), self.images(batch), self.labels(batch)
        return lambda: network.numerical_gradient(x, t, method=method)

    def peak_bytes(self, function: Callable[[], Any]) -> int:
        """Return the most bytes in new arrays while a function runs."""
        if self.backend.name == "cupy":
            pool = self.backend.xp.get_default_memory_pool()
            pool.free_all_blocks()
            before = pool.total_bytes()
            function()
            self.backend.synchronize()
            return int(pool.total_bytes() - before)
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@functools.lru_cache(maxsize=1)
def _images(place: Place, count: int) -> Any:
    rng = np.random.default_rng(1)
    shades = rng.integers(256, size=(count, 784), dtype=np.uint8)
    shades *= rng.random((count, 784), np.float32) < 0.2
    return place.backend.asarray(shades / np.dtype(place.dtype).type(255))


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


def synchronized() -> float:
    """Return the time in seconds, once the GPU has done all it was given: the suites' clock.

    pytest-benchmark reads it before and after a round, which has so many iterations
    (``--benchmark-min-time``) that this is throughput. Its calibration makes the first calls.
    """
    if "cupy" in sys.modules:
        sys.modules["cupy"].cuda.get_current_stream().synchronize()
    return time.perf_counter()


@pytest.fixture(params=_places())
def place(request: pytest.FixtureRequest) -> Any:
    """Each backend that runs here, with each dtype."""
    return request.param
