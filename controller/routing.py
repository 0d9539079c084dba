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
MOST_ANSWER_TOKENS = 4096  # of one that names a huge one and means "as many as fit"
MOST_SECONDS = 1e6  # of a timeout that means anything
CHARACTERS_PER_TOKEN = 4  # of text, on average
TOKENS_PER_IMAGE = 576  # a CLIP-L/336 tower's
PREFILL_DISCOUNT = 10  # a prompt token costs about a tenth of an answer token
KEY_SAMPLE = 1024  # characters of each end that tell two images or prompts apart

# Each value costs time in which nothing else runs here, and memory: a body of 60 MB can hold twenty
# million, which took 10 s and 1.6 GiB. So larger bodies are counted first.
COUNTED_FROM_BYTES = 256 * 1024
MOST_COMMAS = 1_000_000  # those of texts and of prompts as token ids are among them
MOST_BRACKETS = 200_000  # arrays and objects, which cost most

_LIMITS = ("max_completion_tokens", "max_tokens", "max_new_tokens")


@dataclass(slots=True)  # frozen ones take four times as long to make
class RoutingHints:
    """What a dispatch policy may know of a request.

    ``tokens`` is its estimated cost in answer tokens. ``distinct`` is a sample of what the turns of
    a conversation, or questions about the same image, have in common.
    """

    model: str
    tokens: int = DEFAULT_ANSWER_TOKENS
    distinct: str | None = None
    stream: bool = False
    timeout_seconds: float | None = None  # what the request itself allows for its answer
    beginning: str = ""  # the text that a legacy answer begins with: the prompt, if it is echoed

    @property
    def affinity_key(self) -> bytes | None:
        """A digest of `distinct`, 16 bytes; None where that is None."""
        if self.distinct is None:
            return None
        return hashlib.blake2b(self.distinct.encode(errors="replace"), digest_size=16).digest()


def routing_hints(body: bytes) -> RoutingHints:
    """Reads a request of any wire as far as routing needs it.

    Raises:
        BadRequestError: it is not a JSON object, names no model, or holds more than can be read.
    """
    if len(body) > COUNTED_FROM_BYTES:
        _check_count(body)
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
    prompt = request.get("prompt")  # of a text completion, or a legacy request with its images
    if isinstance(prompt, str):
        characters += len(prompt)
        pictures = request.get("images")
        if isinstance(pictures, list) and pictures and isinstance(pictures[0], str):
            images, first_image = len(pictures), pictures[0]
    prompt_tokens = characters // CHARACTERS_PER_TOKEN + images * TOKENS_PER_IMAGE
    distinct = first_image or first_text
    timeout = request.get("timeout")
    if not isinstance(timeout, int | float) or not 0 < timeout < MOST_SECONDS:
        timeout = None  # the worker says what is wrong with it
    return RoutingHints(
        model=model,
        tokens=_answer_tokens(request) + prompt_tokens // PREFILL_DISCOUNT,
        distinct=None if distinct is None else _sample(distinct),
        stream=request.get("stream") is True,
        timeout_seconds=timeout,
        beginning=prompt if isinstance(prompt, str) and request.get("echo") is not False else "",
    )


def _check_count(body: bytes) -> None:
    bounds = ((b"[", MOST_BRACKETS), (b"{", MOST_BRACKETS), (b",", MOST_COMMAS))
    if any(_has_more_than(most, mark, body) for mark, most in bounds):
        raise BadRequestError(
            f"The body holds more than {MOST_BRACKETS} arrays or objects, or more than "
            f"{MOST_COMMAS} values, the most that are read here; send a shorter prompt"
        )


def _has_more_than(most: int, mark: bytes, body: bytes) -> bool:
    """Not `bytes.count`, which looks at each byte: encoded images have none of these marks."""
    at = -1
    for _ in range(most + 1):
        at = body.find(mark, at + 1)
        if at < 0:
            return False
    return True


def _answer_tokens(request: dict[str, object]) -> int:
    """How long its answer is likely to become."""
    for name in _LIMITS:
        limit = request.get(name)
        if isinstance(limit, int) and limit > 0:
            return min(limit, MOST_ANSWER_TOKENS)
        if limit:
            break
    return DEFAULT_ANSWER_TOKENS


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


def _sample(content: str) -> str:
    """Both ends and the length: encoded images differ at their ends."""
    return f"{len(content)}:{content[:KEY_SAMPLE]}{content[-KEY_SAMPLE:]}"


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return {dict: "an object", list: "an array", bool: "a boolean"}.get(type(value), "a number")
