"""The command ``info``."""

from __future__ import annotations

import importlib.metadata
import platform

import typer

from dlfs_gpu.backend import get_backend
from dlfs_gpu.cli.settings import BackendOption

_DISTRIBUTIONS = ("dlfs-gpu", "numpy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x")


def info(backend: BackendOption = None) -> None:
    """Show versions, backend, device and memory."""
    chosen = get_backend(backend)
    rows = {name: version_of(name) for name in _DISTRIBUTIONS}
    rows |= {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "backend": chosen.name,
        "why": chosen.reason,
        "device": chosen.device,
        "free memory": f"{chosen.free_memory() / 2**30:.1f} GiB",
    }
    for name, value in rows.items():
        typer.echo(f"{name:18}{value}")


def version_of(distribution: str) -> str:
    """Return the version of a distribution that may not be installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
