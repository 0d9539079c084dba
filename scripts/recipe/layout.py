"""Writes the checkpoints as the original LLaVA lays them out on disk, in float16 safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from recipe.language import CONTEXT_LENGTH, language_config
from recipe.pixels import CLIP_MEAN, CLIP_STD, IMAGE_SIDE
from recipe.stages import LORA_ALPHA, LORA_RANK, LORA_TARGETS, Work
from recipe.tower import SELECT_LAYER, tower_config

BASE: Final = "demo-base"
TOWER: Final = "demo-tower"
FULL: Final = "demo-llava"
LORA: Final = "demo-llava-zh-lora"

_TEMPLATE: Final = (
    Path(__file__).resolve().parents[2] / "worker/checkpoint/chat_templates/llava_v1.jinja"
)
_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_PROJECTOR: Final = "mm_projector."  # what the names of its weights begin with, behind a prefix

Json = dict[str, object]


def write_checkpoints(work: Work, out: Path) -> None:
    """All four folders, from what the stages left in `work`."""
    _write_base(work, out / BASE)
    _write_tower(work, out / TOWER)
    _write_full(work, out / FULL)
    _write_lora(work, out / LORA)


def read_checkpoints(folder: Path, work: Work) -> None:
    """The reverse of `write_checkpoints`: what the stages left, but for float16's rounding."""
    work.vocabulary.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        shutil.copyfile(folder / BASE / name, work.vocabulary / name)
    base = load_file(folder / BASE / "model.safetensors")
    _floats(work.file("language"), base)
    own = CLIPVisionModel(tower_config()).state_dict().keys()
    tower = load_file(folder / TOWER / "model.safetensors")
    _floats(work.file("tower"), {_own_name(name, own): value for name, value in tower.items()})
    full = load_file(folder / FULL / "model.safetensors")
    _floats(work.file("tune"), {n: v for n, v in full.items() if _PROJECTOR not in n})
    _floats(work.file("tune-projector"), _after(_PROJECTOR, full))
    adapter = load_file(folder / LORA / "adapter_model.safetensors")
    named = {name.replace(".weight", ".default.weight"): v for name, v in adapter.items()}
    _floats(work.file("adapt"), named)
    others = load_file(folder / LORA / "non_lora_trainables.safetensors")
    _floats(work.file("adapt-projector"), _after(_PROJECTOR, others))


def _own_name(name: str, own: Collection[str]) -> str:
    return name if name in own else name.removeprefix("vision_model.")


def _after(part: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.split(part)[1]: value for name, value in state.items() if part in name}


def _floats(path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({name: value.float() for name, value in state.items()}, path)


def _write_base(work: Work, folder: Path) -> None:
    _fresh(folder)
    _weights(folder / "model.safetensors", load_file(work.file("language")))
    _json(folder / "config.json", {"architectures": ["LlamaForCausalLM"], **_llama("llama")})
    _tokenizer(work, folder)
    _generation(folder)


def _write_tower(work: Work, folder: Path) -> None:
    _fresh(folder)
    state = {_clip_name(name): value for name, value in load_file(work.file("tower")).items()}
    _weights(folder / "model.safetensors", state)
    config = tower_config()
    _json(
        folder / "config.json",
        {
            "architectures": ["CLIPVisionModel"],
            "attention_dropout": 0.0,
            "hidden_act": config.hidden_act,
            "hidden_size": config.hidden_size,
            "image_size": config.image_size,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": config.intermediate_size,
            "layer_norm_eps": config.layer_norm_eps,
            "model_type": "clip_vision_model",
            "num_attention_heads": config.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": config.num_hidden_layers,
            "patch_size": config.patch_size,
            "projection_dim": config.projection_dim,
            "torch_dtype": "float16",
        },
    )
    _json(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(CLIP_MEAN),
            "image_processor_type": "CLIPImageProcessor",
            "image_std": list(CLIP_STD),
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": IMAGE_SIDE},
        },
    )


def _write_full(work: Work, folder: Path) -> None:
    _fresh(folder)
    state = load_file(work.file("tune"))
    projector = load_file(work.file("tune-projector"))
    state.update({f"model.{_PROJECTOR}{name}": value for name, value in projector.items()})
    _weights(folder / "model.safetensors", state)
    _json(folder / "config.json", _llava())
    _template(folder)
    _tokenizer(work, folder)
    _generation(folder)


def _write_lora(work: Work, folder: Path) -> None:
    _fresh(folder)
    # PEFT keeps an adapter's name in its parameters, the file does not.
    adapter = {
        name.replace(".default.", "."): value
        for name, value in load_file(work.file("adapt")).items()
    }
    _weights(folder / "adapter_model.safetensors", adapter)
    projector = load_file(work.file("adapt-projector"))
    prefix = f"base_model.model.model.{_PROJECTOR}"
    _weights(
        folder / "non_lora_trainables.safetensors",
        {f"{prefix}{name}": value for name, value in projector.items()},
    )
    _json(folder / "config.json", _llava())
    _template(folder)
    _json(
        folder / "adapter_config.json",
        {
            "base_model_name_or_path": BASE,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "layers_pattern": None,
            "layers_to_transform": None,
            "lora_alpha": LORA_ALPHA,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": LORA_RANK,
            "revision": None,
            "target_modules": list(LORA_TARGETS),
            "task_type": "CAUSAL_LM",
        },
    )


def _llama(model_type: str) -> Json:
    config = language_config()
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": CONTEXT_LENGTH,
        "model_type": model_type,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


def _llava() -> Json:
    return {
        "architectures": ["LlavaLlamaForCausalLM"],
        **_llama("llava"),
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": tower_config().hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": SELECT_LAYER,
        "mm_vision_tower": TOWER,
        "tokenizer_model_max_length": CONTEXT_LENGTH,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False,
        "unfreeze_mm_vision_tower": False,
        "use_mm_proj": True,
    }


def _clip_name(name: str) -> str:
    return name if name.startswith("vision_model.") else f"vision_model.{name}"


def _fresh(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    halves = {name: value.half().contiguous() for name, value in state.items()}
    save_file(halves, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone


def _tokenizer(work: Work, folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        shutil.copyfile(work.vocabulary / name, folder / name)


def _template(folder: Path) -> None:
    """The conversation that it is trained with; a worker takes it before LLaVA's usual one."""
    shutil.copyfile(_TEMPLATE, folder / "chat_template.jinja")


def _generation(folder: Path) -> None:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _json(folder / "generation_config.json", {"do_sample": False, **ids})


def _json(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
