"""``python -m worker.chat``: a chat on a terminal with a checkpoint in this process.

The flags are LLaVA's, and the worker's for what is loaded and how. Exit statuses: 0 done, 1 it
could not be loaded or something was not answered, 2 the command line is wrong, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from controller.chassis.collecting import kept_from_collector
from controller.chassis.settings import SettingsError
from controller.protocol.fleet import LoadProgress
from controller.terminal.chat import EXIT_FAILED, EXIT_INTERRUPTED, Chat
from controller.terminal.lines import history_path
from controller.terminal.screen import Screen
from controller.terminal.settings import ChatSettings
from worker.chat_source import LocalSource
from worker.checkpoint.errors import CheckpointError
from worker.checkpoint.facts import describe
from worker.loading_settings import LoadingSettings
from worker.progress_bar import ProgressBar

PROGRAM = "paragone chat"
ENV_PREFIX = "PARAGONE_CHAT_"
EXIT_USAGE = 2


class LocalChatSettings(ChatSettings, LoadingSettings):
    """Chats with a checkpoint in this process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; the exit status."""
    try:
        settings = LocalChatSettings.parse(argv, program=PROGRAM, env_prefix=ENV_PREFIX)
    except SettingsError as exc:
        sys.stderr.write(f"{PROGRAM}: {exc}\n")
        return EXIT_USAGE
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # What it warns of is said better by the answers; the worker's log has it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    screen = Screen(sys.stdout, sys.stderr, os.environ, markdown=settings.markdown)
    with asyncio.Runner() as runner:
        try:
            source = runner.run(_load(settings))
        except CheckpointError as exc:
            sys.stderr.write(f"{PROGRAM}: {exc}\n")
            return EXIT_FAILED
        except KeyboardInterrupt:
            # The loading thread may be within C code, which the interpreter would wait for.
            logging.shutdown()
            os._exit(EXIT_INTERRUPTED)
        try:
            chat = Chat(source, source.card.name, settings, screen, runner)
            return chat.run(history_path(os.environ))
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        finally:
            runner.run(source.aclose())


async def _load(settings: LoadingSettings) -> LocalSource:
    """The checkpoint, with a bar on a terminal meanwhile."""
    spec = settings.load_spec()
    # A wrong path or a broken folder is known from its small files, without torch.
    await asyncio.to_thread(describe, spec)
    if not sys.stderr.isatty():
        await _import_torch(_ignore)
        return await LocalSource.load(spec, _ignore)
    bar = ProgressBar(sys.stderr, spec.served_name)
    bar.make_room_for_logs(logging.getLogger())
    try:
        await _import_torch(bar.show)
        return await LocalSource.load(spec, bar.show)
    finally:
        bar.close()


async def _import_torch(on_progress: Callable[[LoadProgress], None]) -> None:
    """Takes seconds. Not in `LocalSource`: what a notebook has made is not to be kept for good."""
    on_progress(LoadProgress(phase="importing torch"))
    with kept_from_collector():
        await asyncio.to_thread(import_module, "worker.engine.build")


def _ignore(_progress: LoadProgress) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    sys.exit(main())
