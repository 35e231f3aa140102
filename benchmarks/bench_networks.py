"""Forward pass, backpropagation, updates by each optimizer, numerical gradients."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Place
from dlfs_gpu.gradient import GradientMethod
from dlfs_gpu.optimizers import OPTIMIZERS

network_sizes = pytest.mark.parametrize(
    "sizes", [(784, 50, 10), (784, 1024, 10), (784, 512, 512, 10)], ids=str
)
batches = pytest.mark.parametrize("batch", [10, 100, 1000])


@network_sizes
@batches
def bench_forward(
    benchmark: BenchmarkFixture, place: Place, sizes: tuple[int, ...], batch: int
) -> None:
    benchmark(place.network(sizes).predict, place.images(batch))


@network_sizes
@batches
def bench_backpropagation(
    benchmark: BenchmarkFixture, place: Place, sizes: tuple[int, ...], batch: int
) -> None:
    network = place.network(sizes)
    benchmark(network.loss_and_gradient, place.images(batch), place.labels(batch))


@network_sizes
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def bench_update(
    benchmark: BenchmarkFixture, place: Place, sizes: tuple[int, ...], optimizer: str
) -> None:
    benchmark(place.updates(sizes, optimizer=OPTIMIZERS[optimizer](lr=1e-3)))


@pytest.mark.parametrize("method", ["loop", "batched", "difference"])
def bench_small_gradient(benchmark: BenchmarkFixture, place: Place, method: GradientMethod) -> None:
    benchmark(place.differences((784, 2, 10), 20, method))


def bench_deep_gradient(benchmark: BenchmarkFixture, place: Place) -> None:
    benchmark(place.differences((784, 100, 100, 10)))
