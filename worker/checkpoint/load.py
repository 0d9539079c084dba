"""Loading: from a spec to a model that is ready to be asked, reading each tensor once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import nn

from controller.protocol.chat import ChatMessage, ImageProcessMode
from controller.protocol.fleet import LoadProgress, ModelCard
from worker.checkpoint.adapter import attach_adapter, is_plain, lora_pairs
from worker.checkpoint.card import card_of
from worker.checkpoint.errors import QuantisationError
from worker.checkpoint.families import ModelFamily
from worker.checkpoint.generation import (
    GenerationDefaults,
    end_token_ids,
    generation_config,
    generation_defaults,
)
from worker.checkpoint.lora import AdapterSet
from worker.checkpoint.memory import require_memory
from worker.checkpoint.placement import Placement
from worker.checkpoint.plan import LoadPlan, Part
from worker.checkpoint.preflight import require_complete
from worker.checkpoint.progress_bars import without_progress_bars
from worker.checkpoint.projector_set import Projector
from worker.checkpoint.prompt import PreparedPrompt, Prompting
from worker.checkpoint.quantise import quantisation_config
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.survey import Survey, survey
from worker.checkpoint.templates import ChatTemplate
from worker.checkpoint.tensors import TensorStore

ADAPTER_NAME = "default"

OnProgress = Callable[[LoadProgress], None]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model in memory and everything that goes with it.

    Attributes:
        card: what it is, for ``/v1/models``.
        model: transformers' model, in a PEFT model where there is an unmerged adapter; in eval
            mode; its forward takes ``input_ids`` and a `PreparedPrompt`'s ``model_inputs``.
        tokenizer: transformers' tokenizer, for decoding.
        prompting: how it is asked.
        context_length: tokens that prompt and answer may have together; None where unlimited.
        device: where inputs go.
        devices: those that hold a part of the model.
        dtype: of the weights that are not quantised, and of ``pixel_values``.
        eos_token_ids: tokens that end an answer.
        image_token_id: the placeholder in ``input_ids``; may lie after the vocabulary, so that it
            must never reach anything but the model's forward. None for text alone.
        generation_defaults: the checkpoint's own sampling settings.
        preprocessing: equal for checkpoints that bring an image to the encoder the same way.
        adapters: those of the model, where it can have several.
        adapter: this checkpoint's own among them.
        projector: this checkpoint's own, where the model takes several in turn.
    """

    card: ModelCard
    model: nn.Module
    tokenizer: Any
    prompting: Prompting
    context_length: int | None
    device: torch.device
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    eos_token_ids: frozenset[int]
    image_token_id: int | None
    generation_defaults: GenerationDefaults = field(default_factory=GenerationDefaults)
    preprocessing: str = ""
    adapters: AdapterSet | None = None
    adapter: int | None = None
    projector: Projector | None = None

    @property
    def text_identity(self) -> tuple[object, ...]:
        """What the keys and values of a prompt depend on, besides its tokens and images."""
        projector = None if self.projector is None else self.projector.number
        return (self.adapter, projector, self.preprocessing)

    @property
    def image_identity(self) -> tuple[object, ...]:
        """What an image's features depend on, besides the image."""
        adapter, projector, preprocessing = self.text_identity
        if self.adapters is not None and self.adapter is not None:
            adapter = adapter if self.adapters.touches_images(self.adapter) else None
        return (adapter, projector, preprocessing)

    def use(self) -> None:
        """Lets the model answer as this checkpoint from here on. On the model's thread."""
        if self.adapters is not None:
            self.adapters.use(self.adapter)
        if self.projector is not None:
            self.projector.install(self.model)

    def release(self) -> None:
        """Frees what it does not share, once nothing uses it. On the model's thread."""
        if self.adapters is not None and self.adapter is not None:
            self.adapters.remove(self.adapter)

    def prepare(
        self,
        messages: Sequence[ChatMessage],
        images: Sequence[Image.Image] = (),
        image_process_mode: ImageProcessMode = ImageProcessMode.DEFAULT,
        template: ChatTemplate | None = None,
    ) -> PreparedPrompt:
        """The prompt of a conversation; see `Prompting.prepare`. Its tensors are on the CPU."""
        return self.prompting.prepare(messages, images, image_process_mode, template)

    def inputs(self, prompt: PreparedPrompt) -> dict[str, torch.Tensor]:
        """A prompt's forward arguments on the model's device, floats in its dtype.

        ``input_ids`` has shape ``(1, prompt_tokens)``.
        """
        moved = {
            name: tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)
            for name, tensor in prompt.model_inputs.items()
        }
        return {"input_ids": torch.tensor([prompt.input_ids], device=self.device), **moved}


def load_checkpoint(spec: LoadSpec, on_progress: OnProgress) -> LoadedCheckpoint:
    """Loads a checkpoint.

    Args:
        spec: which, and how.
        on_progress: called now and then, from this thread or another, one call at a time.

    Raises:
        CheckpointError: it does not load; the message names the cause and the way out.
    """
    on_progress(LoadProgress(phase="reading config"))
    surveyed = survey(spec)
    plan, family, placement = surveyed.plan, surveyed.family, surveyed.placement
    require_memory(spec, placement, surveyed.size, surveyed.bones)
    card = card_of(surveyed)
    tensors = surveyed.tensors
    meter = _Meter(on_progress, sum(planned.header.num_bytes for planned in tensors.values()))
    store = TensorStore(meter.add, maps=spec.mmap and placement.can_map)
    try:
        with without_progress_bars():
            model = _build(surveyed, store.lazy(tensors))
    finally:
        store.close()
    family.finish(model)
    own = OwnParts()
    if plan.adapter is not None:
        on_progress(LoadProgress(phase="adapter", fraction=1.0))
        if spec.merge_lora or not is_plain(plan.adapter):
            model = attach_adapter(model, plan.adapter, name=ADAPTER_NAME)
            model = model.merge_and_unload() if spec.merge_lora else model
        else:
            adapters = AdapterSet(model, placement.dtype)
            own = OwnParts(adapters, adapters.add(lora_pairs(model, plan.adapter)))
            adapters.use(own.adapter)
    on_progress(meter.finished("ready"))
    return assemble(plan, card=card, family=family, model=model, placement=placement, own=own)


@dataclass(frozen=True, slots=True)
class OwnParts:
    """What of a shared model is one checkpoint's own."""

    adapters: AdapterSet | None = None
    adapter: int | None = None
    projector: Projector | None = None


def assemble(
    plan: LoadPlan,
    *,
    card: ModelCard,
    family: ModelFamily,
    model: Any,  # noqa: ANN401 - transformers is untyped
    placement: Placement,
    own: OwnParts,
) -> LoadedCheckpoint:
    """A loaded model with what is said of it and how it is asked."""
    generation = generation_config(plan)
    return LoadedCheckpoint(
        card=card,
        model=model,
        tokenizer=family.tokenizer,
        prompting=family.prompting,
        context_length=plan.context_length,
        device=placement.device,
        devices=placement.devices,
        dtype=placement.dtype,
        eos_token_ids=end_token_ids(generation, plan, family.tokenizer),
        image_token_id=family.image_token_id,
        generation_defaults=generation_defaults(generation),
        preprocessing=f"{plan.tokenizer_folder.path} {plan.image}",
        adapters=own.adapters,
        adapter=own.adapter,
        projector=own.projector,
    )


def _build(surveyed: Survey, state: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Fills the model from tensors that are still on disk; raises where any is missing."""
    spec, family, placement = surveyed.spec, surveyed.family, surveyed.placement
    try:
        model, loaded = family.model_class.from_pretrained(
            None,
            config=family.config,
            state_dict=state,
            dtype=placement.dtype,
            device_map=placement.transformers_map,
            quantization_config=quantisation_config(spec, placement.dtype),
            attn_implementation=spec.attn_implementation,
            ignore_mismatched_sizes=True,  # reported below, with all names
            output_loading_info=True,
        )
    except ImportError as error:
        # Asked for by what it was quantised with, before a tensor is read.
        raise QuantisationError(
            f"{spec.model_path} is quantised with a package that is not installed: {error}"
        ) from error
    require_complete(surveyed.plan.tokenizer_folder, loaded)
    return model


class _Meter:
    """Counts bytes and reports about a hundred times."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress = on_progress
        self._total = max(1, total)
        self._done = 0
        self._reported = -1

    def add(self, part: Part, num_bytes: int) -> None:
        """More bytes have been read."""
        self._done += num_bytes
        percent = self._done * 100 // self._total
        if percent > self._reported:
            self._reported = percent
            self._on_progress(self._progress(part))

    def finished(self, phase: str) -> LoadProgress:
        """All is done."""
        self._done = self._total
        return self._progress(phase)

    def _progress(self, phase: str) -> LoadProgress:
        done = min(self._done, self._total)
        return LoadProgress(
            phase=phase, fraction=done / self._total, bytes_done=done, bytes_total=self._total
        )
