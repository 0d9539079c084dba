"""What an address may say of a new chat: models, question, seed, system prompt.

``?models=a,b&prompt=..&seed=..&system=..``, and LLaVA's and FastChat's ``?model=a``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from webui.conversation import Conversation
from webui.questions import RefusedError, read_sampling
from webui.sampling import Sampling

_MAX_PROMPT = 20_000  # characters


@dataclass(frozen=True, slots=True)
class DeepLink:
    """A new chat, as an address asks for it.

    Attributes:
        models: of the columns, by place; empty: whatever the fleet has.
        prompt: for the composer; it is not sent by itself, since others may have made the link.
        sampling: the chat's settings.
        problem: what of the address cannot be used; empty if all of it can.
    """

    models: tuple[str, ...] = ()
    prompt: str = ""
    sampling: Sampling = field(default_factory=Sampling)
    problem: str = ""

    @classmethod
    def read(cls, query: Mapping[str, str]) -> DeepLink:
        """What the query of an address says; other names in it are ignored."""
        named = query.get("models") or query.get("model") or ""
        models = tuple(name.strip() for name in named.split(",") if name.strip())
        prompt = query.get("prompt", "")[:_MAX_PROMPT]
        values = Sampling().model_dump(mode="json")
        values |= {
            name: query[key] for key, name in (("seed", "seed"), ("system", "system_prompt"))
            if key in query
        }  # fmt: skip
        try:
            return cls(models, prompt, read_sampling(list(values.values())))
        except RefusedError as exc:
            return cls(models, prompt, problem=str(exc))

    @property
    def composed(self) -> dict[str, Any]:
        """What the composer begins with."""
        return {"text": self.prompt} if self.prompt else {}

    def conversation(self, *, owner: str) -> Conversation:
        """The new chat."""
        conversation = Conversation(owner=owner, sampling=self.sampling)
        if self.models:
            conversation.arrange(list(self.models))
            if len(self.models) == 1:
                conversation.num_columns = 1  # a plain chat, as in LLaVA's own page
            conversation.is_arranged = True
        return conversation
