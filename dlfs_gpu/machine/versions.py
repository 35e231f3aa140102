"""Versions of this library and of those whose arithmetic it uses."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata

_DISTRIBUTIONS = ("dlfs-gpu", "numpy", "array-api-compat", "numba", "cupy-cuda12x", "cupy-cuda13x")


@functools.cache
def versions() -> dict[str, str]:
    """Return the version of each distribution, or that it is not installed."""
    found = dict.fromkeys(_DISTRIBUTIONS, "not installed")
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
