"""Answers and votes as JSON lines with LLaVA's fields, for those whose scripts read such logs.

One file a day, ``YYYY-MM-DD-conv.json``; a full one is continued in ``YYYY-MM-DD-conv.1.json``,
old ones are deleted. It is off unless a folder is named, and holds no addresses of people.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from webui.answer import Answer, Rating
from webui.conversation import Conversation

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{4}-\d{2}-\d{2})-conv(?:\.\d+)?\.json")
_TYPES = {Rating.UP: "upvote", Rating.DOWN: "downvote", Rating.FLAG: "flag"}
_USER, _ASSISTANT = "USER", "ASSISTANT"


class ConversationLog:
    """Appends lines in a thread of its own: no answer waits for the disk.

    Args:
        folder: where the files are; None: nothing is logged.
        max_bytes: of one file.
        days: how long files are kept.
        clock: Unix seconds.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        max_bytes: int = 100 * 2**20,
        days: int = 90,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._days = days
        self._clock = clock
        self._swept: date | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="conv-log")

    def chat(self, conversation: Conversation, lane: int) -> None:
        """A column's last answer has ended."""
        turn = conversation.turns[-1]
        answer = turn.answers[lane]
        self._write(
            {
                "type": "chat",
                "model": answer.model,
                "start": round(answer.created_at, 4),
                "finish": round(self._clock(), 4),
                "state": _state(conversation, lane, answer),
                "images": [image.digest for each in conversation.turns for image in each.images],
            }
        )

    def feedback(self, conversation: Conversation, lane: int) -> None:
        """A person has rated a column's last answer."""
        answer = conversation.turns[-1].answers[lane]
        if answer.feedback.rating is None:
            return
        self._write(
            {
                "type": _TYPES[answer.feedback.rating],
                "model": answer.model,
                "state": _state(conversation, lane, answer),
                "reasons": list(answer.feedback.reasons),
            }
        )

    def battle(self, conversation: Conversation, winner: str) -> None:
        """A battle was decided; FastChat's types and fields."""
        left, right = conversation.visible
        last = conversation.turns[-1].answers
        self._write(
            {
                "type": {"left": "leftvote", "right": "rightvote", "tie": "tievote"}.get(
                    winner, "bothbad_vote"
                ),
                "models": [conversation.columns[lane].model for lane in (left, right)],
                "states": [_state(conversation, lane, last[lane]) for lane in (left, right)],
            }
        )

    def close(self) -> None:
        """Waits until everything is written."""
        self._executor.shutdown()

    def _write(self, fields: dict[str, Any]) -> None:
        if self._folder is None:
            return
        now = self._clock()
        # LLaVA's readers want the key; whose address it was is not kept here.
        line = json.dumps({"tstamp": round(now, 4), **fields, "ip": ""}, ensure_ascii=False)
        day = datetime.fromtimestamp(now, UTC).date()
        self._executor.submit(self._append, self._folder, line + "\n", day)

    def _append(self, folder: Path, line: str, day: date) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._swept != day:
                _sweep(folder, oldest=day - timedelta(days=self._days))
                self._swept = day
            path = self._file(folder, day, len(line.encode()))
            with path.open("a", encoding="utf-8") as file:
                # Another process may append to the same file; a line is never torn.
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(line)
            path.chmod(0o600)
        except OSError as exc:
            _log.error("the log of conversations in %s cannot be written: %s", folder, exc)

    def _file(self, folder: Path, day: date, num_bytes: int) -> Path:
        number = 0
        while True:
            suffix = f".{number}" if number else ""
            path = folder / f"{day.isoformat()}-conv{suffix}.json"
            if not path.exists() or path.stat().st_size + num_bytes <= self._max_bytes:
                return path
            number += 1


def _sweep(folder: Path, *, oldest: date) -> None:
    for path in folder.glob("*-conv*.json"):
        match = _NAME.fullmatch(path.name)
        if match and date.fromisoformat(match[1]) < oldest:
            path.unlink(missing_ok=True)


def _state(conversation: Conversation, lane: int, answer: Answer) -> dict[str, Any]:
    """As LLaVA's ``Conversation.dict()``: what was said in one column."""
    messages: list[list[str]] = []
    for turn in conversation.turns:
        past = turn.answers.get(lane)
        if past is None:
            continue
        marks = "<image>\n" * len(turn.images)
        messages += [[_USER, marks + turn.text], [_ASSISTANT, past.text]]
    return {
        "system": answer.sampling.system_prompt,
        "roles": [_USER, _ASSISTANT],
        "messages": messages,
        "offset": 0,
        "conv_id": conversation.id,
        "model_name": answer.model,
    }
