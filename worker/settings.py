"""What a worker can be told. LLaVA's own command lines work as they stand."""

from __future__ import annotations

import logging
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from controller.chassis.remote_images import RemotePolicy, check_hosts
from controller.chassis.settings import ProcessSettings
from worker.adapter_settings import AdapterSettings
from worker.vision.decode import ImageLimits
from worker.vision.policy import ImagePolicy

_log = logging.getLogger(__name__)

ENV_PREFIX = "PARAGONE_WORKER_"


def _http_address(address: str) -> str:
    """An address as the wire has it: with its scheme, without a trailing slash."""
    address = address.strip().rstrip("/")
    scheme, separator, rest = address.partition("://")
    if not separator or scheme not in {"http", "https"} or not rest or " " in rest:
        raise ValueError("expected an address like http://host:port")
    return address


Address = Annotated[str, AfterValidator(_http_address)]


class WorkerSettings(ProcessSettings, AdapterSettings):
    """The worker: loads one checkpoint and answers requests for it."""

    port: int = Field(
        default=21002, ge=0, le=65535, description="port to listen on; 0 picks a free one"
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the model; without it, torch decides"
    )
    pack_weights: bool = Field(
        default=True,
        description="on x86 CPUs, hold the weights of linear layers as oneDNN multiplies them "
        "fastest, in memory of the worker's own; with --no-pack-weights they stay as they were "
        "loaded: mapped, and shared with other workers of the same files",
    )
    cuda_graphs: bool = Field(
        default=True,
        description="on CUDA devices, record decode steps and replay them; not with 8-bit weights; "
        "where recording fails, the log and the model's metadata say so, and steps are launched "
        "kernel by kernel, as with --no-cuda-graphs",
    )
    controller_address: tuple[Address, ...] = Field(
        default=("http://127.0.0.1:21001",),
        json_schema_extra={"flags": ["--controller"]},
        description="where to register; several with commas between them",
    )
    worker_address: Address | None = Field(
        default=None,
        json_schema_extra={"flags": ["--worker"]},
        description="where controllers reach this worker; without it, made of host and port",
    )
    fleet_token: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="what controllers ask workers for; better in the environment than on a command "
        "line, where others on the machine can read it",
    )
    no_register: bool = Field(default=False, description="serve without any controller")
    allow_anonymous_network_access: bool = Field(
        default=False,
        description="say that whoever reaches this worker beyond this machine may send requests, "
        "past the controller's keys; without it that is warned of, and not refused, as LLaVA's "
        "published command lines listen so",
    )
    heartbeat_seconds: float = Field(
        default=1.0, gt=0, le=300, description="how often controllers hear from this worker"
    )
    engine: Literal["batched", "sequential"] = Field(
        default="batched",
        description="batched makes answers together; sequential one after another, which is also "
        "what models get that cannot share a batch",
    )
    limit_model_concurrency: int = Field(
        default=5, ge=1, description="most requests that run at once; the engine may run fewer"
    )
    max_queue: int = Field(
        default=32, ge=0, description="most requests that wait; beyond, 429 with Retry-After"
    )
    kv_cache_memory: int | None = Field(
        default=None,
        ge=1,
        description="bytes for keys and values, of running answers and of prompts that are kept; "
        "without it, a share of the memory that is free once the model is loaded",
    )
    memory_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="how much of the free memory to count with for that, beside other workers on "
        "the same device; a fleet gives each its part",
    )
    prefix_cache_bytes: int | None = Field(
        default=None,
        ge=0,
        description="how many of them may be kept for prompts that begin the same; without it, up "
        "to half; 0 keeps none",
    )
    image_cache_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=0,
        description="what the features of images may take that are kept; 0 keeps none",
    )
    max_body_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, description="largest request body, images included"
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="how long a request's body may take to arrive"
    )
    max_images: int = Field(default=32, ge=0, description="most images of one request")
    max_image_bytes: int = Field(
        default=20 * 1024 * 1024, ge=1024, description="largest image file, before it is decoded"
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=80_000_000,
        description="largest image, by its header, before it is decoded",
    )
    allow_remote_images: tuple[str, ...] = Field(
        default=(),
        description="hosts that images may be fetched from, with commas between: example.org, "
        "*.example.org for all below it, * for any; private addresses never; without it, none",
    )
    remote_image_seconds: float = Field(
        default=10.0, gt=0, description="how long one image may take to fetch, redirects included"
    )
    grace_seconds: int = Field(
        default=30, ge=0, description="how long answers may go on after a stop was asked for"
    )
    stream_interval: int = Field(
        default=1, ge=1, description="LLaVA's flag, without effect there and here: see the log"
    )
    multi_modal: bool = Field(default=False, description="LLaVA's flag: see the log")
    use_flash_attn: bool = Field(default=False, description="LLaVA's flag: see the log")

    @field_validator("controller_address", "allow_remote_images", mode="before")
    @classmethod
    def _split_addresses(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
        return value

    @field_validator("allow_remote_images")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return check_hosts(hosts)

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Self:
        if not self.controller_address and not self.no_register:
            raise ValueError(
                "--controller-address names no controller; say --no-register to serve without one"
            )
        return self

    def image_policy(self) -> ImagePolicy:
        """What images requests may have."""
        return ImagePolicy(
            limits=ImageLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels),
            max_images=self.max_images,
            remote=RemotePolicy(self.allow_remote_images, self.remote_image_seconds),
        )

    def explain_inherited_flags(self) -> None:
        """Says in the log what LLaVA's flags that were given come to here."""
        if self.multi_modal:
            _log.info(
                "--multi-modal is not needed: what a checkpoint can do is read from its files"
            )
        if self.use_flash_attn:
            _log.info(
                "--use-flash-attn changes nothing: torch's scaled_dot_product_attention takes its "
                "flash kernel by itself where device and dtype have one"
            )
        if self.stream_interval != 1:
            _log.info(
                "--stream-interval %d changes nothing: each token is sent when it is made",
                self.stream_interval,
            )
