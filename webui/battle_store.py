"""Battles in the store: which two models met, and what a person said of them."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from webui.leaderboard import Vote, Winner
from webui.store import Database

_COLUMNS = (
    "id, conversation_id, person, model_left, model_right, tags, winner, reasons, num_turns, "
    "language, created_at, voted_at"
)


@dataclass(frozen=True, slots=True)
class Battle:
    """Two models that answer the same questions, nobody knows which is which."""

    conversation_id: str
    person: str
    left: str
    right: str
    language: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    tags: tuple[str, ...] = ()
    winner: Winner | None = None
    reasons: tuple[str, ...] = ()
    num_turns: int = 0
    created_at: float = field(default_factory=time.time)  # Unix seconds
    voted_at: float | None = None

    @property
    def vote(self) -> Vote:
        """As the ranking counts it.

        Raises:
            ValueError: there is none yet.
        """
        if self.winner is None:
            raise ValueError("this battle is not decided")
        return Vote(self.left, self.right, self.winner)

    def line(self) -> Mapping[str, object]:
        """As FastChat's files of votes have it; who voted is a pseudonym."""
        winners = {
            Winner.LEFT: "model_a",
            Winner.RIGHT: "model_b",
            Winner.TIE: "tie",
            Winner.BOTH_BAD: "tie (bothbad)",
        }
        return {
            "question_id": self.id,
            "model_a": self.left,
            "model_b": self.right,
            "winner": None if self.winner is None else winners[self.winner],
            "judge": hashlib.sha256(self.person.encode()).hexdigest()[:16],
            "turn": self.num_turns,
            "anony": True,
            "language": self.language,
            "tstamp": self.voted_at,
            "tags": list(self.tags),
            "reasons": list(self.reasons),
        }


class BattleStore:
    """Reads and writes the table of battles.

    Args:
        database: the page's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, battle: Battle) -> None:
        """Keeps a new battle.

        Raises:
            StoreError: it cannot be written.
        """
        row = (
            battle.id,
            battle.conversation_id,
            battle.person,
            battle.left,
            battle.right,
            json.dumps(battle.tags),
            battle.winner,
            json.dumps(battle.reasons),
            battle.num_turns,
            battle.language,
            battle.created_at,
            battle.voted_at,
        )
        marks = ", ".join("?" * len(row))
        await self._database.run(
            lambda connection: connection.execute(
                f"INSERT INTO battle ({_COLUMNS}) VALUES ({marks})",  # noqa: S608  (no input in it)
                row,
            )
        )

    async def get(self, battle_id: str) -> Battle | None:
        """The battle of this id; None if there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        rows = await self._read("id = ?", (battle_id,))
        return rows[0] if rows else None

    async def decide(
        self, battle: Battle, winner: Winner, *, reasons: list[str], tags: list[str], turns: int
    ) -> Battle | None:
        """Keeps a vote. Returns the battle with it, or None if it had one already.

        Raises:
            StoreError: it cannot be written.
        """
        decided = replace(
            battle,
            winner=winner,
            reasons=tuple(reasons),
            tags=tuple(tags),
            num_turns=turns,
            voted_at=time.time(),
        )
        values = (winner, json.dumps(reasons), json.dumps(tags), turns, decided.voted_at, battle.id)
        changed = await self._database.run(
            lambda connection: (
                connection.execute(
                    "UPDATE battle SET winner = ?, reasons = ?, tags = ?, num_turns = ?, "
                    "voted_at = ? WHERE id = ? AND voted_at IS NULL",
                    values,
                ).rowcount
            )
        )
        return decided if changed else None

    async def votes(self, *, tag: str = "", since: str = "", until: str = "") -> list[Battle]:
        """Battles with a vote, oldest first.

        Args:
            tag: only those with this tag or reason; empty: all.
            since: the first day (``YYYY-MM-DD``, UTC); empty: from the beginning.
            until: the last day; empty: until now.

        Raises:
            StoreError: the store cannot be read.
        """
        begin = _day(since) or 0.0
        last = _day(until)
        end = float("inf") if last is None else last + 86_400
        found = await self._read(
            "voted_at IS NOT NULL AND voted_at >= ? AND voted_at < ? ORDER BY voted_at",
            (begin, end),
        )
        return [each for each in found if not tag or tag in (*each.tags, *each.reasons)]

    async def _read(self, where: str, values: tuple[object, ...]) -> list[Battle]:
        rows = await self._database.run(
            lambda connection: connection.execute(
                f"SELECT {_COLUMNS} FROM battle WHERE {where}",  # noqa: S608  (no input in it)
                values,
            ).fetchall()
        )
        return [
            Battle(
                id=identity,
                conversation_id=conversation_id,
                person=person,
                left=left,
                right=right,
                tags=tuple(json.loads(tags)),
                winner=None if winner is None else Winner(winner),
                reasons=tuple(json.loads(reasons)),
                num_turns=num_turns,
                language=language,
                created_at=created_at,
                voted_at=voted_at,
            )
            for identity, conversation_id, person, left, right, tags, winner, reasons, num_turns, (
                language
            ), created_at, voted_at in rows
        ]


def _day(text: str) -> float | None:
    """The beginning of a day; None for what is no day."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
