"""Where the frames of a legacy stream begin and end, found without decoding them."""

from __future__ import annotations

from controller.framing import EventTooLongError
from controller.protocol.legacy import END

MAX_FRAME_BYTES = 4 * 1024 * 1024  # a frame repeats the prompt and the whole answer so far


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

    def rest(self) -> bytes:
        """Nothing: frames end themselves."""
        return b""
