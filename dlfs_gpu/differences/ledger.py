"""What the changes of one evaluation take: counted, so that they can be kept within a budget."""

from __future__ import annotations

import math

from dlfs_gpu._validation import Array

_TEMPORARIES = 6
"""Arrays of numbers, as many as the result has, that most rules need at once on the way."""
_LARGEST_NUMBER = 8


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
        count, itemsize = math.prod(part.shape), _itemsize(part)
        self.live += count * itemsize
        # Truth values come from numbers.
        number = _LARGEST_NUMBER if itemsize == 1 else itemsize
        self.peak = max(self.peak, self.live + _TEMPORARIES * count * number)
        self.total += count * itemsize
        self.operations += 1

    def close(self, part: Array) -> None:
        """Take down that they are no longer needed."""
        self.live -= math.prod(part.shape) * _itemsize(part)


def _itemsize(part: Array) -> int:
    # The array API standard has none.
    return int(getattr(part.dtype, "itemsize", _LARGEST_NUMBER))
