"""The cores of this machine, and the threads of BLAS."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

# Products with fewer multiplications than this gain little from a second thread on a quiet
# machine, and wait for it on a busy one. The choice must not be by measuring, because BLAS may
# round differently with another number of threads.
_SMALL_PRODUCT = 2**24


def cpu_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _OneBlasThread:
    """Keeps BLAS to one thread, in the whole process, while a ``with`` block is open.

    Blocks of several threads may overlap: the first sets the limit, and the last one to end
    restores what was.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._open:
                self._limit = _blas_controller().limit(limits=1, user_api="blas")
            self._open += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._limit.restore_original_limits()


one_blas_thread = _OneBlasThread()
"""``with one_blas_thread:`` keeps BLAS to the threads that it is called on."""


def blas_threads(sizes: Sequence[int], samples: int) -> AbstractContextManager[None]:
    """Return a context in which BLAS takes the threads that serve a network of such sizes."""
    return one_blas_thread if serves_one_thread(sizes, samples) else contextlib.nullcontext()


def serves_one_thread(sizes: Sequence[int], samples: int) -> bool:
    """Say whether matrix products of such sizes gain little from a second thread."""
    largest = max((n * m for n, m in itertools.pairwise(sizes)), default=0)
    return largest * samples < _SMALL_PRODUCT


@functools.cache
def _blas_controller() -> Any:
    # Looking for the libraries takes milliseconds.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
