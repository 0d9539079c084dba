"""``POST /v1/preview``: what the model's encoder would see, and the prompt it would get."""

from __future__ import annotations

import base64
from io import BytesIO

import anyio
from fastapi import APIRouter, Request, Response
from PIL.Image import Image
from starlette.requests import ClientDisconnect

from controller.chassis.hangup import HangUp
from controller.chassis.openapi import PREVIEW
from controller.protocol.preview import (
    Preview,
    PreviewGrid,
    PreviewImage,
    PreviewRequest,
    PreviewTile,
)
from worker.engine.protocol import GenerationRequest, PromptView
from worker.lifecycle import Lifecycle
from worker.routes.body import CLIENT_CLOSED_REQUEST, BodyLimits, parse_request, read_body
from worker.routes.images import ImageReader
from worker.vision.tiles import ImageView

# PNGs that are made at once; each takes a core.
ENCODERS = 1


def preview_routes(
    lifecycle: Lifecycle, image_reader: ImageReader, *, worker_id: str, body_limits: BodyLimits
) -> APIRouter:
    """The route, over what it needs."""
    router = APIRouter(tags=["images"])
    limiter = anyio.CapacityLimiter(ENCODERS)

    @router.post(PREVIEW, response_model=None)
    async def preview(request: Request) -> Response:
        """The images of a conversation as the encoder gets them."""
        try:
            asked = parse_request(await read_body(request, body_limits), PreviewRequest)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        served = lifecycle.serve(asked.model)
        async with HangUp(request.receive):
            served.engine.check_room()
            images = await image_reader.read(asked.messages)
            seen = await served.engine.preview(
                GenerationRequest(
                    request_id=request.state.request_id,
                    model=asked.model,
                    messages=tuple(asked.messages),
                    images=images,
                    image_process_mode=asked.image_process_mode,
                    chat_template=asked.chat_template,
                )
            )
            body = await anyio.to_thread.run_sync(
                _rendered, asked.model, images, seen, limiter=limiter, abandon_on_cancel=True
            )
            return Response(body, media_type="application/json", headers={"x-worker-id": worker_id})
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    return router


def _rendered(model: str, images: tuple[Image, ...], seen: PromptView) -> str:
    """The whole answer as JSON."""
    return Preview(
        model=model,
        prompt=seen.prompt,
        prompt_tokens=seen.prompt_tokens,
        image_tokens=seen.image_tokens,
        images=[_image(image, view) for image, view in zip(images, seen.images, strict=True)],
    ).model_dump_json(exclude_none=True)


def _image(image: Image, view: ImageView) -> PreviewImage:
    grid = None if view.grid is None else PreviewGrid(rows=view.grid[0], columns=view.grid[1])
    return PreviewImage(
        width=image.width,
        height=image.height,
        image_tokens=view.image_tokens,
        grid=grid,
        tiles=[
            PreviewTile(
                kind="overview" if index == view.overview_index else "tile",
                image_url=_data_uri(tile),
                width=tile.width,
                height=tile.height,
            )
            for index, tile in enumerate(view.tiles)
        ],
    )


def _data_uri(picture: Image) -> str:
    stream = BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
