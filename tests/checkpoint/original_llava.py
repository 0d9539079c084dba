"""The original LLaVA's forward pass, stated again: no code of ours, none of transformers' Llava.

Written after the rules of LLaVA's ``mm_utils.py`` (tiles, padding, tokens), ``llava_arch.py``
(splicing, unpadding, newlines) and ``clip_encoder.py``; the language model, the encoder and its
image processor are transformers' own, as they are in LLaVA.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor

IMAGE_INDEX = -200


@dataclass(frozen=True)
class Original:
    """The parts of a model; ``image_newline`` is ``(hidden_size,)``."""

    config: dict[str, Any]
    language_model: Any
    tower: Any
    image_processor: Any
    projector: torch.nn.Module
    image_newline: torch.Tensor
    tokenize: Any  # a piece of a prompt to ids, with <s> where the tokenizer has one
    bos: int | None

    @torch.inference_mode()
    def logits(self, prompt: str, images: list[Image.Image]) -> torch.Tensor:
        """Of every position: ``(positions, vocab_size)``."""
        if self.config.get("mm_use_im_start_end"):
            prompt = prompt.replace("<image>", "<im_start><image><im_end>")
        embedded = self._splice(self._ids(prompt), self._features(images))
        return self.language_model(inputs_embeds=embedded[None]).logits[0]

    @torch.inference_mode()
    def answer(self, prompt: str, images: list[Image.Image], count: int) -> list[int]:
        """Greedy, without a cache: nothing but the forward pass again and again."""
        if self.config.get("mm_use_im_start_end"):
            prompt = prompt.replace("<image>", "<im_start><image><im_end>")
        embedded = self._splice(self._ids(prompt), self._features(images))
        tokens: list[int] = []
        for _ in range(count):
            tokens.append(
                int(self.language_model(inputs_embeds=embedded[None]).logits[0, -1].argmax())
            )
            embedded = torch.cat([embedded, self._embed(tokens[-1:])])
        return tokens

    def _ids(self, prompt: str) -> list[int]:
        chunks = [self.tokenize(chunk) for chunk in prompt.split("<image>")]
        offset = 1 if self.bos is not None and chunks[0][:1] == [self.bos] else 0
        ids = list(chunks[0])
        for chunk in chunks[1:]:
            ids += [IMAGE_INDEX, *chunk[offset:]]
        return ids

    def _splice(self, ids: list[int], features: list[torch.Tensor]) -> torch.Tensor:
        parts, run, left = [], [], list(features)
        for token in ids:
            if token != IMAGE_INDEX:
                run.append(token)
                continue
            parts += [self._embed(run), left.pop(0)]
            run = []
        assert not left
        return torch.cat([*parts, self._embed(run)])

    def _embed(self, ids: list[int]) -> torch.Tensor:
        return self.language_model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long))

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        out = self.tower(pixels, output_hidden_states=True)
        features = out.hidden_states[self.config["mm_vision_select_layer"]]
        if self.config.get("mm_vision_select_feature", "patch") == "patch":
            features = features[:, 1:]
        return self.projector(features)

    def _features(self, images: list[Image.Image]) -> list[torch.Tensor]:
        aspect_ratio = self.config.get("image_aspect_ratio")
        if aspect_ratio == "anyres":
            return [self._merged(image) for image in images]
        if aspect_ratio == "pad":
            grey = tuple(int(channel * 255) for channel in self.image_processor.image_mean)
            images = [expand_to_square(image, grey) for image in images]
        return [self._encode(self._pixels([image]))[0] for image in images]

    def _pixels(self, images: list[Image.Image]) -> torch.Tensor:
        return self.image_processor(images, return_tensors="pt")["pixel_values"]

    def _merged(self, image: Image.Image) -> torch.Tensor:
        """``spatial_unpad``: the overview, then rows of patches, each with a newline."""
        pinpoints = self.config["image_grid_pinpoints"]
        side = self.tower.config.image_size
        resolution = best_resolution(image.size, pinpoints)
        canvas = resize_and_pad(image, resolution)
        tiles = [
            canvas.crop((x, y, x + side, y + side))
            for y in range(0, resolution[1], side)
            for x in range(0, resolution[0], side)
        ]
        overview, *features = self._encode(self._pixels([image.resize((side, side)), *tiles]))
        patches = side // self.tower.config.patch_size
        columns, rows = resolution[0] // side, resolution[1] // side
        # (rows, columns, patches, patches, hidden) to (hidden, height, width)
        grid = torch.stack(features).view(rows, columns, patches, patches, -1)
        grid = grid.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)
        grid = unpad(grid, image.size)
        newline = self.image_newline[:, None, None].expand(*grid.shape[:-1], 1)
        return torch.cat([overview, torch.cat([grid, newline], -1).flatten(1, 2).T])


def expand_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    width, height = image.size
    side = max(width, height)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def best_resolution(size: tuple[int, int], pinpoints: list[list[int]]) -> tuple[int, int]:
    best, most, least = None, 0, math.inf
    for width, height in pinpoints:
        scale = min(width / size[0], height / size[1])
        effective = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        wasted = width * height - effective
        if effective > most or (effective == most and wasted < least):
            best, most, least = (width, height), effective, wasted
    assert best is not None, "the original fails here: the image would have no pixels left"
    return best


def resize_and_pad(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    scale_width, scale_height = target[0] / image.width, target[1] / image.height
    if scale_width < scale_height:
        size = (target[0], min(math.ceil(image.height * scale_width), target[1]))
    else:
        size = (min(math.ceil(image.width * scale_height), target[0]), target[1])
    canvas = Image.new("RGB", target, (0, 0, 0))
    place = ((target[0] - size[0]) // 2, (target[1] - size[1]) // 2)
    canvas.paste(image.resize(size), place)
    return canvas


def unpad(grid: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    height, width = grid.shape[1:]
    if size[0] / size[1] > width / height:
        padding = (height - int(size[1] * (width / size[0]))) // 2
        return grid[:, padding : height - padding]
    padding = (width - int(size[0] * (height / size[1]))) // 2
    return grid[:, :, padding : width - padding]


def legacy_sentencepiece(file: str, specials: dict[str, int], bos: int) -> Any:
    """Llama's "slow" tokenizer: each run of text between special tokens on its own."""
    model = SentencePieceProcessor(model_file=file)
    split = re.compile("(" + "|".join(map(re.escape, specials)) + ")")

    def tokenize(text: str) -> list[int]:
        ids = [bos]
        for part in split.split(text):
            if part in specials:
                ids.append(specials[part])
            elif part:
                ids += model.encode(part)
        return ids

    return tokenize
