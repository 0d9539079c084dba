"""LLaVA over MPT runs on transformers' own Mpt, or is refused where that computes otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, MptConfig, MptForCausalLM

from tests.checkpoint import tiny_models
from worker.checkpoint import errors
from worker.checkpoint.facts import describe
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.engine.batchable import why_not_batched
from worker.tools import convert

PROMPT = "<|im_start|>user\n<image>\nWhat?<|im_end|>"
ATTENTION = {"alibi": True, "alibi_bias_max": 8, "attn_impl": "triton", "clip_qkv": 6}


def load(path, **options):
    return load_checkpoint(LoadSpec(str(path), device="cpu", **options), lambda _progress: None)


@pytest.fixture
def language_model() -> MptForCausalLM:
    torch.manual_seed(0)
    config = MptConfig(
        d_model=128, n_heads=4, n_layers=2, max_seq_len=256, vocab_size=320,
        attn_config={"clip_qkv": 6.0},
    )  # fmt: skip
    return MptForCausalLM(config).eval()


@pytest.fixture
def folder(copy, tmp_path, language_model) -> Path:
    """As the original code saved it: names under ``transformer.``, no head, MosaicML's config."""
    copy("clip-tiny-patch14")
    folder = tmp_path / "some-model"
    folder.mkdir()
    config = {
        "architectures": ["LlavaMPTForCausalLM"],
        "model_type": "llava_mpt",
        "d_model": 128,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 256,
        "expansion_ratio": 4,
        "vocab_size": 320,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "learned_pos_emb": True,
        "logit_scale": None,
        "init_config": {"name": "kaiming_normal_"},
        "attn_config": ATTENTION,
        "mm_vision_tower": "clip-tiny-patch14",
        "mm_hidden_size": 64,
        "mm_vision_select_layer": -2,
        "hidden_size": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    state = {k: v for k, v in language_model.state_dict().items() if k != "lm_head.weight"}
    state["transformer.mm_projector.weight"] = 0.1 * torch.randn(128, 64)
    state["transformer.mm_projector.bias"] = 0.1 * torch.randn(128)
    torch.save(state, folder / "pytorch_model.bin")
    tiny_models.tokenizer("<|im_start|>", "<|im_end|>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wide(oracle):
    return Image.open(oracle / "wide.png").convert("RGB")


@torch.inference_mode()
def test_the_logits_are_those_of_mpt_over_the_spliced_embeddings(folder, language_model, wide):
    loaded = load(folder)
    assert loaded.card.architecture == "LlavaMPTForCausalLM"
    assert loaded.context_length == 256
    prompt = loaded.prompting.prepare_text(PROMPT, [wide])
    inputs = loaded.inputs(prompt)
    out = loaded.model(**inputs, use_cache=True)
    ids = torch.tensor([prompt.input_ids])
    is_image = ids == loaded.image_token_id
    embedded = language_model.transformer.wte(ids.masked_fill(is_image, 0))
    features = loaded.model.get_image_features(inputs["pixel_values"]).pooler_output[0]
    embedded[is_image] = features
    expected = language_model(inputs_embeds=embedded).logits
    torch.testing.assert_close(out.logits, expected, atol=1e-5, rtol=0)
    # And token after token, with its keys and values kept.
    token = out.logits[0, -1].argmax().view(1, 1)
    again = loaded.model(input_ids=token, past_key_values=out.past_key_values).logits[0, -1]
    longer = torch.cat([embedded, language_model.transformer.wte(token)], dim=1)
    expected = language_model(inputs_embeds=longer).logits[0, -1]
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)


def test_it_is_asked_with_mpts_template_and_runs_one_answer_at_a_time(folder):
    loaded = load(folder)
    assert loaded.prompting.prepare_text("Hi", []).text == "Hi"
    template = loaded.tokenizer.chat_template
    assert template is None
    assert "mpt language models have not been checked in batches" in why_not_batched(loaded)


@pytest.mark.parametrize("quantisation", ["8bit", "4bit"])
def test_it_loads_quantised(folder, wide, quantisation):
    full, small = load(folder), load(folder, quantisation=quantisation)
    prompt = full.prompting.prepare_text(PROMPT, [wide])
    with torch.inference_mode():
        mine = small.model(**small.inputs(prompt)).logits[0, -1]
        theirs = full.model(**full.inputs(prompt)).logits[0, -1]
    assert torch.cosine_similarity(mine, theirs, dim=0) > 0.9


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"logit_scale": "inv_sqrt_d_model"}, "logit_scale 'inv_sqrt_d_model'"),
        ({"no_bias": False}, "no_bias False"),
        ({"expansion_ratio": 2}, "expansion_ratio 2"),
        ({"attn_config": ATTENTION | {"alibi": False}}, "attn_config.alibi False"),
        ({"attn_config": None}, "attn_config.alibi False"),
        ({"attn_config": ATTENTION | {"alibi_bias_max": 16}}, "attn_config.alibi_bias_max 16"),
        ({"attn_config": ATTENTION | {"qk_ln": True}}, "attn_config.qk_ln True"),
        ({"attn_config": ATTENTION | {"prefix_lm": True}}, "attn_config.prefix_lm True"),
    ],
)
def test_what_transformers_mpt_does_not_compute_is_refused(folder, edit, changes, named):
    edit(folder / "config.json", **changes)
    with pytest.raises(
        errors.ArchitectureError, match="which transformers' Mpt does not"
    ) as caught:
        describe(LoadSpec(str(folder)))
    assert named in str(caught.value)


def test_it_is_converted_too(folder, tmp_path, wide):
    out = tmp_path / "out"
    assert convert.main([str(folder), str(out)]) == 0
    model, report = AutoModelForImageTextToText.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    own = load(folder)
    prompt = own.prompting.prepare_text(PROMPT, [wide])
    inputs = own.inputs(prompt)
    with torch.inference_mode():
        mine = own.model(**inputs).logits
        inputs["input_ids"] = inputs["input_ids"].masked_fill(
            inputs["input_ids"] == own.image_token_id, model.config.image_token_id
        )
        theirs = model.eval()(**inputs).logits
    torch.testing.assert_close(theirs[..., :320], mine, atol=0, rtol=0)
