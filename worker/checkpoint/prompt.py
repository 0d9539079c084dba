"""Messages and images to what a model takes: token ids with places for the images, and pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode
from worker.checkpoint.templates import ChatTemplate
from worker.vision.tiles import ImageView

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
        stop_strings: what ends the answer besides the request's own: the template's.
        stop_token_ids: those of them that are one token each.
        image_token_counts: how many tokens stand for each image; empty where that is not known.
    """

    text: str
    input_ids: tuple[int, ...]
    image_tokens: int
    model_inputs: Mapping[str, torch.Tensor]
    stop_strings: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    image_token_counts: tuple[int, ...] = ()

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
        template: ChatTemplate | None = None,
    ) -> PreparedPrompt:
        """The prompt of a conversation that the assistant is to continue.

        Args:
            messages: the conversation; its image parts in order are ``images``.
            images: decoded, RGB.
            mode: how an image is brought to the encoder's size.
            template: instead of the model's own.

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

    def image_tokens(self, size: tuple[int, int]) -> int:
        """Tokens of an image of this (width, height) in pixels, in the mode DEFAULT.

        Raises:
            UnsupportedError: the model cannot see.
        """

    def views(self, image: Image.Image, mode: ImageProcessMode) -> ImageView:
        """What the encoder sees of an image: its own pixels, as pictures again.

        Raises:
            UnsupportedError: the model cannot see, has no such mode, or its pixels are no pictures.
        """
