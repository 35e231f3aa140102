"""What the changes of one evaluation take: counted, so that they can be kept within a budget."""

from __future__ import annotations

import math

from dlfs_gpu._validation import Array

_TEMPORARIES = 4
"""Arrays as large as its result that a rule may need at once."""


class Ledger:
    """Bytes of changes alive, which arrays report as they come and go.

    Attributes
    ----------
    live, peak : int
        Bytes alive now, and at most so far, with what rules need on the way.
    total : int
        Bytes of all changes that were computed.
    operations : int
        How many results had changes.
    """

    def __init__(self) -> None:
        self.live = self.peak = self.total = self.operations = 0

    def open(self, part: Array) -> None:
        """Take down changes that were computed."""
        size = _bytes(part)
        self.live += size
        self.peak = max(self.peak, self.live + _TEMPORARIES * size)
        self.total += size
        self.operations += 1

    def close(self, part: Array) -> None:
        """Take down that they are no longer needed."""
        self.live -= _bytes(part)


def _bytes(part: Array) -> int:
    # The array API standard has no itemsize; 8 is the largest.
    size: int = math.prod(part.shape) * getattr(part.dtype, "itemsize", 8)
    return size
