"""Prompts for legacy workers, which take text that somebody else has put into a template.

Sources: the styles and strings of LLaVA's ``llava/conversation.py``; which model gets which of them
from the ``http_bot`` of its ``gradio_web_server.py``, by the name, as there is nothing else to go
by; FastChat's workers give theirs away (``/worker_get_conv_template``), in its styles' numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from controller.protocol.chat import ChatMessage, ImagePart, TextPart
from controller.protocol.errors import BadRequestError
from controller.protocol.legacy import IMAGE_MARKER
from controller.protocol.message import Message

Turn = tuple[bool, str]  # whether the assistant says it, and what

FASTCHAT_IMAGE = "$$<image>$$"


class Style(IntEnum):
    """How turns are joined; FastChat's numbers, LLaVA's names beside them."""

    COLON_SINGLE = 1  # SINGLE: "role: text" + sep
    COLON_TWO = 2  # TWO: as above, sep after questions, sep2 after answers
    COLON_SPACE_SINGLE = 3  # as 1, and a space after the last colon
    NO_COLON_SINGLE = 4  # MPT: role + text + sep
    NO_COLON_TWO = 5
    NEW_LINE_SINGLE = 6  # role, line break, text, sep
    LLAMA2 = 7  # LLAMA_2: [INST] question [/INST] answer
    CHATML = 10  # as 4 with line breaks between


@dataclass(frozen=True, slots=True)
class LegacyTemplate:
    """A conversation template in the legacy programs' terms."""

    style: Style
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    system_message: str = ""
    system_template: str = "{system_message}"
    sep: str = " "
    sep2: str = "</s>"
    stop: tuple[str, ...] = ()
    image: str = IMAGE_MARKER
    images_have_a_turn: bool = False  # "mmtag": an exchange of their own before the question

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """What ends an answer, as LLaVA's page tells its workers."""
        if self.stop:
            return self.stop
        by_first = self.style in {Style.COLON_SINGLE, Style.NO_COLON_SINGLE, Style.CHATML}
        return (self.sep if by_first else self.sep2,)

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The prompt of a conversation that the assistant is to continue."""
        system = self.system_template.format(system_message=self.system_message)
        if self.style is Style.LLAMA2:
            return self._llama2(turns)
        text = system + self._after_system if system else ""
        for is_answer, said in turns:
            sep = self.sep2 if is_answer and self._has_two else self.sep
            text += self.roles[is_answer] + self._before_text + said + sep + self._between
        return text + self._opening

    @property
    def _has_two(self) -> bool:
        return self.style in {Style.COLON_TWO, Style.NO_COLON_TWO}

    @property
    def _before_text(self) -> str:
        if self.style in {Style.COLON_SINGLE, Style.COLON_TWO, Style.COLON_SPACE_SINGLE}:
            return ": "
        return "\n" if self.style in {Style.NEW_LINE_SINGLE, Style.CHATML} else ""

    @property
    def _after_system(self) -> str:
        return self.sep + self._between

    @property
    def _between(self) -> str:
        return "\n" if self.style is Style.CHATML else ""

    @property
    def _opening(self) -> str:
        """How the assistant's turn begins."""
        role = self.roles[1]
        match self.style:
            case Style.COLON_SINGLE | Style.COLON_TWO:
                return role + ":"
            case Style.COLON_SPACE_SINGLE:
                return role + ": "
            case Style.NEW_LINE_SINGLE | Style.CHATML:
                return role + "\n"
            case _:
                return role

    def _llama2(self, turns: Sequence[Turn]) -> str:
        text = ""
        for position, (is_answer, said) in enumerate(turns):
            if is_answer:
                text += f" {said} {self.sep2}"
                continue
            if position == 0 and self.system_message:
                said = f"<<SYS>>\n{self.system_message}\n<</SYS>>\n\n{said}"  # noqa: PLW2901
            text += f"{self.sep}[INST] {said} [/INST]"
        return text.removeprefix(self.sep)


class FastChatConversation(Message):
    """A template as FastChat's workers give it away, and its API server takes it."""

    name: str
    system_template: str = "{system_message}"
    system_message: str = ""
    roles: tuple[str, str]
    messages: tuple[tuple[str, str | None], ...] = ()
    offset: int = 0
    sep_style: int
    sep: str = "\n"
    sep2: str | None = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] | None = None

    @classmethod
    def of(cls, name: str, template: LegacyTemplate) -> FastChatConversation:
        """A template in these terms."""
        return cls(
            name=name,
            system_template=template.system_template,
            system_message=template.system_message,
            roles=template.roles,
            sep_style=template.style.value,
            sep=template.sep,
            sep2=template.sep2,
            stop_str=list(template.stop_strings),
        )

    def template(self) -> LegacyTemplate:
        """The template.

        Raises:
            ValueError: its style is none of those that are known here.
        """
        stop = [self.stop_str] if isinstance(self.stop_str, str) else self.stop_str or []
        return LegacyTemplate(
            Style(self.sep_style),
            roles=self.roles,
            system_message=self.system_message,
            system_template=self.system_template,
            sep=self.sep,
            sep2=self.sep2 or "",
            stop=tuple(stop),
            image=FASTCHAT_IMAGE,
        )


class ConversationReply(Message):
    """``/worker_get_conv_template``."""

    conv: FastChatConversation


_CURIOUS = (
    "A chat between a curious {who} and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the {who}'s questions."
)
_VISION = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)
_LLAMA_CHAT = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the "
    "answer to a question, please don't share false information."
)
_MMTAG = (
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)


def _chatml(system: str) -> LegacyTemplate:
    return LegacyTemplate(
        Style.NO_COLON_SINGLE,
        roles=("<|im_start|>user\n", "<|im_start|>assistant\n"),
        system_template="<|im_start|>system\n{system_message}",
        system_message=system,
        sep="<|im_end|>",
    )


_HUMAN = ("Human", "Assistant")
TEMPLATES = {
    "vicuna_v1": LegacyTemplate(Style.COLON_TWO, system_message=_CURIOUS.format(who="user")),
    "llava_v1": LegacyTemplate(Style.COLON_TWO, system_message=_CURIOUS.format(who="human")),
    "v1_mmtag": LegacyTemplate(
        Style.COLON_TWO,
        system_message=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "is able to understand the visual content that the user provides, and assist the user "
            "with a variety of tasks using natural language." + _MMTAG
        ),
        images_have_a_turn=True,
    ),
    "llava_v0": LegacyTemplate(
        Style.COLON_SINGLE, _HUMAN, system_message=_CURIOUS.format(who="human"), sep="###"
    ),
    "v0_mmtag": LegacyTemplate(
        Style.COLON_SINGLE,
        _HUMAN,
        system_message=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "is able to understand the visual content that the user provides, and assist the user "
            "with a variety of tasks using natural language." + _MMTAG
        ),
        sep="###",
        images_have_a_turn=True,
    ),
    "llama_2": LegacyTemplate(Style.LLAMA2, system_message=_LLAMA_CHAT, sep="<s>"),
    "llava_llama_2": LegacyTemplate(Style.LLAMA2, system_message=_VISION, sep="<s>"),
    "mistral_instruct": LegacyTemplate(Style.LLAMA2, sep=""),
    "mistral_orca": _chatml(
        "You are MistralOrca, a large language model trained by Alignment Lab AI. Write out your "
        "reasoning step-by-step to be sure you get the right answers!"
    ),
    "chatml_direct": _chatml("Answer the questions."),
    "mpt": _chatml(
        "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful "
        "and honest answers."
    ),
}

# LLaVA's rules, the first that fits: all of these are in the name, and it gets this template.
_RULES: Sequence[tuple[tuple[str, ...], str]] = (
    (("llava", "llama-2"), "llava_llama_2"),
    (("llava", "mistral", "orca"), "mistral_orca"),
    (("llava", "mistral", "hermes"), "chatml_direct"),
    (("llava", "mistral"), "mistral_instruct"),
    (("llava", "mixtral"), "mistral_instruct"),
    (("llava-v1.6-34b",), "chatml_direct"),
    (("llava", "v1", "mmtag"), "v1_mmtag"),
    (("llava", "v1"), "llava_v1"),
    (("llava", "mpt"), "mpt"),
    (("llava", "mmtag"), "v0_mmtag"),
    (("llava",), "llava_v0"),
    (("mpt",), "mpt"),
    (("llama-2",), "llama_2"),
)


def template_by_name(model: str) -> LegacyTemplate:
    """The template that LLaVA's page would take for a model of this name."""
    name = model.lower()
    for parts, template in _RULES:
        if all(part in name for part in parts):
            return TEMPLATES[template]
    return TEMPLATES["vicuna_v1"]


def render(template: LegacyTemplate, messages: Sequence[ChatMessage]) -> tuple[str, list[str]]:
    """The prompt of a conversation, and its images as base64.

    Raises:
        BadRequestError: the roles do not take turns, or an image is no ``data:`` URI.
    """
    turns: list[Turn] = []
    images: list[str] = []
    for message in messages:
        text, found = _content(message, template.image)
        if message.role in ("system", "developer"):
            template = replace(template, system_message=text)
            continue
        is_answer = message.role == "assistant"
        if is_answer is not bool(len(turns) % 2):
            raise BadRequestError(
                "messages: questions and answers have to take turns for this model, which is "
                "served by a legacy worker",
                param="messages",
            )
        if found and not turns:  # the first question's images stand before it
            text = text.replace(template.image, "").strip()
            if template.images_have_a_turn:
                shown = f"<Image>{template.image}</Image>\n" * len(found)
                turns = [(False, shown.strip()), (True, "Received.")]
            else:
                text = f"{template.image}\n" * len(found) + text
        turns.append((is_answer, text))
        images += found
    if not turns or turns[-1][0]:
        raise BadRequestError("messages: the last one has to be a question", param="messages")
    return template.prompt(turns), images


def _content(message: ChatMessage, marker: str) -> tuple[str, list[str]]:
    """A message's text with a marker for each image, and the images."""
    if not isinstance(message.content, list):
        return _unmarked(message.content or "", marker), []
    pieces: list[str] = []
    images: list[str] = []
    for part in message.content:
        if isinstance(part, TextPart):
            pieces.append(_unmarked(part.text, marker))
        elif isinstance(part, ImagePart):
            images.append(base64_of(part.image_url.url))
            pieces.append(marker)
    return "\n".join(pieces), images


def _unmarked(text: str, marker: str) -> str:
    """Text that a worker cannot take for the place of an image."""
    return text.replace(marker, marker.replace("<", "< "))


def base64_of(url: str) -> str:
    """The base64 of a ``data:`` URI.

    Raises:
        BadRequestError: it is an address; nothing is fetched here.
    """
    head, separator, encoded = url.partition(",")
    if not separator or not head.startswith("data:") or not head.endswith(";base64"):
        raise BadRequestError(
            "image_url: this model is served by a legacy worker, which takes images as base64 in a "
            "data: URI alone",
            param="messages",
        )
    return encoded
