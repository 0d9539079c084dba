"""Proves, before a weight is written, that a converted checkpoint is asked as the original is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.errors import BadRequestError
from worker.checkpoint.errors import TokenizerError
from worker.checkpoint.prompt import Prompting

# Wide and tall, so that padding, cropping and tiles all show.
_IMAGES = (Image.linear_gradient("L").resize((90, 40)), Image.radial_gradient("L").resize((30, 70)))
_TOLERANCE = 1e-4  # of a normalised pixel


def require_same_prompts(
    prompting: Prompting, processor: Any, *, image_token_id: int, own_image_token_id: int  # noqa: ANN401
) -> None:  # fmt: skip
    """Asks both for a few conversations and compares token ids and pixels.

    Args:
        prompting: the original's.
        processor: the converted checkpoint's.
        image_token_id: what stands for an image in the converted one's ids.
        own_image_token_id: in the original's.

    Raises:
        TokenizerError: they differ; says where.
    """
    asked = 0
    for messages, images in _conversations():
        try:
            wanted = prompting.prepare(messages, images)
        except BadRequestError:  # not every template takes a system message
            continue
        asked += 1
        made = processor.apply_chat_template(
            _as_parts(messages, images),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ids = made["input_ids"][0].tolist()
        expected = [
            image_token_id if token == own_image_token_id else token for token in wanted.input_ids
        ]
        if ids != expected:
            raise TokenizerError(
                "the converted tokenizer would not give the same prompt, so nothing was written. "
                f"{wanted.text!r} is {expected[: _shown(ids, expected)]}, and would become "
                f"{ids[: _shown(ids, expected)]}"
            )
        for name, tensor in wanted.model_inputs.items():
            if not torch.allclose(tensor.float(), made[name].float(), atol=_TOLERANCE):
                raise TokenizerError(
                    f"the converted processor would not give the same {name}, so nothing was "
                    "written; transformers treats these images in another way"
                )
    if not asked:
        raise TokenizerError("its chat template refuses every conversation, so none was compared")


def _shown(ids: Sequence[int], expected: Sequence[int]) -> int:
    same = next(
        (
            index
            for index, pair in enumerate(zip(ids, expected, strict=False))
            if pair[0] != pair[1]
        ),
        min(len(ids), len(expected)),
    )
    return same + 8


def _conversations() -> Iterator[tuple[list[ChatMessage], list[Image.Image]]]:
    first, second = (image.convert("RGB") for image in _IMAGES)
    image = ImagePart(image_url=ImageUrl(url="data:,"))
    question = ChatMessage(role="user", content=[image, TextPart(text="What is this?")])
    answer = ChatMessage(role="assistant", content="A gradient,\nin grey.")
    later = ChatMessage(role="user", content=[TextPart(text=" And  here? "), image])
    system = ChatMessage(role="system", content="Be brief; répondez en français 你好.")
    yield [question], [first]
    yield [ChatMessage(role="user", content="Hello, you!")], []
    yield [question, answer, later], [first, second]
    yield [system, question], [second]
    both = ChatMessage(role="user", content=[TextPart(text="Compare:"), image, image])
    yield [both, answer, ChatMessage(role="user", content="Why?")], [first, second]


def _as_parts(
    messages: Sequence[ChatMessage], images: Sequence[Image.Image]
) -> list[dict[str, Any]]:
    remaining = iter(images)
    conversation = []
    for message in messages:
        content = message.content or ""
        parts = [TextPart(text=content)] if isinstance(content, str) else content
        conversation.append(
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text}
                    if isinstance(part, TextPart)
                    else {"type": "image", "image": next(remaining)}
                    for part in parts
                ],
            }
        )
    return conversation
