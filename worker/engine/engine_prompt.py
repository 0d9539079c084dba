"""A prompt inside an engine: who is asked, and what its images are known by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from controller.protocol.chat import ImageProcessMode
from worker.checkpoint.prompt import PreparedPrompt

if TYPE_CHECKING:
    from worker.checkpoint.load import LoadedCheckpoint
    from worker.engine.checkpoint_model import ServedCheckpoint


@dataclass(frozen=True, slots=True)
class EnginePrompt:
    """A prepared prompt and the checkpoint that it is for.

    ``image_digests`` are of each image's content and preprocessing: equal digests mean equal
    features, in front of the same vision tower, adapter and projector.
    """

    prepared: PreparedPrompt
    served: ServedCheckpoint
    image_digests: tuple[bytes, ...] = ()

    @property
    def checkpoint(self) -> LoadedCheckpoint:
        """What it is for."""
        return self.served.checkpoint

    @property
    def input_ids(self) -> Sequence[int]:
        """The tokens themselves."""
        return self.prepared.input_ids

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, those that stand for images included."""
        return self.prepared.prompt_tokens

    @property
    def image_tokens(self) -> int:
        """Tokens that stand for images."""
        return self.prepared.image_tokens

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What ends the answer besides the request's own stop strings."""
        return self.prepared.stop_strings

    @property
    def stop_token_ids(self) -> Set[int]:
        """Tokens that end the answer besides the model's own."""
        return self.prepared.stop_token_ids


def image_digests(images: Sequence[Image.Image], mode: ImageProcessMode) -> tuple[bytes, ...]:
    """What images are known by: their pixels, their size, and how they are brought to the model."""
    return tuple(_digest(image, mode) for image in images)


def _digest(image: Image.Image, mode: ImageProcessMode) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    hashed.update(f"{image.mode} {image.width}x{image.height} {mode}\n".encode())
    hashed.update(image.tobytes())
    return hashed.digest()
