"""Many updates: minibatches drawn one after the other, as far as time allows."""

from __future__ import annotations

import time
from collections.abc import Callable

from array_api_compat import device

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.data.minibatches import MinibatchSampler
from dlfs_gpu.training.history import History
from dlfs_gpu.training.update import Update


class Updates:
    """Updates that can be broken off after each, and gone on with as if they had not been.

    Attributes
    ----------
    update : Update
    sampler : MinibatchSampler
        Always where it would be if minibatches were drawn one at a time.
    done : int
        How many updates have been done.
    """

    def __init__(self, update: Update, sampler: MinibatchSampler) -> None:
        self.update = update
        self.sampler = sampler
        self.done = 0

    def do(self, count: int, history: History, after: Callable[[Array], bool]) -> None:
        """Do a block of updates, and put losses and seconds into a history.

        Parameters
        ----------
        count : int
            How many at most; their indices are drawn and uploaded together.
        history : History
        after : callable
            Called with the losses of the next K updates, (K,); says whether to break off.
        """
        x = self.update.x
        xp = namespace_of(x)
        bits = self.sampler.rng.bit_generator
        before = bits.state
        indices = xp.asarray(self.sampler.draw(count), device=device(x))
        parts: list[Array] = []
        start = time.perf_counter()
        try:
            with self.update.threads():
                for losses in self.update.run(indices):
                    parts.append(losses)
                    if after(losses):
                        break
        finally:
            done = sum(losses.shape[0] for losses in parts)
            self.done += done
            if done:
                history._losses.append(xp.concat(parts))
            if done < count:
                # The minibatches that were not used come next.
                bits.state = before
                if done:
                    self.sampler.draw(done)
            self.update.network.backend.synchronize()
            history.seconds += time.perf_counter() - start
