"""A conversation as it is held on a terminal. Pure: it asks nobody."""

from __future__ import annotations

from collections.abc import Sequence

from controller.protocol.chat import (
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    ImagePart,
    ImageProcessMode,
    ImageUrl,
    TextPart,
)
from controller.protocol.preview import PreviewRequest
from controller.protocol.sampling import StreamOptions
from controller.terminal.settings import AskingSettings


class Conversation:
    """Questions and answers in turn, and the images that wait for the next question.

    Args:
        system: what stands before all of it.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self._turns: list[ChatMessage] = []
        self._waiting: list[str] = []

    @property
    def messages(self) -> list[ChatMessage]:
        """The whole conversation, as it is sent."""
        said = [ChatMessage(role="system", content=self.system)] if self.system else []
        return [*said, *self._turns]

    @property
    def waiting_images(self) -> int:
        """How many images go with the next question."""
        return len(self._waiting)

    @property
    def is_unanswered(self) -> bool:
        """Whether its last question has no answer yet."""
        return bool(self._turns) and self._turns[-1].role == "user"

    def attach(self, uri: str) -> None:
        """An image, as a ``data:`` URI, that goes with the next question."""
        self._waiting.append(uri)

    def ask(self, text: str) -> None:
        """A question with the images that wait; it takes the place of one without an answer."""
        images = [*self._withdraw(), *self._waiting]
        self._waiting = []
        content: str | list[ContentPart] = text
        if images:
            # Types are said: requests leave out what was not set.
            parts = [ImagePart(type="image_url", image_url=ImageUrl(url=uri)) for uri in images]
            content = [*parts, TextPart(type="text", text=text)]
        self._turns.append(ChatMessage(role="user", content=content))

    def answer(self, text: str) -> None:
        """What the model said."""
        self._turns.append(ChatMessage(role="assistant", content=text))

    def take_back_answer(self) -> bool:
        """Drops the last answer, so that its question can be asked again; whether there is one."""
        if self._turns and self._turns[-1].role == "assistant":
            self._turns.pop()
        return self.is_unanswered

    def clear(self) -> None:
        """Forgets everything but the system message."""
        self._turns, self._waiting = [], []

    def request(self, model: str, settings: AskingSettings) -> ChatCompletionRequest:
        """What is asked of ``model``: a streamed answer with its figures."""
        mode = settings.image_process_mode
        optional = {
            "top_p": settings.top_p,
            "seed": settings.seed,
            "chat_template": settings.conv_mode,
            "image_process_mode": None if mode is ImageProcessMode.DEFAULT else mode,
        }
        # Only what was said is sent: other servers may know no more of it.
        return ChatCompletionRequest.model_validate(
            {
                "model": model,
                "messages": self.messages,
                "stream": True,
                "stream_options": StreamOptions(include_usage=True),
                "temperature": settings.temperature,
                "max_tokens": settings.max_new_tokens,
                **{name: value for name, value in optional.items() if value is not None},
            }
        )

    def preview(self, model: str, settings: AskingSettings) -> PreviewRequest:
        """The same, to see its prompt."""
        return PreviewRequest(
            model=model,
            messages=self.messages,
            image_process_mode=settings.image_process_mode,
            chat_template=settings.conv_mode,
        )

    def _withdraw(self) -> Sequence[str]:
        """The images of a last question without an answer, which is dropped."""
        if not self.is_unanswered:
            return []
        content = self._turns.pop().content
        parts = content if isinstance(content, list) else []
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]
