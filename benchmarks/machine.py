"""What the benchmarks ran on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Iterable, Mapping
from typing import Any

from dlfs_gpu.backend import get_backend
from dlfs_gpu.machine.threads import cpu_cores


def describe() -> dict[str, Any]:
    """Return the processor, its cores, the GPU, operating system and Python."""
    backend = get_backend("auto")
    return {
        "cpu": _cpu(),
        "cores": cpu_cores(),
        "gpu": backend.device if backend.name == "cupy" else None,
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def file_name(machine: Mapping[str, Any]) -> str:
    """Return a name for the machine's results: its GPU, or else its processor and cores."""
    if machine["gpu"]:
        name = machine["gpu"].split(",")[0]
    else:
        name = re.sub(r"\(\w+\)|CPU|@.*", "", machine["cpu"]) + f" {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those of the packages that are installed, by the name imported."""
    distributions = importlib.metadata.packages_distributions()
    return {
        package: importlib.metadata.version(distributions[package][0])
        for package in packages
        if package in distributions
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
