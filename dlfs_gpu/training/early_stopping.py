"""Early stopping: the weights for which the validation loss was least (6.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dlfs_gpu._validation import Array, namespace_of
from dlfs_gpu.network import Network


@dataclass(frozen=True)
class Best:
    """The least validation loss, its weights, and how many evaluations since were no better."""

    loss: float = math.inf
    iteration: int | None = None
    params: dict[str, Array] = field(default_factory=dict)
    waited: int = 0


class EarlyStopping:
    """Keeps the best weights of a network, and the last where the network has the best.

    Attributes
    ----------
    best, best_at_end : Best
        Of the evaluations at the ends of epochs; of all. The two differ where training was stopped
        in the middle of an epoch: if it goes on, that evaluation never was.
    last : dict of str to array
        The last weights, if the network has the best ones; else empty.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.best = self.best_at_end = Best()
        self.last: dict[str, Array] = {}

    def judge(self, loss: float, iteration: int, *, epoch_ended: bool) -> None:
        """Take note of a validation loss."""
        best = replace(self.best, waited=self.best.waited + 1)
        if loss < best.loss:
            best = Best(loss, iteration, _copies(self.network.params))
        self.best_at_end = best
        if epoch_ended:
            self.best = best

    def take_best(self) -> None:
        """Give the network its best weights, if there are any."""
        if self.best_at_end.params and not self.last:
            self.last = _copies(self.network.params)
            _put(self.best_at_end.params, self.network.params)

    def take_last(self) -> None:
        """Give the network its last weights again, to go on."""
        _put(self.last, self.network.params)
        self.last = {}
        self.best_at_end = self.best


def _copies(params: Mapping[str, Array]) -> dict[str, Array]:
    return {key: namespace_of(param).asarray(param, copy=True) for key, param in params.items()}


def _put(values: Mapping[str, Array], params: Mapping[str, Array]) -> None:
    for key, value in values.items():
        params[key][...] = value
