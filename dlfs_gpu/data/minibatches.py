"""Minibatches: which samples come next."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dlfs_gpu._validation import ArgumentError, check_count


class MinibatchSampler:
    """Draws the indices of minibatches, on the host: the same for every backend.

    Parameters
    ----------
    size : int
        Number of samples to draw from.
    mini_batch_size : int
        Number of indices in a minibatch, at most `size`.
    seed : int, optional
        Equal seeds draw equal minibatches, however the calls to `draw` are cut.
    replacement : bool, optional
        Draw each index from all samples, as the chapter does: `size` draws then see about 63 %
        of them. Otherwise the samples are shuffled again and again, and each run of `size`
        indices holds every sample once; a minibatch may straddle two such runs.

    Raises
    ------
    ArgumentError
        If `size` or `mini_batch_size` is not a positive whole number, or the second is above the
        first.
    """

    def __init__(
        self,
        size: int,
        mini_batch_size: int,
        *,
        seed: int | None = None,
        replacement: bool = True,
    ) -> None:
        self.size = check_count("size", size)
        self.mini_batch_size = check_count("mini_batch_size", mini_batch_size)
        if mini_batch_size > size:
            raise ArgumentError(
                "mini_batch_size",
                f"is {mini_batch_size}; it must not be above the number of samples, {size}",
            )
        self.replacement = replacement
        self.rng = np.random.default_rng(seed)
        self._shuffled = np.empty(0, dtype=np.int64)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Draw the next minibatches.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        ndarray of int64, shape (count, mini_batch_size)
        """
        shape = check_count("count", count), self.mini_batch_size
        if self.replacement:
            return self.rng.integers(self.size, size=shape)
        needed = count * self.mini_batch_size
        runs = math.ceil((needed - len(self._shuffled)) / self.size)
        stream = np.concatenate(
            [self._shuffled, *(self.rng.permutation(self.size) for _ in range(runs))]
        )
        self._shuffled = stream[needed:]
        return stream[:needed].reshape(shape)
