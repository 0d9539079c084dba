"""Text becomes the ids that SentencePiece gave the original programs, to the last space."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoConfig

from worker.checkpoint.folder import CheckpointFolder
from worker.checkpoint.tokens import FastEncoder, SentencePieceEncoder, load_tokenizer

ORACLE_NAME = "vicuna-tiny"


def tokenizer_of(folder):
    opened = CheckpointFolder.open(folder)
    config = AutoConfig.for_model("llama", vocab_size=3000)
    return load_tokenizer(opened, config, num_embeddings=3000)


@pytest.fixture(scope="module")
def loaded(oracle):
    return tokenizer_of(oracle / ORACLE_NAME)


@pytest.fixture(scope="module")
def pieces(oracle):
    return SentencePieceProcessor(model_file=str(oracle / ORACLE_NAME / "tokenizer.model"))


@given(text=st.text(alphabet=st.characters(exclude_characters="<", exclude_categories=("Cs",))))
def test_any_text_is_encoded_as_sentencepiece_does(loaded, pieces, text):
    assert loaded.encoder.encode(text) == pieces.encode(text)


def test_the_text_after_a_special_token_gets_its_own_leading_space(loaded, pieces):
    assert loaded.encoder.encode("a</s>USER: b") == [
        *pieces.encode("a"),
        2,
        *pieces.encode("USER: b"),
    ]


def test_each_piece_is_encoded_alone_and_the_prompt_starts_once(loaded, pieces):
    first, second = loaded.encode_pieces(["USER: ", "\nWhat?"])
    assert first == [1, *pieces.encode("USER: ")]
    assert second == pieces.encode("\nWhat?")


def test_a_start_token_that_a_template_wrote_is_not_doubled(loaded):
    assert loaded.encode_pieces(["<s>Hello"]) == loaded.encode_pieces(["Hello"])


def test_a_tokenizer_that_is_not_legacy_keeps_transformers_own_encoding(copy, edit):
    folder = copy(ORACLE_NAME)
    edit(folder / "tokenizer_config.json", legacy=False)
    assert isinstance(tokenizer_of(folder).encoder, FastEncoder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["legacy"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert isinstance(tokenizer_of(folder).encoder, SentencePieceEncoder)


def test_a_token_that_the_model_has_no_embedding_for_stays_text(copy, edit, pieces):
    folder = copy(ORACLE_NAME)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    tokens["3000"] = tokens["1"] | {"content": "<im_patch>"}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=tokens)
    assert tokenizer_of(folder).encoder.encode("a <im_patch>") == pieces.encode("a <im_patch>")


def test_a_tokenizer_that_adds_no_start_token_gets_none(copy, edit):
    folder = copy(ORACLE_NAME)
    edit(folder / "tokenizer_config.json", add_bos_token=False)
    assert tokenizer_of(folder).encoder.bos_id is None
