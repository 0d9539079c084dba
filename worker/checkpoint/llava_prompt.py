"""Prompts and pixels of original LLaVA models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.errors import BadRequestError, UnsupportedError
from worker.checkpoint.plan import ImageSetup
from worker.checkpoint.prompt import (
    IMAGE_MARKER,
    PLACEHOLDER,
    PreparedPrompt,
    flatten,
    plain,
    render,
    require_images_match,
)
from worker.checkpoint.tokens import LoadedTokenizer
from worker.vision import anyres
from worker.vision.clip import ClipProcessor, default_mode

_IMAGE_START, _IMAGE_END = "<im_start>", "<im_end>"


class LlavaPrompting:
    """Renders with one of LLaVA's templates and tokenises piece by piece around the images.

    Args:
        tokenizer: of the language model.
        template: Jinja source; its messages have text alone.
        image_token_id: the model's placeholder, which is no text's token.
        setup: how images reach the encoder; None for a model that cannot see.
    """

    def __init__(
        self,
        tokenizer: LoadedTokenizer,
        template: str,
        *,
        image_token_id: int,
        setup: ImageSetup,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._image_token_id = image_token_id
        self._setup = setup
        self._processor = ClipProcessor.from_config(setup.preprocessor, setup.tile_size)

    @property
    def takes_images(self) -> bool:
        """LLaVA sees."""
        return True

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        require_images_match(messages, images)
        text = render(self._tokenizer.tokenizer, self._template, flatten(messages))
        return self._assemble(text, images, mode)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        text = plain(prompt)
        if images:
            text = text.replace(IMAGE_MARKER, PLACEHOLDER)
            if text.count(PLACEHOLDER) != len(images):
                raise BadRequestError(
                    f"the prompt has {text.count(PLACEHOLDER)} {IMAGE_MARKER} markers and "
                    f"{len(images)} images came with it",
                    param="prompt",
                )
        return self._assemble(text, images, mode)

    def views(self, image: Image.Image, mode: ImageProcessMode) -> list[Image.Image]:
        """See `Prompting.views`."""
        processor, setup = self._processor, self._setup
        mode = self._resolve(mode)
        if setup.pinpoints:
            shaped = processor.reshape(image, mode)
            tiles = anyres.views(shaped, setup.pinpoints, setup.tile_size)
            return [processor.fit(tile) for tile in tiles]
        return [processor.view(image, mode)]

    def _resolve(self, mode: ImageProcessMode) -> ImageProcessMode:
        if mode is ImageProcessMode.DEFAULT:
            return default_mode(self._setup.aspect_ratio)
        if mode is ImageProcessMode.ANYRES and not self._setup.pinpoints:
            raise UnsupportedError(
                "this checkpoint was not trained with anyres; use default, pad, crop or resize",
                param="image_process_mode",
            )
        return mode

    def _assemble(
        self, text: str, images: Sequence[Image.Image], mode: ImageProcessMode
    ) -> PreparedPrompt:
        resolved = self._resolve(mode)
        # Tiles cover the whole image, so for anyres models the mode only decides its shape.
        shaped = [
            self._processor.reshape(image, resolved) if self._setup.pinpoints else image
            for image in images
        ]
        counts = [self._setup.num_tokens(image.width, image.height) for image in shaped]
        return PreparedPrompt(
            text=text.replace(PLACEHOLDER, IMAGE_MARKER),
            input_ids=tuple(self._ids(text, counts)),
            image_tokens=sum(counts),
            model_inputs=self._pixels(images, shaped, mode) if images else {},
        )

    def _ids(self, text: str, counts: Sequence[int]) -> list[int]:
        if self._setup.wraps_in_start_end:
            text = text.replace(PLACEHOLDER, f"{_IMAGE_START}{PLACEHOLDER}{_IMAGE_END}")
        first, *others = self._tokenizer.encode_pieces(text.split(PLACEHOLDER))
        ids = list(first)
        for count, piece in zip(counts, others, strict=True):
            ids += [self._image_token_id] * count
            ids += piece
        return ids

    def _pixels(
        self, images: Sequence[Image.Image], shaped: Sequence[Image.Image], mode: ImageProcessMode
    ) -> dict[str, torch.Tensor]:
        stacks = [
            np.stack([self._processor.pixels(view) for view in self.views(image, mode)])
            for image in images
        ]
        if not self._setup.pinpoints:
            return {"pixel_values": torch.from_numpy(np.concatenate(stacks))}
        most = max(len(stack) for stack in stacks)
        # transformers wants one tensor: images with fewer tiles are filled up with zeros, which it
        # drops again by `image_sizes`.
        padded = [np.pad(s, [(0, most - len(s)), (0, 0), (0, 0), (0, 0)]) for s in stacks]
        return {
            "pixel_values": torch.from_numpy(np.stack(padded)),
            "image_sizes": torch.tensor([[image.height, image.width] for image in shaped]),
        }
