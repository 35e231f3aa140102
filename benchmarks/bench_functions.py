"""Softmax and cross entropy."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Place
from dlfs_gpu.functions import cross_entropy_error, softmax, softmax_cross_entropy

SHAPES = [(100, 10), (10_000, 10), (1000, 1000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_softmax(benchmark: BenchmarkFixture, place: Place, shape: tuple[int, int]) -> None:
    benchmark(softmax, place.normal(*shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_cross_entropy_error(
    benchmark: BenchmarkFixture, place: Place, shape: tuple[int, int]
) -> None:
    benchmark(cross_entropy_error, softmax(place.normal(*shape)), place.labels(*shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def bench_softmax_cross_entropy(
    benchmark: BenchmarkFixture, place: Place, shape: tuple[int, int]
) -> None:
    benchmark(softmax_cross_entropy, place.normal(*shape), place.labels(*shape))
