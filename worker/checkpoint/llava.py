"""The original LLaVA layout: its config and tensor names, as transformers' Llava has them.

Source of the layout: the LLaVA repository, ``llava/model/llava_arch.py`` and ``builder.py`` of its
multimodal_projector and multimodal_encoder packages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.checkpoint import llava_mpt
from worker.checkpoint.errors import ArchitectureError, FormatError, TowerError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.pinpoints import read_pinpoints
from worker.checkpoint.plan import ImageSetup, LoadPlan
from worker.checkpoint.tower import Tower, find_tower, rename_tower_tensor

# Architecture or model_type of the original code: transformers' language model.
_LANGUAGE_MODELS = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
    "LlavaMptForCausalLM": "mpt",
    "LlavaMPTForCausalLM": "mpt",
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
    "llava_mpt": "mpt",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "mpt": "mpt",
}

# Keys of LLaVA's own that a language model's config does not know.
_OWN_KEYS = re.compile(
    r"mm_.*|.*mm_mlp_adapter.*|.*mm_vision.*|use_mm_proj|image_.*|tokenizer_.*|vision_.*"
    r"|architectures|auto_map|model_type|transformers_version|_name_or_path|torch_dtype|dtype"
    r"|rope_scaling|rope_theta|quantization_config|max_sequence_length|pretraining_tp"
)
_PROJECTOR = re.compile(r"mlp(\d+)x_gelu")
# "anyres_max_9": the tiles' features are made fewer, to those of 9 tiles.
_ANYRES = re.compile(r"anyres(?:_max_(\d+))?")
# Where Llama's vocabulary became this large, its conversations became others.
_LLAMA_3_VOCABULARY = 128_000

# Tensors that older versions of transformers saved although they follow from the config.
_DERIVED = ("rotary_emb.inv_freq", "position_ids")


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config is of the original LLaVA code: ``mm_*`` keys and no ``vision_config``."""
    named = "mm_vision_tower" in config or "mm_projector_type" in config
    return named and "vision_config" not in config


def own_config(plan: LoadPlan) -> Mapping[str, Any]:
    """The original config: the checkpoint's, or for an adapter without one, its base's."""
    if is_original(plan.folder.config) or plan.base is None:
        return plan.folder.config
    return plan.base.config


def language_model_type(config: Mapping[str, Any]) -> str:
    """Transformers' model type of the language model inside.

    Raises:
        ArchitectureError: it is one that is not mapped.
    """
    architectures = [str(name) for name in config.get("architectures") or []]
    names = [*architectures, str(config.get("model_type", ""))]
    for name in names:
        if name in _LANGUAGE_MODELS:
            return _LANGUAGE_MODELS[name]
    named = next((name for name in names if name), "nothing")
    raise ArchitectureError(
        f"an original LLaVA checkpoint over {named} cannot be loaded; known are "
        f"{', '.join(key for key in _LANGUAGE_MODELS if key.startswith('Llava'))}"
    )


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own config, with ``model_type``, in transformers 5's terms."""
    model_type = language_model_type(config)
    if model_type == "mpt":
        return llava_mpt.language_config(config) | {"model_type": model_type}
    kept = {key: value for key, value in config.items() if not _OWN_KEYS.fullmatch(key)}
    return kept | {"model_type": model_type} | rope_parameters(config)


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings of an older config as transformers 5 wants them."""
    if "rope_parameters" in config or not {"rope_scaling", "rope_theta"} & set(config):
        return {}
    scaling = dict(config.get("rope_scaling") or {})
    rope_type = scaling.pop("type", None) or scaling.pop("rope_type", None) or "default"
    theta = config.get("rope_theta") or 10000.0
    return {"rope_parameters": {**scaling, "rope_type": rope_type, "rope_theta": theta}}


def projector_depth(config: Mapping[str, Any]) -> int:
    """How many linear layers the projector has; LLaVA v1 had one and did not say so.

    Raises:
        ArchitectureError: it is of another kind.
    """
    kind = str(config.get("mm_projector_type", "linear"))
    if kind == "linear":
        return 1
    match = _PROJECTOR.fullmatch(kind)
    if match is None:
        raise ArchitectureError(
            f"mm_projector_type {kind!r} is not known; known are linear and mlpNx_gelu"
        )
    return int(match[1])


def find_own_tower(config: Mapping[str, Any], homes: list[Path]) -> Tower:
    """The tower that the config names (``mm_vision_tower``, in v0 ``vision_tower``)."""
    name = config.get("mm_vision_tower") or config.get("vision_tower")
    if not name:
        raise FormatError(f"{homes[0]}/config.json names no mm_vision_tower")
    if config.get("s2"):
        raise ArchitectureError(
            f"{homes[0]} looks at images in several scales (s2, s2_scales "
            f"{config.get('s2_scales')!r}): transformers has no such vision tower, and neither has "
            "this server; serve the checkpoint of the same size without S2"
        )
    return find_tower(str(name), homes)


def image_setup(config: Mapping[str, Any], tower: Tower) -> ImageSetup:
    """How images reach the encoder.

    Raises:
        TowerError: the tower is not the one that the projector was trained on.
        ArchitectureError: tiles are merged in a way that transformers does not have.
    """
    vision = tower.config
    hidden = config.get("mm_hidden_size")
    if hidden is not None and int(hidden) != int(vision["hidden_size"]):
        raise TowerError(
            f"the tower at {tower.folder.path} has features of {vision['hidden_size']} numbers, "
            f"the checkpoint's projector takes {hidden}: it is another tower"
        )
    tile, patch = int(vision["image_size"]), int(vision["patch_size"])
    keeps_class = select_strategy(config, tower) == "full" and tower.has_class_token
    aspect_ratio = str(config.get("image_aspect_ratio") or "square")
    pinpoints: tuple[tuple[int, int], ...] = ()
    limit = _ANYRES.fullmatch(aspect_ratio)
    if limit is not None:
        merge = str(config.get("mm_patch_merge_type", "flat"))
        if merge != "spatial_unpad":
            raise ArchitectureError(
                f"mm_patch_merge_type {merge!r} is not supported; known is spatial_unpad"
            )
        # The original lists (width, height), transformers (height, width). The order decides ties.
        pinpoints = tuple((h, w) for w, h in read_pinpoints(config, tile))
    elif aspect_ratio not in {"pad", "square"}:
        raise ArchitectureError(
            f"image_aspect_ratio {aspect_ratio!r} is not supported; known are square, pad, "
            "anyres and anyres_max_N"
        )
    return ImageSetup(
        preprocessor=tower.preprocessor,
        aspect_ratio=aspect_ratio,
        tile_size=tile,
        patch_size=patch,
        tokens_per_tile=(tile // patch) ** 2 + keeps_class,
        pinpoints=pinpoints,
        max_tiles=int(limit[1]) if limit is not None and limit[1] else None,
        wraps_in_start_end=bool(config.get("mm_use_im_start_end", False)),
    )


def select_strategy(config: Mapping[str, Any], tower: Tower) -> str:
    """Transformers' name for which features are used: "default" drops the class token."""
    feature = str(config.get("mm_vision_select_feature", "patch"))
    if feature not in {"patch", "cls_patch"}:
        raise ArchitectureError(
            f"mm_vision_select_feature {feature!r} is not known; known are patch and cls_patch"
        )
    return "default" if feature == "patch" and tower.has_class_token else "full"


def llava_config(config: Mapping[str, Any], tower: Tower) -> dict[str, Any]:
    """Transformers' ``LlavaConfig`` or ``LlavaNextConfig`` as a dictionary.

    The image placeholder gets the first id after the vocabulary. No text has that id, so that a
    typed ``<image>`` can never be taken for one.
    """
    setup = image_setup(config, tower)
    text = language_config(config)
    if text.get("vocab_size") is None:
        raise FormatError("the config.json of an original LLaVA checkpoint lacks vocab_size")
    select_layer = config.get("mm_vision_select_layer")
    built: dict[str, Any] = {
        "model_type": _model_type(setup),
        "text_config": text,
        "vision_config": dict(tower.config),
        "image_token_index": int(text["vocab_size"]),
        "image_seq_length": setup.tokens_per_tile,
        # A single linear layer is followed by nothing; see `projector.py`.
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -2 if select_layer is None else int(select_layer),
        "vision_feature_select_strategy": select_strategy(config, tower),
        "tie_word_embeddings": bool(text.get("tie_word_embeddings", False)),
    }
    if setup.pinpoints:
        built["image_grid_pinpoints"] = [list(pair) for pair in setup.pinpoints]
    if setup.max_tiles is not None:
        built["vision_aspect_ratio"] = setup.aspect_ratio
        built["video_token_index"] = int(text["vocab_size"]) + 1  # as little a text's token
    return built


def _model_type(setup: ImageSetup) -> str:
    """Transformers' name of the class that merges tiles as the checkpoint was trained."""
    if setup.max_tiles is not None:
        return "llava_onevision"
    return "llava_next" if setup.pinpoints else "llava"


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens that prompt and answer may have together."""
    keys = ("max_sequence_length", "max_position_embeddings", "max_seq_len")
    value = next((config[key] for key in keys if config.get(key)), None)
    return int(value) if value else None


def renamer(depth: int) -> Callable[[str], str | None]:
    """Maps tensor names of an original checkpoint, whole or in part, to transformers' Llava.

    Args:
        depth: `projector_depth`; two layers are ``linear_1`` and ``linear_2``, others keep numbers.
    """

    def rename(name: str) -> str | None:
        if name.endswith(_DERIVED):
            return None
        bare = _without_prefixes(name).removeprefix("transformer.")  # MPT's is called so
        if bare.startswith("mm_projector."):
            return _rename_projector(bare.removeprefix("mm_projector."), depth)
        if bare.startswith("vision_tower."):
            return rename_tower_tensor(
                bare.removeprefix("vision_tower.").removeprefix("vision_tower.")
            )
        if bare == "image_newline":
            return "model.image_newline"
        if bare.startswith("lm_head."):
            return bare
        return f"model.language_model.{bare}"

    return rename


def _without_prefixes(name: str) -> str:
    # PEFT and the trainer each put their prefix before the model's own names.
    bare = name.removeprefix("base_model.model.")
    while bare.startswith("model.model."):
        bare = bare.removeprefix("model.")
    return bare.removeprefix("model.")


def original_name(name: str) -> str:
    """A tensor of any of a checkpoint's files as the original code's whole model calls it."""
    bare = _without_prefixes(name)
    return bare if bare.startswith(("lm_head.", "transformer.")) else f"model.{bare}"


def architecture(config: Mapping[str, Any]) -> str:
    """The original code's class for a config that names none, as those of adapters."""
    kind = language_model_type(config)
    return next(name for name, known in _LANGUAGE_MODELS.items() if known == kind)


def _rename_projector(inner: str, depth: int) -> str:
    if depth == 2:
        index, _, kind = inner.partition(".")
        # The activation between them is number 1.
        layer = {"0": "linear_1", "2": "linear_2"}.get(index, index)
        return f"model.multi_modal_projector.{layer}.{kind}"
    return f"model.multi_modal_projector.{inner if depth > 1 else f'0.{inner}'}"


def module_names(name: str) -> tuple[str, ...]:
    """A module of an original model (``model.layers.0...``) as Llava calls it."""
    if name.startswith("model.layers.") or name in {"model.embed_tokens", "model.norm"}:
        return (f"model.language_model.{name.removeprefix('model.')}",)
    if name.startswith("transformer."):
        return (f"model.language_model.{name.removeprefix('transformer.')}",)
    return (name,)


def template_name(config: Mapping[str, Any]) -> str:
    """The chat template, by name, that models of this kind were trained with."""
    language_model = language_model_type(config)
    if language_model == "llama" and int(config.get("vocab_size") or 0) >= _LLAMA_3_VOCABULARY:
        return "llava_llama_3"
    return {
        "llama": "vicuna_v1",
        "mistral": "mistral_instruct",
        "qwen2": "qwen_1_5",
        "mpt": "mpt",
    }[language_model]


def trained_tower(config: Mapping[str, Any]) -> bool:
    """Whether the vision tower was trained with the rest, so that the checkpoint holds its own."""
    return bool(config.get("unfreeze_mm_vision_tower", False))


def needs_base(folder: CheckpointFolder) -> bool:
    """Whether the folder has a projector or an adapter and no language model."""
    return not folder.weight_files()
