"""A short chat with an image and two answers, kept in a store."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from controller.protocol.chat import FinishReason, Usage
from webui.answer import Answer
from webui.conversation import Conversation, Turn
from webui.store import ConversationStore
from webui.uploads import UploadLimits, check_images

OWNER = "browser:" + "a" * 22


async def kept_chat(
    store: ConversationStore,
    folder: Path,
    *,
    question: str = "What is it?",
    answers: tuple[str, str] = ("A red square.", "A blue one."),
    owner: str = OWNER,
) -> Conversation:
    path = folder / "red.png"
    Image.new("RGB", (12, 10), (200, 0, 0)).save(path)
    images = await store.keep_images(check_images([str(path)], UploadLimits(2**20, 10**6)))
    chat = Conversation(owner=owner)
    chat.arrange(["full", "4bit"])
    turn = Turn(question, images)
    for lane, text in enumerate(answers):
        model = chat.columns[lane].model
        assert model is not None
        answer = Answer(model=model, asked_at=0.0, text=text, finish_reason=FinishReason.STOP)
        answer.usage = Usage(prompt_tokens=9, completion_tokens=4, total_tokens=13)
        answer.finish()
        turn.answers[lane] = answer
    chat.turns.append(turn)
    await store.put(chat)
    return chat
