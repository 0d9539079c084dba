"""Where conversations are kept."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from webui.conversation import Conversation


class ConversationStore(Protocol):
    """Keeps conversations by id.

    While a conversation is in use, the same id gives the same object: a stream writes into it
    and a second view of it reads along.
    """

    async def get(self, conversation_id: str) -> Conversation | None:
        """The conversation, or None if there is none of this id (any more)."""
        ...

    async def put(self, conversation: Conversation) -> None:
        """Keeps a new conversation, or notes that a known one has changed."""
        ...


class MemoryStore:
    """Conversations in this process's memory; the one unused for longest makes room.

    Args:
        capacity: conversations kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()

    async def get(self, conversation_id: str) -> Conversation | None:
        """The conversation, which counts as used now; None if it is not kept."""
        conversation = self._conversations.get(conversation_id)
        if conversation is not None:
            self._conversations.move_to_end(conversation_id)
        return conversation

    async def put(self, conversation: Conversation) -> None:
        """Keeps it, at the price of the one unused for longest."""
        self._conversations[conversation.id] = conversation
        self._conversations.move_to_end(conversation.id)
        while len(self._conversations) > self._capacity:
            self._conversations.popitem(last=False)
