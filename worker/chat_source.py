"""A checkpoint in this process as a source of answers: the worker's own engine, without a port."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from controller.protocol.chat import ChatCompletionChunk, ChatCompletionRequest
from controller.protocol.fleet import LoadProgress, ModelCard
from controller.protocol.preview import PreviewRequest
from worker.checkpoint.spec import LoadSpec
from worker.engine.protocol import CacheMemory, Engine, Finished, GenerationRequest, TextDelta
from worker.loading import load_engine
from worker.routes.chat import ChatFormat
from worker.routes.images import ImageReader
from worker.routes.sampling import sampling_params

_log = logging.getLogger(__name__)


class LocalSource:
    """See `controller.terminal.source.AnswerSource`. It belongs to the loop that it is loaded on.

    Args:
        engine: loaded.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = ImageReader()

    @classmethod
    async def load(cls, spec: LoadSpec, on_progress: Callable[[LoadProgress], None]) -> LocalSource:
        """Loads a checkpoint as a worker does, on a thread of its own.

        Raises:
            CheckpointError: it cannot be loaded, and why.
        """

        def build(
            *, on_progress: Callable[[LoadProgress], None], on_device_lost: Callable[[str], None]
        ) -> Engine:
            # Importing torch takes seconds.
            on_progress(LoadProgress(phase="importing torch"))
            from worker.engine.build import build_engine  # noqa: PLC0415

            return build_engine(
                spec,
                engine="batched",
                threads=None,
                max_running=1,
                max_waiting=1,
                memory=CacheMemory(),
                on_progress=on_progress,
                on_device_lost=on_device_lost,
            )

        def device_lost(reason: str) -> None:
            _log.error("the device is lost; load the checkpoint again: %s", reason)

        return cls(await load_engine(build, on_progress=on_progress, on_device_lost=device_lost))

    @property
    def card(self) -> ModelCard:
        """What was loaded."""
        return self._engine.models[0]

    async def models(self) -> Sequence[str]:
        """See `AnswerSource.models`."""
        return [card.name for card in self._engine.models]

    async def answer(self, asked: ChatCompletionRequest) -> AsyncGenerator[ChatCompletionChunk]:
        """See `AnswerSource.answer`: the chunks that a worker would send."""
        arrived = time.monotonic()
        request = GenerationRequest(
            request_id="chat-" + uuid.uuid4().hex,
            model=asked.model,
            messages=tuple(asked.messages),
            images=await self._images.read(asked.messages),
            image_process_mode=asked.image_process_mode,
            chat_template=asked.chat_template,
            sampling=sampling_params(asked, logprobs=None),
            arrived=arrived,
            timeout_seconds=asked.timeout,
        )
        chunks = ChatFormat(asked.model, tells_tokens=False)
        async with aclosing(self._engine.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield chunks.piece(0, event)
                elif isinstance(event, Finished):
                    yield chunks.end(0, event)
                    yield chunks.total(event.usage, event.metrics)

    async def prompt(self, asked: PreviewRequest) -> str:
        """See `AnswerSource.prompt`."""
        view = await self._engine.preview(
            GenerationRequest(
                request_id="preview-" + uuid.uuid4().hex,
                model=asked.model,
                messages=tuple(asked.messages),
                images=await self._images.read(asked.messages),
                image_process_mode=asked.image_process_mode,
                chat_template=asked.chat_template,
            )
        )
        return view.prompt

    async def aclose(self) -> None:
        """See `AnswerSource.aclose`."""
        await self._engine.aclose()
