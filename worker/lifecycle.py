"""Where the worker is in its life: loading, ready, draining, failed; and who may be served."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from controller.protocol.errors import (
    DrainingError,
    ModelLoadingError,
    ModelNotFoundError,
    UnavailableError,
)
from controller.protocol.fleet import (
    LoadProgress,
    ModelCard,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
)
from worker.engine.protocol import CacheStats, Engine

_log = logging.getLogger(__name__)

# A model that loads is asked about again after this; nobody can tell how long it takes.
LOADING_RETRY_SECONDS = 5.0
# A worker that shuts down or failed is replaced by another one in about this time.
RESTART_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """A model that can answer: its engine and what is known about it."""

    engine: Engine
    card: ModelCard


class Lifecycle:
    """One worker's state, changed on the event loop's thread alone.

    Args:
        card: what is known of the model before it is loaded; its name at least.
    """

    def __init__(self, card: ModelCard) -> None:
        self.state = WorkerState.LOADING
        self.engine: Engine | None = None
        self.detail: str | None = None
        self._first_card = card
        self._progress: LoadProgress | None = LoadProgress(phase="starting")
        self._listeners: list[Callable[[], None]] = []
        self._process = psutil.Process()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after each change that a controller should hear of at once."""
        self._listeners.append(listener)

    def report_progress(self, progress: LoadProgress) -> None:
        """Loading went on. Controllers hear of a new phase at once, of the rest by heartbeat."""
        if self.state is not WorkerState.LOADING:
            return
        is_new_phase = self._progress is None or self._progress.phase != progress.phase
        self._progress = progress
        if is_new_phase:
            _log.info("loading %s: %s", self._cards[0].name, progress.phase)
            self._changed()

    def become_ready(self, engine: Engine) -> None:
        """The model is loaded. A worker that was told to stop meanwhile stays stopped."""
        self.engine, self._progress = engine, None
        if self.state is WorkerState.LOADING:
            self.state = WorkerState.READY
            self._changed()

    def models_changed(self) -> None:
        """The engine serves another list of models; controllers hear of it at once."""
        self._changed()

    def fail(self, detail: str) -> None:
        """Nothing can be served any more, and why."""
        self.state, self.detail, self._progress = WorkerState.FAILED, detail, None
        self._changed()

    def begin_drain(self) -> None:
        """No new requests from here on."""
        if self.state is not WorkerState.FAILED:
            self.state = WorkerState.DRAINING
            self._changed()

    @property
    def _cards(self) -> tuple[ModelCard, ...]:
        """As they are now: what a card says of the engine may change while it runs."""
        return (self._first_card,) if self.engine is None else self.engine.models

    @property
    def progress(self) -> LoadProgress | None:
        """How far loading is; None when it is over."""
        return self._progress

    def status(self) -> WorkerStatus:
        """The whole state, as controllers get it."""
        memory = self._process.memory_info().rss
        uptime = max(0.0, time.time() - self._process.create_time())
        load = WorkerLoad(memory_bytes=memory, uptime_seconds=uptime)
        if self.engine is not None:
            stats = self.engine.stats()
            load = WorkerLoad(
                running=stats.running,
                waiting=stats.waiting,
                capacity=stats.capacity,
                tokens_per_second=stats.tokens_per_second,
                memory_bytes=memory,
                device_memory_bytes=stats.device_memory_bytes,
                kv_use=_kv_use(stats.caches),
                cache_hit_rate=_hit_rate(stats.caches),
                uptime_seconds=uptime,
            )
        return WorkerStatus(
            state=self.state,
            models=list(self._cards),
            load=load,
            progress=self._progress,
            detail=self.detail,
        )

    def not_ready_reason(self) -> str | None:
        """Why no request would be served now; None when one would."""
        name = self._cards[0].name
        match self.state:
            case WorkerState.READY:
                return None
            case WorkerState.LOADING:
                progress = self._progress
                how_far = f": {progress.phase}, {progress.fraction:.0%}" if progress else ""
                return f"{name} is loading{how_far}"
            case WorkerState.DRAINING:
                return "this worker is shutting down"
            case WorkerState.FAILED:
                return f"{name} cannot be served: {self.detail}"

    def card(self, model: str) -> ModelCard:
        """What is known of a model of this worker, in whatever state.

        Raises:
            ModelNotFoundError: it is none of this worker's.
        """
        for card in self._cards:
            if card.name == model:
                return card
        names = ", ".join(repr(card.name) for card in self._cards)
        raise ModelNotFoundError(f"This worker serves {names}, not {model!r}", param="model")

    def serve(self, model: str) -> Served:
        """The engine that answers for ``model``.

        Raises:
            ModelNotFoundError: it is none of this worker's.
            UnavailableError: loading, draining, or failed; with the reason.
        """
        card = self.card(model)
        reason = self.not_ready_reason()
        if reason is None and self.engine is not None:
            return Served(self.engine, card)
        match self.state:
            case WorkerState.LOADING:
                raise ModelLoadingError(
                    f"{reason}; retry in a moment", retry_after_seconds=LOADING_RETRY_SECONDS
                )
            case WorkerState.DRAINING:
                raise DrainingError(
                    f"{reason}; retry, and another one may answer",
                    retry_after_seconds=RESTART_RETRY_SECONDS,
                )
            case _:
                raise UnavailableError(str(reason), retry_after_seconds=RESTART_RETRY_SECONDS)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()


def _kv_use(caches: CacheStats | None) -> float | None:
    if caches is None or not caches.kv_tokens:
        return None
    return min(1.0, caches.kv_used_tokens / caches.kv_tokens)


def _hit_rate(caches: CacheStats | None) -> float | None:
    if caches is None or not caches.prefix_queries:
        return None
    return min(1.0, caches.prefix_hits / caches.prefix_queries)
