"""From a conversation to the requests that its columns send."""

from __future__ import annotations

import base64
from collections.abc import Mapping

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
from webui.conversation import Conversation, Turn, UploadedImage

DataUris = Mapping[UploadedImage, str]


def read_data_uris(conversation: Conversation) -> dict[UploadedImage, str]:
    """Each image of the conversation as a ``data:`` URI, byte for byte as it was uploaded. Blocks.

    Raises:
        FileNotFoundError: an upload has been cleaned away.
    """
    images = {image for turn in conversation.turns for image in turn.images}
    return {image: _data_uri(image) for image in images}


def request_body(conversation: Conversation, column: int, uris: DataUris) -> bytes:
    """The JSON body that asks a column's model for its answer to the last turn."""
    turn = conversation.turns[-1]
    sampling = turn.sampling
    fields: dict[str, object] = {
        "model": turn.answers[column].model,
        "messages": _messages(conversation, column, uris),
        "stream": True,
        "stream_options": StreamOptions(include_usage=True),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if sampling.image_process_mode is not ImageProcessMode.DEFAULT:
        fields["image_process_mode"] = sampling.image_process_mode
    request = ChatCompletionRequest.model_validate(fields)
    # Only what was set: other OpenAI-compatible servers refuse keys that they do not know.
    return request.model_dump_json(exclude_unset=True, exclude_none=True).encode()


def _messages(conversation: Conversation, column: int, uris: DataUris) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    system_prompt = conversation.turns[-1].sampling.system_prompt.strip()
    if system_prompt:
        messages.append(ChatMessage(role="system", content=system_prompt))
    # A turn that this column never answered is left out, since chat templates want the roles to
    # alternate; its images move on to the next turn, for they are still what is talked about.
    pending: list[UploadedImage] = []
    *earlier, last = conversation.turns
    for turn in earlier:
        pending.extend(turn.images)
        answer = turn.answers.get(column)
        if answer is not None and answer.text:
            messages.append(_user_message(pending, turn, uris))
            messages.append(ChatMessage(role="assistant", content=answer.text))
            pending = []
    messages.append(_user_message([*pending, *last.images], last, uris))
    return messages


def _user_message(images: list[UploadedImage], turn: Turn, uris: DataUris) -> ChatMessage:
    if not images:
        return ChatMessage(role="user", content=turn.text)
    # `type` is named because only named fields are sent.
    parts: list[ContentPart] = [
        ImagePart(type="image_url", image_url=ImageUrl(url=uris[image])) for image in images
    ]
    if turn.text:
        parts.append(TextPart(type="text", text=turn.text))
    return ChatMessage(role="user", content=parts)


def _data_uri(image: UploadedImage) -> str:
    encoded = base64.b64encode(image.path.read_bytes()).decode("ascii")
    return f"data:{image.media_type};base64,{encoded}"
