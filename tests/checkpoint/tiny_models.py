"""Tiny random vision-language models of Hugging Face's families, each with its own processor."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 320,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 258,
}
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SIDE = {"height": 28, "width": 28}
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
IMAGE = 259  # the first special token after <s>, </s> and <pad>


def tokenizer(*specials: str, **named: str) -> Any:
    """One token a byte, then the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<s>", "</s>", "<pad>", *specials)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=named or None,
    )


def template(image: str) -> str:
    return (
        "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
        "{% if part.type == 'image' %}" + image + "{% else %}{{ part.text }}{% endif %}"
        "{% endfor %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )


@dataclass(frozen=True)
class Parts:
    """A processor in parts, saved as the hub has them: so they are made without torchvision."""

    processor_class: str
    image_processor: Any
    tokenizer: Any
    chat_template: str
    settings: dict[str, Any] = field(default_factory=dict)

    def save_pretrained(self, folder: Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        named = {"processor_class": self.processor_class, **self.settings}
        (folder / "processor_config.json").write_text(json.dumps(named))
        (folder / "chat_template.jinja").write_text(self.chat_template)


def _llava_processor() -> Any:
    return hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SIDE),
        tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )


def llava() -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=hf.CLIPVisionConfig(**ENCODER),
        image_token_index=IMAGE,
        image_seq_length=4,
    )
    return config, _llava_processor()


def llava_next() -> tuple[Any, Any]:
    config = hf.LlavaNextConfig(
        text_config=hf.MistralConfig(**TEXT),
        vision_config=hf.CLIPVisionConfig(**ENCODER),
        image_token_index=IMAGE,
        image_seq_length=4,
        image_grid_pinpoints=PINPOINTS,
    )
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": 28}, crop_size=SIDE, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    return config, processor


def llava_onevision() -> tuple[Any, Any]:
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(**TEXT),
        vision_config=hf.SiglipVisionConfig(**ENCODER),
        image_token_index=IMAGE,
        video_token_index=IMAGE + 1,
        image_grid_pinpoints=PINPOINTS,
    )
    processor = Parts(
        "LlavaOnevisionProcessor",
        hf.LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=PINPOINTS),
        tokenizer("<image>", "<video>"),
        template("<image>"),
        {"num_image_tokens": 4, "vision_feature_select_strategy": "full"},
    )
    return config, processor


QWEN_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": IMAGE + 1,
    "vision_start_token_id": IMAGE + 2,
    "vision_end_token_id": IMAGE + 3,
}
QWEN_ENCODER = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
}
QWEN_TEMPLATE = template("<|vision_start|><|image_pad|><|vision_end|>")


def qwen2_5_vl() -> tuple[Any, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2_5_VLConfig(
        text_config=TEXT | {"rope_parameters": rope},
        vision_config=QWEN_ENCODER
        | {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56},
        **QWEN_IDS,
    )
    return config, Parts(
        "Qwen2_5_VLProcessor",
        hf.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112),
        tokenizer(*QWEN_TOKENS),
        QWEN_TEMPLATE,
    )


def qwen2_vl() -> tuple[Any, Any]:
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    config = hf.Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": rope},
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 14,
        },
        **QWEN_IDS,
    )
    return config, Parts(
        "Qwen2VLProcessor",
        hf.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112),
        tokenizer(*QWEN_TOKENS),
        QWEN_TEMPLATE,
    )


def qwen3_vl() -> tuple[Any, Any]:
    rope = {
        "rope_type": "default",
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
        "rope_theta": 10000.0,
    }
    config = hf.Qwen3VLConfig(
        text_config=TEXT | {"head_dim": 16, "rope_parameters": rope},
        vision_config=QWEN_ENCODER
        | {"patch_size": 16, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        **QWEN_IDS,
    )
    size = {"shortest_edge": 64 * 64, "longest_edge": 128 * 128}
    return config, Parts(
        "Qwen3VLProcessor",
        hf.Qwen2VLImageProcessorPil(patch_size=16, size=size),
        tokenizer(*QWEN_TOKENS),
        QWEN_TEMPLATE,
    )


def idefics3() -> tuple[Any, Any]:
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=ENCODER | {"patch_size": 7},
        image_token_id=IMAGE,
        scale_factor=2,
    )
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
        ),
        tokenizer(*IDEFICS_TOKENS, *GRID_TOKENS),
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    return config, processor


def gemma3() -> tuple[Any, Any]:
    config = hf.Gemma3Config(
        text_config=TEXT | {"head_dim": 16},
        vision_config=ENCODER | {"patch_size": 7},
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=IMAGE + 1,
        eoi_token_index=IMAGE + 2,
    )
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size=SIDE),
        tokenizer(*named.values(), **named),
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    )
    return config, processor


def mistral3() -> tuple[Any, Any]:
    config = hf.Mistral3Config(
        text_config=hf.MistralConfig(**TEXT),
        vision_config=hf.PixtralVisionConfig(**ENCODER | {"image_size": 56, "head_dim": 16}),
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )
    return config, Parts(
        "PixtralProcessor",
        hf.PixtralImageProcessorPil(size={"longest_edge": 56}, patch_size=14),
        tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        template("[IMG]"),
        {"patch_size": 14, "spatial_merge_size": 2},
    )


def internvl() -> tuple[Any, Any]:
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**TEXT),
        vision_config=ENCODER | {"image_size": [28, 28], "patch_size": [7, 7]},
        image_token_id=IMAGE,
    )
    named = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    return config, Parts(
        "InternVLProcessor",
        hf.GotOcr2ImageProcessorPil(size=SIDE),
        tokenizer(*named.values(), **named),
        template("<IMG_CONTEXT>"),
        {"image_seq_length": 4},
    )


IDEFICS_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
GRID_TOKENS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))


def smolvlm() -> tuple[Any, Any]:
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=ENCODER | {"patch_size": 7},
        image_token_id=IMAGE,
        scale_factor=2,
    )
    return config, Parts(
        "SmolVLMProcessor",
        hf.SmolVLMImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
        tokenizer(*IDEFICS_TOKENS, *GRID_TOKENS),
        template("<image>"),
        {"image_seq_len": 4},
    )


def idefics2() -> tuple[Any, Any]:
    config = hf.Idefics2Config(
        text_config=hf.MistralConfig(**TEXT),
        vision_config=ENCODER,
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 4,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 16,
            "num_key_value_heads": 1,
        },
        image_token_id=IMAGE,
    )
    named = {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"}
    processor = hf.Idefics2Processor(
        hf.Idefics2ImageProcessorPil(
            size={"longest_edge": 28, "shortest_edge": 28}, do_image_splitting=False
        ),
        tokenizer(*IDEFICS_TOKENS, **named),
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    return config, processor


def paligemma() -> tuple[Any, Any]:
    config = hf.PaliGemmaConfig(
        text_config=hf.GemmaConfig(**TEXT | {"head_dim": 16, "vocab_size": 1600}),
        vision_config=hf.SiglipVisionConfig(**ENCODER, projection_dim=64, vision_use_head=False),
        image_token_index=IMAGE,
        projection_dim=64,
        hidden_size=64,
    )
    processor = hf.PaliGemmaProcessor(
        hf.SiglipImageProcessorPil(size=SIDE, image_seq_length=4),
        tokenizer("<image>", image_token="<image>"),
        chat_template=template("<image>"),
    )
    return config, processor


def mllama() -> tuple[Any, Any]:
    config = hf.MllamaConfig(
        text_config=TEXT
        | {
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=IMAGE,
    )
    named = {"image_token": "<|image|>"}
    processor = hf.MllamaProcessor(
        hf.MllamaImageProcessorPil(size=SIDE, max_image_tiles=4),
        tokenizer("<|image|>", "<|python_tag|>", **named),
        chat_template=template("<|image|>"),
    )
    return config, processor


def aya_vision() -> tuple[Any, Any]:
    config = hf.AyaVisionConfig(
        text_config=hf.Cohere2Config(**TEXT),
        vision_config=hf.SiglipVisionConfig(**ENCODER | {"patch_size": 7}, vision_use_head=False),
        image_token_index=IMAGE,
    )
    specials = (
        "<|IMG_PATCH|>",
        "<image>",
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "TILE",
        "TILE_GLOBAL",
        "TILE_1",
        "TILE_2",
        "TILE_3",
        "TILE_4",
    )
    processor = hf.AyaVisionProcessor(
        hf.GotOcr2ImageProcessorPil(size=SIDE, max_patches=4),
        tokenizer(*specials),
        patch_size=7,
        img_size=28,
        downsample_factor=2,
        chat_template=template("<image>"),
    )
    return config, processor


def vipllava() -> tuple[Any, Any]:
    config = hf.VipLlavaConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=hf.CLIPVisionConfig(**ENCODER),
        vision_feature_layer=[-2, -1],
        image_token_index=IMAGE,
        image_seq_length=4,
    )
    return config, _llava_processor()


def deepseek_vl() -> tuple[Any, Any]:
    config = hf.DeepseekVLConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=hf.SiglipVisionConfig(**ENCODER, vision_use_head=False),
        image_token_id=IMAGE,
    )
    processor = hf.DeepseekVLProcessor(
        hf.DeepseekVLImageProcessorPil(size=SIDE),
        tokenizer("<image_placeholder>", image_token="<image_placeholder>"),
        num_image_tokens=4,
        chat_template=template("<image_placeholder>"),
    )
    return config, processor


def ovis2() -> tuple[Any, Any]:
    config = hf.Ovis2Config(
        text_config=hf.Qwen2Config(**TEXT),
        vision_config=ENCODER | {"vocab_size": 64, "hidden_stride": 2, "patch_size": 7},
        image_token_id=IMAGE,
        visual_indicator_token_ids=[IMAGE + 1 + number for number in range(5)],
        vocab_size=320,
        hidden_size=64,
    )
    indicators = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    processor = hf.Ovis2Processor(
        hf.Ovis2ImageProcessorPil(size=SIDE, crop_to_patches=False),
        tokenizer("<IMG_ATOM>", *indicators, "<image>"),
        image_seq_length=4,
        chat_template=template("<image>"),
    )
    return config, processor


@dataclass(frozen=True)
class TinyFamily:
    """A family.

    ``placeholder`` is what a user might type to fool its processor; ``needs`` names a package that
    its processor cannot be made without.
    """

    make: Callable[[], tuple[Any, Any]]
    placeholder: str = "<image>"
    needs: str | None = None
    takes_text_alone: bool = True


FAMILIES = {
    "aya_vision": TinyFamily(aya_vision),
    "deepseek_vl": TinyFamily(deepseek_vl, "<image_placeholder>"),
    "gemma3": TinyFamily(gemma3, "<start_of_image>"),
    "idefics2": TinyFamily(idefics2),
    "idefics3": TinyFamily(idefics3),
    "internvl": TinyFamily(internvl, "<IMG_CONTEXT>"),
    "llava": TinyFamily(llava),
    "llava_next": TinyFamily(llava_next),
    "llava_onevision": TinyFamily(llava_onevision),
    "mistral3": TinyFamily(mistral3, "[IMG]", needs="torchvision"),
    "mllama": TinyFamily(mllama, "<|image|>"),
    "ovis2": TinyFamily(ovis2),
    "paligemma": TinyFamily(paligemma, takes_text_alone=False),
    "qwen2_vl": TinyFamily(qwen2_vl, "<|image_pad|>"),
    "qwen2_5_vl": TinyFamily(qwen2_5_vl, "<|image_pad|>"),
    "qwen3_vl": TinyFamily(qwen3_vl, "<|image_pad|>"),
    "smolvlm": TinyFamily(smolvlm, needs="num2words"),
    "vipllava": TinyFamily(vipllava),
}


def save(family: str, folder: Path) -> None:
    """Writes a tiny random checkpoint of a family, with its processor."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = FAMILIES[family].make()
        hf.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        processor.save_pretrained(folder)
