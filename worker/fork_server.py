"""``python -m worker.fork_server``: imports once what workers need, and forks them.

Importing torch and what stands on it is most of a worker's start. A supervisor that starts several
workers with the same environment has them forked from this process: each is a process of its own
(see `worker.forked`), and its parent is the supervisor, as if it had been started by that.

Requests come on standard input, a socket of whole messages (`controller.protocol.forking`); its end
ends this process. It never loads a checkpoint, computes nothing, makes no thread and touches no
GPU: nothing of those would survive a fork. (OpenBLAS makes threads when it is loaded, and ends them
before each fork by handlers of its own; nothing is forked while there are others.)
"""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from controller.chassis.settings import SettingsError
from controller.protocol.fleet import Quantisation
from controller.protocol.forking import MAX_REQUEST_BYTES, ForkReply, ForkRequest
from worker.forked import STOP_SIGNALS, Manners, Run, live
from worker.process_title import set_title
from worker.settings import ENV_PREFIX, WorkerSettings

# What the process between a fork server and a worker ends with where a fork would lose threads.
_HAS_THREADS = 255

Prepare = Callable[[Sequence[str], Mapping[str, str]], None]


def serve(control: socket.socket, *, prepare: Prepare, run: Run) -> None:
    """Forks whatever is asked for, until nobody can ask any more.

    Args:
        control: the requests.
        prepare: is given arguments and environment of each worker before it is forked, to import
            what it needs.
        run: what a worker does with its arguments; returns its exit status.
    """
    manners = Manners()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
        if not data:
            return
        output, answer = descriptors
        with socket.socket(fileno=answer) as reply:
            try:
                request = ForkRequest.model_validate_json(data)
                prepare(request.args, request.environ)
                _fork(request, output, reply, control=control, manners=manners, run=run)
            except OSError as exc:  # no process is to be had, or whoever asked has gone
                with contextlib.suppress(OSError):
                    reply.sendall(ForkReply(error=str(exc)).model_dump_json().encode() + b"\n")
            finally:
                os.close(output)


def _fork(
    request: ForkRequest,
    output: int,
    reply: socket.socket,
    *,
    control: socket.socket,
    manners: Manners,
    run: Run,
) -> None:
    """Forks twice: a process whose parent ends goes to the supervisor, which adopts orphans.

    Raises:
        OSError: there is no room for another process, or threads run in this one.
    """
    gc.freeze()  # pages that the collector does not write to stay shared
    between = os.fork()
    if between == 0:
        parent, code = os.getpid(), errno.ENOMEM
        try:
            if _num_threads(os.getppid()) > 1:  # after handlers of the fork
                code = _HAS_THREADS
            elif os.fork():
                code = 0
            else:
                control.close()
                live(request, output, reply, parent=parent, manners=manners, run=run)
        except OSError as exc:
            code = exc.errno or code
        finally:
            os._exit(code)
    _, status = os.waitpid(between, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        raise OSError(f"what was to fork it was killed by signal {-code}")
    if code == _HAS_THREADS:
        raise OSError("a library that was imported runs threads, which a fork would lose")
    if code > 0:
        raise OSError(code, os.strerror(code))


def _num_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def import_for(args: Sequence[str], environ: Mapping[str, str]) -> None:
    """Imports what a worker needs; nothing that another one does not have to."""
    # Takes seconds: only once a worker is asked for.
    import worker.engine.build  # noqa: F401, PLC0415
    from worker.checkpoint.quantise import quiet_bitsandbytes  # noqa: PLC0415

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            settings = WorkerSettings.parse(
                args, program="python -m worker", env_prefix=ENV_PREFIX, environ=environ
            )
    except (SettingsError, SystemExit):
        return  # the worker itself says so, where it is read
    # Where one cannot be imported, whoever needs it says what that means.
    with contextlib.suppress(ImportError, OSError, RuntimeError):
        quiet_bitsandbytes()
        if settings.quantisation is not Quantisation.NONE:
            import bitsandbytes  # noqa: F401, PLC0415
        if settings.model_base is not None or settings.shares_base:
            import peft  # noqa: F401, PLC0415


def take_standard_input() -> socket.socket:
    """The socket that came as standard input, which is empty from now on."""
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return control


def main() -> int:
    """Serves on standard input."""
    set_title([sys.executable, "-m", "worker.fork_server"])
    control = take_standard_input()
    # Imports make no garbage, and the collector would write to pages that are to be shared.
    gc.disable()
    from worker.__main__ import main as run  # noqa: PLC0415 - it is started before it is needed

    serve(control, prepare=import_for, run=run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
