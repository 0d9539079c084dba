"""What `ChatBot` is told, in transformers' words and the tutorials', to settings and requests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from controller.protocol.chat import ChatCompletionRequest, ChatMessage
from worker.loading_settings import LoadingSettings

_log = logging.getLogger(__name__)

# What transformers and the tutorials call our settings.
_SPELLINGS = {
    "load_in_8_bit": "load_8bit",
    "load_in_4_bit": "load_4bit",
    "llm_int8_threshold": "int8_threshold",
    "torch_dtype": "dtype",
}
# Sampling by transformers' names; the others are OpenAI's and our extensions.
_ASKED_PER_CALL = frozenset(ChatCompletionRequest.model_fields) - {
    "model",
    "messages",
    "stream",
    "stream_options",
    "n",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
}


def chat_request(
    model: str,
    messages: Sequence[ChatMessage],
    *,
    do_sample: bool,
    temperature: float,
    max_new_tokens: int,
    use_cache: bool,
    sampling: Mapping[str, Any],
) -> ChatCompletionRequest:
    """One question by transformers' and OpenAI's names.

    Args:
        model: who is asked.
        messages: the conversation.
        do_sample: False is greedy, whatever the temperature.
        temperature: of sampling.
        max_new_tokens: most tokens of the answer.
        use_cache: of no effect.
        sampling: more fields of a chat completion.

    Raises:
        TypeError: a name that does not exist.
        ValueError: a value that cannot be.
    """
    if not use_cache:
        _log.info("use_cache=False has no effect: what was computed is always kept")
    unknown = sorted(set(sampling) - _ASKED_PER_CALL)
    if unknown:
        raise TypeError(
            f"there is no {unknown[0]!r}; beside those in the signature there are "
            f"{', '.join(sorted(_ASKED_PER_CALL))}"
        )
    try:
        return ChatCompletionRequest(
            model=model,
            messages=list(messages),
            temperature=temperature if do_sample else 0.0,
            max_tokens=max_new_tokens,
            **sampling,
        )
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from exc


def loading_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `LoadingSettings`, from the names that transformers and the tutorials use.

    Raises:
        TypeError: a name that does not exist.
    """
    settings: dict[str, Any] = {}
    for name, value in given.items():
        if name.startswith("bnb_8bit_"):
            # In public tutorials; bitsandbytes has none of them.
            _log.warning("%s is no setting of 8-bit loading anywhere, and is left out", name)
            continue
        ours = _SPELLINGS.get(name, name)
        if ours not in LoadingSettings.model_fields:
            raise TypeError(
                f"there is no setting {name!r}; there are "
                f"{', '.join(sorted(LoadingSettings.model_fields))}"
            )
        # torch.float16 and the like
        settings[ours] = str(value).removeprefix("torch.") if "dtype" in ours else value
    return settings
