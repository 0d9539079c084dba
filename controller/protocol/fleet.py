"""What workers tell a controller: registration, heartbeats, drain; and what they are.

A worker holds a lease. It registers (idempotent), renews by heartbeat, ends by drain. Every
message carries the worker's whole status, so that a restarted controller knows all after one.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, SecretStr

from controller.protocol.message import Message


class WorkerState(StrEnum):
    """Where a worker is in its life."""

    LOADING = "loading"  # listens and beats; its checkpoint is not ready yet
    READY = "ready"  # takes requests
    DRAINING = "draining"  # finishes what it has, takes nothing new
    FAILED = "failed"  # loading failed, or the device is lost; `detail` says why


class Quantisation(StrEnum):
    """How the language model's weights are held."""

    NONE = "none"
    INT8 = "8bit"
    NF4 = "4bit"


class ModelFacts(Message):
    """What a checkpoint's files say of it, before any weight is read; `paragone inspect` shows it.

    Sizes of images are written "1024x768", width first, in pixels.
    """

    language_model: str  # transformers' model type
    vision_tower: str | None = None  # transformers' model type; None for text alone
    projector: str | None = None  # LLaVA's name ("mlp2x_gelu"), or transformers' class
    template: str | None = None  # where the chat template comes from
    sample_prompt: str | None = None  # the prompt of a first question, with an image if it sees
    parameters_by_part: dict[str, int] = Field(default_factory=dict)
    image_tokens: dict[str, int] = Field(default_factory=dict)  # by size
    context_bytes: int | None = None  # keys and values of a whole context of one answer
    # In memory, by how it may be held: "bfloat16", "8bit", ...
    weight_bytes: dict[str, int] = Field(default_factory=dict)
    base_revision: str | None = None
    devices: list[str] = Field(default_factory=list)  # that hold a part of it


class ModelCard(Message):
    """What a model name stands for: the facts behind ``/v1/models`` metadata."""

    name: str = Field(min_length=1)
    base: str | None = None  # base language model, where the checkpoint needs one
    adapter: str | None = None  # unmerged LoRA, where there is one
    quantisation: Quantisation = Quantisation.NONE
    dtype: str | None = None
    architecture: str | None = None
    format: str | None = None  # what was found on disk, e.g. "llava", "llava-lora"
    context_length: int | None = None  # tokens, prompt and answer together
    max_images: int | None = None  # a request; None: as many as fit
    image_tokens: int | None = None  # of a square image
    parameters: int | None = None
    weight_bytes: int | None = None
    revision: str | None = None
    facts: ModelFacts | None = None
    engine: str | None = None  # "batched", or "sequential": one answer after another
    engine_reason: str | None = None  # why it is sequential, where the model leaves no choice
    # "on": decode steps are recorded and replayed; "off: ..." says why not; None without CUDA.
    cuda_graphs: str | None = None

    @property
    def shown_weights(self) -> str:
        """How the weights are held, as tables show it: the quantisation, or else the dtype."""
        is_full = self.quantisation is Quantisation.NONE
        held = self.dtype or "full" if is_full else self.quantisation.value
        return f"{held} + LoRA" if self.adapter else held


class LoadProgress(Message):
    """How far loading is."""

    phase: str  # a short English phrase: "reading config", "language model", "vision tower"
    fraction: float = Field(default=0.0, ge=0, le=1)
    bytes_done: int | None = None
    bytes_total: int | None = None


class WorkerLoad(Message):
    """How busy a worker is."""

    running: int = Field(default=0, ge=0)
    waiting: int = Field(default=0, ge=0)
    capacity: int = Field(default=1, ge=1)  # requests that it runs at once
    # Finite and not negative, as policies divide by it; zero counts as not measured.
    tokens_per_second: float | None = Field(
        default=None, ge=0, allow_inf_nan=False
    )  # of recent answers, all streams together
    memory_bytes: int | None = None  # resident set of the process
    device_memory_bytes: int | None = None
    # None where the worker has no such thing, or does not say.
    kv_use: float | None = Field(default=None, ge=0, le=1)  # of the room for keys and values
    # Of the prompts' tokens, since the start.
    cache_hit_rate: float | None = Field(default=None, ge=0, le=1)
    uptime_seconds: float | None = Field(default=None, ge=0)


class WorkerStatus(Message):
    """A worker's whole state, as of now."""

    state: WorkerState
    models: list[ModelCard]
    load: WorkerLoad = WorkerLoad()
    progress: LoadProgress | None = None  # while loading
    detail: str | None = None  # why it failed


class RegisterRequest(Message):
    """``POST /fleet/register`` and, with the same content, ``POST /fleet/heartbeat``.

    ``worker_id`` is new for each process, so that a restarted worker at the same address is told
    from the one it replaces. ``address`` is where the controller reaches it, without a trailing
    slash. The lease that the controller grants is a multiple of ``heartbeat_seconds``.
    """

    # It travels in the header x-worker-id and in logs, so it holds nothing that breaks them.
    worker_id: str = Field(pattern=r"^[A-Za-z0-9_.:\-]{1,128}$")
    address: str = Field(pattern=r"^https?://[^/\s]+[^\s]*$")
    heartbeat_seconds: float = Field(gt=0, le=300)
    version: str
    status: WorkerStatus


class LeaseReply(Message):
    """The answer to a registration or a heartbeat.

    ``known`` is false for a heartbeat of a worker that the controller had not (or no longer) on
    its list; the same call has put it there, so that nothing more has to be done.
    """

    known: bool
    lease_seconds: float


class DrainRequest(Message):
    """``POST /fleet/drain``: route nothing more to this worker; forget it when it goes."""

    worker_id: str


class DrainReply(Message):
    """The answer to a drain: ``known`` is whether the worker was on the list."""

    known: bool


class ExternalRequest(Message):
    """``POST /fleet/external``: an OpenAI-compatible server that knows nothing of this fleet.

    It is asked for its models now and again, and its models appear beside ours. ``address`` is
    what stands before ``/v1``. The key is sent to it with each request and shown to nobody.
    """

    address: str = Field(pattern=r"^https?://[^/\s]+[^\s]*$")
    api_key: SecretStr | None = None


class ExternalReply(Message):
    """The answer: what the server is called here (``/fleet/drain`` takes it), and its models."""

    worker_id: str
    models: list[str]


class WorkerView(Message):
    """A worker as ``GET /fleet/workers`` shows it."""

    worker_id: str
    address: str
    version: str
    status: WorkerStatus
    heartbeat_age_seconds: float
    lease_seconds: float
    in_flight: int  # requests that this controller has with it now
    suspect: bool  # failed lately; avoided while others can serve

    @property
    def shown_state(self) -> str:
        """Its state in words, as tables show it."""
        state, progress = self.status.state, self.status.progress
        if state is WorkerState.LOADING and progress is not None:
            return f"loading {progress.fraction:.0%}"
        if state is WorkerState.FAILED and self.status.detail:
            return f"failed: {self.status.detail}"
        return f"{state.value} (suspect)" if self.suspect else state.value


class FleetView(Message):
    """``GET /fleet/workers``."""

    workers: list[WorkerView]


class ModelMetadata(Message):
    """Our extension of a ``/v1/models`` entry: the model's card and who serves it."""

    state: WorkerState
    worker_count: int
    card: ModelCard
    # By their names in the header `Via`: the controllers that a request passes, this one first.
    via: tuple[str, ...] | None = None


class ModelEntry(Message):
    """One entry of ``GET /v1/models``."""

    id: str
    object: str = "model"
    created: int  # Unix seconds: when a worker of it first registered
    owned_by: str = "paragone"
    metadata: ModelMetadata


class ModelList(Message):
    """``GET /v1/models``: the models that can answer now."""

    object: str = "list"
    data: list[ModelEntry]
