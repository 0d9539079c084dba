"""Gradio's blocks, made for handlers that name a few of many components, many times a second."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel

from webui.toolkit import gr

# What Gradio passes around inside; it has no types that a checker can see.
Internal = Any

# Their values hold no files here, and only depend on what the handler returned.
_TEXTUAL = (gr.Markdown, gr.Chatbot)


class NewsBlocks(gr.Blocks):  # type: ignore[misc]  # gradio is untyped here
    """Blocks whose handlers return the components that have news, of many that they may name.

    Gradio builds each component that an update leaves out anew, with the JSON schema of its values,
    and hands each new text to a thread: nine tenths of the work of a streaming page.
    """

    async def postprocess_data(
        self, block_fn: Internal, predictions: Internal, state: Internal
    ) -> list[Internal]:
        """From what a handler returned to what browsers are sent, one value an output.

        Args:
            block_fn: the event, with its outputs.
            predictions: values by component, or one ``gr.skip()`` for all.
            state: of the session.
        """
        places = {block: place for place, block in enumerate(block_fn.outputs)}
        sent = [gr.skip() for _ in places]
        if predictions == gr.skip():
            return sent
        if not isinstance(predictions, dict) or not places.keys() >= predictions.keys():
            whole: list[Internal] = await super().postprocess_data(block_fn, predictions, state)
            return whole
        others: dict[Internal, Internal] = {}
        for block, value in predictions.items():
            if isinstance(block, _TEXTUAL) and not isinstance(value, dict):
                shown = block.postprocess(value)
                sent[places[block]] = shown.model_dump() if isinstance(shown, BaseModel) else shown
            else:
                others[block] = value  # properties change, or there may be files
        if not others:
            return sent
        named = copy.copy(block_fn)
        named.outputs = list(others)
        values = list(others.values())
        # Of a single output Gradio expects the value itself.
        returned = values if len(values) > 1 else values[0]
        for block, value in zip(
            others, await super().postprocess_data(named, returned, state), strict=True
        ):
            sent[places[block]] = value
        return sent
