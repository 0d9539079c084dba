"""What loading will do, decided from config files and headers before any weight is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from worker.checkpoint import delta
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.headers import TensorHeader, read_headers
from worker.vision import anyres


class Family(StrEnum):
    """Who builds the prompt and the pixels."""

    LLAVA = "llava"  # original LLaVA, run on transformers' Llava and LlavaNext
    NATIVE = "native"  # a vision-language checkpoint with its own transformers processor
    TEXT = "text"  # a language model alone


class Part(StrEnum):
    """A part of a model; also the phase that progress names while it is read."""

    LANGUAGE_MODEL = "language model"
    VISION_TOWER = "vision tower"
    PROJECTOR = "projector"


# What transformers' vision-language models call their encoders and projectors; in its older classes
# there is no "model." around the whole.
TOWERS = (
    "model.vision_tower",
    "model.vision_model",
    "model.high_res_vision_model",
    "model.vision_encoder",
    "model.visual",
    "model.image_tower",
    "model.video_tower",
    "model.audio_tower",
    "vision_tower",
    "vision_model",
    "visual",
)
PROJECTORS = (
    "model.multi_modal_projector",
    "model.mm_projector",
    "model.projector",
    "model.connector",
    "model.aligner",
    "model.merger",
    "model.resampler_model",
    "model.vision_projection",
    "model.vision_adapter",
    "model.embed_vision",
    "model.image_newline",
    "multi_modal_projector",
    "image_to_text_projection",
    "language_projection",
    "qformer",
)


def part_of(name: str) -> Part:
    """The part of a model that a parameter belongs to."""
    if is_within(name, TOWERS):
        return Part.VISION_TOWER
    return Part.PROJECTOR if is_within(name, PROJECTORS) else Part.LANGUAGE_MODEL


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module or a parameter is one of these modules, or a part of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@dataclass(frozen=True, slots=True)
class WeightSource:
    """Files that hold some of the model's tensors.

    ``rename`` turns a name in the files into the model's parameter name, or None for a tensor that
    this model has no use for. Where there is a ``delta_base``, the files hold delta weights: that
    folder's tensors are added to them.
    """

    files: tuple[Path, ...]
    rename: Callable[[str], str | None]
    delta_base: CheckpointFolder | None = None

    def planned(self) -> dict[str, PlannedTensor]:
        """The tensors of the files by parameter name.

        Raises:
            BaseModelError: the files hold a delta over another base.
        """
        headers = self._headers(self.files)
        bases: dict[str, TensorHeader] = {}
        if self.delta_base is not None:
            base_headers = self._headers(self.delta_base.weight_files())
            bases = delta.pair(headers, base_headers, home=self.delta_base.path)
        return {
            name: PlannedTensor(header, part_of(name), bases.get(name))
            for name, header in headers.items()
        }

    def _headers(self, files: tuple[Path, ...]) -> dict[str, TensorHeader]:
        found = {}
        for file in files:
            for header in read_headers(file):
                name = self.rename(header.name)
                if name is not None:
                    found[name] = header
        return found


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor on disk and the part of the model that it belongs to.

    ``base`` is what is to be added to it, where it is a delta.
    """

    header: TensorHeader
    part: Part
    base: TensorHeader | None = None


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """An unmerged adapter.

    ``candidates`` gives the names that a module of the adapter's file may have in the model, the
    likeliest first: the adapter may have been trained on another class, or with older names.
    """

    folder: CheckpointFolder
    candidates: Callable[[str], tuple[str, ...]]

    @property
    def name(self) -> str:
        """The folder's name, which is how the adapter is shown."""
        return self.folder.path.name


@dataclass(frozen=True, slots=True)
class ImageSetup:
    """How original LLaVA brings an image to its encoder.

    Attributes:
        preprocessor: the tower's ``preprocessor_config.json``.
        aspect_ratio: the checkpoint's ``image_aspect_ratio``: "square", "pad", "anyres", or
            "anyres_max_N".
        tile_size: side of the encoder's square input, pixels.
        patch_size: side of one patch, pixels.
        tokens_per_tile: features of one encoder pass.
        pinpoints: grids of anyres as (height, width) pixels; empty without anyres.
        max_tiles: the N of "anyres_max_N": what more tiles tell is made as small as that of N.
        wraps_in_start_end: whether ``<im_start>`` and ``<im_end>`` go around an image.
    """

    preprocessor: Mapping[str, Any]
    aspect_ratio: str
    tile_size: int
    patch_size: int
    tokens_per_tile: int
    pinpoints: tuple[tuple[int, int], ...] = ()
    max_tiles: int | None = None
    wraps_in_start_end: bool = False

    def num_tokens(self, width: int, height: int) -> int:
        """Tokens of an image of this size in pixels."""
        if not self.pinpoints:
            return self.tokens_per_tile
        return anyres.num_tokens(
            (height, width),
            self.pinpoints,
            side=self.tile_size,
            patches=self.tile_size // self.patch_size,
            max_tiles=self.max_tiles,
        )


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything that `load_checkpoint` needs to know, and no weights.

    ``config`` is the transformers config as a dictionary with its ``model_type``; ``architecture``
    names the language model or the model class that the checkpoint asks for.
    """

    format: str
    family: Family
    folder: CheckpointFolder
    architecture: str
    config: Mapping[str, Any]
    sources: tuple[WeightSource, ...]
    tokenizer_folder: CheckpointFolder
    context_length: int | None
    base: CheckpointFolder | None = None
    tower: CheckpointFolder | None = None  # that an original checkpoint names
    adapter: AdapterSource | None = None
    image: ImageSetup | None = None
    template: str | None = None  # one of ours, by name; None: the tokenizer's or processor's own

    def tensors(self) -> dict[str, PlannedTensor]:
        """Every tensor of the model by its parameter name; a later source wins over an earlier."""
        planned: dict[str, PlannedTensor] = {}
        for source in self.sources:
            planned |= source.planned()
        return planned
