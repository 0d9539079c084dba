"""What an update of some components costs the others."""

from __future__ import annotations

from typing import Any

import pytest
from gradio.state_holder import SessionState

from webui.blocks import NewsBlocks
from webui.toolkit import gr

pytestmark = pytest.mark.anyio


def _built(kind: type[Any]) -> tuple[Any, list[Any], Any]:
    with kind(analytics_enabled=False) as demo:
        outputs = [gr.Markdown(), gr.Chatbot(), gr.Textbox()]
        demo.load(lambda: None, None, outputs)
    return demo, outputs, demo.fns[0]


async def test_a_component_that_is_not_named_is_not_built_anew() -> None:
    demo, (named, chat, text), event = _built(NewsBlocks)
    state = SessionState(demo)
    sent = await demo.postprocess_data(event, {named: "new"}, state)
    assert sent == ["new", gr.skip(), gr.skip()]
    assert [state[part._id] for part in (chat, text)] == [chat, text]
    assert await demo.postprocess_data(event, gr.skip(), state) == [gr.skip()] * 3
    assert [state[part._id] for part in (named, chat, text)] == [named, chat, text]


@pytest.mark.parametrize("num_named", [1, 2, 3])
async def test_browsers_are_sent_what_gradio_itself_would_send(num_named: int) -> None:
    said = [{"role": "assistant", "content": [{"type": "text", "text": "  kept"}]}]
    sent = []
    for kind in (NewsBlocks, gr.Blocks):
        values = [gr.update(value="new", visible=False), said, "typed"]
        demo, outputs, event = _built(kind)
        named = dict(zip(outputs[:num_named], values, strict=False))
        sent.append(await demo.postprocess_data(event, named, SessionState(demo)))
    assert [_plain(value) for value in sent[0]] == [_plain(value) for value in sent[1]]


async def test_an_output_that_the_event_does_not_have_is_refused() -> None:
    demo, _, event = _built(NewsBlocks)
    with demo:
        other = gr.Markdown()
    with pytest.raises(ValueError, match="not specified as output"):
        await demo.postprocess_data(event, {other: "new"}, SessionState(demo))


def _plain(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value
