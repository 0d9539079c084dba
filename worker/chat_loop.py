"""An event loop on a thread of its own, for callers that block or have a loop already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """The loop and its thread, which ends with the process at the latest."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_ending = False
        # A daemon: an interpreter that ends does not wait for it.
        self._thread = threading.Thread(target=self._run, name="chatbot", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` comes to; an interrupt of the waiting thread ends it.

        Raises:
            RuntimeError: the loop has ended.
        """
        if self._is_ending:
            work.close()
            raise RuntimeError("this ChatBot was closed; make another one")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Ends the loop after ``last``, without waiting: a finaliser may run on its thread."""
        self._is_ending = True
        if last is None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            return
        future = asyncio.run_coroutine_threadsafe(last, self._loop)
        future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))

    def join(self) -> None:
        """Waits until it has ended."""
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
