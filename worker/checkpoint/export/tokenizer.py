"""LLaVA's way to tokenise, piece by piece around the images, as one fast tokenizer file.

Where SentencePiece decides, each text between special tokens gets a leading space of its own, as
LLaVA's "slow" and "legacy" tokenizer gave it. Otherwise only the texts between images do.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from worker.checkpoint.errors import TokenizerError
from worker.checkpoint.prompt import IMAGE_MARKER
from worker.checkpoint.tokens import LoadedTokenizer, SentencePieceEncoder

_SPACE = "▁"
_ESCAPE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def export_tokenizer(
    loaded: LoadedTokenizer, folder: Path, *, num_embeddings: int
) -> tuple[Any, int]:
    """A transformers tokenizer that has a token for an image, and that token's id.

    The id is the first that is free, so it may lie after the model's last embedding.

    Args:
        loaded: the tokenizer as Paragone uses it.
        folder: where its files are.
        num_embeddings: rows of the model's embedding.

    Raises:
        TokenizerError: it is of a kind that the file format does not have.
    """
    own = loaded.tokenizer
    if not hasattr(own, "backend_tokenizer"):
        raise TokenizerError(
            f"the tokenizer of {folder} ({type(own).__name__}) cannot be written as tokenizer.json"
        )
    content = json.loads(own.backend_tokenizer.to_str())
    added = [token for token in content["added_tokens"] if token["id"] < num_embeddings]
    if isinstance(loaded.encoder, SentencePieceEncoder):
        content["normalizer"] = _sentencepiece_normalizer(folder / "tokenizer.model")
        content["pre_tokenizer"] = None
        added = [token | {"normalized": False} for token in added]
    elif (content["pre_tokenizer"] or {}).get("prepend_scheme") == "first":
        content["normalizer"] = _prefix_after_images(content["normalizer"], added, own.bos_token)
        content["pre_tokenizer"] = None
        added = [token | {"normalized": True} for token in added]
    content["post_processor"] = _start(own.bos_token, loaded.encoder.bos_id)
    content["truncation"] = content["padding"] = None
    content["added_tokens"] = [token for token in added if token["content"] != IMAGE_MARKER]
    image_id = _image_id(content, added)
    content["added_tokens"].append(_special(image_id))
    content["added_tokens"].sort(key=lambda token: int(token["id"]))
    made = Tokenizer.from_str(json.dumps(content))
    if made.token_to_id(IMAGE_MARKER) != image_id:
        raise TokenizerError(
            f"the tokenizer of {folder} numbers its tokens with gaps, so that {IMAGE_MARKER} gets "
            f"{made.token_to_id(IMAGE_MARKER)} instead of {image_id}"
        )
    named = {name: getattr(own, name, None) for name in _NAMED}
    known = {name: token for name, token in named.items() if _is_known(made, token, num_embeddings)}
    # Batches need padding; LLaVA pads with what it has.
    known.setdefault("pad_token", known.get("unk_token") or known.get("eos_token"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        **{name: token for name, token in known.items() if token is not None},
    )
    return tokenizer, image_id


def _is_known(tokenizer: Tokenizer, token: str | None, num_embeddings: int) -> bool:
    number = tokenizer.token_to_id(token) if token else None
    return number is not None and number < num_embeddings


def _image_id(content: dict[str, Any], added: list[dict[str, Any]]) -> int:
    for token in added:
        if token["content"] == IMAGE_MARKER:
            return int(token["id"])
    vocabulary = content["model"]["vocab"]
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    return max(*(int(number) for number in ids), *(int(token["id"]) for token in added), 0) + 1


def _special(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "content": IMAGE_MARKER,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _start(token: str | None, number: int | None) -> dict[str, Any] | None:
    """What puts the beginning-of-sequence token before a text."""
    if token is None or number is None:
        return None
    start = {"SpecialToken": {"id": token, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, second],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }


def _sentencepiece_normalizer(file: Path) -> dict[str, Any]:
    """SentencePiece's own normalisation of a text, as its model file says."""
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2  # noqa: PLC0415

    # Its messages' classes are made when it is imported.
    model: Any = getattr(sentencepiece_model_pb2, "ModelProto")()  # noqa: B009
    model.ParseFromString(SentencePieceProcessor(model_file=str(file)).serialized_model_proto())
    spec = model.normalizer_spec
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        encoded = base64.b64encode(spec.precompiled_charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": _SPACE})
    return {"type": "Sequence", "normalizers": [*steps, _ESCAPE]}


def _prefix_after_images(
    normalizer: dict[str, Any] | None, added: list[dict[str, Any]], bos: str | None
) -> dict[str, Any]:
    """A leading space for each text between images, unless it starts with a special token.

    Special tokens are looked for after it, in texts that images have already been cut out of.
    """
    # As tokenizers' Metaspace: a text that starts with a space has one already.
    starts = "|".join(re.escape(start) for start in (" ", _SPACE, *(t["content"] for t in added)))
    first = rf"(?:\A|(?<=\A{re.escape(bos)}))" if bos else r"\A"  # a template may write it
    pattern = rf"{first}(?!{starts})(?=[\s\S])"
    prefix = {"type": "Replace", "pattern": {"Regex": pattern}, "content": _SPACE}
    before = [] if normalizer is None else [normalizer]
    return {"type": "Sequence", "normalizers": [*before, prefix, _ESCAPE]}
