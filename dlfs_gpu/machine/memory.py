"""How much memory this process can take on the host."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/proc/self/cgroup")
_GROUP_FILES = Path("/sys/fs/cgroup")


def free_host_memory() -> int:
    """Return the bytes that this process can take; where nobody can say, 1 GiB."""
    rooms = [*_system_room(), *_cgroup_rooms(), *_address_room()]
    return max(0, min(rooms, default=2**30))


def _system_room() -> Iterator[int]:
    """Yield the bytes of memory that the system says it can give, where it says so."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _cgroup_rooms() -> Iterator[int]:
    """Yield the bytes that are left to this process's control groups, of Linux, versions 1 and 2.

    A container may see its own group at the root.
    """
    with contextlib.suppress(OSError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            names = ("memory.max", "memory.current")
            base = _GROUP_FILES
            if controllers:
                names, base = ("memory.limit_in_bytes", "memory.usage_in_bytes"), base / "memory"
            if controllers in ("", "memory"):
                group = base / path.lstrip("/")
                for place in (group, *group.parents):
                    # The highest has no limit, or "max".
                    with contextlib.suppress(OSError, ValueError):
                        limit, used = (int((place / name).read_text()) for name in names)
                        statistics = (place / "memory.stat").read_text().split()
                        # What is kept of files makes room when it is needed.
                        used -= int(statistics[statistics.index("inactive_file") + 1])
                        yield limit - used


def _address_room() -> Iterator[int]:
    """Yield the bytes that ``ulimit -v`` leaves to this process, if it is set."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield limit - pages * resource.getpagesize()
