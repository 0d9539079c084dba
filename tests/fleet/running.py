"""`paragone up` as a subprocess, with what it prints and the processes that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

# Reached in failure alone, so it is one that a busy machine keeps.
PATIENCE_SECONDS = 60.0


def eventually(
    condition: Callable[[], object], *, within: float = PATIENCE_SECONDS, what: str
) -> float:
    """Waits until a condition holds; returns after how many seconds it did."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - started


class RunningFleet:
    """A fleet that `paragone up` runs.

    Args:
        path: the fleet file.
        env: variables beyond this process's own.
        words: further words of the command line.
    """

    def __init__(
        self, path: Path, env: Mapping[str, str] | None = None, words: Sequence[str] = ()
    ) -> None:
        command = [sys.executable, "-m", "controller.cli", "up", str(path), "--output", "plain"]
        self._process = subprocess.Popen(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self._lines: list[str] = []
        self._seen: set[int] = set()  # every process that was ever part of it
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip("\n"))

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        return "\n".join(self._lines)

    def wait_for_line(self, text: str, *, within: float = PATIENCE_SECONDS) -> str:
        """The first line with a text in it, once it is there."""

        def find() -> str | None:
            return next((line for line in list(self._lines) if text in line), None)

        try:
            eventually(
                lambda: find() is not None or not self._is_reading(), within=within, what=text
            )
            found = find()
            assert found is not None, f"it ended without {text!r}"
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it printed:\n{self.output}") from exc
        return found

    def _is_reading(self) -> bool:
        return self._reader.is_alive()

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of its processes now, by the names in the fleet file."""
        found: dict[str, int] = {}
        for child in psutil.Process(self.supervisor_pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                words = child.cmdline()
                name = _name_of(words)
                if name is not None:
                    found[name] = child.pid
        self._seen.update(found.values())
        return found

    def wait_for_process(
        self, name: str, *, other_than: int = 0, within: float = PATIENCE_SECONDS
    ) -> int:
        """The process id of a process, once it has one that is not ``other_than``."""
        eventually(
            lambda: self.pids.get(name, other_than) != other_than,
            within=within,
            what=f"a process {name} other than {other_than}",
        )
        return self.pids[name]

    def survivors(self) -> set[int]:
        """The processes that were once part of it and still run."""
        return {pid for pid in self._seen if is_running(pid)}

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Sends the supervisor a signal."""
        self._process.send_signal(number)

    def wait(self, within: float = PATIENCE_SECONDS) -> int:
        """Its exit status, once it has ended and all it printed was read."""
        status = self._process.wait(within)
        self._reader.join(5)
        return status

    def stop(self, within: float = PATIENCE_SECONDS) -> int:
        """Asks it to stop, and returns its exit status."""
        self.pids  # noqa: B018 - remembers who was there
        self.interrupt(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """Ends it without ceremony; the guard sees to its processes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _name_of(words: list[str]) -> str | None:
    if "--model-name" in words:
        return words[words.index("--model-name") + 1]
    if "-m" in words:
        return {"controller": "controller", "webui": "web"}.get(words[words.index("-m") + 1])
    return None
