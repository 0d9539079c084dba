"""How answers are drawn: the settings of a chat, and what a column has of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from controller.protocol.chat import ImageProcessMode

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1, le=2**31 - 1)]  # -1 and 0: off
MaxTokens = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class Sampling(BaseModel):
    """Everything that decides how an answer is drawn, beside model and messages.

    The default is greedy decoding: the same question gives the same answer, so that a difference
    between two columns is a difference between two checkpoints.
    """

    model_config = ConfigDict(frozen=True)

    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    top_k: TopK | None = None  # None: the checkpoint's own
    max_tokens: MaxTokens | None = 512  # None: as many as fit
    seed: Seed | None = None
    system_prompt: str = Field(default="", max_length=100_000)
    image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT
    chat_template: str = Field(default="", max_length=64)  # a name; empty: the checkpoint's own


class Overrides(BaseModel):
    """What a column has of its own; None takes the chat's setting."""

    model_config = ConfigDict(frozen=True)

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    max_tokens: MaxTokens | None = None
    seed: Seed | None = None
    system_prompt: str | None = Field(default=None, max_length=100_000)
    image_process_mode: ImageProcessMode | None = None
    chat_template: str | None = Field(default=None, max_length=64)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @property
    def given(self) -> dict[str, object]:
        """The settings that differ from the chat's, by name."""
        return {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }

    def over(self, base: Sampling) -> Sampling:
        """The chat's settings with the column's own in their place."""
        return base.model_copy(update=self.given)
