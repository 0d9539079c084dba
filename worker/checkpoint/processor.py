"""The transformers processor of a checkpoint, as far as this machine's packages make one.

Processors of models that also take videos have a part for them, which needs torchvision. Nothing
else of theirs does: where torchvision is not installed, they are made without that part, and do for
images what they do with it on PIL. Nothing here reads weights.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from transformers import PROCESSOR_MAPPING, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import processor_class_from_name

from worker.checkpoint.errors import TokenizerError
from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.partial import PROCESSOR_FILES
from worker.checkpoint.vocabulary import damage, require_vocabulary_file

_VIDEO = "video_processor"
# Where a checkpoint may name its processor's class, in transformers' order.
_NAMING_FILES = (
    *PROCESSOR_FILES,
    "video_preprocessor_config.json",
    "tokenizer_config.json",
)


def load_processor(folder: CheckpointFolder, config: Any, *, trust_remote_code: bool) -> Any:  # noqa: ANN401
    """The processor of a vision-language checkpoint.

    Args:
        folder: where its files are.
        config: the model's transformers config, which decides where no file names a processor.
        trust_remote_code: whether a processor's own code may run.

    Raises:
        TokenizerError: it cannot be made; says which package or which file is missing.
    """
    path = folder.path
    require_vocabulary_file(folder)
    if folder.first(*PROCESSOR_FILES) is None:
        raise TokenizerError(
            f"{path} has no processor, which prepares images ({' or '.join(PROCESSOR_FILES)}). "
            f"It holds: {folder.listing()}. Copy it from the original download"
        )
    try:
        if importlib.util.find_spec("torchvision") is None:
            made_for_both = _class_of(folder, config)
            if made_for_both is not None and _VIDEO in made_for_both.get_attributes():
                return _for_images_alone(made_for_both).from_pretrained(path)
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises nothing more specific
        reason = damage(folder) or _reason(error)
        raise TokenizerError(f"the processor of {path} cannot be made: {reason}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise TokenizerError(
            f"the processor of {path} cannot be made: its files name no class that prepares images "
            f"and text (processor_class), only a {type(processor).__name__}"
        )
    _complete(processor, folder, config)
    return processor


def _complete(processor: Any, folder: CheckpointFolder, config: Any) -> None:  # noqa: ANN401
    """Tells Llava's and LlavaNext's processors what their files say only since transformers 4.46.

    By it they count an image's tokens; earlier the model did, by its own config.
    """
    if not hasattr(processor, "num_additional_image_tokens"):
        return
    encoder = config.vision_config
    if processor.patch_size is None:
        processor.patch_size = encoder.patch_size
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    said = [folder.json(file) or {} for file in PROCESSOR_FILES]
    if not any("num_additional_image_tokens" in settings for settings in said):
        # The class token, which other encoders lack.
        has_class_token = str(encoder.model_type).startswith("clip")
        processor.num_additional_image_tokens = int(has_class_token)


def _class_of(folder: CheckpointFolder, config: Any) -> Any:  # noqa: ANN401
    """The processor's class; None where transformers has none of that name."""
    for file in _NAMING_FILES:
        name = (folder.json(file) or {}).get("processor_class")
        if name:
            return processor_class_from_name(str(name))
    return PROCESSOR_MAPPING.get(type(config), None)


def _for_images_alone(made_for_both: Any) -> Any:  # noqa: ANN401
    """A processor's class without its part for videos."""
    return type(made_for_both.__name__, (made_for_both, _ImagesAlone), {"__module__": __name__})


class _ImagesAlone(ProcessorMixin):  # type: ignore[misc] # transformers is untyped
    """What a processor's class inherits from in place of `ProcessorMixin`: it drops one part."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Called by the processor's own __init__, with all its parts in their order.
        parts = dict(zip(super().get_attributes(), args, strict=False)) | kwargs
        parts.pop(_VIDEO, None)
        super().__init__(**parts)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The names of its parts, which decide what is loaded."""
        return [name for name in super().get_attributes() if name != _VIDEO]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:  # noqa: ANN401
        """The processor of loaded parts, by name: one that is left out would shift the others."""
        settings = {name: value for name, value in processor_dict.items() if name != _VIDEO}
        parts = dict(zip(cls.get_attributes(), args, strict=True)) | {_VIDEO: None}
        return super().from_args_and_dict([], settings, **kwargs, **parts)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "torchvision" not in text.lower():
        return text or type(error).__name__
    release = torch.__version__.partition("+")[0]
    return (
        "it needs torchvision, which is not installed. Install the one that goes with this torch: "
        f"pip install torchvision torch=={release}"
    )
