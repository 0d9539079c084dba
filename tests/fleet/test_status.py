"""`paragone status --watch` while a controller comes and goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from controller.fleet import status
from controller.fleet.probe import ProbeError
from controller.protocol.fleet import WorkerView

pytestmark = pytest.mark.anyio

AWAY = ProbeError("no controller answers")


def looks(monkeypatch: pytest.MonkeyPatch, *found: list[WorkerView] | BaseException) -> None:
    """Has each look find the next of these."""
    following: Iterator[list[WorkerView] | BaseException] = iter(found)

    async def fetch(_client: object, _url: str) -> list[WorkerView]:
        one = next(following)
        if isinstance(one, BaseException):
            raise one
        return one

    monkeypatch.setattr(status, "fetch_workers", fetch)
    monkeypatch.setattr(status, "_WATCH_SECONDS", 0)


async def show(*, as_json: bool = False, watch: bool = True) -> None:
    await status.show_status("http://x", as_json=as_json, watch=watch, troubles=list)


async def test_a_controller_that_is_restarted_is_watched_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks(monkeypatch, [], AWAY, AWAY, [], asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await show(as_json=True)
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [{"workers": []}] * 2
    assert said.err.splitlines() == [str(AWAY)] * 2


async def test_on_a_terminal_it_is_said_where_the_table_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    looks(monkeypatch, [], AWAY, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await show()
    assert capsys.readouterr().out.endswith(f"\x1b[2J{AWAY}\n")


@pytest.mark.parametrize("watch", [False, True])
async def test_one_that_never_answered_is_an_error(
    monkeypatch: pytest.MonkeyPatch, watch: bool
) -> None:
    looks(monkeypatch, AWAY)
    with pytest.raises(ProbeError):
        await show(watch=watch)
