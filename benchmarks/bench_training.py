"""Forward pass, backpropagation, and whole updates."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Place
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.optimizers import OPTIMIZERS, SGD
from dlfs_gpu.training.update import Update

NETWORKS = [(784, 50, 10), (784, 1024, 10), (784, 512, 512, 10)]
BATCHES = [10, 100, 1000]
IMAGES = 10_000

sizes = pytest.mark.parametrize(
    ("network_sizes", "batch"), list(itertools.product(NETWORKS, BATCHES)), ids=str
)


@sizes
def bench_forward(
    benchmark: BenchmarkFixture, place: Place, network_sizes: tuple[int, ...], batch: int
) -> None:
    network = place.network(network_sizes)
    benchmark(network.predict, place.images(batch))


@sizes
def bench_backpropagation(
    benchmark: BenchmarkFixture, place: Place, network_sizes: tuple[int, ...], batch: int
) -> None:
    network = place.network(network_sizes)
    x, t = network.check(place.images(batch), place.labels(batch))
    benchmark(network.loss_and_gradient, x, t)


@sizes
def bench_update(
    benchmark: BenchmarkFixture, place: Place, network_sizes: tuple[int, ...], batch: int
) -> None:
    benchmark(_updates(place, network_sizes, batch, SGD(1e-3)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def bench_update_by_optimizer(benchmark: BenchmarkFixture, place: Place, optimizer: str) -> None:
    benchmark(_updates(place, (784, 50, 10), 100, OPTIMIZERS[optimizer](lr=1e-3)))


def _updates(place: Place, network_sizes: tuple[int, ...], batch: int, optimizer: Any) -> Any:
    """Return a function that updates the network, by another minibatch in each call."""
    network = place.network(network_sizes)
    x, t = network.check(place.images(IMAGES), place.labels(IMAGES))
    update = Update(network, optimizer, x, t, batch)
    sampler = MinibatchSampler(IMAGES, batch, seed=0)
    rows = itertools.cycle(place.backend.asarray(sampler.draw(100)))
    return lambda: update(next(rows))
