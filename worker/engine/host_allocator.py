"""How this process's memory allocator is set for a model on a CPU."""

from __future__ import annotations

import ctypes
import sys

# glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 256 << 20
_MAPPED_BYTES = 32 << 20  # the largest that glibc takes


def keep_freed_memory() -> bool:
    """Lets freed memory stay with the process, some of it; whether that could be set.

    Activations of some MiB come and go with each layer. glibc gives memory of that size back to the
    system at once and gets it again, zeroed, page by page: a third of the time that it takes to
    encode an image.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    settings = ((_M_TRIM_THRESHOLD, _KEPT_BYTES), (_M_MMAP_THRESHOLD, _MAPPED_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
