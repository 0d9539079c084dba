"""A chat: questions from a person or a pipe, answers from whoever the source is.

Ctrl-C stops an answer, never the chat. Exit statuses: 0 everything was answered, 1 something was
not, 130 a single question was interrupted.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from controller.terminal import transcript
from controller.terminal.conversation import Conversation
from controller.terminal.images import image_uri
from controller.terminal.lines import Lines, files_like
from controller.terminal.reading import Reading
from controller.terminal.screen import Screen
from controller.terminal.settings import ChatSettings
from controller.terminal.source import FAILURES, AnswerSource

T = TypeVar("T")

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130  # as shells report it

COMMANDS: Final = {
    "/image": "FILE-OR-ADDRESS ...  images for the next question",
    "/system": "[TEXT]  show or set the system message; - removes it",
    "/retry": "ask the last question again",
    "/new": "forget the conversation and its images",
    "/models": "list the models that can answer",
    "/model": "NAME  go on with another model",
    "/save": "FILE  write the conversation: .json for OpenAI's messages, else Markdown",
    "/help": "this list",
    "/quit": "leave; so does Ctrl-D",
}


class _LeaveError(Exception):
    """The person has enough."""


class Chat:
    """One conversation with one source of answers.

    Args:
        source: makes the answers.
        model: who is asked.
        settings: what was asked for.
        screen: where answers go.
        runner: the loop that the source belongs to. It turns Ctrl-C into the end of what it runs.
    """

    def __init__(
        self,
        source: AnswerSource,
        model: str,
        settings: ChatSettings,
        screen: Screen,
        runner: asyncio.Runner,
    ) -> None:
        self._source = source
        self._model = model
        self._settings = settings
        self._screen = screen
        self._runner = runner
        self._conversation = Conversation(settings.system)
        self._models: Sequence[str] = (model,)

    def run(self, history: Path | None) -> int:
        """The whole chat; the exit status.

        Args:
            history: where typed lines are kept between chats.
        """
        if not self._attach(self._settings.image_file):
            return EXIT_FAILED
        if self._settings.query is not None:
            return self._ask(self._settings.query)
        lines = Lines("> ", history, self._completions)
        if lines.is_interactive:
            self._screen.remark(f"{self._model}; /help lists the commands, Ctrl-D leaves")
        status = 0
        try:
            while True:
                try:
                    typed = lines.read()
                except EOFError:
                    return status
                except KeyboardInterrupt:
                    if not lines.is_interactive:
                        return EXIT_INTERRUPTED
                    self._screen.remark("\nCtrl-D leaves")
                    continue
                try:
                    status = max(status, self._take(typed))
                except _LeaveError:
                    return status
        finally:
            lines.close()

    def _take(self, typed: str) -> int:
        """What one line asks for; 0 if it could be done."""
        text = typed.strip()
        if not text:
            return 0
        if not text.startswith("/") or text.startswith("//"):
            return self._ask(text.removeprefix("/") if text.startswith("//") else text)
        name, _, rest = text.partition(" ")
        return self._command(name, rest.strip())

    def _command(self, name: str, rest: str) -> int:
        match name:
            case "/image":
                return self._command_image(rest)
            case "/system":
                return self._command_system(rest)
            case "/retry":
                if self._conversation.take_back_answer():
                    return self._answer()
                return self._refuse("there is no question to ask again")
            case "/new":
                self._conversation.clear()
                return 0
            case "/models":
                return self._command_models()
            case "/model":
                return self._command_model(rest)
            case "/save":
                return self._command_save(rest)
            case "/help":
                for command, about in COMMANDS.items():
                    self._screen.say(f"{command:<9}{about}")
                self._screen.say("A line that ends with \\ goes on; // begins a text with a slash.")
                return 0
            case "/quit" | "/exit":
                raise _LeaveError
            case _:
                return self._refuse(f"there is no command {name}; /help lists them")

    def _command_image(self, rest: str) -> int:
        if not rest:
            self._screen.say(f"{self._conversation.waiting_images} wait for the next question")
            return 0
        # A file's name may have spaces; several are told apart as a shell does.
        whole = Path(rest).expanduser().is_file()
        try:
            sources = [rest] if whole else shlex.split(rest)
        except ValueError as exc:
            return self._refuse(f"/image: {exc}")
        return 0 if self._attach(sources) else EXIT_FAILED

    def _command_system(self, rest: str) -> int:
        if rest:
            self._conversation.system = None if rest == "-" else rest
        else:
            self._screen.say(self._conversation.system or "there is no system message")
        return 0

    def _command_models(self) -> int:
        models = self._get(self._source.models())
        if models is None:
            return EXIT_FAILED
        self._models = models
        for name in models:
            self._screen.say(f"{'*' if name == self._model else ' '} {name}")
        return 0

    def _command_model(self, name: str) -> int:
        models = self._get(self._source.models())
        if models is None:
            return EXIT_FAILED
        if name not in models:
            return self._refuse(f"no model {name!r} can answer now; there are {', '.join(models)}")
        self._model, self._models = name, models
        return 0

    def _command_save(self, rest: str) -> int:
        if not rest:
            return self._refuse("/save needs a file")
        try:
            transcript.save(Path(rest).expanduser(), self._model, self._conversation.messages)
        except FileExistsError:
            return self._refuse(f"{rest} is there already; name another file")
        except OSError as exc:
            return self._refuse(f"{rest} cannot be written: {exc.strerror or exc}")
        return 0

    def _attach(self, sources: Sequence[str]) -> bool:
        for each in sources:
            uri = self._get(image_uri(each))
            if uri is None:
                return False
            self._conversation.attach(uri)
        return True

    def _ask(self, text: str) -> int:
        self._conversation.ask(text)
        return self._answer()

    def _answer(self) -> int:
        """Has the last question answered; what there is of a stopped answer is kept."""
        reading = Reading(self._screen.piece)
        asked = self._conversation.request(self._model, self._settings)
        if self._settings.debug:
            prompt = self._get(
                self._source.prompt(self._conversation.preview(self._model, self._settings))
            )
            self._screen.remark(f"prompt: {prompt!r}")
        try:
            answer = self._runner.run(reading.read(self._source.answer(asked)))
        except FAILURES as exc:
            self._screen.end()
            return self._refuse(f"{self._model}: {exc.message}")
        except KeyboardInterrupt:
            self._screen.end()
            self._screen.remark("stopped")
            if reading.text:
                self._conversation.answer(reading.text)
            return EXIT_INTERRUPTED if self._settings.query is not None else 0
        self._screen.end()
        self._screen.figures(answer.figures)
        if self._settings.debug:
            self._screen.remark(f"answer: {answer.text!r}")
        self._conversation.answer(answer.text)
        return 0

    def _get(self, asked: Coroutine[Any, Any, T]) -> T | None:
        """What is asked for; None once it was said why it cannot be had."""
        try:
            return self._runner.run(asked)
        except FAILURES as exc:
            self._refuse(exc.message)
        except KeyboardInterrupt:
            self._screen.remark("stopped")
        return None

    def _refuse(self, why: str) -> int:
        self._screen.alarm(why)
        return EXIT_FAILED

    def _completions(self, before: str, word: str) -> Sequence[str]:
        if not before.strip():
            return [name + " " for name in COMMANDS if word and name.startswith(word)]
        match before.split(maxsplit=1)[0]:
            case "/image" | "/save":
                return list(files_like(word))
            case "/model":
                return [name for name in self._models if name.startswith(word)]
            case _:
                return []
