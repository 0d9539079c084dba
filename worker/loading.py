"""Builds the engine on a thread of its own, so that the worker answers while it loads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from controller.protocol.fleet import LoadProgress
from worker.engine.protocol import Engine


class EngineBuilder(Protocol):
    """Makes the engine; it may take minutes and runs on the loading thread."""

    def __call__(
        self,
        *,
        on_progress: Callable[[LoadProgress], None],
        on_device_lost: Callable[[str], None],
    ) -> Engine:
        """The engine, ready to answer; or any exception, and the worker has failed."""
        ...


async def load_engine(
    build: EngineBuilder,
    *,
    on_progress: Callable[[LoadProgress], None],
    on_device_lost: Callable[[str], None],
) -> Engine:
    """The engine that ``build`` makes; both callbacks come on the event loop's thread.

    The thread is a daemon: a worker that is told to stop while it loads does not wait for it, as
    it would for a thread of an executor.
    """
    loop = asyncio.get_running_loop()
    built: asyncio.Future[Engine] = loop.create_future()

    def in_loop(callback: Callable[..., None], *args: object) -> None:
        try:
            loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop has closed: the worker stopped while it loaded.
            return

    def settle(engine: Engine | None, error: BaseException | None) -> None:
        if built.done():  # cancelled: the worker stops
            return
        if error is not None:
            built.set_exception(error)
        elif engine is not None:
            built.set_result(engine)

    def run() -> None:
        try:
            engine = build(
                on_progress=lambda progress: in_loop(on_progress, progress),
                on_device_lost=on_device_lost,
            )
        except BaseException as exc:  # noqa: BLE001 - it is raised again, in the loop's thread
            in_loop(settle, None, exc)
        else:
            in_loop(settle, engine, None)

    threading.Thread(target=run, name="loading", daemon=True).start()
    return await built
