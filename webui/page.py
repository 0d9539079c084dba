"""The components of the Compare page and where they stand; no behaviour (`webui.compare`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.protocol.chat import ImageProcessMode
from webui.conversation import MAX_COLUMNS
from webui.figures import figures_html
from webui.gallery import Gallery, gallery_html
from webui.sampling import Sampling
from webui.toolkit import gr

ASSETS = Path(__file__).parent / "assets"
TITLE = "Paragone"
TAGLINE = "vision-language checkpoints side by side"
_LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]

# Gradio's components have no types that a checker can see.
Component = Any


@dataclass(slots=True)
class Tab:
    """What one open tab was told last, so that it is only told what has changed since."""

    conversation_id: str = ""  # which one it shows
    shown: dict[str, str] = field(default_factory=dict)  # a part's key -> its fields, as text
    choices: dict[int, list[tuple[str, str]]] = field(default_factory=dict)  # by column
    open_list: int | None = None  # the column whose list of models has the focus


@dataclass(frozen=True, slots=True)
class Column:
    """The parts of one column."""

    box: Component
    model: Component
    stop: Component
    state: Component
    chat: Component
    figures: Component


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings panel, in the order of `Sampling`'s fields."""

    temperature: Component
    top_p: Component
    top_k: Component
    max_tokens: Component
    seed: Component
    system_prompt: Component
    image_process_mode: Component
    chat_template: Component

    def inputs(self) -> list[Component]:
        """The components, in order."""
        return [
            self.temperature,
            self.top_p,
            self.top_k,
            self.max_tokens,
            self.seed,
            self.system_prompt,
            self.image_process_mode,
            self.chat_template,
        ]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that a handler reads or writes."""

    conversation_id: Component  # hidden; which conversation this tab shows
    address: Component  # hidden; from where page.js takes the id into the browser's address
    tab: Component  # server side; what this tab was told
    timer: Component
    banner: Component
    num_columns: Component
    new_chat: Component
    columns: tuple[Column, ...]
    notice: Component
    examples: Component
    picked_example: Component  # hidden; written by a click on the gallery
    composer: Component
    settings: Settings


def build_page(gallery: Gallery, *, refresh_seconds: float) -> Page:
    """Lays the page out; call it inside ``gr.Blocks``."""
    conversation_id = gr.Textbox(visible="hidden", elem_id="conversation-id", show_label=False)
    address = gr.Markdown(sanitize_html=False, visible="hidden", elem_id="address")
    picked_example = gr.Textbox(visible="hidden", elem_id="picked-example", show_label=False)
    tab = gr.State(Tab())
    timer = gr.Timer(refresh_seconds)
    with gr.Row(elem_id="head"):
        _html("title", f'<h1>{TITLE}<span class="tagline">{TAGLINE}</span></h1>')
        banner = _html("banner")
        num_columns = gr.Radio(
            choices=[(str(number), number) for number in range(1, MAX_COLUMNS + 1)],
            value=2,
            label="Columns",
            elem_id="num-columns",
            container=False,
        )
        new_chat = gr.Button("New chat", elem_id="new-chat", size="sm")
        gr.Button("◐", elem_id="theme", size="sm")
    with gr.Row(elem_id="columns", equal_height=True):
        columns = tuple(_build_column(number) for number in range(MAX_COLUMNS))
    notice = _html("notice")
    examples = gr.Accordion(
        "Examples", open=True, visible=bool(gallery.examples), elem_id="examples"
    )
    with examples:
        gr.Markdown(gallery_html(gallery), sanitize_html=False, container=False)
    composer = gr.MultimodalTextbox(
        placeholder="Ask all columns; drop images here",
        label="Question to all columns",
        show_label=False,
        file_types=["image"],
        file_count="multiple",
        sources=["upload"],
        max_lines=8,
        max_plain_text_length=200_000,
        autofocus=True,
        elem_id="composer",
    )
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        settings = _build_settings()
    return Page(
        conversation_id=conversation_id,
        address=address,
        tab=tab,
        timer=timer,
        banner=banner,
        num_columns=num_columns,
        new_chat=new_chat,
        columns=columns,
        notice=notice,
        examples=examples,
        picked_example=picked_example,
        composer=composer,
        settings=settings,
    )


def _build_column(number: int) -> Column:
    with gr.Column(
        elem_classes="lane", elem_id=f"lane-{number}", min_width=240, visible=number < 2
    ) as box:
        with gr.Row(elem_classes="lane-head"):
            model = gr.Dropdown(
                choices=[],
                value=None,
                label=f"Model of column {number + 1}",
                show_label=False,
                container=False,
                interactive=True,
                filterable=True,
                elem_classes="model",
            )
            stop = gr.Button(
                "Stop", size="sm", interactive=False, min_width=56, elem_classes="stop", scale=0
            )
        state = _html(f"state-{number}")
        chat = gr.Chatbot(
            label=f"Answers of column {number + 1}",
            show_label=False,
            container=False,
            height="100%",
            layout="bubble",
            buttons=["copy"],
            feedback_options=None,
            latex_delimiters=_LATEX,
            elem_classes="chat",
            elem_id=f"chat-{number}",
        )
        figures = _html(f"figures-{number}", figures_html(None))
    return Column(box, model, stop, state, chat, figures)


def _build_settings() -> Settings:
    default = Sampling()
    # Text and not gr.Number, which turns an empty field into 0.
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)

    def number(label: str, value: object, info: str) -> Component:
        return gr.Textbox(
            value="" if value is None else str(value),
            label=label,
            info=info,
            html_attributes=typed,
            min_width=120,
        )

    with gr.Row():
        temperature = number("Temperature", f"{default.temperature:g}", "0: greedy")
        top_p = number("Top-p", f"{default.top_p:g}", "1: off")
        top_k = number("Top-k", default.top_k, "empty: the checkpoint's")
        max_tokens = number("Max tokens", default.max_tokens, "empty: as many as fit")
        seed = number("Seed", default.seed, "empty: a new one")
        system_prompt = gr.Textbox(
            value=default.system_prompt,
            lines=1,
            max_lines=4,
            label="System prompt",
            info="empty: the checkpoint's own",
            scale=2,
            min_width=220,
        )
        image_process_mode = gr.Dropdown(
            choices=[(mode.value, mode.value) for mode in ImageProcessMode],
            value=default.image_process_mode.value,
            label="Image mode",
            info="default: the checkpoint's",
            min_width=140,
        )
        chat_template = gr.Textbox(
            label="Chat template", info="empty: the checkpoint's own", min_width=140
        )
    return Settings(
        temperature,
        top_p,
        top_k,
        max_tokens,
        seed,
        system_prompt,
        image_process_mode,
        chat_template,
    )


def _html(elem_id: str, value: str = "") -> Component:
    # Markdown and not gr.HTML: that one compiles templates with Function(), which the content
    # security policy forbids. What is put here is escaped where it is made.
    return gr.Markdown(
        value, sanitize_html=False, container=False, elem_id=elem_id, elem_classes="plain"
    )


def theme() -> Component:
    """Neutral greys, one accent, the system's own fonts; nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        spacing_size=gr.themes.sizes.spacing_sm,
        radius_size=gr.themes.sizes.radius_sm,
        text_size=gr.themes.sizes.text_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"],
    )
