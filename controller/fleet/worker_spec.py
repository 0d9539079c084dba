"""What a fleet file may say of a worker: its checkpoint, what it runs on, what it takes on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from controller.fleet.loading import Loading
from controller.fleet.needs import RaySpec
from controller.fleet.process_spec import CONTROLLER_NAME, WEB_NAME, ListeningProcess
from controller.fleet.section import Section
from controller.protocol.fleet import Quantisation
from controller.protocol.naming import name_of_path

_LAST_PORT = 65_535

# What a hub calls a model: owner/name. A folder is written with a leading ".", "/" or "~".
_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+$")

_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_DEVICE = r"^(auto|cpu|mps|cuda(:\d+)?)$"

# What is said of a value that does not match.
PATTERNS = {
    _MODEL_NAME: "letters, digits, dots, - and _",
    _DEVICE: "auto, cpu, cuda, cuda:N or mps",
}


class Limits(Section):
    """What a worker takes on at once."""

    concurrency: int | None = Field(
        default=None, ge=1, description="requests that run at once (--limit-model-concurrency)"
    )
    queue: int | None = Field(
        default=None, ge=0, description="requests that may wait beyond them (--max-queue)"
    )


class WorkerSpec(ListeningProcess):
    """A worker: one checkpoint behind one port."""

    name: str = Field(
        pattern=_MODEL_NAME,
        description="the model's name in the API and on the page; also the process's",
    )
    model_path: str = Field(
        description="the checkpoint: a folder relative to this file (./..., ../...), an absolute "
        "one, or a hub name (owner/name)"
    )
    model_base: str | None = Field(
        default=None, description="the base language model of a LoRA or projector-only checkpoint"
    )
    loras: dict[str, str] = Field(
        default_factory=dict,
        description="adapters over the same base in memory, each a model of its own name: "
        "{zh: ./lora-zh}; with model_base, the base is served too, by its folder's name",
    )
    quantisation: Quantisation = Field(
        default=Quantisation.NONE, description="how the language model's weights are held"
    )
    device: str = Field(
        default="auto",
        pattern=_DEVICE,
        description="what it computes on: auto (a GPU where there is one), cpu, cuda, cuda:N, mps",
    )
    gpus: tuple[int, ...] | None = Field(
        default=None,
        description="the GPUs that it may see, by index (CUDA_VISIBLE_DEVICES); [] for none",
    )
    replicas: int = Field(
        default=1,
        ge=1,
        description="how many of it run under the one name, on this port and those after it; they "
        "share the GPUs out among themselves",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; by default the cores are shared out among the workers",
    )
    limits: Limits = Field(default=Limits(), description="what it takes on at once")
    loading: Loading = Field(default=Loading(), description="how its checkpoint is loaded")
    ray: RaySpec = Field(
        default=RaySpec(), description="what it asks of a Ray cluster (paragone up --on ray)"
    )

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in {CONTROLLER_NAME, WEB_NAME}:
            raise ValueError(f"{name!r} is the name of the {name} process itself; choose another")
        return name

    @field_validator("model_path", "model_base")
    @classmethod
    def _folder_is_resolved(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _resolve(value, info)

    @field_validator("loras")
    @classmethod
    def _adapters_are_resolved(cls, loras: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name in loras:
            if not re.match(_MODEL_NAME, name):
                raise ValueError(f"expected letters, digits, dots, - and _ in a name, not {name!r}")
        return {name: _resolve(path, info) for name, path in loras.items()}

    @field_validator("loading")
    @classmethod
    def _template_is_resolved(cls, loading: Loading, info: ValidationInfo) -> Loading:
        template = loading.chat_template
        if template is None or not template.startswith((".", "/", "~")):  # a name
            return loading
        return loading.model_copy(update={"chat_template": _resolve(template, info)})

    @field_validator("gpus")
    @classmethod
    def _gpus_are_indices(cls, gpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if gpus is not None and (min(gpus, default=0) < 0 or len(set(gpus)) != len(gpus)):
            raise ValueError("expected indices of GPUs, each once: [0, 1]")
        return gpus

    @model_validator(mode="after")
    def _device_is_seen(self) -> Self:
        if self.gpus == () and self.device.startswith("cuda"):
            raise ValueError(
                f"gpus: [] leaves no GPU for device: {self.device}; leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _replicas_can_share(self) -> Self:
        count = len(self.gpus or ())
        if count > self.replicas and count % self.replicas:
            raise ValueError(
                f"replicas: {count} GPUs cannot be shared out evenly among {self.replicas}"
            )
        if self.port + self.replicas - 1 > _LAST_PORT:
            raise ValueError(f"replicas: there are not {self.replicas} ports from {self.port} on")
        return self

    @model_validator(mode="after")
    def _adapters_have_a_base(self) -> Self:
        if self.loras and self.loading.merge_lora:
            raise ValueError("loras: loading.merge_lora leaves no base that they could share")
        return self

    def replica(self, index: int) -> WorkerSpec:
        """One of its replicas, from 0, with its own port and its part of the GPUs."""
        gpus = self.gpus
        if gpus:
            part = max(1, len(gpus) // self.replicas)
            first = index * part % len(gpus)  # fewer GPUs than replicas: some share one
            gpus = gpus[first : first + part]
        update = {"port": self.port + index, "gpus": gpus, "replicas": 1}
        return self.model_copy(update=update)

    @property
    def base_name(self) -> str | None:
        """The name under which it serves its base as well; None where it does not."""
        return name_of_path(self.model_base) if self.loras and self.model_base else None


def _resolve(value: str, info: ValidationInfo) -> str:
    if value.startswith("~"):
        return str(Path(value).expanduser())
    if value.startswith((".", "/")):
        context = info.context if isinstance(info.context, dict) else {}
        folder: Path = context.get("folder", Path.cwd())
        # Links stay as they are: a link to a checkpoint is a name that people chose.
        return os.path.normpath(folder / value)
    if _HUB_NAME.match(value):
        return value
    raise ValueError(f"a folder is written ./{value}, a hub name owner/name")
