"""Versions of this library and of those whose arithmetic it uses."""

from __future__ import annotations

import importlib.metadata

_DISTRIBUTIONS = ("dlfs-gpu", "numpy", "array-api-compat", "numba", "cupy-cuda12x", "cupy-cuda13x")


def versions() -> dict[str, str]:
    """Return the version of each distribution, or that it is not installed."""
    return {name: version_of(name) for name in _DISTRIBUTIONS}


def version_of(distribution: str) -> str:
    """Return the version of a distribution that may not be installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
