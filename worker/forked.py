"""The first moments of a forked worker: it becomes what it would be had it been started alone."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from controller.protocol.forking import ForkReply, ForkRequest
from worker.process_title import set_title

Run = Callable[[Sequence[str]], int]

# A supervisor's business; a fork server ignores them.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ADOPTION_LOOK_SECONDS = 0.0005


def _handlers() -> dict[signal.Signals, object]:
    return {number: signal.getsignal(number) for number in STOP_SIGNALS}


@dataclass(frozen=True, slots=True)
class Manners:
    """How this process was started to deal with signals; ``nohup`` has some of them ignored."""

    handlers: Mapping[signal.Signals, object] = field(default_factory=_handlers)
    blocked: frozenset[int] = field(
        default_factory=lambda: frozenset(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    )

    def restore(self) -> None:
        """Deals with them so again."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as getsignal gave it
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)


def live(
    request: ForkRequest,
    output: int,
    reply: socket.socket,
    *,
    parent: int,
    manners: Manners,
    run: Run,
) -> NoReturn:
    """Runs a worker in this process, which has just been forked, and ends it.

    Args:
        request: what it is to be.
        output: where it writes.
        reply: where its process id goes, and its permission to begin comes from.
        parent: a process that ends at once and leaves this one to the supervisor.
        manners: towards signals.
        run: runs a worker and returns its exit status.
    """
    status = 1
    try:
        os.setsid()
        manners.restore()
        # Whoever is asked to wait for this process has to be its parent first.
        while os.getppid() == parent:
            time.sleep(_ADOPTION_LOOK_SECONDS)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        reply.sendall(ForkReply(pid=os.getpid()).model_dump_json().encode() + b"\n")
        may_begin = reply.recv(1)
        reply.close()
        if may_begin:
            _become(request)
            gc.enable()
            status = run(request.args)
    except SystemExit as exc:
        status = _status_of(exc)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        _flush()
        # What would be unwound from here on belongs to the fork server.
        os._exit(status)


def _become(request: ForkRequest) -> None:
    os.environ.clear()
    os.environ.update(request.environ)
    words = [sys.executable, "-m", "worker", *request.args]
    sys.argv = ["worker", *request.args]
    sys.orig_argv = words
    set_title(words)
    # Python's own generator is seeded anew by a fork, torch's is the same in every process.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def _status_of(exc: SystemExit) -> int:
    """As the interpreter has it."""
    if exc.code is None or isinstance(exc.code, int):
        return exc.code or 0
    sys.stderr.write(f"{exc.code}\n")
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads, or it is closed
            continue
