"""The components of the Compare page and where they stand; no behaviour (`webui.compare`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.protocol.chat import ImageProcessMode
from webui.conversation import MAX_COLUMNS, Conversation
from webui.figures import figures_html
from webui.gallery import Gallery, gallery_html
from webui.language import ENGLISH, Language, Words
from webui.markdown import FORMULAS
from webui.nav import nav_html
from webui.toolkit import gr
from webui.tools import answer_tools_html, compose_tools_html, head_html, lane_tools_html

ASSETS = Path(__file__).parent / "assets"
TITLE = "Paragone"
TAGLINE = "vision-language checkpoints side by side"
_LATEX = [
    {"left": opening, "right": closing, "display": is_display}
    for opening, closing, is_display in FORMULAS
]

# Gradio's components have no types that a checker can see.
Component = Any


@dataclass(slots=True)
class Tab:
    """What one open tab is about, and what it was told last, so that it is told news alone."""

    conversation_id: str = ""  # which one it shows
    person: str = ""  # whose tab it is
    language: Language = Language.ENGLISH
    is_answering: bool = False  # whether its composer says so
    editing: int | None = None  # the turn that is being asked anew
    scope: int | None = None  # the lane whose settings the panel shows; None: the chat's
    shown: dict[str, str] = field(default_factory=dict)  # a part's key -> its fields, as text
    choices: dict[int, list[tuple[str, str]]] = field(default_factory=dict)  # by place
    open_lists: set[int] = field(default_factory=set)  # places whose list of models has the focus

    @property
    def words(self) -> Words:
        """Says things in this tab's language."""
        return Words(self.language)


@dataclass(frozen=True, slots=True)
class ColumnParts:
    """The parts of the column at one place."""

    box: Component
    model: Component
    lane_tools: Component
    state: Component
    chat: Component
    figures: Component
    answer_tools: Component


@dataclass(frozen=True, slots=True)
class SettingsPanel:
    """The settings; `values` are in the order of `Sampling`'s fields."""

    head: Component
    values: tuple[Component, ...]
    same_seed: Component
    sequential: Component
    problem: Component

    def inputs(self) -> list[Component]:
        """What a handler reads: the two switches, then the values."""
        return [self.same_seed, self.sequential, *self.values]

    def outputs(self) -> list[Component]:
        """Everything in it."""
        return [self.head, self.problem, *self.inputs()]


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that a handler reads or writes."""

    conversation_id: Component  # hidden; which conversation this tab shows
    address: Component  # hidden; from where page.js takes the id into the browser's address
    act: Component  # hidden; written by page.js when one of our own buttons is pressed
    tab: Component  # server side
    timer: Component
    news: Component  # hidden; changes when the fleet has, for a tab that is then shown the change
    head: Component
    nav: Component  # the links to the other views
    banner: Component
    tabs: Component
    columns: tuple[ColumnParts, ...]  # by place
    notice: Component
    examples: Component
    compose_tools: Component
    composer: Component
    settings: SettingsPanel
    panel: Component  # the drawer that shows what is behind an answer
    help: Component


def build_page(gallery: Gallery, *, refresh_seconds: float, terms: str, can_fetch: bool) -> Page:
    """Lays the page out, in English; call it inside ``gr.Blocks``.

    Args:
        gallery: the examples.
        refresh_seconds: how often tabs ask for what has changed in the fleet.
        terms: what people are told before they ask, HTML; empty: nothing.
        can_fetch: whether images may be fetched by their addresses.
    """
    empty = Conversation()
    conversation_id = gr.Textbox(visible="hidden", elem_id="conversation-id", show_label=False)
    address = gr.Markdown(sanitize_html=False, visible="hidden", elem_id="address")
    act = gr.Textbox(visible="hidden", elem_id="act", show_label=False)
    tab = gr.State(Tab())
    timer = gr.Timer(refresh_seconds)
    news = gr.Textbox(visible="hidden", elem_id="news", show_label=False)
    with gr.Row(elem_id="head"):
        _html("title", f'<h1 title="{TAGLINE}">{TITLE}</h1>')
        nav = _html("nav", nav_html(ENGLISH, view="compare"))
        banner = _html("banner")
        head = _html("head-tools", head_html(empty, ENGLISH))
    tabs = _html("tabs")
    with gr.Row(elem_id="columns", equal_height=True):
        columns = tuple(_build_column(place, empty) for place in range(MAX_COLUMNS))
    notice = _html("notice")
    with gr.Row(elem_id="compose-row"):
        examples = gr.Accordion(
            "Examples", open=True, visible=bool(gallery.examples), elem_id="examples"
        )
        with examples:
            gr.Markdown(gallery_html(gallery), sanitize_html=False, container=False)
    if terms:
        _html("terms", terms)
    compose_tools = _html("compose-tools", compose_tools_html(ENGLISH, can_fetch=can_fetch))
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
    with gr.Column(elem_id="settings", elem_classes="drawer"):
        settings = _build_settings()
    panel = _html("panel", classes=["drawer"])
    guide = _html("help", classes=["drawer"])
    return Page(
        conversation_id=conversation_id,
        address=address,
        act=act,
        tab=tab,
        timer=timer,
        news=news,
        head=head,
        nav=nav,
        banner=banner,
        tabs=tabs,
        columns=columns,
        notice=notice,
        examples=examples,
        compose_tools=compose_tools,
        composer=composer,
        settings=settings,
        panel=panel,
        help=guide,
    )


def _build_column(place: int, empty: Conversation) -> ColumnParts:
    with gr.Column(
        elem_classes="lane", elem_id=f"lane-{place}", min_width=200, visible=place < 2
    ) as box:
        with gr.Row(elem_classes="lane-head"):
            model = gr.Dropdown(
                choices=[],
                value=None,
                label=f"Model of column {place + 1}",
                show_label=False,
                container=False,
                interactive=True,
                filterable=True,
                elem_classes="model",
            )
            lane_tools = _html(f"lane-tools-{place}", lane_tools_html(empty, place, ENGLISH))
        state = _html(f"state-{place}")
        chat = gr.Chatbot(
            label=f"Answers of column {place + 1}",
            show_label=False,
            container=False,
            height="100%",
            layout="bubble",
            buttons=[],
            feedback_options=None,
            latex_delimiters=_LATEX,
            elem_classes="chat",
            elem_id=f"chat-{place}",
        )
        figures = _html(f"figures-{place}", figures_html(None))
        tools = _html(
            f"answer-tools-{place}", answer_tools_html(None, place, ENGLISH, is_last=False)
        )
    return ColumnParts(box, model, lane_tools, state, chat, figures, tools)


def _build_settings() -> SettingsPanel:
    # Text and not gr.Number, which turns an empty field into 0.
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)

    def text() -> Component:
        return gr.Textbox(html_attributes=typed, min_width=120)

    head = _html("settings-head")
    problem = _html("settings-problem")
    with gr.Row():
        temperature, top_p = text(), text()
    with gr.Row():
        top_k, max_tokens = text(), text()
    system_prompt = gr.Textbox(lines=2, max_lines=6)
    with gr.Row():
        seed = text()
        image_mode = gr.Dropdown(
            choices=[mode.value for mode in ImageProcessMode],
            value=ImageProcessMode.DEFAULT.value,
            min_width=120,
        )
    chat_template = text()
    # Without a label from the start a checkbox never shows one.
    same_seed = gr.Checkbox(value=True, container=False, label="Same seed")
    sequential = gr.Checkbox(value=False, container=False, label="One after another")
    values = (
        temperature,
        top_p,
        top_k,
        max_tokens,
        seed,
        system_prompt,
        image_mode,
        chat_template,
    )
    return SettingsPanel(head, values, same_seed, sequential, problem)


def _html(elem_id: str, value: str = "", *, classes: list[str] | None = None) -> Component:
    # Markdown and not gr.HTML: that one compiles templates with Function(), which the content
    # security policy forbids. What is put here is escaped where it is made.
    return gr.Markdown(
        value,
        sanitize_html=False,
        container=False,
        latex_delimiters=[],
        elem_id=elem_id,
        elem_classes=["plain", *(classes or [])],
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
