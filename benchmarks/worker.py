"""What runs in the process of a competitor: what it does, and the clock."""

from __future__ import annotations

import importlib
import math
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.work import Array, Do, Job, Work

# Seconds that a timed block lasts at least.
_BLOCK = 0.25

# What this process does with a job.
_do: Do


class PeerError(Exception):
    """A competitor cannot take part; the message says why."""


def prepare() -> None:
    """Make a new process like all others, before it imports any library to compare."""
    # Intel's OpenMP would spin for 200 ms after each block.
    os.environ.setdefault("KMP_BLOCKTIME", "20")
    # glibc gives large arrays back to the system, and their pages cost as much as work on them,
    # until one that is larger still was freed. Competitors should not differ by who happened to.
    np.zeros(31 * 2**20, np.uint8)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; what it raises becomes a traceback here, and one line for the comparison."""
    try:
        return function(*arguments)
    except Exception as error:
        traceback.print_exc()
        first_line = str(error).strip().partition("\n")[0]
        raise PeerError(f"failed: {type(error).__name__}: {first_line}") from None


def start(peer: str, gpu: bool, work: Work, job: Job) -> Array:
    """Make a peer for a work and return the results of its first job: it compiles, it warms up."""
    global _do
    module, _, function = peer.partition(":")
    _do = getattr(importlib.import_module(module), function)(work, gpu)
    return _do(job)


def time_job(job: Job) -> float:
    """Return the seconds that a job takes.

    Caches and threads have gone cold while others ran: a job shorter than a block is done once
    before the clock is started, and then again and again.
    """
    seconds = _timed(job)
    if seconds < _BLOCK:
        seconds = _timed(job, repeats=math.ceil(_BLOCK / seconds))
    return seconds


def _timed(job: Job, repeats: int = 1) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        _do(job)
    return (time.perf_counter() - begun) / repeats
