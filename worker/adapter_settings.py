"""Which adapters share the worker's base, at the start and while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from worker.checkpoint.spec import LoadSpec, LoraSpec
from worker.loading_settings import LoadingSettings


class AdapterSettings(LoadingSettings):
    """A checkpoint, and what is served over it under names of their own."""

    lora: tuple[str, ...] = Field(
        default=(),
        json_schema_extra={"repeatable": "NAME=PATH"},
        description="an adapter to serve under a name of its own, over --model-base or a whole "
        "--model-path; may be given several times",
    )
    allow_runtime_lora: bool = Field(
        default=False,
        description="take adapters in and out over HTTP; whoever reaches this worker may then",
    )
    runtime_lora_root: Path | None = Field(
        default=None,
        description="the folder that adapters taken in over HTTP lie below; without it, the one "
        "that holds the base",
    )

    @model_validator(mode="before")
    @classmethod
    def _base_of_adapters(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's
        """With adapters by name, a base that nothing else was named over is what is loaded."""
        if not isinstance(values, Mapping) or values.get("model_path"):
            return values
        if values.get("model_base") and (values.get("lora") or values.get("allow_runtime_lora")):
            values = {**values, "model_path": values["model_base"], "model_base": None}
        return values

    @field_validator("lora", mode="before")
    @classmethod
    def _split_adapters(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("lora")
    @classmethod
    def _have_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = [each.partition("=")[0] for each in value]
        for name, each in zip(names, value, strict=True):
            if not name or not each.partition("=")[2]:
                raise ValueError(f"expected NAME=PATH, such as zh=models/lora-zh, not {each!r}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is the name of two adapters")
        return value

    @model_validator(mode="after")
    def _can_share(self) -> AdapterSettings:
        if (self.lora or self.allow_runtime_lora) and self.merge_lora:
            raise ValueError("--merge-lora leaves no base that --lora could share")
        if self.runtime_lora_root is not None and not self.allow_runtime_lora:
            raise ValueError("--runtime-lora-root says nothing without --allow-runtime-lora")
        return self

    @property
    def shares_base(self) -> bool:
        """Whether several checkpoints lie over one base in memory."""
        return bool(self.lora) or self.allow_runtime_lora

    def base_spec(self) -> LoadSpec:
        """What is loaded: with adapters by name, the base alone."""
        spec = self.load_spec()
        if not self.shares_base or spec.model_base is None:
            return spec
        return replace(spec, model_path=spec.model_base, model_base=None, model_name=None)

    def loras(self) -> tuple[LoraSpec, ...]:
        """Adapters that are served by names of their own."""
        named = [LoraSpec(*each.split("=", 1)) for each in self.lora]
        spec = self.load_spec()
        if self.shares_base and spec.model_base is not None:  # --model-path is one of them
            named.insert(0, LoraSpec(spec.served_name, spec.model_path))
        return tuple(named)

    def adapter_root(self) -> Path | None:
        """The folder that adapters may come from while running; None: they may not."""
        if not self.allow_runtime_lora:
            return None
        return self.runtime_lora_root or Path(self.base_spec().model_path).expanduser().parent
