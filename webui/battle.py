"""Battles: two models, nobody knows which, answer the same question; a person says which is better.

Until the vote nothing that reaches the browser tells the models: not their names, not the chat's id
(whose page would show them), not their errors' words, figures or workers.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response, StreamingResponse
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
from webui.answer import Answer, AnswerState
from webui.battle_store import Battle, BattleStore
from webui.battle_view import REASONS, battle_html
from webui.conversation import Conversation, Kind, Turn
from webui.document import Reader, document, reader_of, refuse_other_sites
from webui.katex import find_katex
from webui.leaderboard import Winner
from webui.markdown import rendered
from webui.moderation import Moderate
from webui.questions import RefusedError, read_question
from webui.runs import BusyError, Run, RunRegistry
from webui.store import ConversationStore
from webui.uploads import UploadError, UploadLimits
from webui.watch import FleetWatch

_MAX_FILES = 8
_SECONDS_BETWEEN_EVENTS = 0.1
_PAUSES = 8  # times as long as rendering took, so that battles leave the processor to others
_SCRIPTS = ("image_address.js", "battle.js")
_LEFT, _RIGHT = 0, 1  # lanes

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
                async with self._runs.open(chat) as opened, aclosing(_frames(opened)) as frames:
                    async for frame in frames:
                        yield frame
            except BusyError as exc:
                for answer in _last(chat):
                    answer.fail(str(exc), code="busy")
                await self._store.put(chat)
                yield await _event(_sides(chat.turns[-1]))
        elif run is not None:
            async with aclosing(_frames(run)) as frames:
                async for frame in frames:
                    yield frame
        else:
            yield await _event(_sides(chat.turns[-1] if chat.turns else None))

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


def battle_routes(battles: Battles, *, terms: str, can_fetch: bool) -> APIRouter:
    """The routes of battles.

    Args:
        battles: what they do.
        terms: what a person agrees to by asking, HTML; empty: nothing.
        can_fetch: whether images may be fetched by their addresses.
    """
    router = APIRouter()
    katex = find_katex()

    @router.get("/battle")
    async def page(request: Request) -> Response:
        """The page."""
        reader = reader_of(request)
        body = battle_html(reader.words, terms=terms, can_fetch=can_fetch, katex=katex)
        title = reader.words("Battle")
        return document(reader, view="battle", title=title, body=body, scripts=_SCRIPTS)

    @router.post("/battle")
    async def begin(
        request: Request,
        text: Annotated[str, Form(max_length=200_000)],
        files: Annotated[list[UploadFile] | None, File()] = None,
    ) -> dict[str, str]:
        """Begins one with a question."""
        refuse_other_sites(request)
        battle, chat = await battles.begin(reader_of(request))
        await battles.ask(chat, text, files or [])
        await battles.keep(battle)
        return {"battle": battle.id}

    @router.get("/battle/{battle_id}")
    async def show(battle_id: str, request: Request) -> dict[str, object]:
        """How it stands: for a tab that was reloaded."""
        battle, chat = await battles.find(battle_id, reader_of(request))
        turns = await asyncio.to_thread(_turns, chat)
        return {"turns": turns, **_revealed(battle)}

    @router.post("/battle/{battle_id}/ask")
    async def ask(
        battle_id: str,
        request: Request,
        text: Annotated[str, Form(max_length=200_000)],
        files: Annotated[list[UploadFile] | None, File()] = None,
    ) -> dict[str, str]:
        """Asks both a further question."""
        refuse_other_sites(request)
        battle, chat = await battles.find(battle_id, reader_of(request))
        if battle.winner is not None:
            raise ConflictError("This battle has its vote: begin a new one.")
        await battles.ask(chat, text, files or [])
        return {"battle": battle.id}

    @router.get("/battle/{battle_id}/stream")
    async def stream(battle_id: str, request: Request) -> Response:
        """The answers to the last question, as they are written."""
        _, chat = await battles.find(battle_id, reader_of(request))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            battles.events(chat), media_type="text/event-stream", headers=headers
        )

    @router.post("/battle/{battle_id}/vote")
    async def vote(battle_id: str, verdict: Verdict, request: Request) -> dict[str, object]:
        """Takes the vote, and says who was who."""
        refuse_other_sites(request)
        battle, chat = await battles.find(battle_id, reader_of(request))
        return _revealed(await battles.vote(battle, chat, verdict))

    return router


def _revealed(battle: Battle) -> dict[str, object]:
    """Who was who; nothing before the vote."""
    if battle.winner is None:
        return {}
    return {
        "winner": battle.winner.value,
        "left": battle.left,
        "right": battle.right,
        "chat": battle.conversation_id,
    }


def _last(chat: Conversation) -> list[Answer]:
    return list(chat.turns[-1].answers.values()) if chat.turns else []


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


async def _frames(run: Run) -> AsyncGenerator[bytes]:
    """An event each tenth of a second in which something has changed; fewer of long texts."""
    shown: tuple[_Side, ...] | None = None
    pause = _SECONDS_BETWEEN_EVENTS
    while True:
        sides, is_over = _sides(run.conversation.turns[-1]), run.is_over
        if sides != shown:
            shown = sides
            began = time.monotonic()
            event = await _event(sides)
            pause = max(_SECONDS_BETWEEN_EVENTS, _PAUSES * (time.monotonic() - began))
            yield event
        if is_over:
            return
        if sides == _sides(run.conversation.turns[-1]):  # nothing came while it was sent
            await run.wait_for_change()
        await asyncio.sleep(pause)


async def _event(sides: Sequence[_Side]) -> bytes:
    shown = await asyncio.to_thread(lambda: [side.shown() for side in sides])
    return f"data: {json.dumps(shown, ensure_ascii=False)}\n\n".encode()


def _turns(chat: Conversation) -> list[dict[str, object]]:
    """Everything that a tab shows. Takes milliseconds where texts are long."""
    return [
        {
            "text": turn.text,
            "images": [image.digest for image in turn.images],
            "sides": [side.shown() for side in _sides(turn)],
        }
        for turn in chat.turns
    ]


def _tags(chat: Conversation) -> list[str]:
    """What kind of question it was, by itself."""
    num_images = sum(len(turn.images) for turn in chat.turns)
    tags = ["text" if num_images == 0 else "image" if num_images == 1 else "several images"]
    if len(chat.turns) > 1:
        tags.append("several turns")
    return tags
