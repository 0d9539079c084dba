"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

# cgroup v2, as containers see their own: "<quota> <period>" in microseconds, or "max <period>".
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """The cores that affinity and the container's quota leave; at least 1.

    Args:
        cpu_max: the control group's file; one that cannot be read sets no limit.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
