"""The cores that the process may use, and BLAS on one thread."""

import os

import pytest

from dlfs_gpu.machine import threads
from dlfs_gpu.machine.threads import cpu_cores, one_blas_thread


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


def test_one_blas_thread() -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def in_use() -> set[int]:
        return {
            library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
        }

    # Another test may have loaded a library since.
    threads._blas_controller.cache_clear()
    with threadpool_limits(limits=2, user_api="blas"):
        before = in_use()
        with one_blas_thread:
            assert in_use() == {1}
            with pytest.raises(ZeroDivisionError), one_blas_thread:
                _ = 1 / 0
            assert in_use() == {1}
        assert in_use() == before
