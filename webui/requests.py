"""From a conversation to the request that a column sends.

A request is built, and kept with its answer, with `IMAGE_SCHEME` and a digest in the place of each
image's bytes; only on its way out do the bytes take their place.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from controller.protocol.chat import (
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    ImagePart,
    ImageProcessMode,
    ImageUrl,
    TextPart,
)
from controller.protocol.sampling import StreamOptions
from webui.answer import Answer
from webui.conversation import Conversation, Turn, UploadedImage

IMAGE_SCHEME = "paragone-image:"

DataUris = Mapping[str, str]  # by what stands for the image in a request
Request = dict[str, Any]


def read_data_uris(images: Sequence[UploadedImage]) -> dict[str, str]:
    """Each image as a ``data:`` URI, byte for byte as it was uploaded. Blocks.

    Raises:
        FileNotFoundError: one has been cleaned away.
    """
    return {reference(image): _data_uri(image) for image in images}


def reference(image: UploadedImage) -> str:
    """What stands for an image in a request that is kept."""
    return IMAGE_SCHEME + image.digest


def images_of(conversation: Conversation) -> list[UploadedImage]:
    """The images that a request to this conversation's models may hold, each once."""
    return list(
        {image.digest: image for turn in conversation.turns for image in turn.images}.values()
    )


def image_references(request: Request) -> list[str]:
    """What stands for the images of a request, in the prompt's order."""
    return [
        part["image_url"]["url"]
        for message in request["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]


def build_request(conversation: Conversation, lane: int) -> Request:
    """What asks a column's model for its answer to the last turn.

    An answer with text is to be continued: its text goes along as the last message, and two of
    vLLM's fields say that it is not over.
    """
    answer = conversation.turns[-1].answers[lane]
    sampling = answer.sampling
    messages = _messages(conversation, lane)
    fields: dict[str, object] = {
        "model": answer.model,
        "messages": messages,
        "stream": True,
        "stream_options": StreamOptions(include_usage=True),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if sampling.image_process_mode is not ImageProcessMode.DEFAULT:
        fields["image_process_mode"] = sampling.image_process_mode
    if sampling.chat_template:
        fields["chat_template"] = sampling.chat_template
    checked = ChatCompletionRequest.model_validate(fields)
    # Only what was set: other OpenAI-compatible servers refuse keys that they do not know.
    request: Request = checked.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if answer.text:
        request |= {"continue_final_message": True, "add_generation_prompt": False}
    return request


def body_of(request: Request, uris: DataUris) -> bytes:
    """The request as it goes out, with the images in it."""
    return json.dumps(with_images(request, uris), ensure_ascii=False).encode()


def with_images(request: Request, uris: DataUris) -> Request:
    """A copy in which each image has its own address in the place of what stood for it."""

    def part_with_image(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "image_url":
            return part
        url = part["image_url"]["url"]
        return {**part, "image_url": {**part["image_url"], "url": uris.get(url, url)}}

    messages = [
        {**message, "content": [part_with_image(part) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in request["messages"]
    ]
    return {**request, "messages": messages}


def _messages(conversation: Conversation, lane: int) -> list[ChatMessage]:
    *earlier, last = conversation.turns
    answer = last.answers[lane]
    messages: list[ChatMessage] = []
    system_prompt = answer.sampling.system_prompt.strip()
    if system_prompt:
        messages.append(ChatMessage(role="system", content=system_prompt))
    # A turn that this column never answered is left out, since chat templates want the roles to
    # alternate; its images move on to the next turn, for they are still what is talked about.
    pending: list[UploadedImage] = []
    for turn in earlier:
        pending.extend(turn.images)
        past: Answer | None = turn.answers.get(lane)
        if past is not None and past.text:
            messages.append(_user_message(pending, turn))
            messages.append(ChatMessage(role="assistant", content=past.text))
            pending = []
    messages.append(_user_message([*pending, *last.images], last))
    if answer.text:
        messages.append(ChatMessage(role="assistant", content=answer.text))
    return messages


def _user_message(images: Sequence[UploadedImage], turn: Turn) -> ChatMessage:
    if not images:
        return ChatMessage(role="user", content=turn.text)
    # `type` is named because only named fields are sent.
    parts: list[ContentPart] = [
        ImagePart(type="image_url", image_url=ImageUrl(url=reference(image))) for image in images
    ]
    if turn.text:
        parts.append(TextPart(type="text", text=turn.text))
    return ChatMessage(role="user", content=parts)


def _data_uri(image: UploadedImage) -> str:
    encoded = base64.b64encode(image.path.read_bytes()).decode("ascii")
    return f"data:{image.media_type};base64,{encoded}"
