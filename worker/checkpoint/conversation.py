"""Conversations to prompts: places for images, and templates whose messages have text alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from PIL import Image

from controller.protocol.chat import ChatMessage, TextPart
from controller.protocol.errors import BadRequestError
from worker.checkpoint.errors import TemplateError
from worker.checkpoint.prompt import IMAGE_MARKER, PLACEHOLDER
from worker.checkpoint.templates import ChatTemplate, template_names


def render_conversation(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: ChatTemplate,
    messages: Sequence[ChatMessage],
    images: Sequence[Image.Image],
) -> str:
    """The prompt's text, `PLACEHOLDER` for each image, up to where the assistant is to go on.

    Raises:
        BadRequestError: images and image parts differ in number, or the template refuses the
            conversation (such as two questions in a row).
    """
    require_images_match(messages, images)
    return render(tokenizer, template, flatten(messages, images_first=template.images_first))


def render(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
) -> str:
    """Messages in a chat template; an answer that is the last of them is to be continued.

    Raises:
        BadRequestError: the template refuses them.
    """
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages),
            chat_template=template.source,
            tokenize=False,
            image_token=PLACEHOLDER,  # for templates that give images an exchange of their own
            **ending(messages),
        )
    except (jinja2.TemplateError, ValueError) as error:
        raise refused_by_template(error) from error
    return text


def ending(messages: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """How a template is to end: with an answer under way as it stands, else with a new one's head.

    Both are options of transformers' ``apply_chat_template``, and vLLM's names for them.
    """
    is_begun = bool(messages) and messages[-1]["role"] == "assistant"
    return {"add_generation_prompt": not is_begun, "continue_final_message": is_begun}


def require_text_template(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: ChatTemplate,
) -> ChatTemplate:
    """The template, if its messages have text alone.

    Raises:
        TemplateError: it wants messages in parts, and would drop a text's characters one by one.
    """
    sample = "a question"
    try:
        text = render(tokenizer, template, [{"role": "user", "content": sample}])
    except BadRequestError:  # it wants more of a conversation than this
        return template
    if sample not in text:
        raise TemplateError(
            f"the chat template of {template.origin} leaves out a question whose content is text: "
            "it is for messages in parts, which this model does not have. Choose another one with "
            f"--chat-template: a file, or one of {', '.join(template_names())}"
        )
    return template


def refused_by_template(error: Exception) -> BadRequestError:
    """What a template's own error is to the client whose conversation it did not like."""
    return BadRequestError(
        f"the model's chat template refuses this conversation: {error}", param="messages"
    )


def require_images_match(messages: Sequence[ChatMessage], images: Sequence[Image.Image]) -> None:
    """Checks that there is one image for each image part.

    Raises:
        BadRequestError: there is not.
    """
    parts = sum(
        not isinstance(part, TextPart)
        for message in messages
        if isinstance(message.content, list)
        for part in message.content
    )
    if parts != len(images):
        raise BadRequestError(
            f"the conversation has {parts} image parts and {len(images)} images came with it",
            param="messages",
        )


def mark_images(prompt: str, images: Sequence[Image.Image]) -> str:
    """A rendered prompt with `PLACEHOLDER` for each ``<image>``, which is text without images.

    Raises:
        BadRequestError: images and markers differ in number.
    """
    text = plain(prompt)
    if not images:
        return text
    markers = text.count(IMAGE_MARKER)
    if markers != len(images):
        raise BadRequestError(
            f"the prompt has {markers} {IMAGE_MARKER} markers and {len(images)} images came "
            "with it",
            param="prompt",
        )
    return text.replace(IMAGE_MARKER, PLACEHOLDER)


def flatten(messages: Sequence[ChatMessage], *, images_first: bool = True) -> list[dict[str, str]]:
    """Messages with text alone; an image is `PLACEHOLDER`.

    An image that stands beside text gets a line of its own. With ``images_first`` the images of
    the first question come before its text, as LLaVA was trained.
    """
    flat = []
    is_first_question = True
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        content = _flat_content(message)
        if role == "user":
            if images_first and is_first_question and PLACEHOLDER in content:
                content = _images_first(content)
            is_first_question = False
        flat.append({"role": role, "content": content})
    return flat


def _flat_content(message: ChatMessage) -> str:
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return plain(message.content)
    content = ""
    after_image = False
    for part in message.content:
        if isinstance(part, TextPart):
            text = plain(part.text)
            if after_image and text and not text[0].isspace():
                content += "\n"
            content += text
            after_image = False
        else:
            if content and not content[-1].isspace():
                content += "\n"
            content += PLACEHOLDER
            after_image = True
    return content


def _images_first(content: str) -> str:
    count = content.count(PLACEHOLDER)
    text = content.replace(PLACEHOLDER, "").strip()
    return f"{PLACEHOLDER}\n" * count + text


def plain(text: str) -> str:
    """A text that cannot be taken for an image's place."""
    return text.replace(PLACEHOLDER, "\ufffd")


def stop_token_ids(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: ChatTemplate,
    *,
    num_embeddings: int | None = None,
) -> frozenset[int]:
    """Ids of the stop strings that are special tokens: those are left out of the decoded text.

    Args:
        tokenizer: transformers' tokenizer.
        template: whose stop strings.
        num_embeddings: rows of the model's embedding; it never says a token beyond them.
    """
    ids = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content in template.stop_strings
    }
    return frozenset(id_ for id_ in ids if num_embeddings is None or id_ < num_embeddings)
