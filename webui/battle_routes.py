"""The routes of battles; what they do is in `webui.battle`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response, StreamingResponse

from controller.protocol.errors import ConflictError
from webui.battle import Battles, Verdict
from webui.battle_events import revealed, turns
from webui.battle_view import battle_html
from webui.document import document, reader_of, refuse_other_sites
from webui.katex import find_katex

_SCRIPTS = ("image_address.js", "battle.js")


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
        return {"turns": await asyncio.to_thread(turns, chat), **revealed(battle)}

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
        return revealed(await battles.vote(battle, chat, verdict))

    return router
