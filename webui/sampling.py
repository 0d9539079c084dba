"""How answers are drawn: the values of the settings panel, checked."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from controller.protocol.chat import ImageProcessMode


class Sampling(BaseModel):
    """Sampling settings of a turn, the same for all its columns.

    The default is greedy decoding: the same question gives the same answer, so that a difference
    between two columns is a difference between two checkpoints.
    """

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=512, ge=1)  # None: as many as fit
    seed: int | None = None
    system_prompt: str = ""
    image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT

    @field_validator("max_tokens", "seed", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value
