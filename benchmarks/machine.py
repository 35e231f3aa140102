"""What the benchmarks ran on."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping


@functools.cache
def gpu() -> str | None:
    """Return the name of the first GPU and its driver's version; None without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        if run.stdout.strip():
            return run.stdout.splitlines()[0]
    return None


def describe() -> dict[str, str | int | None]:
    """Return the processor, its cores, memory, GPU, operating system and Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "gpu": gpu(),
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def slug(machine: Mapping[str, str | int | None]) -> str:
    """Return a file name for the machine: its GPU, or else its processor and cores."""
    if machine["gpu"]:
        name = str(machine["gpu"]).split(",")[0]
    else:
        name = re.sub(r"\(\w+\)|CPU|@.*", "", str(machine["cpu"])) + f" {machine['cores']} cores"
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
