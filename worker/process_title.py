"""What a process is called in ``ps``: a forked one has the name of what it was forked from.

On Linux a process may write over the memory that its arguments came in, and no further. So whoever
starts a process that is to be called otherwise later gives it an argument to make room.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

# Where the arguments lie, in fields of /proc/self/stat counted after the name; see proc(5).
_ARG_START, _ARG_END = 45, 46


def set_title(words: Sequence[str]) -> bool:
    """Calls this process so, cut to the room that there is; whether that could be done.

    Nothing may depend on it: it is for people, and for what looks through processes for them.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = stat[stat.rindex(")") + 2 :].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    room = end - start - 2
    if start == 0 or room <= 0:  # hidden from us
        return False
    # A last byte that is not zero tells Linux that what stands there is one text up to a zero.
    text = " ".join(words).encode(errors="surrogateescape")[:room]
    ctypes.memmove(start, text.ljust(end - start - 1, b"\0") + b" ", end - start)
    return True
