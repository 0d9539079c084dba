"""The leaderboard over HTTP: table, plot, pairwise wins, and the votes themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from html import escape
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from webui.battle_store import Battle, BattleStore
from webui.document import document, reader_of
from webui.language import Words
from webui.leaderboard import Standing, Vote, meetings, standings

_MAX_MODELS_IN_PAIRS = 30


def leaderboard_routes(battles: BattleStore) -> APIRouter:
    """The routes of the leaderboard.

    Args:
        battles: where votes are kept.
    """
    router = APIRouter()
    known: dict[tuple[Vote, ...], list[Standing]] = {}  # the last few tables
    ranking = asyncio.Lock()  # a table is made once, however many ask

    async def table_of(votes: tuple[Vote, ...]) -> list[Standing]:
        async with ranking:
            if votes not in known:
                known[votes] = await asyncio.to_thread(standings, votes)
                while len(known) > 8:
                    known.pop(next(iter(known)))
            return known[votes]

    @router.get("/leaderboard")
    async def leaderboard(
        request: Request, tag: str = "", since: str = "", until: str = ""
    ) -> Response:
        """The page."""
        reader = reader_of(request)
        words = reader.words
        everything = await battles.votes()
        tags = sorted({name for each in everything for name in (*each.tags, *each.reasons)})
        found = await battles.votes(tag=tag, since=since, until=until)
        votes = tuple(each.vote for each in found)
        table = await table_of(votes)
        body = _filter_html(tags, tag, since, until, words)
        if table:
            query = urlencode({"tag": tag, "since": since, "until": until})
            note = words(
                "Bradley-Terry; a tie counts as half a win for both, and so does both bad."
            )
            body += (
                f'<p class="note">{escape(_count(len(votes), words))}. '
                f'{escape(note)} <a href="./votes.jsonl?{escape(query)}" download>'
                f"{escape(words('Votes as JSON lines'))}</a></p>"
                + _table_html(table, words)
                + f"<h2>{escape(words('Ratings with 95 % intervals'))}</h2>"
                + _plot_html(table)
                + _pairs_html(votes, [each.model for each in table], words)
            )
        else:
            text = words("There are no votes on two models yet.")
            body += f'<p class="empty">{escape(text)}</p>'
        return document(reader, view="leaderboard", title=words("Leaderboard"), body=body)

    @router.get("/votes.jsonl")
    async def votes(tag: str = "", since: str = "", until: str = "") -> Response:
        """The votes, with FastChat's field names; who voted is a pseudonym."""
        found: list[Battle] = await battles.votes(tag=tag, since=since, until=until)
        lines = "".join(json.dumps(each.line(), ensure_ascii=False) + "\n" for each in found)
        headers = {"content-disposition": 'attachment; filename="votes.jsonl"'}
        return Response(lines, media_type="application/jsonl", headers=headers)

    return router


def _count(num_votes: int, words: Words) -> str:
    return words("1 vote") if num_votes == 1 else words("{count} votes", count=num_votes)


def _filter_html(tags: Sequence[str], tag: str, since: str, until: str, words: Words) -> str:
    options = "".join(
        f'<option value="{escape(each)}"{" selected" if each == tag else ""}>'
        f"{escape(each or words('All'))}</option>"
        for each in ("", *tags)
    )
    days = "".join(
        f'<label>{escape(label)}<input type="date" name="{name}" value="{escape(value)}"></label>'
        for name, label, value in (
            ("since", words("From"), since),
            ("until", words("To"), until),
        )
    )
    return (
        f'<form class="filter" action="./leaderboard"><label>{escape(words("Tag"))}'
        f'<select name="tag">{options}</select></label>{days}'
        f"<button>{escape(words('Show'))}</button></form>"
    )


def _table_html(table: Sequence[Standing], words: Words) -> str:
    rows = "".join(
        f'<tr><td class="number">{each.rank}</td><th scope="row">{escape(each.model)}</th>'
        f'<td class="number">{each.rating:.0f}</td>'
        f'<td class="number">{each.low:.0f} … {each.high:.0f}</td>'
        f'<td class="number">{each.num_votes}</td></tr>'
        for each in table
    )
    heads = (
        ("number", words("rank")),
        ("", words("model")),
        ("number", words("rating")),
        ("number", words("95 % interval")),
        ("number", words("votes")),
    )
    names = "".join(f'<th scope="col" class="{kind}">{escape(name)}</th>' for kind, name in heads)
    return (
        f'<div class="scroll" tabindex="0"><table id="ranking"><thead><tr>{names}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _plot_html(table: Sequence[Standing]) -> str:
    """Each model's rating as a dot on its interval; what it says is in the table too."""
    low = min(each.low for each in table) - 20
    high = max(each.high for each in table) + 20

    def place(rating: float) -> str:
        return f"{100 * (rating - low) / (high - low):.2f}%"

    spread = high - low
    width = next(each for each in (10, 25, 50, 100, 200, 500, 1000, 10_000) if spread / each <= 5)
    ticks = range(int(low // width + 1) * width, int(high) + 1, width)
    lines = "".join(f'<i class="axis" style="left:{place(at)}"></i>' for at in ticks)
    rows = "".join(
        f'<span class="name" title="{escape(each.model)}">{escape(each.model)}</span>'
        f'<span class="track">{lines}<i class="interval" style="left:{place(each.low)};'
        f'width:calc({place(each.high)} - {place(each.low)})"></i>'
        f'<i class="dot" style="left:{place(each.rating)}"></i></span>'
        for each in table
    )
    numbers = "".join(f'<b style="left:{place(at)}">{at}</b>' for at in ticks)
    return (
        f'<div class="ranking-plot" aria-hidden="true">{rows}'
        f'<span></span><span class="track">{numbers}</span></div>'
    )


def _pairs_html(votes: Sequence[Vote], models: list[str], words: Words) -> str:
    models = models[:_MAX_MODELS_IN_PAIRS]
    found = meetings(votes)
    names = "".join(f'<th scope="col">{escape(model)}</th>' for model in models)
    rows = ""
    for row in models:
        cells = ""
        for column in models:
            meeting = found.get((row, column))
            if meeting is None or meeting.share is None:
                cells += "<td>–</td>"
            else:
                shade = round(abs(meeting.share - 0.5) * 60)
                colour = "good" if meeting.share > 0.5 else "bad"
                ground = f"color-mix(in srgb, var(--{colour}) {shade}%, transparent)"
                cells += (
                    f'<td style="background:{ground}">{meeting.share:.0%}'
                    f"<small>{meeting.wins} / {meeting.ties} / {meeting.losses}</small></td>"
                )
        rows += f'<tr><th scope="row">{escape(row)}</th>{cells}</tr>'
    title = escape(words("How often the row's model wins against the column's"))
    return (
        f'<h2>{title}</h2><div class="scroll" tabindex="0"><table id="pairs">'
        f"<thead><tr><th></th>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
