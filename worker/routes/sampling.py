"""What a request says of sampling, checked and in the engine's words."""

from __future__ import annotations

import json
from collections.abc import Mapping

from controller.protocol.errors import BadRequestError
from controller.protocol.sampling import (
    TIMEOUT_HEADER,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    SamplingFields,
    seconds_of,
)
from worker.engine.protocol import SamplingParams

# OpenAI takes four; each is looked for after every token.
MAX_STOP_STRINGS = 16
# Seconds from arrival, as the body's `timeout`; a proxy can set it without reading the body.


def sampling_params(
    fields: SamplingFields, *, logprobs: int | None, choice: int = 0
) -> SamplingParams:
    """How one choice of a request is sampled.

    Args:
        fields: of the request.
        logprobs: how many of the likeliest tokens are told beside each; None: nothing is.
        choice: which one it is, of those to the same prompt.

    Raises:
        BadRequestError: fields that contradict each other; ``param`` names one of them.
    """
    _require_consistent(fields)
    return SamplingParams(
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        logit_bias=tuple((fields.logit_bias or {}).items()),
        seed=fields.seed,
        choice=choice,
        max_tokens=fields.token_limit,
        min_tokens=fields.min_tokens,
        stop=fields.stop_strings,
        stop_token_ids=frozenset(fields.stop_token_ids or ()),
        ignore_eos=fields.ignore_eos,
        logprobs=logprobs,
        json_schema=_json_schema(fields.response_format),
    )


def timeout_seconds(fields: SamplingFields, headers: Mapping[str, str]) -> float | None:
    """How long the answer may take from the request's arrival: the shorter of field and header.

    Raises:
        BadRequestError: the header is no number of seconds.
    """
    said = headers.get(TIMEOUT_HEADER)
    if said is None:
        return fields.timeout
    try:
        seconds = seconds_of(said)
    except ValueError as exc:
        raise BadRequestError(
            f"{TIMEOUT_HEADER}: should be a number of seconds above 0, not {said!r}",
            param=TIMEOUT_HEADER,
        ) from exc
    return seconds if fields.timeout is None else min(seconds, fields.timeout)


def _require_consistent(fields: SamplingFields) -> None:
    if len(fields.stop_strings) > MAX_STOP_STRINGS:
        raise BadRequestError(f"stop: at most {MAX_STOP_STRINGS} strings", param="stop")
    limit = fields.token_limit
    if limit is not None and fields.min_tokens > limit:
        raise BadRequestError(
            f"min_tokens: {fields.min_tokens} is more than max_tokens, {limit}",
            param="min_tokens",
        )
    if fields.ignore_eos and _json_schema(fields.response_format) is not None:
        raise BadRequestError(
            "ignore_eos: an answer in a response_format is over when its JSON is; leave out "
            "one of the two",
            param="ignore_eos",
        )


def _json_schema(response_format: ResponseFormat | None) -> str | None:
    match response_format:
        case JsonObjectFormat():
            return '{"type": "object"}'
        case JsonSchemaFormat(json_schema=asked):
            # Its order is that of the answer's fields.
            return json.dumps(asked.json_schema)
        case _:
            return None
