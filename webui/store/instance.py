"""Which processes of the page are alive, so that one does not end another's answers.

Each holds a lock on a file of its own in the store's folder; the kernel lets go of it however the
process ends.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

_SUFFIX = ".lock"


class Instance:
    """This process, as far as the store is concerned.

    Args:
        folder: where the lock files are; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.id = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._file = (folder / (self.id + _SUFFIX)).open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def living(self) -> set[str]:
        """The processes that still hold their lock, this one among them; forgets the others."""
        alive = {self.id}
        for path in self._folder.glob("*" + _SUFFIX):
            instance = path.name.removesuffix(_SUFFIX)
            if instance == self.id:
                continue
            with path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    alive.add(instance)
                else:
                    path.unlink(missing_ok=True)
        return alive

    def close(self) -> None:
        """Lets go of the lock."""
        (self._folder / (self.id + _SUFFIX)).unlink(missing_ok=True)
        self._file.close()
