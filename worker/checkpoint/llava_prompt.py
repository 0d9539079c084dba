"""Prompts and pixels of original LLaVA models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.errors import UnsupportedError
from worker.checkpoint.conversation import (
    mark_images,
    render_conversation,
    require_text_template,
    stop_token_ids,
)
from worker.checkpoint.plan import ImageSetup
from worker.checkpoint.prompt import IMAGE_MARKER, PLACEHOLDER, PreparedPrompt
from worker.checkpoint.templates import ChatTemplate
from worker.checkpoint.tokens import LoadedTokenizer
from worker.vision import anyres
from worker.vision.clip import ClipProcessor, default_mode
from worker.vision.tiles import ImageView

_IMAGE_START, _IMAGE_END = "<im_start>", "<im_end>"


class LlavaPrompting:
    """Renders with one of LLaVA's templates and tokenises piece by piece around the images.

    Args:
        tokenizer: of the language model.
        template: its messages have text alone.
        image_token_id: the model's placeholder, which lies after the vocabulary.
        setup: how images reach the encoder.
    """

    def __init__(
        self,
        tokenizer: LoadedTokenizer,
        template: ChatTemplate,
        *,
        image_token_id: int,
        setup: ImageSetup,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = require_text_template(tokenizer.tokenizer, template)
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
        template: ChatTemplate | None = None,
    ) -> PreparedPrompt:
        """See `Prompting.prepare`."""
        template = template or self._template
        text = render_conversation(self._tokenizer.tokenizer, template, messages, images)
        return self._assemble(text, images, mode, template)

    def prepare_text(
        self,
        prompt: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode = ImageProcessMode.DEFAULT,
    ) -> PreparedPrompt:
        """See `Prompting.prepare_text`."""
        return self._assemble(mark_images(prompt, images), images, mode, None)

    def image_tokens(self, size: tuple[int, int]) -> int:
        """See `Prompting.image_tokens`. Computed from the size: no pixel is made."""
        width, height = self._processor.reshaped_size(size, self._resolve(ImageProcessMode.DEFAULT))
        return self._setup.num_tokens(width, height)

    def views(self, image: Image.Image, mode: ImageProcessMode) -> ImageView:
        """See `Prompting.views`."""
        processor, setup = self._processor, self._setup
        tiles = tuple(
            processor.picture(processor.pixels(square)) for square in self._squares(image, mode)
        )
        shaped = self._shaped(image, mode)
        tokens = setup.num_tokens(shaped.width, shaped.height)
        if not setup.pinpoints:
            return ImageView(tiles, tokens, grid=(1, 1))
        height, width = anyres.best_grid((shaped.height, shaped.width), setup.pinpoints)
        grid = (height // setup.tile_size, width // setup.tile_size)
        return ImageView(tiles, tokens, grid, overview_index=0)

    def _shaped(self, image: Image.Image, mode: ImageProcessMode) -> Image.Image:
        """An image before it is cut: tiles cover all of it, so that the mode shapes it first."""
        if not self._setup.pinpoints:
            return image
        return self._processor.reshape(image, self._resolve(mode))

    def _squares(self, image: Image.Image, mode: ImageProcessMode) -> list[Image.Image]:
        """The encoder's inputs, before they become numbers."""
        processor, setup = self._processor, self._setup
        mode = self._resolve(mode)
        if setup.pinpoints:
            tiles = anyres.views(self._shaped(image, mode), setup.pinpoints, setup.tile_size)
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
        self,
        text: str,
        images: Sequence[Image.Image],
        mode: ImageProcessMode,
        template: ChatTemplate | None,
    ) -> PreparedPrompt:
        shaped = [self._shaped(image, mode) for image in images]
        counts = [self._setup.num_tokens(image.width, image.height) for image in shaped]
        stops: frozenset[int] = frozenset()
        if template is not None:
            stops = stop_token_ids(
                self._tokenizer.tokenizer, template, num_embeddings=self._image_token_id
            )
        return PreparedPrompt(
            text=text.replace(PLACEHOLDER, IMAGE_MARKER),
            input_ids=tuple(self._ids(text, counts)),
            image_tokens=sum(counts),
            image_token_counts=tuple(counts),
            model_inputs=self._pixels(images, shaped, mode) if images else {},
            stop_strings=template.stop_strings if template else (),
            stop_token_ids=stops,
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
            np.stack([self._processor.pixels(square) for square in self._squares(image, mode)])
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
