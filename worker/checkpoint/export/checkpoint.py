"""Converting: an original LLaVA checkpoint becomes a standard Hugging Face one."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.checkpoint import llava
from worker.checkpoint.conversation import stop_token_ids
from worker.checkpoint.errors import (
    AdapterError,
    ArchitectureError,
    FormatError,
)
from worker.checkpoint.export.processor import export_processor
from worker.checkpoint.export.proof import require_same_prompts
from worker.checkpoint.export.template import export_template
from worker.checkpoint.export.tokenizer import export_tokenizer
from worker.checkpoint.export.weights import WeightExport
from worker.checkpoint.formats import plan_load
from worker.checkpoint.generation import end_token_ids, generation_config
from worker.checkpoint.merge import AdapterMerger
from worker.checkpoint.output import Output, write_json
from worker.checkpoint.plan import Family, LoadPlan
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.survey import Survey, survey
from worker.checkpoint.tensors import TensorStore
from worker.checkpoint.tokens import load_tokenizer
from worker.checkpoint.writer import OutputTensor, write_weights


def convert(spec: LoadSpec, output: Output) -> None:
    """Writes an original LLaVA checkpoint so that transformers loads it by itself.

    It gives the same logits for the vocabulary of the original, and its processor the same prompts
    and pixels: that is compared before anything is written. Tensors are read, changed and written
    one after the other.

    Args:
        spec: the checkpoint; ``dtype`` "auto" keeps each tensor's own, ``merge_lora`` merges an
            adapter, ``chat_template`` replaces the one that it would be served with.
        output: where.

    Raises:
        CheckpointError: it does not load, cannot be said in transformers' terms, or cannot be
            written.
    """
    _require_convertible(plan_load(spec), spec)
    surveyed = survey(spec)
    plan = surveyed.plan
    folders = (plan.folder, plan.base, plan.tokenizer_folder)
    inputs = [folder.path for folder in folders if folder is not None]
    inputs += [tensor.header.file.parent for tensor in surveyed.tensors.values()]
    output.require_usable(inputs)
    config = copy.deepcopy(surveyed.family.config)
    processor, image_id = _processor(surveyed, config)
    store = TensorStore(lambda _part, _count: None)
    depth = llava.projector_depth(llava.own_config(plan))
    num_rows = max(config.text_config.vocab_size, image_id + 1)
    export = WeightExport(
        surveyed.tensors,
        store,
        None if plan.adapter is None else AdapterMerger(plan.adapter, surveyed.tensors),
        num_rows=num_rows,
        copied_row=_row_that_is_never_said(processor.tokenizer),
        depth=depth,
        dtype=None if spec.dtype == "auto" else spec.dtype,
    )
    tensors = export.outputs()
    config.text_config.vocab_size = num_rows
    config.image_token_index = image_id
    config.architectures = [_class_name(surveyed)]
    config.dtype = _main_dtype(tensors)
    if depth == 1:
        config.projector_hidden_act = "linear"
    total = sum(tensor.num_bytes for tensor in tensors)
    try:
        with output.folder(inputs, num_bytes=total) as made:
            config.save_pretrained(made)
            _save_processor(processor, made)
            write_json(made / "generation_config.json", _generation(surveyed, config))
            write_weights(
                made,
                tensors,
                max_shard_bytes=output.max_shard_bytes,
                on_written=output.meter("converting", total),
            )
    finally:
        store.close()


def _require_convertible(plan: LoadPlan, spec: LoadSpec) -> None:
    if plan.family is not Family.LLAVA:
        raise FormatError(
            f"{plan.folder.path} is a {plan.format} checkpoint, which transformers loads as it is; "
            "only original LLaVA checkpoints are converted"
        )
    if plan.adapter is not None and not spec.merge_lora:
        raise AdapterError(
            f"{plan.folder.path} is an unmerged adapter, which a whole checkpoint has no place "
            "for; merge it with --merge-lora"
        )
    depth = llava.projector_depth(llava.own_config(plan))
    if depth > 2:
        raise ArchitectureError(
            f"{plan.folder.path} has a projector of {depth} layers, and transformers' Llava has "
            "two; it is served as it is, and cannot be converted"
        )


def _processor(surveyed: Survey, config: Any) -> tuple[Any, int]:  # noqa: ANN401
    """The converted checkpoint's processor, compared with the original's, and its image token."""
    plan, family = surveyed.plan, surveyed.family
    num_embeddings = config.text_config.vocab_size
    loaded = load_tokenizer(
        plan.tokenizer_folder, config.text_config, num_embeddings=num_embeddings
    )
    tokenizer, image_id = export_tokenizer(
        loaded, plan.tokenizer_folder.path, num_embeddings=num_embeddings
    )
    if plan.context_length is not None:
        tokenizer.model_max_length = plan.context_length
    if plan.image is None or family.image_token_id is None:
        raise FormatError(f"{plan.folder.path} takes no images")
    template = export_template(family.template, wraps_in_start_end=plan.image.wraps_in_start_end)
    processor = export_processor(plan.image, tokenizer, config, template=template)
    require_same_prompts(
        family.prompting,
        processor,
        image_token_id=image_id,
        own_image_token_id=family.image_token_id,
    )
    return processor, image_id


def _row_that_is_never_said(tokenizer: Any) -> int:  # noqa: ANN401
    for number in (tokenizer.unk_token_id, tokenizer.bos_token_id):
        if number is not None:
            return int(number)
    return 0


def _class_name(surveyed: Survey) -> str:
    # A class with another projector is derived from transformers' own and has its name.
    return str(surveyed.family.model_class.__name__)


def _main_dtype(tensors: Sequence[OutputTensor]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.num_bytes
    return sizes.most_common(1)[0][0]


def _generation(surveyed: Survey, config: Any) -> Mapping[str, Any]:  # noqa: ANN401
    said = generation_config(surveyed.plan)
    ends = end_token_ids(said, surveyed.plan, surveyed.family.tokenizer)
    family = surveyed.family
    rows = family.config.text_config.vocab_size
    ends |= stop_token_ids(family.tokenizer, family.template, num_embeddings=rows)
    # Transformers would make a config that is marked so anew, from the model's.
    own = {key: value for key, value in said.items() if key != "_from_model_config"}
    own["eos_token_id"] = sorted(ends)
    # The image's token has a row in the head, and is nothing that an answer may hold.
    own["suppress_tokens"] = sorted({*said.get("suppress_tokens", []), config.image_token_index})
    return own


def _save_processor(processor: Any, folder: Path) -> None:  # noqa: ANN401
    processor.save_pretrained(folder)
    # Transformers 4 and other engines look for the image processor in a file of its own.
    processor.image_processor.save_pretrained(folder)
