"""What a browser gets of a battle: its answers as they grow, and who was who after the vote."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from webui.answer import AnswerState
from webui.battle_store import Battle
from webui.conversation import Conversation, Turn
from webui.markdown import rendered
from webui.run import Run

_SECONDS_BETWEEN_EVENTS = 0.1
_PAUSES = 8  # times as long as rendering took, so that battles leave the processor to others
_LEFT, _RIGHT = 0, 1  # lanes


class _Side(NamedTuple):
    """What may be known of an answer before the vote: its text, and whether it goes on."""

    text: str
    state: AnswerState
    is_over: bool

    def shown(self) -> dict[str, str | bool]:
        """For the browser. Takes milliseconds where the text is long."""
        return {"html": rendered(self.text), "state": self.state.value, "over": self.is_over}


def _sides(turn: Turn | None) -> tuple[_Side, ...]:
    answers = [None if turn is None else turn.answers.get(lane) for lane in (_LEFT, _RIGHT)]
    return tuple(
        _Side("", AnswerState.WAITING, True)
        if answer is None
        else _Side(answer.text, answer.state, answer.has_ended)
        for answer in answers
    )


async def events_of(run: Run) -> AsyncGenerator[bytes]:
    """An event each tenth of a second in which something has changed; fewer of long texts."""
    shown: tuple[_Side, ...] | None = None
    pause = _SECONDS_BETWEEN_EVENTS
    while True:
        now, is_over = _sides(run.conversation.turns[-1]), run.is_over
        if now != shown:
            shown = now
            began = time.monotonic()
            written = await _event(now)
            pause = max(_SECONDS_BETWEEN_EVENTS, _PAUSES * (time.monotonic() - began))
            yield written
        if is_over:
            return
        if now == _sides(run.conversation.turns[-1]):  # nothing came while it was sent
            await run.wait_for_change()
        await asyncio.sleep(pause)


async def event_of(turn: Turn | None) -> bytes:
    """An event with a turn as it is; both sides are empty without one."""
    return await _event(_sides(turn))


async def _event(shown: Sequence[_Side]) -> bytes:
    told = await asyncio.to_thread(lambda: [side.shown() for side in shown])
    return f"data: {json.dumps(told, ensure_ascii=False)}\n\n".encode()


def turns(chat: Conversation) -> list[dict[str, object]]:
    """Everything that a tab shows. Takes milliseconds where texts are long."""
    return [
        {
            "text": turn.text,
            "images": [image.digest for image in turn.images],
            "sides": [side.shown() for side in _sides(turn)],
        }
        for turn in chat.turns
    ]


def revealed(battle: Battle) -> dict[str, object]:
    """Who was who; nothing before the vote."""
    if battle.winner is None:
        return {}
    return {
        "winner": battle.winner.value,
        "left": battle.left,
        "right": battle.right,
        "chat": battle.conversation_id,
    }
