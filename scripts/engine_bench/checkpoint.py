"""A random LLaVA of about 40 million parameters: as much work as a real one of its size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

TOKENIZER = Path(__file__).parents[2] / "worker" / "demo" / "demo-llava"
PATCH, SIDE = 14, 224
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}\n{% endfor %}assistant:"
)


@dataclass(frozen=True, slots=True)
class Size:
    """How wide the two models are (features), how deep (layers), and their attention heads."""

    vision: tuple[int, int, int]
    text: tuple[int, int, int]


SIZES = {
    "full": Size(vision=(384, 6, 6), text=(512, 9, 8)),
    "tiny": Size(vision=(32, 1, 2), text=(32, 1, 2)),
}


def make_checkpoint(folder: Path, size: Size = SIZES["full"]) -> int:
    """Writes it in transformers' form, the same at every call; its number of parameters."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    seen, vision_layers, vision_heads = size.vision
    hidden, text_layers, text_heads = size.text
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=seen,
            intermediate_size=4 * seen,
            num_hidden_layers=vision_layers,
            num_attention_heads=vision_heads,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=hidden * 43 // 16,
            num_hidden_layers=text_layers,
            num_attention_heads=text_heads,
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    # Its score is 0, never the highest: each answer is as long as was asked for, whoever makes it.
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    model.save_pretrained(folder)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    processor.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
