"""How an answer is to be chosen and when it ends: the fields that both OpenAI routes share.

Source of the format: OpenAI's API reference. Of vLLM's extensions it has ``top_k``, ``min_p``,
``repetition_penalty``, ``min_tokens``, ``stop_token_ids`` and ``ignore_eos``, by the same names
with the same meaning; ``timeout`` is our own.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from controller.protocol.message import Message

MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128
TIMEOUT_HEADER = "x-request-timeout"  # seconds from arrival, as the body's `timeout`


def seconds_of(said: str) -> float:
    """What `TIMEOUT_HEADER` says.

    Raises:
        ValueError: it is no number of seconds above 0.
    """
    seconds = float(said)
    if not 0 < seconds < math.inf:
        raise ValueError(said)
    return seconds


Bias = Annotated[float, Field(ge=-100, le=100)]
TokenId = Annotated[int, Field(ge=0)]


class TextFormat(Message):
    """Text as the model likes it."""

    type: Literal["text"] = "text"


class JsonObjectFormat(Message):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"


class JsonSchema(Message):
    """A JSON schema and what it is called; ``strict`` is taken and makes no difference."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    json_schema: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(Message):
    """JSON that a schema allows."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: JsonSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(Message):
    """Options that only streams have."""

    include_usage: bool | None = False


class SamplingFields(Message):
    """Absent sampling values mean the checkpoint's own defaults; null is the same as absent."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int = Field(default=0, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=2**31 - 1)  # -1 and 0: off
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)  # 1: off
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    logit_bias: dict[TokenId, Bias] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    # Seconds from arrival after which an answer that is not complete is an error.
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """OpenAI's schema has null for what a client leaves open, and many clients write it."""
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def token_limit(self) -> int | None:
        """The most tokens the answer may have; None means as many as fit."""
        return self.max_tokens

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, however they were written."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
