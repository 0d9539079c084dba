"""``POST /v1/preview``: what a model's encoder sees of a conversation's images.

An extension of ours: the request is that of chat completions without sampling, the answer holds
pictures in place of text.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.message import Message


class PreviewRequest(Message):
    """What would be asked, without asking it."""

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT
    chat_template: str | None = Field(default=None, max_length=64)


class PreviewTile(Message):
    """One input of the encoder, as a picture; sizes in pixels."""

    kind: Literal["tile", "overview"]  # an overview is the whole image, made small
    image_url: str  # data:image/png;base64,...
    width: int
    height: int


class PreviewGrid(Message):
    """How the tiles lie, row by row; the overview is not among them."""

    rows: int
    columns: int


class PreviewImage(Message):
    """One image of the conversation, as it came and as it is seen."""

    width: int  # as it came: upright, before any processing
    height: int
    image_tokens: int
    grid: PreviewGrid | None = None
    tiles: list[PreviewTile]


class Preview(Message):
    """The prompt that the model would get, and what its encoder would see."""

    object: Literal["prompt.preview"] = "prompt.preview"
    model: str
    prompt: str  # as the template renders it, <image> for each image
    prompt_tokens: int
    image_tokens: int  # part of them
    images: list[PreviewImage]
