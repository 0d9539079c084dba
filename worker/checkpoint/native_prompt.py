"""Prompts and pixels of vision-language models that come with a transformers processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode, TextPart
from controller.protocol.errors import BadImageError, BadRequestError, UnsupportedError
from worker.checkpoint.prompt import IMAGE_MARKER, PreparedPrompt, require_images_match
from worker.vision.clip import pad_to_square

# Of a prompt's features, what every model takes anyway, or builds by itself.
_NOT_INPUTS = ("input_ids", "attention_mask")
# A processor's names for tokens that it counts and replaces.
_PLACEHOLDERS = ("image_token", "boi_token", "video_token", "audio_token", "fake_image_token")
_WORD_JOINER = "\u2060"  # has no width
_GREY = (127, 127, 127)


class NativePrompting:
    """Asks a processor: its chat template, its tokenizer, its image processor.

    Args:
        processor: a transformers processor.
        template: Jinja source that replaces the processor's own; None keeps that.
        image_token_id: what stands for an image in the ids.
    """

    def __init__(self, processor: Any, template: str | None, *, image_token_id: int) -> None:  # noqa: ANN401
        self._processor = processor
        self._template = template
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
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        require_images_match(messages, images)
        shaped = [_shape(image, mode) for image in images]
        conversation = self._conversation(messages, shaped)
        template: dict[str, Any] = {
            "chat_template": self._template,
            "add_generation_prompt": True,
        }
        try:
            text = self._processor.apply_chat_template(conversation, tokenize=False, **template)
            features = self._processor.apply_chat_template(
                conversation,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                **template,
            )
        except TemplateError as error:
            raise BadRequestError(
                f"the model's chat template refuses this conversation: {error}", param="messages"
            ) from error
        except ValueError as error:
            if not images:
                raise
            raise BadImageError(f"the model's processor refuses an image: {error}") from error
        return self._prepared(text, features)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        shaped = [_shape(image, mode) for image in images]
        text = prompt
        if images:
            if prompt.count(IMAGE_MARKER) != len(images):
                raise BadRequestError(
                    f"the prompt has {prompt.count(IMAGE_MARKER)} {IMAGE_MARKER} markers and "
                    f"{len(images)} images came with it",
                    param="prompt",
                )
            text = prompt.replace(IMAGE_MARKER, self._image_text())
        starts = self._processor.tokenizer.bos_token
        features = self._processor(
            text=[text],
            images=shaped or None,
            return_tensors="pt",
            add_special_tokens=not (starts and text.startswith(starts)),
        )
        return self._prepared(prompt, features)

    def views(self, image: Image.Image, mode: ImageProcessMode) -> list[Image.Image]:
        """Only the shaped image: what a processor does to it cannot be drawn in general."""
        return [_shape(image, mode)]

    def _image_text(self) -> str:
        """What the template writes for an image: often more than the placeholder alone."""
        before, after = "\ufdd1", "\ufdd2"
        content = [
            {"type": "text", "text": before},
            {"type": "image"},
            {"type": "text", "text": after},
        ]
        rendered: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], chat_template=self._template, tokenize=False
        )
        between = rendered.partition(before)[2].partition(after)[0]
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

    def _prepared(self, text: str, features: Any) -> PreparedPrompt:  # noqa: ANN401
        ids = tuple(features["input_ids"][0].tolist())
        return PreparedPrompt(
            text=text,
            input_ids=ids,
            image_tokens=ids.count(self._image_token_id),
            model_inputs={
                name: value
                for name, value in features.items()
                if name not in _NOT_INPUTS and isinstance(value, torch.Tensor)
            },
        )


def _shape(image: Image.Image, mode: ImageProcessMode) -> Image.Image:
    """An image in the shape that a mode asks for; its size stays the processor's affair.

    Raises:
        UnsupportedError: for anyres, which is LLaVA's own.
    """
    short = min(image.size)
    match mode:
        case ImageProcessMode.DEFAULT:
            return image
        case ImageProcessMode.PAD:
            return pad_to_square(image, _GREY)
        case ImageProcessMode.CROP:
            left, top = (image.width - short) // 2, (image.height - short) // 2
            return image.crop((left, top, left + short, top + short))
        case ImageProcessMode.RESIZE:
            return image.resize((short, short), Image.Resampling.BICUBIC)
        case ImageProcessMode.ANYRES:
            raise UnsupportedError(
                "anyres is a mode of LLaVA 1.6; this model has its own way with large images: "
                "use default",
                param="image_process_mode",
            )
