"""What the controller takes from a request body to route it, and nothing more.

The body is parsed once, by pydantic's JSON reader (18 us for 224 kB, the size of an ordinary
image request), and is passed on as the bytes that came; whether it is a good request is for the
worker to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic_core import from_json

from controller.protocol.errors import BadRequestError

DEFAULT_ANSWER_TOKENS = 256  # of a request that names no limit
CHARACTERS_PER_TOKEN = 4  # of text, on average
TOKENS_PER_IMAGE = 576  # a CLIP-L/336 tower's
PREFILL_DISCOUNT = 10  # a prompt token costs about a tenth of an answer token
KEY_SAMPLE = 1024  # characters of each end that tell two images or prompts apart


@dataclass(frozen=True, slots=True)
class RoutingHints:
    """What a dispatch policy may know of a request.

    ``tokens`` is its estimated cost in answer tokens. ``affinity_key`` (16 bytes) is equal for the
    turns of a conversation and for questions about the same image.
    """

    model: str
    tokens: int = DEFAULT_ANSWER_TOKENS
    affinity_key: bytes | None = None


def routing_hints(body: bytes) -> RoutingHints:
    """Reads a chat completion request as far as routing needs it.

    Raises:
        BadRequestError: it is not a JSON object, or names no model.
    """
    try:
        request = from_json(body, cache_strings="keys")
    except ValueError as exc:
        raise BadRequestError(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(request, dict):
        raise BadRequestError(
            f"The body must be a JSON object with model and messages, not {_kind(request)}"
        )
    model = request.get("model")
    if not isinstance(model, str) or not model:
        said = f"not {_kind(model)}" if "model" in request else "and it is missing"
        raise BadRequestError(
            f"model must be the name of a model (GET /v1/models lists them), {said}",
            param="model",
        )
    characters, images = 0, 0
    first_text: str | None = None
    first_image: str | None = None
    for role, kind, content in _contents(request.get("messages")):
        if kind == "image":
            images += 1
            first_image = first_image or content
        else:
            characters += len(content)
            if role == "user":  # system prompts are shared by strangers
                first_text = first_text or content
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    answer = limit if isinstance(limit, int) and limit > 0 else DEFAULT_ANSWER_TOKENS
    prompt = characters // CHARACTERS_PER_TOKEN + images * TOKENS_PER_IMAGE
    distinct = first_image or first_text
    return RoutingHints(
        model=model,
        tokens=answer + prompt // PREFILL_DISCOUNT,
        affinity_key=None if distinct is None else _key(distinct),
    )


def _contents(messages: object) -> Iterator[tuple[object, str, str]]:
    """Role, kind and content of each text and image; what is no message is left to the worker."""
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        role, content = message.get("role"), message.get("content")
        if isinstance(content, str):
            yield role, "text", content
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str):
                yield role, "image", url
            elif isinstance(part.get("text"), str):
                yield role, "text", part["text"]


def _key(content: str) -> bytes:
    """A digest of both ends and the length: encoded images differ at their ends."""
    sample = f"{len(content)}:{content[:KEY_SAMPLE]}{content[-KEY_SAMPLE:]}"
    return hashlib.blake2b(sample.encode(errors="replace"), digest_size=16).digest()


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return {dict: "an object", list: "an array", bool: "a boolean"}.get(type(value), "a number")
