"""Messages and images to what a model takes: token ids with places for the images, and pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode, TextPart
from controller.protocol.errors import BadRequestError

IMAGE_MARKER = "<image>"  # how an image's place is written in prompts that people see

# Stands for an image while a template is rendered: a noncharacter, which no text may hold, so that
# a typed "<image>" stays what it is.
PLACEHOLDER = "\ufdd0"


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt that is ready for the model.

    Attributes:
        text: the prompt as rendered, ``<image>`` for each image.
        input_ids: token ids; an image is a run of the model's image token.
        image_tokens: how many of them stand for images.
        model_inputs: what the model's first forward takes besides the ids (``pixel_values``, ...);
            CPU tensors, floats in float32; empty for a text prompt.
    """

    text: str
    input_ids: tuple[int, ...]
    image_tokens: int
    model_inputs: Mapping[str, torch.Tensor]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the whole prompt, images included."""
        return len(self.input_ids)


class Prompting(Protocol):
    """How one family of models is asked. Pure computation; safe to call from several threads."""

    @property
    def takes_images(self) -> bool:
        """Whether the model can see."""

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """The prompt of a conversation that the assistant is to continue.

        Args:
            messages: the conversation; its image parts in order are ``images``.
            images: decoded, RGB.
            mode: how an image is brought to the encoder's size.

        Raises:
            BadRequestError: images and image parts differ in number, or the template refuses.
            UnsupportedError: the model cannot see, or has no such mode.
        """

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """A prompt that is already rendered, with ``<image>`` where an image goes.

        With no images, ``<image>`` is text like any other.

        Raises:
            BadRequestError: images and markers differ in number.
            UnsupportedError: the model cannot see, or has no such mode.
        """

    def views(self, image: Image.Image, mode: ImageProcessMode) -> list[Image.Image]:
        """What the encoder sees of an image, as pictures."""


def render(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
) -> str:
    """A conversation in a chat template, up to where the assistant is to speak.

    Raises:
        BadRequestError: the template refuses the conversation (such as two questions in a row).
    """
    from jinja2 import TemplateError  # noqa: PLC0415 - with transformers, on use

    try:
        text: str = tokenizer.apply_chat_template(
            list(messages),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            image_token=PLACEHOLDER,  # for templates that give images an exchange of their own
        )
    except TemplateError as error:
        raise BadRequestError(f"the model's chat template refuses this conversation: {error}",
                              param="messages") from error  # fmt: skip
    return text


def require_images_match(messages: Sequence[ChatMessage], images: Sequence[Image.Image]) -> None:
    """Checks that there is one image for each image part.

    Raises:
        BadRequestError: there is not.
    """
    parts = sum(
        not isinstance(part, TextPart)
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )
    if parts != len(images):
        raise BadRequestError(
            f"the conversation has {parts} image parts and {len(images)} images came with it",
            param="messages",
        )


def flatten(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages with text alone; an image is `PLACEHOLDER`.

    An image that stands beside text gets a line of its own. The images of the first question come
    before its text, as LLaVA was trained.
    """
    flat = []
    is_first_question = True
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        content = _flat_content(message)
        if role == "user":
            if is_first_question and PLACEHOLDER in content:
                content = _images_first(content)
            is_first_question = False
        flat.append({"role": role, "content": content})
    return flat


def _flat_content(message: ChatMessage) -> str:
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return plain(message.content)
    content = ""
    after_image = False
    for part in message.content:
        if isinstance(part, TextPart):
            text = plain(part.text)
            if after_image and text and not text[0].isspace():
                content += "\n"
            content += text
            after_image = False
        else:
            if content and not content[-1].isspace():
                content += "\n"
            content += PLACEHOLDER
            after_image = True
    return content


def _images_first(content: str) -> str:
    count = content.count(PLACEHOLDER)
    text = content.replace(PLACEHOLDER, "").strip()
    return f"{PLACEHOLDER}\n" * count + text


def plain(text: str) -> str:
    """A text that cannot be taken for an image's place."""
    return text.replace(PLACEHOLDER, "\ufffd")
