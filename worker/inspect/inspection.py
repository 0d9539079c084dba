"""An inspection: a checkpoint's card, what it needs here, and what is free."""

from __future__ import annotations

from pydantic import Field

from controller.protocol.fleet import ModelCard
from controller.protocol.message import Message
from worker.checkpoint.card import card_of, ways_to_hold
from worker.checkpoint.errors import MemoryShortageError
from worker.checkpoint.kv import context_bytes
from worker.checkpoint.memory import Held, free_memory, require_memory
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.survey import Survey, survey


class HeldMemory(Message):
    """What a model takes where it is held in one way, all devices together, bytes."""

    held: str  # "bfloat16", "8bit", "4bit", ...
    weights: int
    context: int | None  # keys and values of one answer that fills the context
    least: int  # weights, a short context and the work of loading: what must be free
    fits: bool


class DeviceMemory(Message):
    """A device that the model would use."""

    device: str
    free: int  # bytes
    limited_by: str | None = None  # the cgroup whose limit that is, where it is one


class Inspection(Message):
    """What `paragone inspect --json` prints."""

    card: ModelCard
    memory: list[HeldMemory]
    devices: list[DeviceMemory]
    fits: bool = Field(description="whether it would load here as asked")
    shortage: str | None = None  # why not, and what would fit


def inspect(spec: LoadSpec) -> Inspection:
    """Looks at a checkpoint as loading it would, and reads no weight.

    Raises:
        CheckpointError: it would not load, for another reason than memory.
    """
    surveyed = survey(spec)
    shortage = None
    try:
        require_memory(spec, surveyed.placement, surveyed.size, surveyed.bones)
    except MemoryShortageError as error:
        shortage = str(error)
    free = {device: free_memory(device) for device in surveyed.placement.devices}
    return Inspection(
        card=card_of(surveyed),
        memory=[_held(surveyed, name, held) for name, held in ways_to_hold(surveyed).items()],
        devices=[
            DeviceMemory(device=str(device), free=found.num_bytes, limited_by=found.limited_by)
            for device, found in free.items()
        ],
        fits=shortage is None,
        shortage=shortage,
    )


def _held(surveyed: Survey, name: str, held: Held) -> HeldMemory:
    needs = surveyed.size.need(held)
    length = surveyed.plan.context_length
    return HeldMemory(
        held=name,
        weights=sum(need.weights for need in needs.values()),
        context=context_bytes(surveyed.family.config, held.dtype, length) if length else None,
        least=sum(need.total for need in needs.values()),
        fits=all(need.total <= free_memory(device).num_bytes for device, need in needs.items()),
    )
