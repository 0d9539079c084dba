"""The drawer that shows what is behind an answer: its request, what its model sees, feedback."""

from __future__ import annotations

import asyncio
import itertools
import json
from html import escape

from controller.protocol.preview import Preview
from webui.answer import Answer
from webui.client import ControllerClient
from webui.controller_error import ControllerError
from webui.conversation import Conversation, Turn, UploadedImage
from webui.feedback_view import feedback_html
from webui.language import Words
from webui.questions import RefusedError, new_answer
from webui.request_view import request_html
from webui.requests import (
    Request,
    build_request,
    image_references,
    images_of,
    read_data_uris,
    reference,
    with_images,
)
from webui.settings_view import drawer_head
from webui.vision_view import vision_html

_PREVIEWED = ("model", "messages", "image_process_mode", "chat_template")


class Panels:
    """Fills the drawer; each method gives its HTML.

    Args:
        client: the controller.
        has_key: whether the controller asks for a key, which is never shown.
    """

    def __init__(self, client: ControllerClient, *, has_key: bool) -> None:
        self._client = client
        self._has_key = has_key
        self._numbers = itertools.count(1)

    async def request(self, conversation: Conversation, place: int, words: Words) -> str:
        """The exact request behind the last answer of a column."""
        answer = _last_answer(conversation, place)
        prompt = problem = None
        images = images_of(conversation)
        if answer.request is not None:
            try:
                preview = await self._preview(answer.request, images)
                prompt = preview.prompt
            except ControllerError as exc:
                problem = exc.message
        content = request_html(
            answer,
            images,
            base_url=self._client.base_url,
            has_key=self._has_key,
            prompt=prompt,
            prompt_problem=problem,
            words=words,
        )
        title = words("The exact request of column {number}", number=place + 1)
        return self._drawer("request", title, content, words)

    async def vision(
        self,
        conversation: Conversation,
        place: int,
        text: str,
        images: tuple[UploadedImage, ...],
        words: Words,
    ) -> str:
        """What the model of a column sees: of what is composed now, else of the last question.

        Args:
            conversation: in which it is asked.
            place: of the column.
            text: of the composer.
            images: in the composer.
            words: the language.

        Raises:
            RefusedError: the column has no model.
        """
        lane = conversation.order[place]
        column = conversation.columns[lane]
        title = words("What the model of column {number} sees", number=place + 1)
        if column.model is None:
            raise RefusedError("This column has no model: choose one.")
        earlier = conversation.turns
        if not images and conversation.turns:
            *earlier, last = conversation.turns
            text, images = last.text, last.images
        answer = new_answer(column.model, column.overrides.over(conversation.sampling))
        turn = Turn(text=text.strip() or words("(no question yet)"), images=images)
        turn.answers[lane] = answer
        asked = Conversation(turns=[*earlier, turn])
        request = build_request(asked, lane)
        known = {reference(image): image for image in images_of(asked)}
        sent = [known[mark] for mark in image_references(request)]
        if not sent:
            nothing = words("There is no image in this chat: add one to the question.")
            return self._drawer("sees", title, f'<p class="empty">{escape(nothing)}</p>', words)
        try:
            preview = await self._preview(request, list(known.values()))
            content = vision_html(preview, sent, words)
        except ControllerError as exc:
            content = f'<p class="error">{escape(exc.message)}</p>'
        return self._drawer("sees", f"{title}: {column.model}", content, words)

    def feedback(self, conversation: Conversation, place: int, words: Words) -> str:
        """Reasons and a note on the last answer of a column."""
        answer = _last_answer(conversation, place)
        title = words("Note on the answer of column {number}", number=place + 1)
        content = feedback_html(answer.feedback, place, words)
        return self._drawer("note", title, content, words)

    async def _preview(self, request: Request, images: list[UploadedImage]) -> Preview:
        uris = await asyncio.to_thread(read_data_uris, images)
        asked = {key: request[key] for key in _PREVIEWED if key in request}
        if request.get("continue_final_message"):
            asked["messages"] = asked["messages"][:-1]
        body = json.dumps(with_images(asked, uris)).encode()
        return await self._client.preview(body)

    def _drawer(self, kind: str, title: str, content: str, words: Words) -> str:
        # The number tells page.js that it was asked for, even if nothing in it is new.
        number = next(self._numbers)
        return (
            f'<div class="drawer-body" data-panel="{kind}" data-number="{number}">'
            f"{drawer_head(title, words)}{content}</div>"
        )


def _last_answer(conversation: Conversation, place: int) -> Answer:
    lane = conversation.order[place]
    answer = conversation.turns[-1].answers.get(lane) if conversation.turns else None
    if answer is None:
        raise RefusedError("This column was not asked yet.")
    return answer
