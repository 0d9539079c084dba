"""The language model: a small Llama, and the training loop of all stages that answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from recipe.optimiser import Optimiser
from recipe.packing import Batch
from recipe.pixels import PATCHES
from recipe.prompt import picture_words, written_picture
from recipe.tower import anchor_of
from recipe.vocabulary import VOCABULARY_ROWS
from recipe.world import Scene

CONTEXT_LENGTH: Final = 1024
_WORDS_A_PATCH: Final = 4  # of a written picture, at most


def language_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY_ROWS,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )


class WrittenPictures:
    """Pictures as sums of word embeddings: what the language model reads before it has eyes."""

    def __init__(self, tokenizer: Tokenizer, scenes: list[Scene], model: LlamaForCausalLM) -> None:
        self._spelled = {
            word: tokenizer.encode(word, add_special_tokens=False).ids[0]
            for word in picture_words()
        }
        self._scenes = scenes
        self._embed = model.model.embed_tokens

    def __call__(self, pictures: list[int]) -> torch.Tensor:
        """Embedded pictures (N, 64, hidden)."""
        ids = torch.zeros(len(pictures), PATCHES, _WORDS_A_PATCH, dtype=torch.long)
        for row, index in enumerate(pictures):
            for patch, words in enumerate(written_picture(self._scenes[index])):
                for place, word in enumerate(words):
                    ids[row, patch, place] = self._spelled[word]
        # Id 0 is the padding: it adds nothing.
        embedded: torch.Tensor = (self._embed(ids) * (ids > 0)[..., None]).sum(dim=2)
        return embedded

    def holds_thing(self, pictures: list[int]) -> torch.Tensor:
        """Which patches stand for a thing: bool (N, 64)."""
        holds = torch.zeros(len(pictures), PATCHES, dtype=torch.bool)
        for row, index in enumerate(pictures):
            holds[row, [anchor_of(thing.cell) for thing in self._scenes[index].things]] = True
        return holds


def hide_ground(
    batch: Batch, pictures: WrittenPictures, share: float, rng: torch.Generator
) -> Batch:
    """The batch with a `share` of the ground words of its pictures out of sight.

    With fewer words to look at, a model that does not read pictures yet finds the few that matter.
    """
    if share <= 0:
        return batch
    is_ground = ~pictures.holds_thing(batch.pictures)
    is_hidden = is_ground & (torch.rand(is_ground.shape, generator=rng) < share)
    hidden = torch.zeros_like(batch.is_picture)
    hidden[batch.is_picture] = is_hidden.flatten()
    if batch.mask.shape[-1] == batch.ids.shape[1]:  # dense
        itself = torch.eye(batch.ids.shape[1], dtype=torch.bool)
        return replace(batch, mask=batch.mask & (~hidden[:, None, None, :] | itself))
    prefix = batch.mask.shape[-1] - batch.mask.shape[-2]
    mask = batch.mask.clone()
    mask[..., :prefix] &= ~hidden[:, None, None, :prefix]
    return replace(batch, mask=mask)


def answer_loss(
    model: LlamaForCausalLM, batch: Batch, see: Callable[[list[int]], torch.Tensor]
) -> tuple[torch.Tensor, float]:
    """The loss, averaged over answers, and the share of answer tokens that were right.

    `see` gives the embedded pictures (N, 64, hidden) for scene indices.
    """
    with torch.autocast("cpu", torch.bfloat16):
        embedded = model.get_input_embeddings()(batch.ids.clamp(min=0))
        pictures = see(batch.pictures).to(embedded.dtype).flatten(0, 1)
        embedded = embedded.masked_scatter(batch.is_picture[..., None], pictures)
        mask = torch.zeros(batch.mask.shape, dtype=torch.bfloat16).masked_fill(~batch.mask, -1e9)
        hidden = model.model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        # The token at i is predicted from i - 1.
        learned = batch.weights[:, 1:] > 0
        scores = model.lm_head(hidden[:, :-1][learned]).float()
    targets, weights = batch.ids[:, 1:][learned], batch.weights[:, 1:][learned]
    losses = functional.cross_entropy(scores, targets, reduction="none")
    right = float((scores.argmax(-1) == targets).float().mean())
    return (losses * weights).sum() / batch.answers, right


def train(  # noqa: PLR0917  # each of the six is named at every call
    name: str,
    model: LlamaForCausalLM,
    next_batch: Callable[[], Batch],
    see: Callable[[list[int]], torch.Tensor],
    optimiser: Optimiser,
    steps: int,
    *,
    every: int = 0,
    checkpoint: Callable[[int], None] | None = None,
    before_step: Callable[[int], None] | None = None,
    after_backward: Callable[[], None] | None = None,
) -> None:
    """Run the stage; every `every` steps and at the end call `checkpoint`."""
    started, mean, accuracy = time.monotonic(), 0.0, 0.0
    for step in range(1, steps + 1):
        batch = next_batch()
        if before_step:
            before_step(step)
        loss, right = answer_loss(model, batch, see)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        if after_backward:
            after_backward()
        optimiser.step()
        blend = max(0.02, 1 / step)
        mean += (loss.item() - mean) * blend
        accuracy += (right - accuracy) * blend
        if step % 50 == 0 or step == steps:
            minutes = (time.monotonic() - started) / 60
            print(
                f"{name} {step}/{steps}  loss {mean:.4f}  tokens right {accuracy:.4f}"
                f"  {minutes:.1f} min",
                flush=True,
            )
        if checkpoint and ((every and step % every == 0) or step == steps):
            checkpoint(step)


def named_trainable(*modules: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that learn, by name."""
    return [
        (name, parameter)
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
