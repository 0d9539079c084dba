"""Reads prompts: what is known of them is taken over, the rest goes through the model in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from worker.engine.batchable import Batching
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.image_features import ImageFeatures
from worker.engine.prefix_cache import PrefixCache
from worker.engine.prefix_tree import Keys, prefix_keys
from worker.engine.protocol import Reuse
from worker.engine.upload import upload

# Inputs with a number for each token of the prompt, which grow with it.
_PER_TOKEN = ("token_type_ids", "mm_token_type_ids")


@dataclass(slots=True, eq=False)
class Reading:
    """A row's tokens on their way into a cache of its own.

    Either what is left of them is ``embeddings``, ``(1, tokens, hidden)``, with ``positions``,
    ``(1, tokens)`` or ``(3, 1, tokens)``; or they are read whole, by the model's own code, and
    ``inputs`` is what it takes.
    """

    cache: DynamicCache
    tokens: int  # in all
    unread: int
    embeddings: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    inputs: dict[str, torch.Tensor] | None = None
    shift: int = 0  # of the positions after it against the tokens' places


class PromptReader:
    """The passes of one model that fill caches. Belongs to the model's thread.

    Args:
        model: transformers' model, or a PEFT model around it.
        batching: how it is read.
        prefixes: what is known.
        images: encodes images, or remembers them.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - transformers is untyped
        batching: Batching,
        prefixes: PrefixCache,
        images: ImageFeatures,
    ) -> None:
        self._model = model
        self._inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._batching = batching
        self._prefixes = prefixes
        self._images = images

    def keys(self, prompt: EnginePrompt) -> Keys:
        """What the prompt's tokens are known by."""
        return self._places(prompt)[0]

    def begin(
        self, prompt: EnginePrompt, keys: Keys, answer: Sequence[int]
    ) -> tuple[Reading, Reuse]:
        """Takes over what is known, and encodes the images of the rest.

        Args:
            prompt: of the row.
            keys: of all its tokens.
            answer: tokens after the prompt, of a row that is read again.
        """
        checkpoint = prompt.checkpoint
        has_images = bool(prompt.prepared.model_inputs.get("pixel_values") is not None)
        if has_images and not self._batching.reads_images_in_parts:
            return self._whole(prompt, answer)
        cache, known = self._prefixes.start(checkpoint.text_identity, keys)
        token_ids = [*prompt.prepared.input_ids, *answer]
        reading = Reading(cache, len(token_ids), len(token_ids) - known)
        ids = upload([token_ids], torch.long, checkpoint.device)
        checkpoint.use()
        reading.positions = torch.arange(known, len(token_ids), device=checkpoint.device)[None]
        embeddings: torch.Tensor = self._inner.get_input_embeddings()(ids[:, known:])
        before = self._images.encoded
        if has_images:
            inputs = checkpoint.inputs(prompt.prepared)
            del inputs["input_ids"]
            if self._batching.has_mrope:
                self._place_in_three_dimensions(reading, ids, inputs, known)
            embeddings = self._with_images(prompt, embeddings, inputs, known)
        reading.embeddings = embeddings
        # Neither what is remembered of an image nor what comes before the known end was encoded.
        encoded = self._images.encoded - before
        return reading, Reuse(known, len(prompt.image_digests) - encoded, encoded)

    def read(self, reading: Reading, max_tokens: int) -> torch.Tensor | None:
        """Reads up to so many tokens; after the last, the logits: ``(1, vocab_size)``."""
        if reading.inputs is not None:
            logits = self.forward(past_key_values=reading.cache, **reading.inputs)
            if self._batching.has_mrope:
                reading.shift = int(self._inner.model.rope_deltas[0])
            reading.unread, reading.inputs = 0, None
            return logits
        if reading.embeddings is None or reading.positions is None:
            raise RuntimeError("a prompt is read once")
        logits = self.forward(
            inputs_embeds=reading.embeddings[:, :max_tokens],
            position_ids=reading.positions[..., :max_tokens],
            past_key_values=reading.cache,
        )
        reading.embeddings = reading.embeddings[:, max_tokens:]
        reading.positions = reading.positions[..., max_tokens:]
        reading.unread = reading.embeddings.shape[1]
        return None if reading.unread else logits

    def forward(self, **inputs: Any) -> torch.Tensor:  # noqa: ANN401 - transformers is untyped
        """Logits of the last positions: ``(rows, vocab_size)``."""
        output = self._model(use_cache=True, logits_to_keep=1, **inputs)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _places(self, prompt: EnginePrompt) -> tuple[Keys, tuple[slice, ...] | None]:
        return prefix_keys(
            prompt.prepared.input_ids,
            prompt.checkpoint.image_token_id,
            prompt.image_digests,
            prompt.prepared.image_token_counts,
        )

    def _whole(self, prompt: EnginePrompt, answer: Sequence[int]) -> tuple[Reading, Reuse]:
        """All at once, by the model's own code, which places the images."""
        inputs = prompt.checkpoint.inputs(prompt.prepared)
        if answer:
            said = upload([answer], torch.long, prompt.checkpoint.device)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], said], dim=1)
            for name in set(_PER_TOKEN) & set(inputs):
                inputs[name] = torch.cat([inputs[name], torch.zeros_like(said)], dim=1)
        tokens = inputs["input_ids"].shape[1]
        reading = Reading(DynamicCache(), tokens, tokens, inputs=inputs)
        return reading, Reuse(encoded_images=len(prompt.image_digests))

    def _with_images(
        self,
        prompt: EnginePrompt,
        embeddings: torch.Tensor,
        inputs: dict[str, torch.Tensor],
        known: int,
    ) -> torch.Tensor:
        """Puts the features of the images that are not known into their places."""
        checkpoint, digests = prompt.checkpoint, prompt.image_digests
        if checkpoint.image_token_id is None:
            raise RuntimeError("images are for models that have a token for them")
        _, spans = self._places(prompt)
        wanted: list[int] | None = None
        if spans is not None and self._images.can_be_told_apart(inputs, len(digests)):
            wanted = [i for i, span in enumerate(spans) if span.stop > known]
        # Found on the CPU: to ask the device would be to wait for it.
        ids = prompt.prepared.input_ids[known:]
        places = [place for place, each in enumerate(ids) if each == checkpoint.image_token_id]
        if not places:
            return embeddings
        features = self._images.of(
            self._inner,
            inputs,
            root=checkpoint.image_identity,
            digests=digests,
            wanted=wanted,
        )
        # Without knowing which are whose, all were encoded, and the last of them are meant.
        features = features[len(features) - len(places) :]
        index = upload(places, torch.long, checkpoint.device)
        return embeddings.index_copy(1, index, features[None].to(embeddings))

    def _place_in_three_dimensions(
        self, reading: Reading, ids: torch.Tensor, inputs: dict[str, torch.Tensor], known: int
    ) -> None:
        """Qwen's mrope: positions of an image's tokens by time, height and width."""
        kinds = inputs["mm_token_type_ids"]
        said = ids.shape[1] - kinds.shape[1]
        positions, deltas = self._inner.model.get_rope_index(
            ids,
            mm_token_type_ids=torch.nn.functional.pad(kinds, (0, said)),
            image_grid_thw=inputs.get("image_grid_thw"),
        )
        reading.positions = positions[..., known:]
        reading.shift = int(deltas.flatten()[0])
