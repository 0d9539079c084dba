"""What chats and comparisons can be told. LLaVA's flags work as they stand."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from controller.chassis.settings import FlagSettings, split_list
from controller.protocol.chat import ImageProcessMode

# PARAGONE_CONTROLLER_URL, as for `paragone status`; PARAGONE_API_KEY and so on.
ENV_PREFIX = "PARAGONE_"


class AskingSettings(FlagSettings):
    """What is asked, and how answers are made."""

    image_file: tuple[str, ...] = Field(
        default=(),
        json_schema_extra={"repeated": True},
        description="image of the first question: a file, an address or a data: URI; again for "
        "several",
    )
    query: str | None = Field(
        default=None, min_length=1, description="ask this and end, with 0 if it was answered"
    )
    system: str | None = Field(default=None, description="system message")
    conv_mode: str | None = Field(
        default=None,
        description="the conversation's template, by LLaVA's name; without it, the checkpoint's",
    )
    temperature: float = Field(default=0.2, ge=0, le=100, description="0 is greedy")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="without it, the checkpoint's own"
    )
    max_new_tokens: int = Field(default=512, ge=1, description="most tokens of an answer")
    seed: int | None = Field(default=None, description="the same seed, the same answer")
    image_process_mode: ImageProcessMode = Field(
        default=ImageProcessMode.DEFAULT,
        json_schema_extra={"flags": ["--image-aspect-ratio"]},  # in LLaVA's older command lines
        description="how images are brought to the encoder's size",
    )

    @field_validator("image_file", mode="before")
    @classmethod
    def _is_a_list(cls, value: object) -> object:
        # From the environment: a data: URI and many an address have commas of their own.
        return (value,) if isinstance(value, str) else value


class ChatSettings(AskingSettings):
    """What every chat can be told, whoever answers."""

    debug: bool = Field(default=False, description="show each prompt and answer as they are")
    markdown: bool = Field(
        default=True, description="show answers' Markdown, on a terminal; else their plain text"
    )


class FleetSettings(FlagSettings):
    """Which fleet is asked."""

    controller_url: str = Field(
        default="http://127.0.0.1:21001",
        pattern=r"^https?://[^/\s,]+[^\s,]*(,https?://[^/\s,]+[^\s,]*)*$",
        json_schema_extra={"flags": ["--controller"], "expected": "an address: http://HOST:PORT"},
        description="the controller, or any other server that speaks OpenAI's API; several "
        "controllers of one fleet with commas between them: the next is asked where one cannot be "
        "reached",
    )
    api_key: SecretStr | None = Field(
        default=None, description="what it asks of its clients; better in the environment"
    )
    tls_ca: Path | None = Field(
        default=None, description="PEM file of authorities to trust beside the system's"
    )


class RemoteChatSettings(ChatSettings, FleetSettings):
    """Chats with a model of a fleet; with --model-path, with a checkpoint in this process."""

    help_examples: ClassVar[tuple[str, ...]] = (
        'paragone chat --model demo-llava --image-file cat.png --query "What is it?"',
        "paragone chat --model-path ./llava-v1.5-7b --load-4bit --image-file cat.png",
        "paragone chat --model-path ./llava-v1.5-7b --help  # the flags of that",
    )

    model: str | None = Field(
        default=None, description="which model; not needed where there is one"
    )


class CompareSettings(AskingSettings, FleetSettings):
    """Asks several models of a fleet the same, and shows their answers side by side."""

    help_examples: ClassVar[tuple[str, ...]] = (
        'paragone compare --models a,b --image-file cat.png --query "What is it?"',
        'paragone compare --query "What are you?" --json',
    )

    models: tuple[str, ...] = Field(
        default=(), description="which, with commas between; without it, all that can answer"
    )
    query: str | None = Field(
        default=None, min_length=1, description="the question; without it, standard input is"
    )
    as_json: bool = Field(
        default=False, json_schema_extra={"flags": ["--json"]}, description="print JSON"
    )

    @field_validator("models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        return split_list(value)
