"""From a plan to the classes that carry it out: the model's class and config, and its prompting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from worker.checkpoint import llava, native_plan
from worker.checkpoint.errors import ArchitectureError, FormatError, TemplateError
from worker.checkpoint.first_prompt import first_prompt
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.llava_prompt import LlavaPrompting
from worker.checkpoint.native_prompt import NativePrompting
from worker.checkpoint.plan import Family, LoadPlan
from worker.checkpoint.processor import load_processor
from worker.checkpoint.projector import model_class
from worker.checkpoint.prompt import Prompting
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.templates import ChatTemplate, parse_template, read_template
from worker.checkpoint.text_prompt import TextPrompting
from worker.checkpoint.tokens import load_tokenizer

# Side of the picture whose tokens a card tells, for models that take images in their own size.
_SQUARE = 448


@dataclass(frozen=True)
class ModelFamily:
    """What loading needs of a family.

    ``finish`` is called once with the loaded model. ``image_tokens`` is for a square image.
    ``names_are_final`` says that the plan's tensor names are the model's own, so that they can be
    checked; transformers renames those of its older checkpoints while it loads them.
    """

    model_class: Any
    config: Any
    tokenizer: Any
    prompting: Prompting
    template: ChatTemplate
    names_are_final: bool = False
    image_token_id: int | None = None
    image_tokens: int | None = None
    finish: Callable[[nn.Module], None] = lambda _model: None


def family_of(plan: LoadPlan, spec: LoadSpec) -> ModelFamily:
    """The classes for a plan; reads the tokenizer and no weights.

    Raises:
        CheckpointError: the tokenizer or the template does not fit.
    """
    return _BUILDERS[plan.family](plan, spec)


def _llava(plan: LoadPlan, spec: LoadSpec) -> ModelFamily:
    assert plan.image is not None  # noqa: S101 - every plan of this family has one
    settings = dict(plan.config)
    config_class = CONFIG_MAPPING[settings.pop("model_type")]
    config = _config(plan.folder, lambda: config_class(**settings))
    text_config = config.text_config
    tokenizer = load_tokenizer(
        plan.tokenizer_folder, text_config, num_embeddings=text_config.vocab_size
    )
    template = _template(plan, spec, tokenizer.tokenizer)
    if template is None:
        raise TemplateError(f"{plan.folder.path}: no chat template is known for it")
    prompting = LlavaPrompting(
        tokenizer, template, image_token_id=config.image_token_index, setup=plan.image
    )
    return ModelFamily(
        model_class=model_class(config.model_type, llava.projector_depth(llava.own_config(plan))),
        config=config,
        tokenizer=tokenizer.tokenizer,
        prompting=prompting,
        template=template,
        names_are_final=True,
        image_token_id=config.image_token_index,
        image_tokens=plan.image.num_tokens(plan.image.tile_size, plan.image.tile_size),
        finish=_admit_placeholder,
    )


def _admit_placeholder(model: nn.Module) -> None:
    """Lets the embedding be asked for the image placeholder, which lies after its last row.

    transformers embeds all ids and then overwrites the images' places, so that any row will do.
    A longer embedding would do too; but it would be a second copy while loading, and a new row in
    the head that could be sampled.
    """
    embedding: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator] # untyped
    last = embedding.num_embeddings - 1

    def clamp(_module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0].clamp(max=last),)

    embedding.register_forward_pre_hook(clamp)


def _text(plan: LoadPlan, spec: LoadSpec) -> ModelFamily:
    folder = plan.tokenizer_folder
    rope = llava.rope_parameters(plan.config)
    config = _config(
        folder,
        lambda: AutoConfig.from_pretrained(
            folder.path, trust_remote_code=native_plan.model_code(folder) is not None, **rope
        ),
    )
    tokenizer = load_tokenizer(
        folder,
        config,
        num_embeddings=config.get_text_config().vocab_size,
        trust_remote_code=spec.trust_remote_code,
    )
    template = _template(plan, spec, tokenizer.tokenizer)
    if template is None:
        raise TemplateError(
            f"{plan.folder.path} has no chat template, and none is known for "
            f"{plan.architecture}; choose one with --chat-template"
        )
    return ModelFamily(
        model_class=_class_of(AutoModelForCausalLM, config, folder),
        config=config,
        tokenizer=tokenizer.tokenizer,
        prompting=TextPrompting(tokenizer, template),
        template=template,
    )


def _native(plan: LoadPlan, spec: LoadSpec) -> ModelFamily:
    path = plan.tokenizer_folder.path
    config = _config(
        plan.tokenizer_folder,
        lambda: AutoConfig.from_pretrained(
            path, trust_remote_code=native_plan.model_code(plan.tokenizer_folder) is not None
        ),
    )
    if config.is_encoder_decoder:
        raise ArchitectureError(
            f"{path} is of model_type {config.model_type!r}, an encoder with a decoder, which "
            "this server cannot answer with: it serves models that continue their prompt"
        )
    processor = load_processor(
        plan.tokenizer_folder, config, trust_remote_code=spec.trust_remote_code
    )
    if spec.chat_template is not None:
        template = read_template(spec.chat_template)
    else:
        own = _own_template(processor.chat_template or processor.tokenizer.chat_template, path)
        if own is None:
            raise TemplateError(
                f"{path} has no chat template; choose one with --chat-template, or add the "
                "chat_template.jinja of its family"
            )
        template = own
    image_token_id = _image_token_id(config, processor)
    with first_prompt(path):
        prompting = NativePrompting(processor, template, image_token_id=image_token_id)
        image_tokens = prompting.image_tokens((_SQUARE, _SQUARE))
    return ModelFamily(
        model_class=_class_of(AutoModelForImageTextToText, config, plan.tokenizer_folder),
        config=config,
        tokenizer=processor.tokenizer,
        prompting=prompting,
        template=template,
        image_token_id=image_token_id,
        image_tokens=image_tokens,
    )


def _class_of(auto: Any, config: Any, folder: CheckpointFolder) -> Any:  # noqa: ANN401
    """The model's class: transformers' own for the config, else that of the folder's own code.

    Raises:
        FormatError: the code cannot be run.
    """
    reference = native_plan.model_code(folder)
    if reference is None:
        return auto._model_mapping[type(config)]  # noqa: SLF001 - there is no public way to ask
    try:
        return get_class_from_dynamic_module(reference, folder.path)
    except Exception as error:  # whatever the code of others raises
        raise FormatError(
            f"the code that came with {folder.path} ({reference}) cannot be run with transformers "
            f"{transformers.__version__}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error


def _config(folder: CheckpointFolder, make: Callable[[], Any]) -> Any:  # noqa: ANN401
    """A model's transformers config.

    Raises:
        FormatError: its values do not make one.
    """
    try:
        return make()
    except (
        StrictDataclassError,
        ArithmeticError,
        AttributeError,
        ImportError,
        LookupError,
        OSError,
        SyntaxError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{folder.path}/config.json does not make a model: {reason}. Compare it with the one "
            "of the original download"
        ) from error


def _image_token_id(config: Any, processor: Any) -> int:  # noqa: ANN401
    """The placeholder's id: most configs name it, else the processor does."""
    for holder, key in (
        (config, "image_token_id"),
        (config, "image_token_index"),
        (processor, "image_token_id"),
    ):
        value = getattr(holder, key, None)
        if isinstance(value, int):
            return value
    return int(processor.tokenizer.convert_tokens_to_ids(processor.image_token))


def _template(plan: LoadPlan, spec: LoadSpec, tokenizer: Any) -> ChatTemplate | None:  # noqa: ANN401
    """What was asked for, else the checkpoint's own, else the family's, else the base's."""
    if spec.chat_template is not None:
        return read_template(spec.chat_template)
    # A base's template is the base's: a projector or an adapter may have been trained with another.
    own = plan.folder.first("chat_template.jinja")
    if own is not None:
        return parse_template(own.read_text(encoding="utf-8"), origin=str(own))
    of_tokenizer = _own_template(tokenizer.chat_template, plan.tokenizer_folder.path)
    if plan.tokenizer_folder == plan.folder and of_tokenizer is not None:
        return of_tokenizer
    return read_template(plan.template) if plan.template else of_tokenizer


def _own_template(template: object, path: Path) -> ChatTemplate | None:
    """A tokenizer's or processor's own template; of several, the default one."""
    source = template.get("default") if isinstance(template, dict) else template
    return parse_template(source, origin=str(path)) if isinstance(source, str) else None


_BUILDERS: dict[Family, Callable[[LoadPlan, LoadSpec], ModelFamily]] = {
    Family.LLAVA: _llava,
    Family.NATIVE: _native,
    Family.TEXT: _text,
}
