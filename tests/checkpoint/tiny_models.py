"""Tiny random vision-language models of Hugging Face's families, each with its own processor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


def llava() -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=hf.CLIPVisionConfig(**ENCODER),
        image_token_index=IMAGE,
        image_seq_length=4,
    )
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SIDE),
        tokenizer("<image>"),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>"),
    )
    return config, processor


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
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessorPil(size=SIDE, image_grid_pinpoints=PINPOINTS),
        tokenizer("<image>", "<video>"),
        hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template("<image>"),
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
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112),
        tokenizer(*QWEN_TOKENS),
        hf.Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    return config, processor


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
    processor = hf.Qwen3VLProcessor(
        hf.Qwen2VLImageProcessorPil(patch_size=16, size=size),
        tokenizer(*QWEN_TOKENS),
        hf.Qwen2VLVideoProcessor(),
        chat_template=QWEN_TEMPLATE,
    )
    return config, processor


def idefics3() -> tuple[Any, Any]:
    config = hf.Idefics3Config(
        text_config=hf.LlamaConfig(**TEXT),
        vision_config=ENCODER | {"patch_size": 7},
        image_token_id=IMAGE,
        scale_factor=2,
    )
    grid = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    processor = hf.Idefics3Processor(
        hf.Idefics3ImageProcessorPil(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
        ),
        tokenizer(
            "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *grid
        ),
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
    processor = hf.PixtralProcessor(
        hf.PixtralImageProcessorPil(size={"longest_edge": 56}, patch_size=14),
        tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        patch_size=14,
        spatial_merge_size=2,
        chat_template=template("[IMG]"),
    )
    return config, processor


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
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessorPil(size=SIDE),
        tokenizer(*named.values(), **named),
        hf.InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>"),
    )
    return config, processor


@dataclass(frozen=True)
class TinyFamily:
    """A family; ``placeholder`` is what a user might type to fool its processor."""

    make: Callable[[], tuple[Any, Any]]
    placeholder: str
    needs_torchvision: bool = False  # transformers' processors of models that also take videos


FAMILIES = {
    "llava": TinyFamily(llava, "<image>"),
    "llava_next": TinyFamily(llava_next, "<image>"),
    "idefics3": TinyFamily(idefics3, "<image>"),
    "gemma3": TinyFamily(gemma3, "<start_of_image>"),
    "llava_onevision": TinyFamily(llava_onevision, "<image>", needs_torchvision=True),
    "qwen2_5_vl": TinyFamily(qwen2_5_vl, "<|image_pad|>", needs_torchvision=True),
    "qwen3_vl": TinyFamily(qwen3_vl, "<|image_pad|>", needs_torchvision=True),
    "mistral3": TinyFamily(mistral3, "[IMG]", needs_torchvision=True),
    "internvl": TinyFamily(internvl, "<IMG_CONTEXT>", needs_torchvision=True),
}
