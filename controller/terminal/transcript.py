"""A conversation as a file: Markdown for people, JSON as OpenAI's API takes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from controller.protocol.chat import ChatMessage, TextPart


def save(path: Path, model: str, messages: Sequence[ChatMessage]) -> None:
    """Writes a conversation; ``.json`` gets messages with their images, anything else Markdown.

    Raises:
        OSError: it cannot be written; FileExistsError: there is such a file.
    """
    text = _as_json(model, messages) if path.suffix == ".json" else _as_markdown(model, messages)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _as_json(model: str, messages: Sequence[ChatMessage]) -> str:
    said = [message.model_dump(exclude_none=True) for message in messages]
    return json.dumps({"model": model, "messages": said}, indent=2, ensure_ascii=False) + "\n"


def _as_markdown(model: str, messages: Sequence[ChatMessage]) -> str:
    names = {"assistant": model}
    blocks = [f"**{names.get(each.role, each.role)}:** {_text(each)}\n" for each in messages]
    return "\n".join(blocks)


def _text(message: ChatMessage) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    images = sum(not isinstance(part, TextPart) for part in message.content)
    text = "".join(part.text for part in message.content if isinstance(part, TextPart))
    return f"({images} image{'s' * (images > 1)}) {text}"
