"""The page's own addresses beside Gradio's: images of chats, and short links to them."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response

from controller.protocol.errors import NotFoundError
from webui.store import ImageFolder

# The same digest is the same image for ever.
_HEADERS = {"cache-control": "private, max-age=31536000, immutable"}


def chat_routes(images: ImageFolder) -> APIRouter:
    """The routes.

    Args:
        images: where they are kept; a digest, which cannot be guessed, is the key to one.
    """
    router = APIRouter()

    @router.get("/images/{digest}")
    async def image(digest: str) -> Response:
        """An image as it was uploaded."""
        path = images.find(digest)
        if path is None:
            raise NotFoundError(f"There is no image {digest[:64]} here (any more).")
        return FileResponse(path, headers=_HEADERS)

    @router.get("/images/{digest}/small")
    async def small_image(digest: str) -> Response:
        """A small copy of it."""
        if images.find(digest) is None:
            raise NotFoundError(f"There is no image {digest[:64]} here (any more).")
        path = images.thumbnail(digest)
        return FileResponse(path, media_type="image/webp", headers=_HEADERS)

    @router.get("/c/{conversation_id}")
    async def chat(conversation_id: str) -> Response:
        """A chat by its id. Relative, so that the page may lie under any path of a proxy."""
        return RedirectResponse(f"../?c={quote(conversation_id, safe='')}")

    return router
