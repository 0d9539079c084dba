"""A transformers model, one answer at a time: prefill, then one forward pass a token."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from transformers import DynamicCache

from worker.engine.checkpoint_model import CheckpointModel
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.protocol import SamplingParams
from worker.engine.sampling_batch import SamplingBatch

# Inputs with a row for each token that the answer's tokens need too: Mllama's says which of an
# image's tiles are there.
_EVERY_STEP = ("cross_attention_mask",)


class TransformersModel(CheckpointModel):
    """A loaded checkpoint as the sequential engine runs it.

    It does what ``generate`` does for one row, without its machinery, so that an answer can be
    cut off after any step.
    """

    def tokens(self, prompt: EnginePrompt, sampling: SamplingParams) -> Generator[int]:
        """Token after token; see `SequentialModel.tokens`."""
        samplers, batch = [self._sampler(sampling, prompt)], SamplingBatch()
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        try:
            inputs = prompt.checkpoint.inputs(prompt.prepared)
            later = {name: inputs[name][:, -1:] for name in _EVERY_STEP if name in inputs}
            logits = self._forward(prompt, cache, **inputs)
            del inputs
            while True:
                (token_id,) = batch.sample(samplers, logits)
                yield token_id
                last = torch.tensor([[token_id]], device=self._checkpoint.device)
                logits = self._forward(prompt, cache, input_ids=last, **later)
        except RuntimeError as exc:
            error = self._translate(exc)
            if error is None:
                raise
            del cache
            raise error from exc

    def _two_tokens(self, prompt: EnginePrompt) -> None:
        with closing(self.tokens(prompt, SamplingParams(seed=0))) as tokens:
            next(tokens), next(tokens)

    @torch.inference_mode()
    def _forward(
        self, prompt: EnginePrompt, cache: DynamicCache, **inputs: torch.Tensor
    ) -> torch.Tensor:
        """Logits of the last position: ``(1, vocab_size)``. The cache grows by the inputs."""
        prompt.checkpoint.use()
        output = self._model(past_key_values=cache, use_cache=True, logits_to_keep=1, **inputs)
        logits: torch.Tensor = output.logits[:, -1]
        return logits
