"""The proof of kernels on the device at hand, and what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dlfs_gpu._validation import Array
from dlfs_gpu.backend import to_numpy

_Result = TypeVar("_Result")


class UnfitError(Exception):
    """A kernel does not take this network, data or device; the message says why."""


class KernelWarning(RuntimeWarning):
    """A kernel failed, or came to other numbers than the array code, which runs instead."""


@dataclass(frozen=True)
class KernelStatus:
    """What came of one kind of kernel on one device.

    Attributes
    ----------
    kind : {"training", "products", "layers", "step", "differences"}
    device : str
        For example ``"cuda:0"``.
    failure : str or None
        Why it is not used any more; None while all that were tried have passed.
    """

    kind: str
    device: str
    failure: str | None

    def __str__(self) -> str:
        outcome = "passed" if self.failure is None else f"failed: {self.failure}"
        return f"{self.kind} on {self.device}: {outcome}"


_statuses: dict[tuple[str, str], KernelStatus] = {}
_passed: set[tuple[Any, ...]] = set()


class _MismatchError(ArithmeticError):
    """A kernel came to other numbers than the array code."""


def report() -> list[KernelStatus]:
    """Return what came of each kind of kernel that this process has tried, in order."""
    return list(_statuses.values())


def attempt(
    kind: str, device: str, action: Callable[[], _Result]
) -> tuple[_Result | None, str | None]:
    """Return what `action` returns, or why array operations have to do it.

    Whatever it raises but `UnfitError` ends the use of this kind on this device, with one warning.

    Returns
    -------
    result
        None if it failed.
    reason : str or None
        None if it did not.
    """
    status = _statuses.get((kind, device))
    if status is not None and status.failure is not None:
        return None, status.failure
    try:
        return action(), None
    except UnfitError as unfit:
        return None, str(unfit)
    except Exception as error:
        failure = str(error).strip().partition("\n")[0]
        if not isinstance(error, _MismatchError):
            failure = f"{type(error).__name__}: {failure}"
        _statuses[kind, device] = KernelStatus(kind, device, failure)
    warnings.warn(
        f"the {kind} kernel on {device} is not used ({failure}); array operations run instead",
        KernelWarning,
        stacklevel=5,
    )
    return None, failure


def prove(kind: str, device: str, key: tuple[Any, ...], compare: Callable[[], None]) -> None:
    """Call `compare` unless a kernel has passed it already; it raises if numbers differ."""
    if (kind, device, key) not in _passed:
        compare()
        _passed.add((kind, device, key))
        _statuses[kind, device] = KernelStatus(kind, device, None)


def check_near(name: str, actual: Array, desired: Array, tolerance: float, floor: float) -> None:
    """Raise an error that says what differs, unless the norm of the difference is small.

    Parameters
    ----------
    name : str
        What the arrays hold.
    actual, desired : array
        The kernel's and the array code's.
    tolerance, floor : float
        The norm may be ``tolerance * norm(desired) + floor``.

    Raises
    ------
    UnfitError
        If the array code's numbers are not finite, so that there is nothing to compare with.
    """
    have, want = (to_numpy(array).astype(np.float64) for array in (actual, desired))
    if not np.all(np.isfinite(want)):
        raise UnfitError(f"{name} of the first use is not finite")
    difference = float(np.linalg.norm(have - want))
    allowed = tolerance * float(np.linalg.norm(want)) + floor
    if not difference <= allowed:
        raise _MismatchError(
            f"{name} differs from the array code's by {difference:.1e}, more than {allowed:.1e}"
        )
