"""The data that a trainer is given: checked, evaluated, and told from others."""

from __future__ import annotations

from functools import cached_property

from dlfs_gpu._validation import ArgumentError, Array, check_count
from dlfs_gpu.network import Network
from dlfs_gpu.processes import Processes
from dlfs_gpu.training.checkpoint import digest_of
from dlfs_gpu.training.sharing import accuracy, mean_loss

Part = tuple[Array, Array]
"""Samples and targets."""


class Inputs:
    """The data of a training.

    Parameters
    ----------
    network : Network
    train, test, val : (x, t)
        As given; both are None where there are no data to test or validate on.
    evaluated : int or None
        How many samples of a part, the first, its accuracy is of; None for all.

    Attributes
    ----------
    train : (x, t)
        Ready for the network.
    parts : dict of str to (x, t) or None
        These and the others.
    """

    def __init__(
        self, network: Network, train: Part, test: Part, val: Part, evaluated: int | None
    ) -> None:
        self.train = _checked(network, *train, "train")
        self.parts = {
            "train": self.train,
            "test": _checked_if_given(network, *test, "test"),
            "val": _checked_if_given(network, *val, "val"),
        }
        if evaluated is not None:
            check_count("evaluate_sample_num_per_epoch", evaluated)
        self.evaluated = evaluated

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """What tells each part from others."""
        return {name: part and digest_of(*part) for name, part in self.parts.items()}

    def evaluate(self, network: Network, processes: Processes) -> tuple[float | None, ...]:
        """Return the accuracies of train and test and the loss of val; None where there is none."""
        first = self.evaluated
        accuracies = (
            part and accuracy(network, part[0][:first, ...], part[1][:first, ...], processes)
            for part in (self.train, self.parts["test"])
        )
        val = self.parts["val"]
        return *accuracies, val and mean_loss(network, *val, processes)


def _checked(network: Network, x: Array, t: Array, name: str) -> Part:
    """Return data ready for the network, or raise what they lack under the names that they have."""
    try:
        return network._check(x, t)
    except ArgumentError as error:
        if error.argument not in ("x", "t"):
            raise
        raise ArgumentError(f"{error.argument}_{name}", error.problem) from error
    except TypeError as error:
        raise TypeError(f"x_{name} and t_{name}: {error}") from error


def _checked_if_given(network: Network, x: Array, t: Array, name: str) -> Part | None:
    """Return data ready for the network, or None if there are none."""
    if x is None and t is None:
        return None
    if x is None or t is None:
        given, missing = ("t", "x") if x is None else ("x", "t")
        raise ArgumentError(f"{missing}_{name}", f"is None, but {given}_{name} is given; give both")
    return _checked(network, x, t, name)
