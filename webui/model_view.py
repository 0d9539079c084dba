"""How a column shows its model: one line of state, and a card while nothing was asked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from controller.protocol.fleet import ModelCard, Quantisation, WorkerState
from webui.catalogue import Catalogue, ModelStatus

_QUANTISATION = {
    Quantisation.NONE: "full precision",
    Quantisation.INT8: "8-bit",
    Quantisation.NF4: "4-bit",
}


def choices_of(
    catalogue: Catalogue, shown: str | None, *, keep: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Label and name for a column's dropdown.

    Args:
        catalogue: the models that can be chosen.
        shown: the column's own model, which stays on the list while it is away.
        keep: choices that may not disappear now; those of models that are gone say so.
    """
    choices = [(model.name, model.name) for model in catalogue.models]
    listed = {name for _, name in choices}
    if shown is not None and shown not in listed:
        choices.append((shown, shown))
        listed.add(shown)
    return choices + [(f"{name} (gone)", name) for _, name in keep if name not in listed]


def state_html(name: str | None, catalogue: Catalogue) -> str:
    """One line: whether the column's model can answer now, and why not if it cannot."""
    if name is None:
        if catalogue.problem is not None:
            return _line("gone", "controller unreachable", catalogue.problem)
        if not catalogue.models:
            return _line("loading", "waiting for a worker to register", "")
        return _line("idle", "choose a model", "")
    model = catalogue.get(name)
    if catalogue.problem is not None:
        return _line("gone", "controller unreachable", catalogue.problem)
    if model is None:
        text = "gone; resumes when a worker is back"
        return _line("gone", text, f"No worker serves {name} now. The column keeps its answers.")
    if model.state is WorkerState.LOADING:
        return _loading(model)
    if model.state is WorkerState.FAILED:
        return _line("gone", f"failed: {model.detail or 'no reason given'}", model.detail or "")
    if model.state is WorkerState.DRAINING:
        return _line("loading", "draining: takes no new questions", "")
    return _line("ready", " · ".join(["ready", *_load(model)]), _facts_line(model.card))


def card_html(name: str | None, catalogue: Catalogue) -> str:
    """What a model is, for a column in which nothing was asked yet."""
    model = catalogue.get(name)
    if model is None:
        return "" if name is None else f'<div class="card"><h2>{escape(name)}</h2></div>'
    rows = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"
        for label, value in _facts(model.card)
    )
    return f'<div class="card"><h2>{escape(model.name)}</h2><dl>{rows}</dl></div>'


def banner_html(catalogue: Catalogue) -> str:
    """The fleet in a few words, for the page's head."""
    if catalogue.problem is not None:
        return _line("gone", f"controller {catalogue.problem_address} unreachable", "")
    if not catalogue.models:
        return _line("loading", "no models yet", "")
    total = len(catalogue.models)
    ready = catalogue.num_ready
    if ready == total:
        return _line("ready", f"{total} model{'s' if total != 1 else ''} live", "")
    return _line("loading", f"{ready} of {total} models live", "")


def _line(kind: str, text: str, title: str, *, extra: str = "") -> str:
    return (
        f'<div class="state" data-kind="{kind}" title="{escape(title)}">'
        f'<span class="dot" aria-hidden="true"></span><span class="words">{escape(text)}</span>'
        f"{extra}</div>"
    )


def _loading(model: ModelStatus) -> str:
    if model.progress is None:
        return _line("loading", "loading", "")
    percent = round(model.progress.fraction * 100)
    bar = f'<progress max="100" value="{percent}" aria-label="loading">{percent} %</progress>'
    return _line("loading", f"loading {model.progress.phase} {percent} %", "", extra=bar)


def _load(model: ModelStatus) -> list[str]:
    """What is worth saying of a ready model's workers: their number if many, their queue."""
    words = [_QUANTISATION[model.card.quantisation]]
    if model.card.adapter is not None:
        words.append("LoRA")
    if model.num_ready > 1:
        words.append(f"{model.num_ready} workers")
    if model.running:
        words.append(f"{model.running} running")
    if model.waiting:
        words.append(f"{model.waiting} waiting")
    return words


def _facts_line(card: ModelCard) -> str:
    return ", ".join(f"{label}: {value}" for label, value in _facts(card))


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    weights = _QUANTISATION[card.quantisation]
    if card.dtype:
        dtype = card.dtype.removeprefix("torch.")
        is_full = card.quantisation is Quantisation.NONE
        weights += f", {dtype}" if is_full else f", computes in {dtype}"
    facts: list[tuple[str, str | None]] = [
        ("weights", weights),
        ("size", _size(card)),
        ("adapter", _last_name(card.adapter)),
        ("base", _last_name(card.base)),
        ("context", f"{card.context_length:,} tokens" if card.context_length else None),
        ("image", f"{card.image_tokens:,} tokens" if card.image_tokens else None),
    ]
    return [(label, value) for label, value in facts if value]


def _size(card: ModelCard) -> str | None:
    words = []
    if card.parameters:
        words.append(f"{_short(card.parameters)} parameters")
    if card.weight_bytes:
        words.append(f"{_short(card.weight_bytes)}B on disk")
    return ", ".join(words) or None


def _last_name(path: str | None) -> str | None:
    return path.rstrip("/").rpartition("/")[2] if path else None


def _short(number: int) -> str:
    value = float(number)
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {unit}".strip()
        value /= 1000
    return f"{value:.3g} T"
