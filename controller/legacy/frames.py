"""The legacy stream: JSON objects, each with a NUL after it, whose text is cumulative.

Source of the format: LLaVA ``llava/serve/model_worker.py`` and FastChat 0.2.36
``fastchat/serve/model_worker.py``; both read and write it so.
"""

from __future__ import annotations

import json
from enum import IntEnum

from controller.framing import EventTooLongError

GENERATE_STREAM = "/worker_generate_stream"
END = b"\0"
MAX_FRAME_BYTES = 4 * 1024 * 1024  # a frame repeats the prompt and the whole answer so far


class ErrorCode(IntEnum):
    """LLaVA's codes; FastChat's begin at 40001 and 50001. All but 0 end the stream."""

    OK = 0
    WORKER = 1  # the worker could not answer
    NO_WORKER = 2  # the controller knows none for this model
    UNREACHABLE = 3  # the controller could not reach it, or it was lost


def encode_frame(text: str, error_code: int = ErrorCode.OK, **more: object) -> bytes:
    """One frame. ASCII alone, as the legacy programs write it, so that no reader stumbles."""
    return json.dumps({"text": text, "error_code": error_code, **more}).encode() + END


class FrameFramer:
    """Turns pieces of a legacy stream into pieces that end where a frame ends."""

    has_enough = False

    def __init__(self) -> None:
        self._held = b""
        self._has_frames = False

    def feed(self, piece: bytes) -> bytes:
        """The whole frames that ``piece`` completes, as they came; empty if it completes none.

        Raises:
            EventTooLongError: a frame has no end in sight.
        """
        piece = self._held + piece if self._held else piece
        end = piece.rfind(END) + 1
        self._held = piece[end:]
        if len(self._held) > MAX_FRAME_BYTES:
            raise EventTooLongError
        self._has_frames = self._has_frames or end > 0
        return piece[:end]

    @property
    def is_complete(self) -> bool:
        """Whether the stream may end here; the format has no word for its end."""
        return self._has_frames and not self._held

    def are_comments(self, frames: bytes) -> bool:
        """Never: each frame says something."""
        return not frames
