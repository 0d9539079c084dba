"""What this machine's processor is."""

from __future__ import annotations

import platform


def is_x86() -> bool:
    """Whether it is a 64-bit x86, which torch's quick kernels for CPUs were measured on."""
    return platform.machine().lower() in {"x86_64", "amd64"}
