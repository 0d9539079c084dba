"""Battles: two models, nobody knows which, answer the same question; a person says which is better.

Until the vote nothing that reaches the browser tells the models: not their names, not the chat's id
(whose page would show them), not their errors' words, figures or workers.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field

from controller.protocol.errors import (
    BadRequestError,
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    QueueFullError,
    UnavailableError,
)
from controller.protocol.fleet import WorkerState
from webui.answer import Answer
from webui.battle_events import event_of, events_of
from webui.battle_store import Battle, BattleStore
from webui.battle_view import REASONS
from webui.conversation import Conversation, Kind
from webui.document import Reader
from webui.leaderboard import Winner
from webui.moderation import Moderate
from webui.questions import RefusedError, read_question
from webui.runs import BusyError, RunRegistry
from webui.store import ConversationStore
from webui.uploads import UploadError, UploadLimits
from webui.watch import FleetWatch

_MAX_FILES = 8

# Told of each vote: the chat, and who won.
NoteVote = Callable[[Conversation, str], None]


class Verdict(BaseModel):
    """A person's vote."""

    model_config = ConfigDict(extra="forbid")

    winner: Winner
    reasons: list[str] = Field(default_factory=list, max_length=len(REASONS))
    tag: str = Field(default="", max_length=32)
    stop: bool = False  # what is still being written


class Battles:
    """Begins battles, streams their answers and takes their votes.

    Args:
        store: where conversations are kept.
        battles: where battles are kept.
        runs: the questions under way.
        watch: which models there are.
        limits: of uploads.
        note_vote: told of each vote.
        moderate: the operator's say on each question.
        chance: decides who meets, and on which side.
    """

    def __init__(
        self,
        *,
        store: ConversationStore,
        battles: BattleStore,
        runs: RunRegistry,
        watch: FleetWatch,
        limits: UploadLimits,
        note_vote: NoteVote,
        moderate: Moderate,
        chance: random.Random,
    ) -> None:
        self._store = store
        self._battles = battles
        self._runs = runs
        self._watch = watch
        self._limits = limits
        self._note_vote = note_vote
        self._moderate = moderate
        self._chance = chance

    async def begin(self, reader: Reader) -> tuple[Battle, Conversation]:
        """Two models for a person who asks.

        Raises:
            UnavailableError: there are no two models.
            PermissionDeniedError: the browser takes no cookies, so that nobody could vote.
        """
        if not reader.person:
            raise PermissionDeniedError("A battle needs cookies: allow them for this page.")
        catalogue = self._watch.catalogue
        ready = [
            model.name
            for model in catalogue.models
            if model.state is WorkerState.READY and model.name in catalogue.offered
        ]
        if len(ready) < 2:
            raise UnavailableError("A battle needs two models that are ready; try again later.")
        left, right = self._chance.sample(ready, 2)
        # Nobody's, and so in nobody's history, until the vote.
        chat = Conversation(kind=Kind.BATTLE, owner="")
        chat.arrange([left, right])
        chat.is_arranged = True
        battle = Battle(chat.id, reader.person, left, right, str(reader.words.language))
        return battle, chat

    async def keep(self, battle: Battle) -> None:
        """Keeps a battle whose first question was asked.

        Raises:
            StoreError: it cannot be written.
        """
        await self._battles.add(battle)

    async def find(self, battle_id: str, reader: Reader) -> tuple[Battle, Conversation]:
        """A person's own battle.

        Raises:
            NotFoundError: there is none of this id, or it is somebody else's.
        """
        battle = await self._battles.get(battle_id)
        if battle is None or battle.person != reader.person:
            raise NotFoundError("There is no such battle.")
        chat = await self._store.get(battle.conversation_id)
        if chat is None:
            raise NotFoundError("The answers of this battle are no longer kept.")
        return battle, chat

    async def ask(self, chat: Conversation, text: str, files: list[UploadFile]) -> None:
        """Puts a question to both.

        Raises:
            BadRequestError: there is no question, or a file is no image.
            PayloadTooLargeError: a file is too large.
            QueueFullError: the page has enough to do.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = await self._receive(files, Path(folder))
            try:
                turn = await read_question({"text": text, "files": paths}, chat, self._limits)
                await self._moderate(turn)
                self._runs.check_free(chat.id)
                turn.images = await self._store.keep_images(turn.images)
            except (RefusedError, UploadError) as exc:
                raise BadRequestError(str(exc)) from exc
            except BusyError as exc:
                raise QueueFullError(str(exc)) from exc
        for answer in chat.turns[-1].answers.values() if chat.turns else ():
            answer.stop()
        chat.turns.append(turn)
        await self._store.put(chat)

    async def events(self, chat: Conversation) -> AsyncGenerator[bytes]:
        """The answers to the last question as server-sent events, until both have ended."""
        run = self._runs.get(chat.id)
        if run is None and any(not each.has_ended for each in _last(chat)):
            try:
                async with self._runs.open(chat) as opened, aclosing(events_of(opened)) as events:
                    async for each in events:
                        yield each
            except BusyError as exc:
                for answer in _last(chat):
                    answer.fail(str(exc), code="busy")
                await self._store.put(chat)
                yield await event_of(chat.turns[-1])
        elif run is not None:
            with self._runs.reading(run):
                async with aclosing(events_of(run)) as events:
                    async for each in events:
                        yield each
        else:
            yield await event_of(chat.turns[-1] if chat.turns else None)

    async def vote(self, battle: Battle, chat: Conversation, verdict: Verdict) -> Battle:
        """Takes a vote; from now on it is known who was who.

        Raises:
            ConflictError: there is nothing to vote on yet, or it was voted on.
            BadRequestError: a reason is none of ours.
        """
        unknown = sorted(set(verdict.reasons) - set(REASONS))
        if unknown:
            raise BadRequestError(f"There is no reason {unknown[0][:40]!r}.")
        answers = _last(chat)
        if not answers or not any(answer.text for answer in answers):
            raise ConflictError("There is no answer to vote on yet.")
        run = self._runs.get(chat.id)
        if run is not None and verdict.stop:
            run.stop_all()
        tags = [*_tags(chat), *filter(None, [verdict.tag.strip()])]
        decided = await self._battles.decide(
            battle, verdict.winner, reasons=verdict.reasons, tags=tags, turns=len(chat.turns)
        )
        if decided is None:
            raise ConflictError("This battle has its vote already.")
        chat.owner = battle.person
        await self._store.put(chat)
        self._note_vote(chat, verdict.winner.value)
        return decided

    async def _receive(self, files: list[UploadFile], folder: Path) -> list[str]:
        if len(files) > _MAX_FILES:
            raise BadRequestError(f"At most {_MAX_FILES} images a question.")
        paths = []
        for number, file in enumerate(files):
            content = await file.read(self._limits.max_bytes + 1)
            if len(content) > self._limits.max_bytes:
                raise PayloadTooLargeError(
                    f"An image may have {self._limits.max_bytes // 2**20} MiB; make it smaller."
                )
            # The name is a stranger's; only its end says something, and that is checked later.
            path = folder / f"{number}{Path(file.filename or '').suffix[:8]}"
            await asyncio.to_thread(path.write_bytes, content)
            paths.append(str(path))
        return paths


def _last(chat: Conversation) -> list[Answer]:
    return list(chat.turns[-1].answers.values()) if chat.turns else []


def _tags(chat: Conversation) -> list[str]:
    """What kind of question it was, by itself."""
    num_images = sum(len(turn.images) for turn in chat.turns)
    tags = ["text" if num_images == 0 else "image" if num_images == 1 else "several images"]
    if len(chat.turns) > 1:
        tags.append("several turns")
    return tags
