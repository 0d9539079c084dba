"""How a column shows its model: one line of state, and a card while nothing was asked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from controller.protocol.fleet import ModelCard, Quantisation, WorkerState
from webui.catalogue import Catalogue, ModelStatus
from webui.language import ENGLISH, Words

_QUANTISATION = {
    Quantisation.NONE: "full precision",
    Quantisation.INT8: "8-bit",
    Quantisation.NF4: "4-bit",
}


def choices_of(
    catalogue: Catalogue,
    shown: str | None,
    *,
    keep: Sequence[tuple[str, str]] = (),
    words: Words = ENGLISH,
) -> list[tuple[str, str]]:
    """Label and name for a column's dropdown; models that are gone say so.

    Args:
        catalogue: the models that can be chosen.
        shown: the column's own model, which stays on the list while it is away. Its label is its
            name, as that is what the column is headed with; its line of state says the rest.
        keep: choices that may not disappear now.
        words: the language.
    """
    names = [*catalogue.offered, *filter(None, [shown]), *(name for _, name in keep)]

    def label(name: str) -> str:
        is_there = name == shown or catalogue.get(name) is not None
        return name if is_there else words("{name} (gone)", name=name)

    return [(label(name), name) for name in dict.fromkeys(names)]


def state_html(name: str | None, catalogue: Catalogue, words: Words = ENGLISH) -> str:
    """One line: whether the column's model can answer now, and why not if it cannot."""
    if name is None:
        if catalogue.problem is not None:
            return _line("gone", words("controller unreachable"), catalogue.problem)
        if not catalogue.models:
            return _line("loading", words("waiting for a worker to register"), "")
        return _line("idle", words("choose a model"), "")
    model = catalogue.get(name)
    if catalogue.problem is not None:
        return _line("gone", words("controller unreachable"), catalogue.problem)
    if model is None:
        explained = words("No worker serves {name} now. The column keeps its answers.", name=name)
        return _line("gone", words("gone; resumes when a worker is back"), explained)
    if model.state is WorkerState.LOADING:
        return _loading(model, words)
    if model.state is WorkerState.FAILED:
        detail = model.detail or words("no reason given")
        return _line("gone", words("failed: {detail}", detail=detail), model.detail or "")
    if model.state is WorkerState.DRAINING:
        return _line("loading", words("draining: takes no new questions"), "")
    load = " · ".join([words("ready"), *_load(model, words)])
    return _line("ready", load, _facts_line(model.card, words))


def card_html(name: str | None, catalogue: Catalogue, words: Words = ENGLISH) -> str:
    """What a model is, for a column in which nothing was asked yet."""
    model = catalogue.get(name)
    if model is None:
        return "" if name is None else f'<div class="card"><h2>{escape(name)}</h2></div>'
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in _facts(model.card, words)
    )
    return f'<div class="card"><h2>{escape(model.name)}</h2><dl>{rows}</dl></div>'


def banner_html(catalogue: Catalogue, words: Words = ENGLISH) -> str:
    """The fleet in a few words, for the page's head."""
    if catalogue.problem is not None:
        address = catalogue.problem_address
        return _line("gone", words("controller {address} unreachable", address=address), "")
    if not catalogue.models:
        return _line("loading", words("no models yet"), "")
    total = len(catalogue.models)
    ready = catalogue.num_ready
    if ready == total:
        text = words("1 model live") if total == 1 else words("{total} models live", total=total)
        return _line("ready", text, "")
    text = words("{ready} of {total} models live", ready=ready, total=total)
    return _line("loading", text, "")


def _line(kind: str, text: str, title: str, *, extra: str = "") -> str:
    return (
        f'<div class="state" data-kind="{kind}" title="{escape(title)}">'
        f'<span class="dot" aria-hidden="true"></span><span class="words">{escape(text)}</span>'
        f"{extra}</div>"
    )


def _loading(model: ModelStatus, words: Words) -> str:
    if model.progress is None:
        return _line("loading", words("loading"), "")
    percent = round(model.progress.fraction * 100)
    label = escape(words("loading"))
    bar = f'<progress max="100" value="{percent}" aria-label="{label}">{percent} %</progress>'
    text = words("loading {phase} {percent} %", phase=model.progress.phase, percent=percent)
    return _line("loading", text, "", extra=bar)


def _load(model: ModelStatus, words: Words) -> list[str]:
    """What is worth saying of a ready model's workers: their number if many, their queue."""
    said = [words(_QUANTISATION[model.card.quantisation])]
    if model.card.adapter is not None:
        said.append("LoRA")
    if model.num_ready > 1:
        said.append(words("{count} workers", count=model.num_ready))
    if model.running:
        said.append(words("{count} running", count=model.running))
    if model.waiting:
        said.append(words("{count} waiting", count=model.waiting))
    return said


def _facts_line(card: ModelCard, words: Words) -> str:
    return ", ".join(f"{label}: {value}" for label, value in _facts(card, words))


def _facts(card: ModelCard, words: Words) -> list[tuple[str, str]]:
    weights = words(_QUANTISATION[card.quantisation])
    if card.dtype:
        dtype = card.dtype.removeprefix("torch.")
        is_full = card.quantisation is Quantisation.NONE
        weights += f", {dtype}" if is_full else ", " + words("computes in") + f" {dtype}"
    facts: list[tuple[str, str | None]] = [
        (words("weights"), weights),
        (words("size"), _size(card, words)),
        (words("adapter"), _last_name(card.adapter)),
        (words("base"), _last_name(card.base)),
        (words("context"), _tokens(card.context_length, words)),
        (words("image"), _tokens(card.image_tokens, words)),
    ]
    return [(label, value) for label, value in facts if value]


def _tokens(number: int | None, words: Words) -> str | None:
    return words("{tokens} tokens", tokens=f"{number:,}") if number else None


def _size(card: ModelCard, words: Words) -> str | None:
    said = []
    if card.parameters:
        said.append(words("{count} parameters", count=_short(card.parameters)))
    if card.weight_bytes:
        said.append(words("{size}B on disk", size=_short(card.weight_bytes)))
    return ", ".join(said) or None


def _last_name(path: str | None) -> str | None:
    return path.rstrip("/").rpartition("/")[2] if path else None


def _short(number: int) -> str:
    value = float(number)
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {unit}".strip()
        value /= 1000
    return f"{value:.3g} T"
