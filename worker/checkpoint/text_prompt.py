"""Prompts of language models that cannot see."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.errors import UnsupportedError
from worker.checkpoint.conversation import (
    plain,
    render_conversation,
    require_text_template,
    stop_token_ids,
)
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.templates import ChatTemplate
from worker.checkpoint.tokens import LoadedTokenizer
from worker.vision.tiles import ImageView


class TextPrompting:
    """Renders with a chat template of text messages; an image is refused."""

    def __init__(self, tokenizer: LoadedTokenizer, template: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._template = require_text_template(tokenizer.tokenizer, template)

    @property
    def takes_images(self) -> bool:
        """It does not."""
        return False

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,  # noqa: ARG002 - the protocol's
        template: ChatTemplate | None = None,
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        _refuse(images)
        template = template or self._template
        text = render_conversation(self._tokenizer.tokenizer, template, messages, images)
        return self._encode(text, template)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,  # noqa: ARG002 - the protocol's
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        _refuse(images)
        return self._encode(plain(prompt), None)

    def image_tokens(self, size: tuple[int, int]) -> int:  # noqa: ARG002 - the protocol's
        """There is no encoder."""
        raise _cannot_see()

    def views(
        self,
        image: Image.Image,  # noqa: ARG002 - the protocol's
        mode: ImageProcessMode,  # noqa: ARG002 - the protocol's
    ) -> ImageView:
        """There is no encoder."""
        raise _cannot_see()

    def _encode(self, text: str, template: ChatTemplate | None) -> PreparedPrompt:
        (ids,) = self._tokenizer.encode_pieces([text])
        if template is None:
            return PreparedPrompt(text, tuple(ids), 0, {})
        return PreparedPrompt(
            text,
            tuple(ids),
            0,
            {},
            template.stop_strings,
            stop_token_ids(self._tokenizer.tokenizer, template),
        )


def _refuse(images: Sequence[Image.Image]) -> None:
    if images:
        raise _cannot_see()


def _cannot_see() -> UnsupportedError:
    return UnsupportedError(
        "this model reads text only and cannot see images; send text, or choose a "
        "vision-language model",
        param="messages",
    )
