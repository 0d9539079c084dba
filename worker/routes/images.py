"""The images of a conversation, decoded off the event loop."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from PIL.Image import Image

from controller.protocol.chat import ChatMessage, ImagePart
from controller.protocol.errors import BadImageError
from worker.vision.decode import decode_image

# Decoded pixels take far more memory than the body they came in.
DECODERS = 2


class ImageReader:
    """Decodes the images of requests, few at a time."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(DECODERS)

    async def read(self, messages: Sequence[ChatMessage]) -> tuple[Image, ...]:
        """The images of all parts, in order.

        Raises:
            BadImageError: one cannot be read; ``param`` names its place in the body.
        """
        places = [
            (f"messages.{row}.content.{column}.image_url.url", part.image_url.url)
            for row, message in enumerate(messages)
            if isinstance(message.content, list)
            for column, part in enumerate(message.content)
            if isinstance(part, ImagePart)
        ]
        return tuple([await self._decode(place, url) for place, url in places])

    async def _decode(self, place: str, url: str) -> Image:
        try:
            return await anyio.to_thread.run_sync(decode_image, url, limiter=self._limiter)
        except BadImageError as exc:
            raise BadImageError(exc.message, param=place) from exc
