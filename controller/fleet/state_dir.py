"""Where a running supervisor is found: a private folder for each fleet file, with a lock in it.

The lock is the kernel's (`flock`), so that it ends with its process, however that goes; the socket
beside it is only as good as the lock. Whoever holds the lock may remove the folder, and does so at
its end; the folder of one that was killed goes when the next fleet starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

STATE_VARIABLE: Final = "PARAGONE_STATE_DIR"

_SOCKET: Final = "control.sock"
_LOCK: Final = "lock"
_SOURCE: Final = "fleet-file"

# Who looks whether a fleet runs, or removes what a killed one left, has its lock for a moment.
_LOOKS: Final = 5
_LOOK_SECONDS: Final = 0.02


class StateDirError(Exception):
    """The folder cannot be trusted or used; the message says why and what to do."""


class AlreadyRunningError(Exception):
    """Another supervisor has the fleet file."""


class StateDir:
    """The folder of one fleet file; it is there while a supervisor has it. Made by `state_dir_of`.

    Args:
        folder: its path; private to this user.
        fleet_file: which fleet file it is of; absolute.
    """

    def __init__(self, folder: Path, fleet_file: Path) -> None:
        self._folder = folder
        self.fleet_file = fleet_file

    @property
    def socket(self) -> Path:
        """Where the supervisor listens."""
        return self._folder / _SOCKET

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the fleet file for this process.

        Raises:
            AlreadyRunningError: another supervisor holds it.
            StateDirError: the folder cannot be written.
        """
        descriptor = self._acquired()
        try:
            self.socket.unlink(missing_ok=True)  # of a supervisor that was killed
            (self._folder / _SOURCE).write_text(str(self.fleet_file), encoding="utf-8")
            _remove_left_over(self._folder.parent)
            yield
        finally:
            _remove(self._folder)
            os.close(descriptor)

    def is_held(self) -> bool:
        """Whether a supervisor has the fleet file now."""
        descriptor = _locked(self._folder)
        if descriptor is None:
            return (self._folder / _LOCK).exists()
        os.close(descriptor)
        return False

    def _acquired(self) -> int:
        for _ in range(_LOOKS):
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                (self._folder / _LOCK).touch(mode=0o600)
            except FileNotFoundError:  # its last holder has just removed it
                continue
            except OSError as exc:
                raise StateDirError(f"{self._folder} cannot be written: {exc.strerror}") from exc
            descriptor = _locked(self._folder)
            if descriptor is not None:
                return descriptor
            time.sleep(_LOOK_SECONDS)
        raise AlreadyRunningError(str(self.fleet_file))


def _locked(folder: Path) -> int | None:
    """A descriptor that has a folder's lock; None if there is no lock, or another has it."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who had it may have removed the file meanwhile: this is a lock on nothing then.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path) -> None:
    """Removes a folder whose lock this process has: the lock last."""
    for name in (_SOCKET, _SOURCE, _LOCK):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the next one is in it already
        folder.rmdir()


def _remove_left_over(root: Path) -> None:
    """Removes the folders of supervisors that were killed."""
    for folder in root.iterdir():
        descriptor = _locked(folder)
        if descriptor is not None:
            _remove(folder)
            os.close(descriptor)


def state_dir_of(fleet_file: Path, environ: Mapping[str, str]) -> StateDir:
    """The folder of a fleet file, whether or not anything runs.

    Raises:
        StateDirError: the folder above is not private to this user.
    """
    name = hashlib.sha256(str(fleet_file.resolve()).encode()).hexdigest()[:16]
    return StateDir(_private_root(environ) / name, fleet_file.resolve())


def running_fleets(environ: Mapping[str, str]) -> list[StateDir]:
    """The folders of this user's running supervisors.

    Raises:
        StateDirError: the folder above is not private to this user.
    """
    found = []
    for folder in sorted(_private_root(environ).iterdir()):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # it has just ended
            source = (folder / _SOURCE).read_text(encoding="utf-8")
            found.append(StateDir(folder, Path(source)))
    return [fleet for fleet in found if fleet.is_held()]


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
