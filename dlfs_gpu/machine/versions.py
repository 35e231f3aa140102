"""Versions of this library and of those whose arithmetic it uses."""

from __future__ import annotations

import functools
import importlib.metadata

_DISTRIBUTIONS = ("dlfs-gpu", "numpy", "array-api-compat", "numba", "cupy-cuda12x", "cupy-cuda13x")


@functools.cache
def versions() -> dict[str, str]:
    """Return the version of each distribution, or that it is not installed."""
    return {name: _version_of(name) for name in _DISTRIBUTIONS}


def _version_of(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
