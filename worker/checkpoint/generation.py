"""How a checkpoint says that its answers are to be sampled, and where they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.checkpoint import kinds
from worker.checkpoint.kinds import require_kinds
from worker.checkpoint.plan import LoadPlan


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """What the checkpoint's ``generation_config.json`` says; None where it says nothing.

    A temperature of None means greedy, as in transformers without ``do_sample``.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


def generation_config(plan: LoadPlan) -> Mapping[str, Any]:
    """The checkpoint's ``generation_config.json``, else its base's; empty where neither has one.

    Raises:
        FormatError: a value of it is of another kind than it is read as.
    """
    for folder in (plan.folder, plan.base):
        found = folder.json("generation_config.json") if folder is not None else None
        if folder is not None and found is not None:
            origin = folder.path / "generation_config.json"
            require_kinds(found, kinds.GENERATION, origin=origin)
            return found
    return {}


def end_token_ids(
    generation: Mapping[str, Any],
    plan: LoadPlan,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
) -> frozenset[int]:
    """Every token that ends an answer, by whichever file says so."""
    text_config = plan.config.get("text_config") or plan.config
    said = (generation.get("eos_token_id"), text_config.get("eos_token_id"), tokenizer.eos_token_id)
    ids: set[int] = set()
    for value in said:
        ids.update([value] if isinstance(value, int) else value or [])
    return frozenset(ids)


def generation_defaults(generation: Mapping[str, Any]) -> GenerationDefaults:
    """The sampling settings of a generation config."""
    penalty = generation.get("repetition_penalty")
    temperature, top_k = generation.get("temperature"), generation.get("top_k")
    # As in transformers: without do_sample the other settings say nothing.
    if not generation.get("do_sample", False):
        return GenerationDefaults(repetition_penalty=penalty)
    return GenerationDefaults(
        # transformers' own defaults, also where a key is there with null.
        temperature=1.0 if temperature is None else temperature,
        top_p=generation.get("top_p"),
        top_k=50 if top_k is None else top_k,
        min_p=generation.get("min_p"),
        repetition_penalty=penalty,
    )
