"""The images of a conversation: fetched where that is allowed, and decoded off the event loop."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from PIL.Image import Image

from controller.chassis.remote_images import RemoteImages
from controller.protocol.chat import ChatMessage, ImagePart
from controller.protocol.errors import BadImageError
from worker.vision.decode import decode_image
from worker.vision.policy import DEFAULT_IMAGE_POLICY, ImagePolicy

# Decoded pixels take far more memory than the body they came in.
DECODERS = 2
_REMOTE = ("http://", "https://")


class ImageReader:
    """Reads the images of requests, few at a time.

    Args:
        policy: what is accepted.
        remote: who fetches them; None makes it of the policy.
    """

    def __init__(
        self, policy: ImagePolicy = DEFAULT_IMAGE_POLICY, remote: RemoteImages | None = None
    ) -> None:
        self._policy = policy
        self._remote = remote or RemoteImages(policy.remote, max_bytes=policy.limits.max_bytes)
        self._limiter = anyio.CapacityLimiter(DECODERS)

    async def read(self, messages: Sequence[ChatMessage]) -> tuple[Image, ...]:
        """The images of all parts, in order.

        Raises:
            BadImageError: there are too many, or one cannot be read; ``param`` names its place in
                the body.
        """
        places = [
            (f"messages.{row}.content.{column}.image_url.url", part.image_url.url)
            for row, message in enumerate(messages)
            if isinstance(message.content, list)
            for column, part in enumerate(message.content)
            if isinstance(part, ImagePart)
        ]
        if len(places) > self._policy.max_images:
            raise BadImageError(
                f"the request has {len(places)} images; at most {self._policy.max_images} are "
                "accepted (--max-images)",
                param="messages",
            )
        return tuple([await self._read(place, url) for place, url in places])

    async def _read(self, place: str, url: str) -> Image:
        try:
            source: str | bytes = url
            if self._policy.remote.hosts and url.strip().lower().startswith(_REMOTE):
                source = await self._remote.fetch(url.strip())
            return await anyio.to_thread.run_sync(
                decode_image, source, self._policy.limits, limiter=self._limiter
            )
        except BadImageError as exc:
            raise BadImageError(exc.message, param=place) from exc
