"""The array libraries that the suite runs on, each with a floating-point type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np

from dlfs_gpu.backend import BackendError, get_backend


@dataclass(frozen=True)
class Library:
    """An array library with a device and the type that tests make arrays of."""

    name: str
    dtype: str
    xp: Any
    device: Any = None

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """Put numbers on the library's device; floating-point ones in its type."""
        host = np.asarray(x)
        if dtype is None and host.dtype.kind == "f":
            dtype = self.dtype
        if dtype is not None:
            host = host.astype(dtype)
        return self.xp.asarray(host, device=self.device)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Bring an array to the host."""
        if self.name == "strict":
            return np.asarray(x.to_device(array_api_strict.Device("CPU_DEVICE")))
        return np.asarray(x.get() if self.name == "cupy" else x)

    @property
    def eps(self) -> float:
        """Spacing of the type's numbers at 1."""
        return float(np.finfo(self.dtype).eps)


def libraries() -> Iterator[Library | tuple[str, str]]:
    """Yield the libraries; for one that cannot run here its name and the reason."""
    for dtype in ("float32", "float64"):
        yield Library("numpy", dtype, np)
    # Its second device refuses what a GPU would: implicit moves, NumPy arrays, other functions.
    yield Library("strict", "float64", array_api_strict, array_api_strict.Device("device1"))
    try:
        xp = get_backend("cupy").xp
    except BackendError as error:
        yield "cupy", str(error).splitlines()[0]
        return
    for dtype in ("float32", "float64"):
        yield Library("cupy", dtype, xp)
