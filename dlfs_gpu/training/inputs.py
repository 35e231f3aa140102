"""The data that a trainer is given, checked."""

from __future__ import annotations

from dlfs_gpu._validation import ArgumentError, Array
from dlfs_gpu.network import Network


def checked(network: Network, x: Array, t: Array, name: str) -> tuple[Array, Array]:
    """Return data ready for the network, or raise what they lack under the names that they have."""
    try:
        return network._check(x, t)
    except ArgumentError as error:
        if error.argument not in ("x", "t"):
            raise
        raise ArgumentError(f"{error.argument}_{name}", error.problem) from error
    except TypeError as error:
        raise TypeError(f"x_{name} and t_{name}: {error}") from error


def checked_if_given(network: Network, x: Array, t: Array, name: str) -> tuple[Array, Array] | None:
    """Return data ready for the network, or None if there are none."""
    if x is None and t is None:
        return None
    if x is None or t is None:
        given, missing = ("t", "x") if x is None else ("x", "t")
        raise ArgumentError(f"{missing}_{name}", f"is None, but {given}_{name} is given; give both")
    return checked(network, x, t, name)
