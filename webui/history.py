"""The history: a person's chats in a list, to be found, named, pinned, exported and deleted."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from html import escape
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from controller.protocol.errors import NotFoundError, PermissionDeniedError
from webui.conversation import Conversation, Kind
from webui.document import document, reader_of, refuse_other_sites
from webui.export import as_html, as_json, as_markdown, title_of
from webui.language import Words
from webui.store import ConversationStore, Summary

_PAGE = 50  # chats
_FORMATS = {
    "json": ("application/json", as_json),
    "md": ("text/markdown; charset=utf-8", as_markdown),
    "html": ("text/html; charset=utf-8", as_html),
}


class Naming(BaseModel):
    """A chat's new title; an empty one lets its first question stand for it."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=200)


class Pinning(BaseModel):
    """Whether a chat is kept however old it gets."""

    model_config = ConfigDict(extra="forbid")

    is_pinned: bool


def history_routes(store: ConversationStore) -> APIRouter:
    """The routes of the history, and of exports.

    Args:
        store: where conversations are kept.
    """
    router = APIRouter()

    async def own(conversation_id: str, request: Request) -> Conversation:
        """The chat, if the one who asks may change it."""
        refuse_other_sites(request)
        conversation = await store.get(conversation_id)
        if conversation is None:
            raise NotFoundError("This chat is no longer kept.")
        person = reader_of(request).person
        if not person or conversation.owner != person:
            raise PermissionDeniedError("This chat is somebody else's and can only be read.")
        return conversation

    @router.get("/history")
    async def history(request: Request, q: str = "", kind: str = "", page: int = 0) -> Response:
        """The list."""
        reader = reader_of(request)
        words, page = reader.words, max(0, page)
        wanted = Kind(kind) if kind in set(Kind) else None
        found = (
            await store.summaries(
                reader.person, search=q, kind=wanted, limit=_PAGE + 1, offset=page * _PAGE
            )
            if reader.person
            else []
        )
        body = (
            _search_html(q, wanted, words)
            + _list_html(found[:_PAGE], words, is_filtered=bool(q or wanted))
            + _pages_html(q, kind, page, words, has_more=len(found) > _PAGE)
        )
        return document(
            reader, view="history", title=words("History"), body=body, scripts=("history.js",)
        )

    @router.post("/history/{conversation_id}/title")
    async def rename(naming: Naming, chat: Conversation = Depends(own)) -> dict[str, str]:  # noqa: B008
        """Gives it a title."""
        await store.rename(chat.id, naming.title)
        return {"title": title_of(chat)}

    @router.post("/history/{conversation_id}/pin")
    async def pin(pinning: Pinning, chat: Conversation = Depends(own)) -> dict[str, bool]:  # noqa: B008
        """Pins it, or no longer."""
        await store.pin(chat.id, is_pinned=pinning.is_pinned)
        return {"is_pinned": chat.is_pinned}

    @router.delete("/history/{conversation_id}")
    async def delete(chat: Conversation = Depends(own)) -> dict[str, str]:  # noqa: B008
        """Forgets it."""
        await store.delete(chat.id)
        return {"deleted": chat.id}

    @router.get("/export/{conversation_id}.{form}")
    async def export(conversation_id: str, form: str) -> Response:
        """A chat as a file. Who has the id may read it, as at ``/c/ID``."""
        if form not in _FORMATS:
            raise NotFoundError(f"There is no export as {form[:16]}: ask for json, md or html.")
        conversation = await store.get(conversation_id)
        if conversation is None:
            raise NotFoundError("This chat is no longer kept.")
        media_type, write = _FORMATS[form]
        content = await asyncio.to_thread(write, conversation)
        # A download and never a page of ours: nothing in it may run beside our cookies.
        name = f"paragone-{_slug(title_of(conversation))}.{form}"
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "no-store",
        }
        return Response(content, media_type=media_type, headers=headers)

    return router


def _search_html(search: str, kind: Kind | None, words: Words) -> str:
    names = {None: words("All"), Kind.COMPARE: words("Compare"), Kind.BATTLE: words("Battle")}
    options = "".join(
        f'<option value="{"" if each is None else each.value}"'
        f"{' selected' if each is kind else ''}>{escape(name)}</option>"
        for each, name in names.items()
    )
    label = escape(words("Search titles, questions and answers"))
    return (
        '<form class="filter" role="search" action="./history">'
        f'<input type="search" name="q" value="{escape(search)}" placeholder="{label}" '
        f'aria-label="{label}"><select name="kind" aria-label="{escape(words("Kind"))}">'
        f"{options}</select><button>{escape(words('Search'))}</button></form>"
    )


def _list_html(summaries: list[Summary], words: Words, *, is_filtered: bool) -> str:
    if not summaries:
        text = words("No chat matches.") if is_filtered else words("There is no chat yet.")
        return f'<p class="empty">{escape(text)}</p>'
    return f'<ol class="chats">{"".join(_chat_html(each, words) for each in summaries)}</ol>'


def _chat_html(summary: Summary, words: Words) -> str:
    title = summary.title or " ".join(summary.first_question.split())[:120]
    when = datetime.fromtimestamp(summary.used_at, UTC).isoformat(timespec="seconds")
    turns, images = summary.num_turns, summary.num_images
    facts = [words("1 question") if turns == 1 else words("{count} questions", count=turns)]
    if images:
        facts.append(words("1 image") if images == 1 else words("{count} images", count=images))
    if summary.kind is Kind.BATTLE:
        facts.append(words("Battle"))
    models = "".join(f'<span class="chip">{escape(model)}</span>' for model in summary.models)
    exports = "".join(
        f'<a href="./export/{summary.id}.{form}" download '
        f'aria-label="{escape(words("Export as {form}", form=form))}">{form}</a>'
        for form in _FORMATS
    )
    pin = words("Unpin") if summary.is_pinned else words("Pin")
    return (
        f'<li data-chat="{summary.id}" data-pinned="{"true" if summary.is_pinned else "false"}">'
        f'<div class="what"><a class="title" href="./c/{summary.id}">{escape(title)}</a>'
        f'<div class="facts"><time datetime="{when}">{when}</time> · {escape(" · ".join(facts))}'
        f'</div><div class="models">{models}</div></div><div class="acts">{exports}'
        f'<button data-do="rename">{escape(words("Rename"))}</button>'
        f'<button data-do="pin" aria-pressed="{"true" if summary.is_pinned else "false"}">'
        f'{escape(pin)}</button><button data-do="delete" '
        f'data-ask="{escape(words("Delete this chat for good?"))}">'
        f"{escape(words('Delete'))}</button></div></li>"
    )


def _pages_html(search: str, kind: str, page: int, words: Words, *, has_more: bool) -> str:
    def link(number: int, text: str) -> str:
        query = urlencode({"q": search, "kind": kind, "page": number})
        return f'<a href="./history?{escape(query)}">{escape(text)}</a>'

    newer = link(page - 1, words("Newer")) if page else ""
    older = link(page + 1, words("Older")) if has_more else ""
    return f'<p class="pages">{newer} {older}</p>' if newer or older else ""


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower())[:40].strip("-") or "chat"
