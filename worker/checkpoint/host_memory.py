"""What main memory is free for this process: the machine's, within the limits of its cgroups.

Containers and batch systems (Slurm, systemd) bound a process by a cgroup somewhere above it, of
either version; the machine as a whole may have far more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Version 1 writes a limit of about 2^63 where there is none.
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Free main memory.

    Attributes:
        free: bytes.
        limited_by: the cgroup whose limit leaves less than the machine has free; None without one.
    """

    free: int
    limited_by: str | None = None


def host_memory(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> HostMemory:
    """What is free now.

    Args:
        root: where cgroups are mounted.
        membership: the file that names this process's cgroups.
    """
    least = HostMemory(int(psutil.virtual_memory().available))
    for cgroup, names in _cgroups(root, membership):
        free = _left(cgroup, *names)
        if free is not None and free < least.free:
            least = HostMemory(free, str(cgroup))
    return least


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _cgroups(root: Path, membership: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """This process's cgroups and all above them, with their files' names.

    Inside a container the path that a process is told is often the host's and not there; then the
    mount's own top is the container's.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, _V2
        elif "memory" in controllers.split(","):
            top, names = root / "memory", _V1
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for part in (inner, *inner.parents):
            yield top / part, names


def _left(cgroup: Path, limit_file: str, used_file: str, cache_counter: str) -> int | None:
    """Bytes below a cgroup's limit; None where it has none."""
    try:
        limit = (cgroup / limit_file).read_text().strip()
        used = (cgroup / used_file).read_text().strip()
        statistics = (cgroup / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    if not limit.isdigit() or not used.isdigit() or int(limit) >= _NO_LIMIT:
        return None
    counters = dict(line.split(" ", 1) for line in statistics if " " in line)
    # Cached file pages count as used, and are given back on demand.
    return max(0, int(limit) - int(used) + int(counters.get(cache_counter, 0)))
