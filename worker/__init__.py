"""The data plane: one base model, one engine, many streams; and `ChatBot`, for notebooks.

``from worker import ChatBot`` loads it on use: importing this package itself imports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.chatbot import ChatBot, LLaVAChatBot

__all__ = ["ChatBot", "LLaVAChatBot"]


def __getattr__(name: str) -> type[ChatBot]:
    """`ChatBot` and its other name, where they are asked for."""
    if name in __all__:
        from worker import chatbot  # noqa: PLC0415 - see above

        return chatbot.ChatBot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
