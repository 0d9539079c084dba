"""A conversation: turns that every column shares, and each column's own answers to them.

This is what is kept (`webui.store`); what the page shows is made from it (`webui.chat_view`) and
never read back. A column is known by its *lane*, which never changes; at which *place* of the page
it stands is the conversation's `order`. So a column can be moved while its answer is written.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from webui.answer import Answer, AnswerState, Feedback, Rating
from webui.sampling import Overrides, Sampling

__all__ = [
    "MAX_COLUMNS",
    "MAX_TURNS",
    "Answer",
    "AnswerState",
    "Column",
    "Conversation",
    "Feedback",
    "Kind",
    "Rating",
    "Turn",
    "UploadedImage",
]

MAX_COLUMNS = 6
DEFAULT_COLUMNS = 4  # shown without being asked for, where the fleet has so many models
MAX_TURNS = 100  # each update of a column sends its whole history through the server


class Kind(StrEnum):
    """What a conversation was held for."""

    COMPARE = "compare"
    BATTLE = "battle"


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """An image that was checked: a whole, decodable file of a kind that models take."""

    path: Path  # once it is kept, in the store's own folder
    media_type: str
    width: int  # pixels
    height: int
    num_bytes: int = 0
    digest: str = ""  # SHA-256 of the file; empty until it is kept
    name: str = ""  # what the person's file was called


@dataclass(slots=True)
class Turn:
    """What a person asked, and what the columns answered."""

    text: str
    images: tuple[UploadedImage, ...] = ()
    answers: dict[int, Answer] = field(default_factory=dict)  # by lane
    created_at: float = field(default_factory=time.time)  # Unix seconds


@dataclass(slots=True)
class Column:
    """What a column holds beside its answers."""

    model: str | None = None
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(slots=True, weakref_slot=True)
class Conversation:
    """Turns and columns. The id is a capability: who has it may read; only the owner may write.

    ``columns`` are by lane, ``order`` is the lane at each place, and the first ``num_columns``
    places are shown; the others keep their model and answers out of sight.
    """

    columns: list[Column] = field(default_factory=lambda: [Column() for _ in range(MAX_COLUMNS)])
    order: list[int] = field(default_factory=lambda: list(range(MAX_COLUMNS)))
    num_columns: int = 2
    is_arranged: bool = False  # a person chose models or the number of columns
    sampling: Sampling = field(default_factory=Sampling)  # the chat's; columns may override it
    is_same_seed: bool = True  # where a seed is drawn, all columns get the same
    is_sequential: bool = False  # one column answers after another
    reference: int | None = None  # the lane that the others are compared with
    turns: list[Turn] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    owner: str = ""  # whose it is: a login's name, or what marks a browser
    kind: Kind = Kind.COMPARE
    title: str = ""  # given by a person; empty: the first question stands for it
    is_pinned: bool = False
    branched_from: str | None = None  # the conversation whose earlier turns these are
    created_at: float = field(default_factory=time.time)  # Unix seconds
    saved_turns: int = 0  # how many of them the store has

    @property
    def visible(self) -> list[int]:
        """The lanes that are shown, by place."""
        return self.order[: self.num_columns]

    def column_at(self, place: int) -> Column:
        """The column at a place of the page."""
        return self.columns[self.order[place]]

    def arrange(self, models: list[str]) -> None:
        """Gives the places these models, and shows as many columns as there are models."""
        models = models[:MAX_COLUMNS]
        self.order = list(range(MAX_COLUMNS))
        for lane, column in enumerate(self.columns):
            column.model = models[lane] if lane < len(models) else None
        self.num_columns = max(2, len(models))

    def add_column(self) -> bool:
        """Shows one more; False if all are shown."""
        if self.num_columns == MAX_COLUMNS:
            return False
        self.num_columns += 1
        return True

    def remove_column(self, lane: int) -> bool:
        """Puts a column out of sight, with its answers; False if it is the last or not shown."""
        if self.num_columns == 1 or lane not in self.visible:
            return False
        self.order.remove(lane)
        self.order.insert(self.num_columns - 1, lane)
        self.num_columns -= 1
        if self.reference == lane:
            self.reference = None
        return True

    def swap(self, lane: int, *, step: int) -> bool:
        """Moves a column one place to the left (-1) or right (1); False at the edge."""
        place = self.order.index(lane)
        if not 0 <= place + step < self.num_columns or place >= self.num_columns:
            return False
        self.order[place], self.order[place + step] = self.order[place + step], lane
        return True

    def continued(self) -> Conversation:
        """A new, empty conversation over the same columns and settings."""
        return Conversation(
            columns=[replace(column) for column in self.columns],
            order=list(self.order),
            num_columns=self.num_columns,
            is_arranged=self.is_arranged,
            sampling=self.sampling,
            is_same_seed=self.is_same_seed,
            is_sequential=self.is_sequential,
            reference=self.reference,
            owner=self.owner,
        )

    def branched(self, num_turns: int) -> Conversation:
        """A new conversation that begins with the first turns of this one.

        Feedback stays behind: it was given once.
        """
        branch = self.continued()
        branch.branched_from = self.id
        branch.title = self.title
        for turn in self.turns[:num_turns]:
            copies = {
                lane: replace(
                    answer,
                    id=secrets.token_hex(8),
                    attempt=0,
                    feedback=Feedback(),
                    saved_version=-1,
                )
                for lane, answer in turn.answers.items()
                if answer.has_ended
            }
            branch.turns.append(Turn(turn.text, turn.images, copies, turn.created_at))
        return branch
