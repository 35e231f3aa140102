"""What runs in the process of a competitor: its peer, and the clock."""

from __future__ import annotations

import importlib
import math
import os
import time
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from benchmarks.peers import Job, Peer, Values
from benchmarks.work import Work

# Seconds that a timed block lasts at least.
_BLOCK = 0.25

_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")

# The peer of this process.
_peer: Peer


class PeerError(Exception):
    """A competitor cannot take part; the message says why."""


def prepare() -> None:
    """Make a new process like all others, before it imports any library to compare."""
    # Intel's OpenMP would spin for 200 ms after each block.
    os.environ.setdefault("KMP_BLOCKTIME", "20")
    # glibc gives large arrays back to the system, and their pages cost as much as work on them,
    # until one that is larger still was freed. Competitors should not differ by who happened to.
    np.zeros(31 * 2**20, np.uint8)


def _explained(function: Callable[_Arguments, _Returned]) -> Callable[_Arguments, _Returned]:
    """Make what a function raises a traceback here, and one line for the comparison."""

    @wraps(function)
    def explained(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Returned:
        try:
            return function(*args, **kwargs)
        except PeerError:
            raise
        except Exception as error:
            traceback.print_exc()
            first_line = str(error).strip().partition("\n")[0]
            raise PeerError(f"failed: {type(error).__name__}: {first_line}") from None

    return explained


@_explained
def start(peer: str, gpu: bool, work: Work) -> tuple[Job, Values, float]:
    """Make the peer for a work and run its first block, which compiles and warms up.

    Returns
    -------
    job, values : array
        What was asked for, and what came out.
    units : float
        Updates or gradients in a block.
    """
    global _peer
    module, _, name = peer.partition(":")
    _peer = getattr(importlib.import_module(module), name)(work, gpu)
    job = _peer.job(0)
    return job, _peer.values(_peer.run(job)), _peer.units(job)


@_explained
def time_block(block: int) -> float:
    """Return the seconds of another block.

    Caches and threads have gone cold while others ran: a job shorter than a block is done once
    before the clock is started, and then again and again.
    """
    job = _peer.job(block)
    seconds = timed(_peer, job)
    if seconds < _BLOCK:
        seconds = timed(_peer, job, repeats=math.ceil(_BLOCK / seconds))
    return seconds


def timed(peer: Peer, job: Job, repeats: int = 1) -> float:
    """Return the seconds that a job takes, on average over repeats: throughput.

    The peer is waited for before the clock is read, both times.
    """
    peer.synchronize()
    begun = time.perf_counter()
    for _ in range(repeats):
        peer.run(job)
    peer.synchronize()
    return (time.perf_counter() - begun) / repeats
