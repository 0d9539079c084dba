"""Prompts of language models that cannot see."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.errors import UnsupportedError
from worker.checkpoint.prompt import PreparedPrompt, flatten, plain, render, require_images_match
from worker.checkpoint.tokens import LoadedTokenizer


class TextPrompting:
    """Renders with a chat template of text messages; an image is refused."""

    def __init__(self, tokenizer: LoadedTokenizer, template: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = template  # None: the tokenizer's own

    @property
    def takes_images(self) -> bool:
        """It does not."""
        return False

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,  # noqa: ARG002 - the protocol's
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        _refuse(images)
        require_images_match(messages, images)
        text = render(self._tokenizer.tokenizer, self._template, flatten(messages))
        return self._encode(text)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,  # noqa: ARG002 - the protocol's
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        _refuse(images)
        return self._encode(plain(prompt))

    def views(
        self,
        image: Image.Image,
        mode: ImageProcessMode,  # noqa: ARG002 - the protocol's
    ) -> list[Image.Image]:
        """There is no encoder."""
        _refuse([image])
        return []

    def _encode(self, text: str) -> PreparedPrompt:
        (ids,) = self._tokenizer.encode_pieces([text])
        return PreparedPrompt(text, tuple(ids), 0, {})


def _refuse(images: Sequence[Image.Image]) -> None:
    if images:
        raise UnsupportedError(
            "this model reads text only and cannot see images; send text, or choose a "
            "vision-language model",
            param="messages",
        )
