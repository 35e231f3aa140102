"""Time and peak memory as batch, hidden units and data grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import Place

BATCHES = [10, 32, 100, 320, 1000]
HIDDEN = [25, 50, 100, 200, 400, 800, 1600]


@pytest.mark.parametrize("batch", [*BATCHES, 3200, 10_000])
def bench_update_batch(benchmark: BenchmarkFixture, place: Place, batch: int) -> None:
    _bench(benchmark, place, "update: batch", batch, lambda: place.updates(batch=batch))


@pytest.mark.parametrize("hidden", HIDDEN)
def bench_update_hidden(benchmark: BenchmarkFixture, place: Place, hidden: int) -> None:
    sizes = (784, hidden, 10)
    _bench(benchmark, place, "update: hidden units", hidden, lambda: place.updates(sizes))


@pytest.mark.parametrize("images", [7500, 15_000, 30_000, 60_000, 120_000])
def bench_update_images(benchmark: BenchmarkFixture, place: Place, images: int) -> None:
    _bench(benchmark, place, "update: images", images, lambda: place.updates(images=images))


@pytest.mark.parametrize("batch", BATCHES)
def bench_gradient_batch(benchmark: BenchmarkFixture, place: Place, batch: int) -> None:
    series = "numerical gradient: batch"
    _bench(benchmark, place, series, batch, lambda: place.differences(batch=batch))


@pytest.mark.parametrize("hidden", HIDDEN)
def bench_gradient_hidden(benchmark: BenchmarkFixture, place: Place, hidden: int) -> None:
    series, sizes = "numerical gradient: hidden units", (784, hidden, 10)
    _bench(benchmark, place, series, hidden, lambda: place.differences(sizes))


def _bench(
    benchmark: BenchmarkFixture,
    place: Place,
    series: str,
    size: int,
    prepare: Callable[[], Callable[[], Any]],
) -> None:
    """Time what `prepare` returns, and note the memory that this and one call take."""
    benchmark(prepare())
    benchmark.extra_info |= {
        "name": f"dlfs_gpu, {place.backend.name}",
        "series": series,
        "size": size,
        "peak_bytes": place.peak_bytes(lambda: prepare()()),
    }
