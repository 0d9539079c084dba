"""A controller of four pretended models over real HTTP: speed and faults on demand.

Run by hand for work on the page: ``python -m tests.webui.fake_controller --port 21901``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from controller.chassis.http import install_errors
from controller.protocol import sse
from controller.protocol.chat import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    ChunkChoice,
    Delta,
    FinishReason,
    ImagePart,
    Metrics,
    PromptTokensDetails,
    Usage,
)
from controller.protocol.errors import (
    ModelNotFoundError,
    NoLiveWorkerError,
    QueueFullError,
    WorkerLostError,
)
from controller.protocol.fleet import (
    FleetView,
    LoadProgress,
    ModelCard,
    Quantisation,
    WorkerLoad,
    WorkerState,
    WorkerStatus,
    WorkerView,
)
from controller.protocol.preview import (
    Preview,
    PreviewGrid,
    PreviewImage,
    PreviewRequest,
    PreviewTile,
)

Fault = Literal["hang", "refuse", "error_midway", "break_midway"]
IMAGE_TOKENS = 64


@dataclass
class FakeModel:
    """A pretended worker with one model."""

    card: ModelCard
    answer: str
    pieces_per_second: float = 30.0
    state: WorkerState = WorkerState.READY
    progress: LoadProgress | None = None
    is_live: bool = True
    fault: Fault | None = None
    is_held: bool = False  # in mid-answer, for as long as a test looks at it
    running: int = 0


@dataclass
class Exchange:
    """A request that came in, and how its stream ended."""

    request: ChatCompletionRequest
    began_at: float
    num_sent: int = 0
    ended_at: float | None = None
    was_hung_up: bool = False


@dataclass
class FakeController:
    """The state behind the routes; tests read and change it while it serves."""

    models: dict[str, FakeModel] = field(default_factory=dict)
    exchanges: list[Exchange] = field(default_factory=list)
    previews: list[PreviewRequest] = field(default_factory=list)

    def of(self, model: str) -> list[Exchange]:
        """The exchanges with one model, oldest first."""
        return [exchange for exchange in self.exchanges if exchange.request.model == model]

    def app(self) -> FastAPI:
        """The routes that the page uses."""
        app = FastAPI()
        install_errors(app)

        @app.get("/fleet/workers")
        async def workers() -> FleetView:
            return FleetView(workers=[_view(m) for m in self.models.values() if m.is_live])

        @app.post("/v1/chat/completions")
        async def chat(body: ChatCompletionRequest) -> Response:
            model = self.models.get(body.model)
            exchange = Exchange(body, time.monotonic())
            self.exchanges.append(exchange)
            if model is None:
                raise ModelNotFoundError(f"Nobody serves a model named {body.model!r}.")
            if not model.is_live:
                raise NoLiveWorkerError(
                    f"No worker serves {body.model} now; try again once it is back.",
                    retry_after_seconds=1,
                )
            if model.fault == "refuse":
                raise QueueFullError("The queue of this worker is full (8 requests); try again.")
            headers = {"x-worker-id": "worker-" + body.model}
            stream = self._stream(model, exchange)
            return StreamingResponse(stream, media_type=sse.MEDIA_TYPE, headers=headers)

        @app.post("/v1/preview")
        async def preview(body: PreviewRequest) -> Preview:
            if body.model not in self.models:
                raise ModelNotFoundError(f"Nobody serves a model named {body.model!r}.")
            self.previews.append(body)
            return _preview(body)

        return app

    async def _stream(self, model: FakeModel, exchange: Exchange) -> AsyncIterator[bytes]:
        model.running += 1
        try:
            async for piece in _events(model, exchange):
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            exchange.was_hung_up = True
            raise
        finally:
            model.running -= 1
            exchange.ended_at = time.monotonic()


async def _events(model: FakeModel, exchange: Exchange) -> AsyncIterator[bytes]:
    name = model.card.name
    yield _chunk(name, Delta(role="assistant", content=""))
    if model.fault == "hang":
        await asyncio.Event().wait()  # until the client hangs up
    began = time.monotonic()
    words = model.answer.split(" ")
    for number, word in enumerate(words):
        if number == len(words) // 2 and model.fault == "error_midway":
            yield sse.encode_error(WorkerLostError("The worker was lost in mid-answer.").body())
            return
        if number == len(words) // 2 and model.fault == "break_midway":
            raise ConnectionAbortedError("on demand")
        while number == len(words) // 2 and model.is_held:  # noqa: ASYNC110  # a test's thread ends it
            await asyncio.sleep(0.01)
        await asyncio.sleep(max(0.0, began + number / model.pieces_per_second - time.monotonic()))
        exchange.num_sent += 1
        yield _chunk(name, Delta(content=word if number == 0 else " " + word))
    num_images = _num_images(exchange.request.messages)
    metrics = Metrics(
        queue_time_ms=0.4,
        time_to_first_token_ms=41.0,
        generation_time_ms=(time.monotonic() - began) * 1000,
        tokens_per_second=model.pieces_per_second,
    )
    yield _chunk(name, Delta(), finish_reason=FinishReason.STOP, metrics=metrics)
    usage = Usage(
        prompt_tokens=80,
        completion_tokens=len(words),
        total_tokens=80 + len(words),
        prompt_tokens_details=PromptTokensDetails(image_tokens=num_images * IMAGE_TOKENS),
    )
    yield sse.encode(
        ChatCompletionChunk(
            id="chatcmpl-fake", created=0, model=name, choices=[], usage=usage, metrics=metrics
        )
    )
    yield sse.DONE


def _num_images(messages: Sequence[ChatMessage]) -> int:
    return sum(
        isinstance(part, ImagePart)
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )


def _preview(asked: PreviewRequest) -> Preview:
    """Each image as an overview and two tiles."""
    pixel = base64.b64encode(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
            "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
        )
    ).decode()
    url = f"data:image/png;base64,{pixel}"
    tiles = [
        PreviewTile(kind=kind, image_url=url, width=28, height=28)
        for kind in ("overview", "tile", "tile")
    ]
    seen = PreviewImage(
        width=64,
        height=48,
        image_tokens=IMAGE_TOKENS,
        grid=PreviewGrid(rows=1, columns=2),
        tiles=tiles,
    )
    number = _num_images(asked.messages)
    return Preview(
        model=asked.model,
        prompt="USER: " + "<image>\n" * number + "hello ASSISTANT:",
        prompt_tokens=80,
        image_tokens=number * IMAGE_TOKENS,
        images=[seen] * number,
    )


def _chunk(
    model: str,
    delta: Delta,
    *,
    finish_reason: FinishReason | None = None,
    metrics: Metrics | None = None,
) -> bytes:
    choice = ChunkChoice(delta=delta, finish_reason=finish_reason)
    return sse.encode(
        ChatCompletionChunk(
            id="chatcmpl-fake", created=0, model=model, choices=[choice], metrics=metrics
        )
    )


def _view(model: FakeModel) -> WorkerView:
    status = WorkerStatus(
        state=model.state,
        models=[model.card],
        load=WorkerLoad(running=model.running, memory_bytes=812_000_000),
        progress=model.progress,
    )
    return WorkerView(
        worker_id="worker-" + model.card.name,
        address="http://127.0.0.1:1",
        version="0",
        status=status,
        heartbeat_age_seconds=0.1,
        lease_seconds=3,
        in_flight=model.running,
        suspect=False,
    )


_ENGLISH = "There are two shapes: a red circle on the left and a blue square on the right."
_CHINESE = "图中 有 两个 形状： 左边 是 一个 红色 圆形， 右边 是 一个 蓝色 正方形。"


def demo_models(*, pieces_per_second: float = 30.0) -> dict[str, FakeModel]:
    """Models like those of the demo fleet."""

    def card(name: str, quantisation: Quantisation, adapter: str | None = None) -> ModelCard:
        return ModelCard(
            name=name,
            base="demo-base" if adapter else None,
            adapter=adapter,
            quantisation=quantisation,
            dtype="float32",
            architecture="LlavaForConditionalGeneration",
            format="llava-lora" if adapter else "llava",
            context_length=512,
            image_tokens=IMAGE_TOKENS,
            parameters=3_700_000,
            weight_bytes=14_800_000,
        )

    cards = [
        (card("demo-llava", Quantisation.NONE), _ENGLISH),
        (card("demo-llava-8bit", Quantisation.INT8), _ENGLISH),
        (card("demo-llava-4bit", Quantisation.NF4), _ENGLISH.replace("blue", "purple")),
        (card("demo-llava-zh", Quantisation.NONE, "demo-lora-zh"), _CHINESE),
    ]
    return {
        card.name: FakeModel(card, answer, pieces_per_second=pieces_per_second)
        for card, answer in cards
    }


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pieces-per-second", type=float, default=8.0)
    args = parser.parse_args()
    fake = FakeController(demo_models(pieces_per_second=args.pieces_per_second))
    uvicorn.run(fake.app(), host="127.0.0.1", port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
