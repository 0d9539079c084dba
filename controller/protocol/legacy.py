"""LLaVA's and FastChat's wire: what controllers, workers and clients of theirs say to each other.

Source: LLaVA ``llava/serve/{controller,model_worker}.py`` at its last commit (2024-05), FastChat
0.2.36 ``fastchat/serve/{controller,base_model_worker,model_worker}.py``. A stream is JSON objects,
each with a NUL after it; their text is cumulative, and begins with the prompt unless the request
says ``"echo": false``.
"""

from __future__ import annotations

import json
from enum import IntEnum

from pydantic import Field

from controller.protocol.message import Message

GENERATE_STREAM = "/worker_generate_stream"
END = b"\0"

# What a prompt's place for an image may look like; FastChat's clients write theirs, and would write
# both if their own defect were fixed. LLaVA's is the one that is rendered.
IMAGE_MARKER = "<image>"
FASTCHAT_MARKERS = ("$$<image>$$<image>", "$$<image>$$")


class ErrorCode(IntEnum):
    """LLaVA's codes; FastChat's begin at 40001 and 50001. All but 0 end the stream."""

    OK = 0
    WORKER = 1  # the worker could not answer
    NO_WORKER = 2  # the controller knows none for this model
    UNREACHABLE = 3  # the controller could not reach it, or it was lost


class LegacyStatus(Message):
    """``/worker_get_status``: of a worker, or of a controller's workers together."""

    model_names: list[str]
    speed: float = 1  # of no unit; 1 in every program that is known
    queue_length: int = 0
    # Ours: by model, the controllers that a request passes, as in `fleet.ModelMetadata`.
    via: dict[str, tuple[str, ...]] | None = None


class LegacyRegistration(Message):
    """``/register_worker``. Without a status the controller asks for it."""

    # Fetched, and handed out to clients: an address and nothing behind it.
    worker_name: str = Field(pattern=r"^https?://[^/\s?#@]+/?$")
    check_heart_beat: bool = True
    worker_status: LegacyStatus | None = None
    multimodal: bool | None = None  # FastChat's


class LegacyHeartbeat(Message):
    """``/receive_heart_beat``."""

    worker_name: str
    queue_length: int = 0


class LegacyHeartbeatReply(Message):
    """Its answer; a worker that does not exist registers again."""

    exist: bool


class ModelNames(Message):
    """``/list_models``."""

    models: list[str]


class ModelQuestion(Message):
    """``/get_worker_address``, ``/model_details``, ``/worker_get_conv_template``."""

    model: str


class WorkerAddress(Message):
    """The answer of ``/get_worker_address``; empty where nobody serves the model."""

    address: str


def encode_frame(text: str, error_code: int = ErrorCode.OK, **more: object) -> bytes:
    """One frame. ASCII alone, as the legacy programs write it, so that no reader stumbles."""
    return json.dumps({"text": text, "error_code": int(error_code), **more}).encode() + END
