"""What the servers are asked: each question has a picture that no other has."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence

from PIL import Image

# Tokens of answers: a phrase, a sentence, a paragraph, a description of the whole picture.
LENGTHS = (32, 64, 128, 256)
WIDTH, HEIGHT = 160, 120


def question(name: str, index: int, max_tokens: int) -> dict[str, object]:
    """A request without its model.

    Args:
        name: where it is asked; together with the index it makes the picture. A picture that was
            asked about before would be answered from a cache.
        index: decides how long the text is, from 1 to 4 sentences.
        max_tokens: the length of the answer, in tokens.
    """
    picture = io.BytesIO()
    pixels = random.Random(f"{name}/{index}").randbytes(3 * WIDTH * HEIGHT)
    Image.frombytes("RGB", (WIDTH, HEIGHT), pixels).save(picture, "PNG")
    url = "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is in this picture? " * (1 + index % 4)},
    ]
    return {
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": max_tokens,
    }


def mixed(name: str, count: int, lengths: Sequence[int]) -> list[dict[str, object]]:
    """So many, their answers of these lengths in turns."""
    return [question(name, index, lengths[index % len(lengths)]) for index in range(count)]
