"""``paragone chat`` and ``paragone compare`` over a fleet: from a command line to an exit status.

Exit statuses: 0 done, 1 something was not answered, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from controller.chassis.settings import SettingsError
from controller.chassis.tls import client_context
from controller.terminal.chat import EXIT_FAILED, EXIT_INTERRUPTED, Chat
from controller.terminal.compare import compare
from controller.terminal.lines import history_path
from controller.terminal.remote import RemoteSource
from controller.terminal.screen import Screen
from controller.terminal.settings import (
    ENV_PREFIX,
    CompareSettings,
    FleetSettings,
    RemoteChatSettings,
)
from controller.terminal.source import FAILURES, AnswerError

EXIT_USAGE: Final = 2


def run(name: str, argv: Sequence[str]) -> int:
    """Runs one of the programs.

    Args:
        name: "chat" or "compare".
        argv: its flags.
    """
    try:
        return _PROGRAMS[name](argv)
    except (SettingsError, UsageError) as exc:
        sys.stderr.write(f"paragone {name}: {exc}\n")
        return EXIT_USAGE
    except FAILURES as exc:
        sys.stderr.write(f"paragone {name}: {exc.message}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


class UsageError(Exception):
    """What is wrong with a command line beyond its settings' own rules."""


def _chat(argv: Sequence[str]) -> int:
    settings = RemoteChatSettings.parse(argv, program="paragone chat", env_prefix=ENV_PREFIX)
    screen = Screen(sys.stdout, sys.stderr, os.environ, markdown=settings.markdown)
    source = _source(settings)
    with asyncio.Runner() as runner:
        try:
            models = runner.run(source.models())
            # Who is asked says best why it cannot answer.
            model = settings.model or _only(_some(models, settings))
            return Chat(source, model, settings, screen, runner).run(history_path(os.environ))
        finally:
            runner.run(source.aclose())


def _compare(argv: Sequence[str]) -> int:
    settings = CompareSettings.parse(argv, program="paragone compare", env_prefix=ENV_PREFIX)
    query = settings.query or sys.stdin.read().strip()
    if not query:
        raise UsageError("--query is empty, and so is standard input")
    source = _source(settings)

    async def work() -> int:
        try:
            models = settings.models or _some(await source.models(), settings)
            return await compare(source, models, query, settings)
        finally:
            await source.aclose()

    return asyncio.run(work())


def _some(models: Sequence[str], settings: FleetSettings) -> Sequence[str]:
    """The models that can answer; one at least."""
    if not models:
        raise AnswerError(
            f"{settings.controller_url} has no model that can answer now; `paragone status` says "
            "what its workers do",
            code="no_model",
        )
    return models


def _only(models: Sequence[str]) -> str:
    if len(models) == 1:
        return models[0]
    raise UsageError(f"say which model with --model; there are: {', '.join(models)}")


def _source(settings: FleetSettings) -> RemoteSource:
    key = settings.api_key
    try:
        tls = client_context(settings.tls_ca)
    except ValueError as exc:
        raise UsageError(f"--tls-ca: {exc}") from exc
    first, *others = settings.controller_url.split(",")
    return RemoteSource(
        first, others=others, api_key=key.get_secret_value() if key else None, tls=tls
    )


_PROGRAMS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "chat": _chat,
    "compare": _compare,
}
