"""A transformers model, step by step: prefill, then one forward pass a token."""

from __future__ import annotations

import re
import traceback
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from transformers import DynamicCache

from controller.protocol.chat import ChatMessage, ContentPart, ImagePart, ImageUrl, TextPart
from controller.protocol.errors import DeviceLostError, OutOfMemoryError
from controller.protocol.fleet import ModelCard
from worker.checkpoint.prompt import PreparedPrompt
from worker.engine.protocol import GenerationRequest, SamplingParams
from worker.engine.sampler import Sampler, SamplingDefaults

if TYPE_CHECKING:
    from worker.checkpoint.load import LoadedCheckpoint

# Of models whose config names no length; LLaVA's own default.
DEFAULT_CONTEXT_LENGTH = 2048
# How torch's CPU allocator says that it could not get memory.
_CPU_ALLOCATION = re.compile(
    r"(?:DefaultCPUAllocator|can't allocate memory).*?(\d+) bytes", re.DOTALL
)


class TransformersModel:
    """A loaded checkpoint as the sequential engine runs it.

    It does what ``generate`` does for one row, without its machinery, so that an answer can be
    cut off after any step.
    """

    def __init__(self, checkpoint: LoadedCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._model: Any = checkpoint.model
        self.context_length = checkpoint.context_length or DEFAULT_CONTEXT_LENGTH
        self.end_token_ids = checkpoint.eos_token_ids
        given = checkpoint.generation_defaults
        # What the checkpoint leaves open is greedy and unfiltered, as in transformers.
        self._defaults = SamplingDefaults(
            temperature=given.temperature or 0.0,
            top_p=given.top_p or 1.0,
            top_k=given.top_k or 0,
            repetition_penalty=given.repetition_penalty or 1.0,
        )

    @property
    def card(self) -> ModelCard:
        """What it is."""
        return self._checkpoint.card

    def prepare(self, request: GenerationRequest) -> PreparedPrompt:
        """Prompt and pixels, on the CPU."""
        return self._checkpoint.prepare(
            request.messages, request.images, request.image_process_mode
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Ids to text, special tokens left out."""
        text: str = self._checkpoint.tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def device_memory_bytes(self) -> int | None:
        """What torch holds on an accelerator."""
        if self._checkpoint.device.type != "cuda":
            return None
        return torch.cuda.memory_allocated(self._checkpoint.device)

    def warm_up(self) -> None:
        """Two tokens about a blank picture, or about nothing where the model cannot see.

        The first forward passes on a device load kernels, which no user should wait for; and a
        model that cannot run at all fails here, before it is called ready.
        """
        parts: list[ContentPart] = [TextPart(text="Hello")]
        images: tuple[Image.Image, ...] = ()
        if self._checkpoint.prompting.takes_images:
            parts.append(ImagePart(image_url=ImageUrl(url="data:,")))
            images = (Image.new("RGB", (64, 64), "white"),)
        request = GenerationRequest(
            request_id="warm-up",
            model=self.card.name,
            messages=(ChatMessage(role="user", content=parts),),
            images=images,
        )
        with closing(self.tokens(self.prepare(request), SamplingParams(seed=0))) as tokens:
            next(tokens), next(tokens)

    def tokens(self, prepared: PreparedPrompt, sampling: SamplingParams) -> Generator[int]:
        """Token after token; see `SequentialModel.tokens`."""
        sampler = Sampler(sampling, self._defaults, prepared.input_ids)
        cache = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        try:
            logits = self._forward(cache, **self._checkpoint.inputs(prepared))
            while True:
                token_id = sampler.sample(logits)
                yield token_id
                last = torch.tensor([[token_id]], device=self._checkpoint.device)
                logits = self._forward(cache, input_ids=last)
        except RuntimeError as exc:  # torch's own errors are among them
            if isinstance(exc, torch.OutOfMemoryError) or _CPU_ALLOCATION.search(str(exc)):
                # The traceback would keep cache and activations for as long as the error lives.
                traceback.clear_frames(exc.__traceback__)
                del cache
                raise self._out_of_memory(str(exc)) from exc
            if isinstance(exc, torch.AcceleratorError):
                raise DeviceLostError(
                    f"The device failed and takes no more work until a restart: {exc}"
                ) from exc
            raise

    @torch.inference_mode()
    def _forward(self, cache: DynamicCache, **inputs: torch.Tensor) -> torch.Tensor:
        """Logits of the last position: ``(vocab_size,)``. The cache grows by the inputs."""
        output = self._model(past_key_values=cache, use_cache=True, logits_to_keep=1, **inputs)
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def _out_of_memory(self, reason: str) -> OutOfMemoryError:
        free = "an unknown number of"
        if self._checkpoint.device.type == "cuda":
            torch.cuda.empty_cache()
            free = str(torch.cuda.mem_get_info(self._checkpoint.device)[0])
        first_line = reason.strip().splitlines()[0]
        return OutOfMemoryError(
            f"The device has too little memory for this request ({first_line}); {free} bytes are "
            f"free now. Shorten the conversation, send fewer images, or set max_tokens"
        )
