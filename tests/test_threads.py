"""The cores that the process may use, and BLAS on one thread."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from dlfs_gpu.machine import threads
from dlfs_gpu.machine.threads import cpu_cores, one_blas_thread
from dlfs_gpu.models import TwoLayerNet
from dlfs_gpu.optimizers import SGD
from dlfs_gpu.training import Trainer


def test_cores_are_those_that_the_process_may_use() -> None:
    assert 1 <= cpu_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can restrict them")
def test_cores_of_a_restricted_process() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cpu_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cpu_cores() == len(before)


def in_use() -> set[int]:
    """How many threads BLAS has, in each of its libraries."""
    return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}


@pytest.fixture
def two_threads() -> Iterator[None]:
    # Another test may have loaded a library since.
    threads._blas_controller.cache_clear()
    with threadpool_limits(limits=2, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("hidden", "expected"), [(50, {1}), (5000, {2})])
def test_small_networks_train_on_one_thread(hidden: int, expected: set[int]) -> None:
    """On a busy machine a second one would take them many times as long."""
    seen = []

    class Watching(SGD):
        def update(self, params: Any, grads: Any) -> None:
            seen.append(in_use())
            super().update(params, grads)

    network = TwoLayerNet(64, hidden, 10, seed=0, backend="numpy")
    x, t = np.ones((100, 64), np.float32), np.zeros(100, np.int64)
    Trainer(network, x, t, optimizer=Watching(), iterations=1, verbose=False).train()
    assert (seen, in_use()) == ([expected], {2})


@pytest.mark.usefixtures("two_threads")
def test_one_blas_thread() -> None:
    before = in_use()
    with one_blas_thread:
        assert in_use() == {1}
        with pytest.raises(ZeroDivisionError), one_blas_thread:
            _ = 1 / 0
        assert in_use() == {1}
    assert in_use() == before
