"""Numerical gradients by every method."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Place
from dlfs_gpu.network import GradientMethod

DIFFERENCE_SIZES = [
    ((784, 50, 10), 100),
    ((784, 400, 10), 100),
    ((784, 50, 10), 400),
    ((784, 100, 100, 10), 100),
]


@pytest.mark.parametrize("method", ["loop", "batched", "difference"])
def bench_small_network(benchmark: BenchmarkFixture, place: Place, method: GradientMethod) -> None:
    _bench(benchmark, place, (784, 2, 10), 20, method)


@pytest.mark.parametrize(("network_sizes", "batch"), DIFFERENCE_SIZES, ids=str)
def bench_difference(
    benchmark: BenchmarkFixture, place: Place, network_sizes: tuple[int, ...], batch: int
) -> None:
    _bench(benchmark, place, network_sizes, batch, "difference")


def _bench(
    benchmark: BenchmarkFixture,
    place: Place,
    network_sizes: tuple[int, ...],
    batch: int,
    method: GradientMethod,
) -> None:
    network = place.network(network_sizes)
    benchmark(network.numerical_gradient, place.images(batch), place.labels(batch), method=method)
