"""An inspection as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from controller.protocol.fleet import ModelCard, ModelFacts, Quantisation
from worker.checkpoint.memory import gib
from worker.inspect.inspection import Inspection

_WIDTH = 16  # of the names


def render(found: Inspection) -> str:
    """Some thirty lines."""
    return "\n".join([*_facts(found.card), "", *_memory(found), "", *_verdict(found), ""])


def _facts(card: ModelCard) -> Iterator[str]:
    facts = card.facts
    if facts is None:
        raise ValueError("an inspection's card has facts")
    yield _line("name", card.name)
    yield _line("format", card.format)
    yield _line("architecture", card.architecture)
    yield _line("language model", facts.language_model)
    yield _line("vision tower", facts.vision_tower or "none: it reads text alone")
    if facts.projector:
        yield _line("projector", facts.projector)
    if card.base:
        yield _line("base", card.base + (f" at {facts.base_revision}" * bool(facts.base_revision)))
    yield _line("adapter", card.adapter or "none")
    yield _line("quantisation", card.quantisation)
    yield _line("dtype", f"{card.dtype} on {', '.join(facts.devices)}")
    if card.revision:
        yield _line("revision", card.revision)
    yield _line("parameters", _parameters(card, facts))
    length = card.context_length
    yield _line("context", f"{length} tokens" if length else "the config names no limit")
    if facts.image_tokens:
        tokens = ", ".join(f"{size}: {count}" for size, count in facts.image_tokens.items())
        yield _line("image tokens", tokens)
    yield _line("template", facts.template)
    for index, text in enumerate((facts.sample_prompt or "").splitlines()):
        yield _line("" if index else "sample prompt", text)


def _parameters(card: ModelCard, facts: ModelFacts) -> str:
    parts = ", ".join(f"{part} {_count(n)}" for part, n in facts.parameters_by_part.items())
    return f"{_count(card.parameters or 0)} ({parts})"


def _memory(found: Inspection) -> Iterator[str]:
    length = found.card.context_length
    context = f"+ context of {length}" if length else ""
    yield f"{'memory':{_WIDTH}}{'weights':>10}  {context:>20}{'at least':>12}"
    for row in found.memory:
        full = gib(row.weights + row.context) if row.context is not None else ""
        name = f"  {row.held.replace('bit', '-bit')}"
        sizes = f"{gib(row.weights):>10}  {full:>20}{gib(row.least):>12}"
        yield f"{name:{_WIDTH}}{sizes}  {'fits' if row.fits else 'does not fit'}"


def _verdict(found: Inspection) -> Iterator[str]:
    for device in found.devices:
        bound = f", within {device.limited_by}" if device.limited_by else ""
        yield _line("free", f"{gib(device.free)} on {device.device}{bound}")
    kind = found.card.quantisation
    how = found.card.dtype if kind is Quantisation.NONE else kind.value.replace("bit", "-bit")
    yield _line("verdict", f"it fits as {how}" if found.fits else found.shortage)


def _line(name: str, value: object) -> str:
    return f"{name:{_WIDTH}}{value}".rstrip()


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
