"""The clock of the pytest-benchmark suites."""

from __future__ import annotations

import sys
import time


def synchronized() -> float:
    """Return the time in seconds, once the GPU has done all it was given.

    pytest-benchmark reads the clock before and after a round, which has so many iterations
    (``--benchmark-min-time``) that this is throughput: synchronise, N steps, synchronise. Its
    calibration makes the first calls, which are left out.
    """
    if "cupy" in sys.modules:
        sys.modules["cupy"].cuda.get_current_stream().synchronize()
    return time.perf_counter()
