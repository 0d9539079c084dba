"""What the servers are asked: each question has a picture that no other has."""

from __future__ import annotations

import base64
import io
import random

from PIL import Image

LENGTHS = (32, 48, 64, 80)
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


def mixed(name: str, count: int, shortening: int = 1) -> list[dict[str, object]]:
    """So many, their answers of `LENGTHS` tokens divided by ``shortening``."""
    return [
        question(name, index, LENGTHS[index % len(LENGTHS)] // shortening) for index in range(count)
    ]
