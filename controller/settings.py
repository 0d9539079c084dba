"""What a controller can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from controller.chassis.network import is_loopback
from controller.chassis.settings import ProcessSettings, split_list
from controller.dispatch import DispatchMethod

ServerAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+[^\s]*$")]

ENV_PREFIX = "PARAGONE_CONTROLLER_"


class ControllerSettings(ProcessSettings):
    """The controller: keeps the list of workers and gives each request to one of them."""

    port: int = Field(
        default=21001, ge=0, le=65535, description="port to listen on; 0 picks a free one"
    )
    dispatch_method: DispatchMethod = Field(
        default=DispatchMethod.LEAST_WORK, description="how a worker is chosen for a request"
    )
    max_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="largest request body, images included"
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="how long a request's body may take to arrive"
    )
    relay_attempts: int = Field(
        default=3, ge=1, le=10, description="workers tried for one request before its first byte"
    )
    max_queue: int = Field(
        default=256,
        ge=0,
        description="most requests for one model that wait here until a worker has room; beyond, "
        "429 with Retry-After",
    )
    queue_seconds: float = Field(
        default=120.0, gt=0, description="how long a request may wait so; then 503"
    )
    request_seconds: float | None = Field(
        default=None,
        gt=0,
        description="the longest that an answer may take, also where a client allows more; "
        "without it, as long as it takes",
    )
    settling_seconds: float = Field(
        # One beat of LLaVA's workers. Ours beat each second, but one that died together with the
        # controller needs several to be there again.
        default=15.0,
        ge=0,
        description="how long after its start a model that no worker has told of yet is a 503 with "
        "Retry-After, as its worker may be coming back; afterwards it is a 404",
    )
    connect_seconds: float = Field(
        default=2.0, gt=0, description="how long a worker may take to accept a connection"
    )
    grace_seconds: int = Field(
        default=30, ge=0, description="how long open answers may go on after a stop was asked for"
    )
    api_keys: Path | None = Field(
        default=None, description="YAML file of the keys that clients need; without it, none"
    )
    fleet_token: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="what workers need to register; better in the environment than on a command "
        "line, where others on the machine can read it",
    )
    external: tuple[ServerAddress, ...] = Field(
        default=(),
        description="OpenAI-compatible servers (vLLM, SGLang, llama.cpp, Ollama) whose models "
        "appear beside ours: what stands before /v1, several with commas between them",
    )
    otlp_endpoint: ServerAddress | None = Field(
        default=None,
        description="where a span for each request goes, as OTLP over HTTP: "
        "http://host:4318/v1/traces; needs paragone[otel]",
    )
    allow_anonymous_network_access: bool = Field(
        default=False,
        description="listen beyond this machine although anybody there can then send requests "
        "and register workers",
    )

    legacy_workers: tuple[str, ...] = Field(
        default=(),
        description="hosts and networks whose LLaVA and FastChat workers may join a fleet that has "
        "a token, which they cannot show; with commas between them",
    )
    cors_origins: tuple[str, ...] = Field(
        default=(),
        description="origins of web pages that may call this API from a browser, with commas "
        "between them",
    )

    @field_validator("external", "legacy_workers", "cors_origins", mode="before")
    @classmethod
    def _split_addresses(cls, value: object) -> object:
        return split_list(value)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not re.fullmatch(r"https?://[^/\s*]+", each):
                raise ValueError("expected an origin as browsers send it: https://host[:port]")
        return value

    @model_validator(mode="after")
    def _stays_on_this_machine(self) -> Self:
        missing = [
            f"--{name.replace('_', '-')}"
            for name in ("api_keys", "fleet_token")
            if getattr(self, name) is None
        ]
        if missing and not self.allow_anonymous_network_access and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} is reachable from other machines, where anybody could send "
                f"requests or register workers: set {' and '.join(missing)}, or say "
                f"--allow-anonymous-network-access if this network is trusted, or listen on "
                f"127.0.0.1"
            )
        return self
