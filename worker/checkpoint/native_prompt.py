"""Prompts and pixels of vision-language models that come with a transformers processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode, TextPart
from controller.protocol.errors import BadImageError, BadRequestError, UnsupportedError
from worker.checkpoint.conversation import (
    ending,
    flatten,
    mark_images,
    refused_by_template,
    render,
    require_images_match,
    stop_token_ids,
)
from worker.checkpoint.native_view import native_view
from worker.checkpoint.prompt import IMAGE_MARKER, PLACEHOLDER, PreparedPrompt
from worker.checkpoint.templates import ChatTemplate
from worker.vision.clip import pad_to_square
from worker.vision.tiles import ImageView

# Of a prompt's features, what every model takes anyway or builds by itself, and what PaliGemma's
# processor adds for training.
_NOT_INPUTS = ("input_ids", "attention_mask", "labels")
# A processor's names for tokens that it counts and replaces.
_PLACEHOLDERS = ("image_token", "boi_token", "video_token", "audio_token", "fake_image_token")
_WORD_JOINER = "\u2060"  # has no width
# Stand around something in a rendered prompt to find it again: noncharacters, as `PLACEHOLDER`.
_BEFORE, _AFTER = "\ufdd1", "\ufdd2"
_GREY = (127, 127, 127)


class NativePrompting:
    """Asks a processor: its chat template, its tokenizer, its image processor.

    Args:
        processor: a transformers processor.
        template: replaces the processor's own; its messages may have parts, or text alone.
        image_token_id: what stands for an image in the ids.
    """

    def __init__(self, processor: Any, template: ChatTemplate, *, image_token_id: int) -> None:  # noqa: ANN401
        self._processor = processor
        self._template = template
        self._takes_parts = self._renders_parts(template)
        self._image_token_id = image_token_id
        named = [getattr(processor, name, None) for name in _PLACEHOLDERS]
        self._placeholders = tuple({str(token) for token in named if token})

    @property
    def takes_images(self) -> bool:
        """It sees."""
        return True

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
        template: ChatTemplate | None = None,
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        require_images_match(messages, images)
        shaped = [self._shaped(image, mode) for image in images]
        if template is None and self._takes_parts:
            return self._prepare_parts(messages, shaped)
        template = template or self._template
        flat = [
            {**message, "content": self._harmless(message["content"])}
            for message in flatten(messages, images_first=template.images_first)
        ]
        text = render(self._processor.tokenizer, template, flat)
        return self._prepare_rendered(text, shaped, template)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        shaped = [self._shaped(image, mode) for image in images]
        return self._prepare_rendered(mark_images(prompt, images), shaped, None)

    def image_tokens(self, size: tuple[int, int]) -> int:
        """See `Prompting.image_tokens`. The processor counts, on a blank image."""
        return self.prepare_text(IMAGE_MARKER, [Image.new("RGB", size, "white")]).image_tokens

    def views(self, image: Image.Image, mode: ImageProcessMode) -> ImageView:
        """See `Prompting.views`."""
        shaped = self._shaped(image, mode)
        prepared = self.prepare_text(IMAGE_MARKER, [shaped])
        return native_view(self._processor.image_processor, shaped, prepared)

    def _prepare_parts(
        self, messages: Sequence[ChatMessage], images: Sequence[Image.Image]
    ) -> PreparedPrompt:
        """With a template that takes images as parts, each at its place."""
        conversation = self._conversation(messages, images)
        options: dict[str, Any] = {
            "chat_template": self._template.source,
            **ending(conversation),
        }
        try:
            text = self._processor.apply_chat_template(conversation, tokenize=False, **options)
            features = self._processor.apply_chat_template(
                conversation, tokenize=True, return_dict=True, return_tensors="pt", **options
            )
        except TemplateError as error:
            raise refused_by_template(error) from error
        except ValueError as error:
            raise _refused(error, with_images=bool(images)) from error
        return self._prepared(text, features, self._template)

    def _prepare_rendered(
        self, text: str, images: Sequence[Image.Image], template: ChatTemplate | None
    ) -> PreparedPrompt:
        """With a text that is rendered already, `PLACEHOLDER` for each image."""
        starts = self._processor.tokenizer.bos_token
        filled = text.replace(PLACEHOLDER, self._image_text()) if images else text
        try:
            features = self._processor(
                text=[filled],
                images=list(images) or None,
                return_tensors="pt",
                add_special_tokens=not (starts and text.startswith(starts)),
            )
        except ValueError as error:
            raise _refused(error, with_images=bool(images)) from error
        return self._prepared(text.replace(PLACEHOLDER, IMAGE_MARKER), features, template)

    def _renders_parts(self, template: ChatTemplate) -> bool:
        """Whether messages may have parts; other templates take each content as a text."""
        if template.is_ours:
            return False
        content = [{"type": "text", "text": _BEFORE}]
        try:
            text = self._processor.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template.source,
                tokenize=False,
            )
        except TypeError:  # it adds a list to a string
            return False
        except TemplateError:  # it wants more of a conversation than this
            return True
        return "'text'" not in text  # a list, printed

    def _shaped(self, image: Image.Image, mode: ImageProcessMode) -> Image.Image:
        """An image before the processor has it.

        Raises:
            UnsupportedError: for anyres, where the processor does not cut images so.
        """
        cuts = getattr(self._processor.image_processor, "image_grid_pinpoints", None)
        if mode is ImageProcessMode.ANYRES and not cuts:
            raise UnsupportedError(
                "anyres is a mode of LLaVA 1.6; this model has its own way with large images: "
                "use default",
                param="image_process_mode",
            )
        return _square(image, mode)

    def _image_text(self) -> str:
        """What the template writes for an image: often more than the placeholder alone."""
        if not self._takes_parts:
            return str(self._processor.image_token)
        content = [
            {"type": "text", "text": _BEFORE},
            {"type": "image"},
            {"type": "text", "text": _AFTER},
        ]
        rendered: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self._template.source,
            tokenize=False,
        )
        between = rendered.partition(_BEFORE)[2].partition(_AFTER)[0]
        # Some templates put images first wherever they were.
        return between.strip() or str(self._processor.image_token)

    def _conversation(
        self, messages: Sequence[ChatMessage], images: Sequence[Image.Image]
    ) -> list[dict[str, Any]]:
        """Messages as templates take them, each image at its place."""
        remaining = iter(images)
        conversation = []
        for message in messages:
            parts: list[dict[str, Any]] = []
            content = message.content or ""
            for part in [TextPart(text=content)] if isinstance(content, str) else content:
                if isinstance(part, TextPart):
                    parts.append({"type": "text", "text": self._harmless(part.text)})
                else:
                    parts.append({"type": "image", "image": next(remaining)})
            role = "system" if message.role == "developer" else message.role
            conversation.append({"role": role, "content": parts})
        return conversation

    def _harmless(self, text: str) -> str:
        """A text in which a typed placeholder is one no more, though it looks the same.

        Some processors count placeholders in the rendered text, the user's own included.
        """
        for token in self._placeholders:
            text = text.replace(token, f"{token[0]}{_WORD_JOINER}{token[1:]}")
        return text

    def _prepared(
        self,
        text: str,
        features: Any,  # noqa: ANN401
        template: ChatTemplate | None,
    ) -> PreparedPrompt:
        ids = tuple(features["input_ids"][0].tolist())
        stops: frozenset[int] = frozenset()
        if template is not None:
            stops = stop_token_ids(self._processor.tokenizer, template)
        return PreparedPrompt(
            text=text,
            input_ids=ids,
            image_tokens=ids.count(self._image_token_id),
            model_inputs={
                name: value
                for name, value in features.items()
                if name not in _NOT_INPUTS and isinstance(value, torch.Tensor)
            },
            stop_strings=template.stop_strings if template else (),
            stop_token_ids=stops,
        )


def _refused(error: ValueError, *, with_images: bool) -> BadRequestError:
    if with_images:
        return BadImageError(f"the model's processor refuses an image: {error}")
    # Such as those of models that answer about images alone.
    return BadRequestError(
        f"the model's processor refuses a conversation without images: {error}", param="messages"
    )


def _square(image: Image.Image, mode: ImageProcessMode) -> Image.Image:
    """An image in the shape that a mode asks for; its size stays the processor's affair."""
    short = min(image.size)
    match mode:
        case ImageProcessMode.PAD:
            return pad_to_square(image, _GREY)
        case ImageProcessMode.CROP:
            left, top = (image.width - short) // 2, (image.height - short) // 2
            return image.crop((left, top, left + short, top + short))
        case ImageProcessMode.RESIZE:
            return image.resize((short, short), Image.Resampling.BICUBIC)
        case _:
            return image
