"""What a supervisor asks of a fork server, and what it is answered, each one JSON object.

A request comes with two descriptors: where the process writes its output, and the socket on which
it answers. The process begins once something was written to that socket, and ends where it is
closed instead: whoever asked may be gone, and nobody would see to the process then.
"""

from __future__ import annotations

from controller.protocol.message import Message

# A whole environment and a command line; what is larger is not sent.
MAX_REQUEST_BYTES = 1 << 20

MAX_REPLY_BYTES = 4096


class ForkRequest(Message):
    """A process that is to be forked."""

    args: tuple[str, ...]  # what follows ``python -m worker``
    environ: dict[str, str]  # all of it


class ForkReply(Message):
    """The process, which leads a group of its own; or why there is none."""

    pid: int = 0
    error: str = ""  # empty where there is one
