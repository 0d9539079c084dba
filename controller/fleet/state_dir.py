"""Where a running supervisor is found: a private folder for each fleet file, with a lock in it.

The lock is the kernel's (`flock`), so that it ends with its process, however that goes; the socket
beside it is only as good as the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

STATE_VARIABLE: Final = "PARAGONE_STATE_DIR"

_SOCKET: Final = "control.sock"
_LOCK: Final = "lock"
_SOURCE: Final = "fleet-file"


class StateDirError(Exception):
    """The folder cannot be trusted or used; the message says why and what to do."""


class AlreadyRunningError(Exception):
    """Another supervisor has the fleet file."""


class StateDir:
    """The folder of one fleet file. Made by `state_dir_of`.

    Args:
        folder: its path; private to this user.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def socket(self) -> Path:
        """Where the supervisor listens."""
        return self._folder / _SOCKET

    @property
    def fleet_file(self) -> Path:
        """Which fleet file it is of."""
        return Path((self._folder / _SOURCE).read_text(encoding="utf-8"))

    @contextlib.contextmanager
    def held(self, fleet_file: Path) -> Iterator[None]:
        """Holds the fleet file for this process.

        Raises:
            AlreadyRunningError: another supervisor holds it.
            StateDirError: the folder cannot be written.
        """
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StateDirError(f"{self._folder} cannot be written: {exc.strerror}") from exc
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise AlreadyRunningError(str(fleet_file)) from exc
            (self._folder / _SOURCE).write_text(str(fleet_file.resolve()), encoding="utf-8")
            self.socket.unlink(missing_ok=True)  # of a supervisor that was killed
            yield
            self.socket.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether a supervisor has the fleet file now."""
        try:
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def state_dir_of(fleet_file: Path, environ: Mapping[str, str]) -> StateDir:
    """The folder of a fleet file, whether or not anything runs.

    Raises:
        StateDirError: the folder above is not private to this user.
    """
    name = hashlib.sha256(str(fleet_file.resolve()).encode()).hexdigest()[:16]
    return StateDir(_private_root(environ) / name)


def running_fleets(environ: Mapping[str, str]) -> list[StateDir]:
    """The folders of this user's running supervisors.

    Raises:
        StateDirError: the folder above is not private to this user.
    """
    folders = (StateDir(path) for path in sorted(_private_root(environ).iterdir()))
    return [folder for folder in folders if folder.is_held()]


def _private_root(environ: Mapping[str, str]) -> Path:
    if environ.get(STATE_VARIABLE):
        root = Path(environ[STATE_VARIABLE])
    elif environ.get("XDG_RUNTIME_DIR"):
        root = Path(environ["XDG_RUNTIME_DIR"]) / "paragone"
    else:
        root = Path(tempfile.gettempdir()) / f"paragone-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = root.lstat()
    except OSError as exc:
        raise StateDirError(
            f"{root} cannot be made: {exc.strerror}; name another folder in {STATE_VARIABLE}"
        ) from exc
    # In a shared /tmp somebody else may have made it first, and would then command our fleets.
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.getuid()
        or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise StateDirError(
            f"{root} is not a folder of this user alone (mode 0700); "
            f"remove it, or name another one in {STATE_VARIABLE}"
        )
    return root
