"""A random LLaVA in its original format, and the same weights as transformers has them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

DEMO = Path(__file__).parents[2] / "worker" / "demo" / "demo-llava"
PATCH, SIDE = 14, 224


@dataclass(frozen=True, slots=True)
class Shape:
    """How large it is."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    tower_hidden: int
    tower_layers: int
    shard_bytes: int

    def language(self) -> LlamaConfig:
        """The language model's config."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2048,
        )

    def tower(self) -> CLIPVisionConfig:
        """The vision tower's config."""
        return CLIPVisionConfig(
            hidden_size=self.tower_hidden,
            intermediate_size=4 * self.tower_hidden,
            num_hidden_layers=self.tower_layers,
            num_attention_heads=self.tower_hidden // 64,
            image_size=SIDE,
            patch_size=PATCH,
        )


SHAPES = {
    "1b": Shape(2048, 5504, 18, 16, 32000, 768, 12, 500 * 2**20),
    "tiny": Shape(128, 256, 2, 2, 4000, 64, 2, 2**20),
}


def make_checkpoints(folder: Path, shape: Shape) -> int:
    """Writes ``original`` (with its ``tower`` beside it) and ``converted``; bytes of the weights.

    One shard is in memory at a time, so that the pages of the files are what stays.
    """
    torch.manual_seed(0)
    original, converted = folder / "original", folder / "converted"
    for path in (original, folder / "tower", converted):
        path.mkdir(parents=True, exist_ok=True)
    names = _names(shape)
    own = {name: size for name, (size, home) in names.items() if home == "original"}
    tower = {name: size for name, (size, home) in names.items() if home == "tower"}
    shards = {
        "original": _Shards(original, ".bin", shape.shard_bytes),
        "tower": _Shards(folder / "tower", ".safetensors", None),
        "converted": _Shards(converted, ".safetensors", shape.shard_bytes),
    }
    total = 0
    for home, sizes in (("original", own), ("tower", tower)):
        for name, size in sizes.items():
            # Norms of about 1 and small weights: like a model's, and no delta's.
            tensor = torch.randn(size) * 0.02 + (1.0 if len(size) == 1 else 0.0)
            tensor = tensor.to(torch.bfloat16)
            shards[home].add(name, tensor)
            shards["converted"].add(_converted(name), tensor)
            total += tensor.nbytes
    for writer in shards.values():
        writer.finish()
    _write_configs(folder, shape)
    return total


class _Shards:
    """Collects tensors and writes a file whenever it has enough."""

    def __init__(self, folder: Path, suffix: str, limit: int | None) -> None:
        self._folder, self._suffix, self._limit = folder, suffix, limit
        self._stem = "pytorch_model" if suffix == ".bin" else "model"
        self._pending: dict[str, torch.Tensor] = {}
        self._weight_map: dict[str, str] = {}
        self._count = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        self._pending[name] = tensor
        if self._limit and sum(t.nbytes for t in self._pending.values()) >= self._limit:
            self._write()

    def finish(self) -> None:
        if self._pending:
            self._write()
        if self._count > 1 or self._limit:
            index = {"metadata": {}, "weight_map": self._weight_map}
            file = self._folder / f"{self._stem}{self._suffix}.index.json"
            file.write_text(json.dumps(index))

    def _write(self) -> None:
        self._count += 1
        number = f"-{self._count:05d}" if self._limit else ""
        file = self._folder / f"{self._stem}{number}{self._suffix}"
        if self._suffix == ".bin":
            torch.save(self._pending, file)
        else:
            save_file(self._pending, file, metadata={"format": "pt"})
        self._weight_map |= dict.fromkeys(self._pending, file.name)
        self._pending = {}


def _names(shape: Shape) -> dict[str, tuple[torch.Size, str]]:
    """Every tensor of the original files, with its shape and where it is."""
    with torch.device("meta"):
        language = LlamaForCausalLM(shape.language()).state_dict()
        tower = CLIPVisionModel(shape.tower()).state_dict()
    found = {name: (tensor.shape, "original") for name, tensor in language.items()}
    wide, deep = shape.hidden, shape.tower_hidden
    for layer, inputs in (("0", deep), ("2", wide)):
        found[f"model.mm_projector.{layer}.weight"] = (torch.Size([wide, inputs]), "original")
        found[f"model.mm_projector.{layer}.bias"] = (torch.Size([wide]), "original")
    # As CLIP's own folders name them.
    found |= {f"vision_model.{_bare(name)}": (t.shape, "tower") for name, t in tower.items()}
    return found


def _bare(name: str) -> str:
    return name.removeprefix("vision_model.")


def _converted(name: str) -> str:
    if name.startswith("vision_model."):
        return f"model.vision_tower.{_bare(name)}"
    if name.startswith("model.mm_projector."):
        _, _, layer, kind = name.split(".")
        return f"model.multi_modal_projector.linear_{1 if layer == '0' else 2}.{kind}"
    return name if name.startswith("lm_head") else f"model.language_model.{name[len('model.') :]}"


def _write_configs(folder: Path, shape: Shape) -> None:
    language = shape.language()
    config = language.to_dict() | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "mm_vision_tower": "tower",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": shape.tower_hidden,
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
        "tokenizer_model_max_length": 2048,
    }
    (folder / "original" / "config.json").write_text(json.dumps(config))
    shape.tower().save_pretrained(folder / "tower")
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    images.save_pretrained(folder / "tower")
    LlavaConfig(
        text_config=language,
        vision_config=shape.tower(),
        image_token_index=shape.vocabulary,
        image_seq_length=(SIDE // PATCH) ** 2,
        architectures=[LlavaForConditionalGeneration.__name__],
    ).save_pretrained(folder / "converted")
    LlavaProcessor(
        images,
        AutoTokenizer.from_pretrained(DEMO),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder / "converted")
    for file in _tokenizer_files():
        shutil.copy(file, folder / "original" / file.name)


def _tokenizer_files() -> Iterator[Path]:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        yield DEMO / name
