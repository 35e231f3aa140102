"""Kernels for the hot loops: compiled code that takes the place of array operations.

``--kernels off``, the environment variable ``DLFS_GPU_KERNELS=off`` and ``use_kernels("off")`` turn
kernels off; ``auto``, the default, uses those that can be compiled and that, when they are first
used, come to what array operations come to.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

from dlfs_gpu._validation import check_choice
from dlfs_gpu.kernels.proof import KernelStatus, KernelWarning, report

__all__ = ["KernelStatus", "KernelWarning", "kernels_mode", "report", "use_kernels"]

ENVIRONMENT_VARIABLE = "DLFS_GPU_KERNELS"

KernelsMode = Literal["auto", "off"]

_MODES: tuple[KernelsMode, ...] = ("auto", "off")
_scoped: ContextVar[KernelsMode | None] = ContextVar("dlfs_gpu_kernels", default=None)


def kernels_mode() -> KernelsMode:
    """Return what the innermost `use_kernels` says, else ``DLFS_GPU_KERNELS``, else ``"auto"``.

    Raises
    ------
    ArgumentError
        If the environment variable is neither ``auto`` nor ``off``.
    """
    scoped = _scoped.get()
    if scoped is not None:
        return scoped
    variable = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return check_choice(ENVIRONMENT_VARIABLE, variable, _MODES) if variable else "auto"


@contextlib.contextmanager
def use_kernels(mode: KernelsMode) -> Iterator[None]:
    """Turn kernels ``"off"``, or to ``"auto"``, inside a ``with`` block; each thread has its own.

    Raises
    ------
    ArgumentError
        If `mode` is neither.
    """
    token = _scoped.set(check_choice("kernels", mode, _MODES))
    try:
        yield
    finally:
        _scoped.reset(token)
