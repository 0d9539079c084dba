"""One SQLite file, and the one thread that talks to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from webui.store.schema import MIGRATIONS

_Result = TypeVar("_Result")
_LOCK_SECONDS = 10.0  # how long another process may write before we give up


class StoreError(Exception):
    """What should be kept cannot be; the message says where, why, and what to do."""


class Database:
    """Runs work on the file, one piece after another, each in a transaction of its own.

    Write-ahead logging, so that a second process can read while this one writes.

    Args:
        path: the file; made, with the folders above it, if it is not there.
        migrations: the schema; see `webui.store.schema`.

    Raises:
        StoreError: the file cannot be opened, is no database, or is of a newer version.
    """

    def __init__(self, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        self.path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store")
        try:
            self._connection = self._executor.submit(_open, path, migrations).result()
        except BaseException:
            self._executor.shutdown()
            raise

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Runs ``work`` in a transaction, and gives its result. All of it happens or nothing.

        Raises:
            StoreError: it cannot be written: the disk is full, another process holds the lock, ...
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._transact, work)

    def run_now(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """As `run`, for where no event loop runs: start and end of the process. Blocks.

        Raises:
            StoreError: as `run`.
        """
        return self._executor.submit(self._transact, work).result()

    def close(self) -> None:
        """Waits for what was asked, then closes the file."""
        self._executor.submit(self._connection.close).result()
        self._executor.shutdown()

    def _transact(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as exc:
            raise StoreError(
                f"The page's store {self.path} cannot be used: {exc}. Make room or give it "
                f"another folder (--data-dir)."
            ) from exc
        return result


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(
            path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(
            f"The page's store {path} cannot be opened: {exc}. Give it a folder that can be "
            f"written to (--data-dir)."
        ) from exc
    try:
        path.chmod(0o600)  # other people's chats
        connection.execute("PRAGMA journal_mode = WAL")
        # With WAL this loses at most the last moments on a power cut, and never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path, migrations)
    except sqlite3.Error as exc:
        connection.close()
        raise StoreError(
            f"{path} cannot be used as the page's store: {exc}. Move it away, or give the page "
            f"another folder (--data-dir)."
        ) from exc
    except StoreError:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    while True:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(migrations):
            raise StoreError(
                f"{path} was written by a newer Paragone (schema {version}, this one knows "
                f"{len(migrations)}): update, or give the page another folder (--data-dir)."
            )
        if version == len(migrations):
            return
        # Another process may do the same at this moment: whoever comes second looks again.
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] == version:
                for statement in _statements(migrations[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    # `executescript` would commit the transaction that the version is raised in.
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
