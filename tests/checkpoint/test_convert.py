"""A converted checkpoint is transformers' own, asks the same and answers the same."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, SiglipVisionConfig
from transformers.models.siglip import SiglipVisionModel

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from tests.checkpoint import tiny_models
from worker.checkpoint import errors
from worker.checkpoint.conversation import render_conversation
from worker.checkpoint.export import checkpoint
from worker.checkpoint.export.template import export_template
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.output import Output
from worker.checkpoint.prompt import PLACEHOLDER
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.templates import named_template, template_names
from worker.tools import convert

QUESTION = "What is this?"
IMAGE = ImagePart(image_url=ImageUrl(url="data:,"))
MESSAGE = ChatMessage(role="user", content=[IMAGE, TextPart(text=QUESTION)])


def load(path, base=None, **options):
    spec = LoadSpec(str(path), model_base=base and str(base), device="cpu", **options)
    return load_checkpoint(spec, lambda _progress: None)


def converted(path, out, *words):
    """Transformers' own model and processor of what the tool writes."""
    assert convert.main([str(path), str(out), *map(str, words)]) == 0
    model, report = AutoModelForImageTextToText.from_pretrained(
        out, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.eval(), AutoProcessor.from_pretrained(out)


def parts(*content):
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "image": part}
        for part in content
    ]


@torch.inference_mode()
def require_equal(own, model, processor, images, *, atol=0.0):
    """The same prompt and the same logits, for each of some images."""
    rows = own.model.get_output_embeddings().weight.shape[0]
    for image in images:
        prompt = own.prepare([MESSAGE], [image])
        conversation = [{"role": "user", "content": parts(image, QUESTION)}]
        theirs = processor.apply_chat_template(
            conversation,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        image_id = model.config.image_token_id
        ids = [image_id if i == own.image_token_id else i for i in prompt.input_ids]
        assert theirs["input_ids"][0].tolist() == ids
        text = processor.apply_chat_template(conversation, add_generation_prompt=True)
        assert text.replace("<im_start>", "").replace("<im_end>", "") == prompt.text
        mine = own.model(**own.inputs(prompt)).logits
        found = model(**theirs).logits
        torch.testing.assert_close(found[..., :rows], mine, atol=atol, rtol=0)
        # What has been added is never the likeliest.
        assert torch.equal(found.argmax(-1), mine.argmax(-1))


@pytest.fixture(scope="module")
def images(oracle):
    return [
        Image.open(oracle / f"{name}.png").convert("RGB") for name in ("wide", "tall", "square")
    ]


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "llava-v1.6-tiny"])
def test_a_converted_checkpoint_gives_the_same_prompt_and_logits(oracle, tmp_path, images, name):
    out = tmp_path / "out"
    model, processor = converted(oracle / name, out, "--max-shard-size", "1MB")
    assert type(model).__module__.startswith("transformers.models.llava")
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 2
    own = load(oracle / name)
    require_equal(own, model, processor, images)
    assert processor.tokenizer.model_max_length == own.context_length
    assert processor.image_token == "<image>"


def test_a_converted_checkpoint_generates_the_same_tokens(oracle, tmp_path, images):
    model, processor = converted(oracle / "llava-v1.5-tiny", tmp_path / "out")
    expected = json.loads((oracle / "expected.json").read_text())
    case = next(
        case
        for case in (expected["cases"] if isinstance(expected, dict) else expected)
        if case["checkpoint"] == "llava-v1.5-tiny" and case["images"] == ["wide"]
    )
    turn = case["turns"][0]
    inputs = processor(text=turn["prompt"], images=images[0], return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    tokens = made[0, inputs["input_ids"].shape[1] :].tolist()
    recorded = turn["token_ids"]
    assert tokens == recorded[recorded[0] == 1 :]


def test_what_is_converted_is_served_as_any_hugging_face_checkpoint(oracle, tmp_path, images):
    out = tmp_path / "out"
    converted(oracle / "llava-v1.6-tiny", out)
    served, own = load(out), load(oracle / "llava-v1.6-tiny")
    assert served.card.format == "vision-language"
    assert served.eos_token_ids == own.eos_token_ids
    for image in images:
        mine, theirs = own.prepare([MESSAGE], [image]), served.prepare([MESSAGE], [image])
        assert len(mine.input_ids) == len(theirs.input_ids)
        with torch.inference_mode():
            a = own.model(**own.inputs(mine)).logits[0, -1]
            b = served.model(**served.inputs(theirs)).logits[0, -1]
        torch.testing.assert_close(b[: len(a)], a, atol=1e-5, rtol=0)


def test_a_projector_is_converted_with_its_base(oracle, tmp_path, images):
    path, base = oracle / "llava-v1.5-tiny-pretrain", oracle / "vicuna-tiny"
    model, processor = converted(path, tmp_path / "out", "--model-base", base)
    require_equal(load(path, base), model, processor, images)


def test_an_adapter_is_converted_merged_where_asked(oracle, tmp_path, images, capsys):
    path = oracle / "llava-v1.5-tiny-lora"
    assert convert.main([str(path), str(tmp_path / "unmerged")]) == 1
    assert "merge it with --merge-lora" in capsys.readouterr().err
    words = ["--merge-lora", "--dtype", "float32"]
    model, processor = converted(path, tmp_path / "out", *words)
    require_equal(load(path, merge_lora=True), model, processor, images)


def test_delta_weights_are_converted_with_their_base(oracle, copy, edit, tmp_path, images):
    copy("clip-tiny-patch14")
    folder, base = copy("llava-v1.5-tiny"), oracle / "vicuna-tiny"
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name, tensor in load_file(base / "model.safetensors").items():
        state[name] = state[name] - tensor
    torch.save(state, folder / "pytorch_model.bin")
    edit(folder / "config.json", mm_is_delta=True)
    model, processor = converted(folder, tmp_path / "out", "--model-base", base)
    require_equal(load(folder, base), model, processor, images)


def with_projector(folder: Path, edit, kind: str, depth: int) -> None:
    edit(folder / "config.json", mm_projector_type=kind)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state = {name: tensor for name, tensor in state.items() if "mm_projector" not in name}
    torch.manual_seed(1)
    for index in range(depth):
        layer = torch.nn.Linear(64 if index == 0 else 128, 128)
        place = "mm_projector." if kind == "linear" else f"mm_projector.{2 * index}."
        state |= {f"model.{place}{name}": tensor for name, tensor in layer.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")


def test_a_linear_projector_becomes_two_layers_that_compute_the_same(copy, edit, tmp_path, images):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    with_projector(folder, edit, "linear", 1)
    model, processor = converted(folder, tmp_path / "out")
    assert model.config.projector_hidden_act == "linear"
    require_equal(load(folder), model, processor, images)


def test_a_projector_that_transformers_does_not_have_is_refused(copy, edit, tmp_path, capsys):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    with_projector(folder, edit, "mlp3x_gelu", 3)
    assert convert.main([str(folder), str(tmp_path / "out")]) == 1
    assert "projector of 3 layers, and transformers' Llava has two" in capsys.readouterr().err


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("template", ["vicuna_v1", "llava_v0", "v1_mmtag", "mistral_instruct"])
def test_start_and_end_tokens_and_templates_are_converted(
    copy, edit, tmp_path, images, template, legacy
):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    edit(folder / "config.json", mm_use_im_start_end=True, vocab_size=3002)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    names = {3000: "<im_start>", 3001: "<im_end>"}
    if legacy:  # a token without an embedding, which is text; other tokenizers may have none
        names[3002] = "<beyond>"
    for number, name in names.items():
        tokens[str(number)] = tokens["1"] | {"content": name}
    edit(folder / "tokenizer_config.json", added_tokens_decoder=tokens, legacy=legacy)
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        state[name] = torch.nn.functional.pad(state[name], (0, 0, 0, 2))
    torch.save(state, folder / "pytorch_model.bin")
    model, processor = converted(folder, tmp_path / "out", "--chat-template", template)
    assert model.config.image_token_id == 3002
    require_equal(load(folder, chat_template=template), model, processor, images)


def test_a_byte_level_tokenizer_with_rows_to_spare_gets_no_new_row(
    oracle, copy, edit, tmp_path, images
):
    copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    (folder / "special_tokens_map.json").unlink()
    tiny_models.tokenizer("<|im_start|>", "<|im_end|>").save_pretrained(folder)
    edit(folder / "config.json", bos_token_id=256, eos_token_id=257)
    model, processor = converted(folder, tmp_path / "out", "--chat-template", "qwen_1_5")
    assert model.config.image_token_id == 261
    assert model.get_input_embeddings().num_embeddings == 3000
    require_equal(load(folder, chat_template="qwen_1_5"), model, processor, images)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert 261 in generation["suppress_tokens"]
    assert 260 in generation["eos_token_id"]  # <|im_end|>, which the template says ends answers


@pytest.mark.parametrize("aspect_ratio", ["pad", "square"])
def test_a_siglip_tower_is_converted(oracle, copy, edit, tmp_path, images, aspect_ratio):
    folder = copy("llava-v1.5-tiny")
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        image_size=56, patch_size=14,
    )  # fmt: skip
    tower = folder.parent / "siglip"
    SiglipVisionModel(config).save_pretrained(tower)
    (tower / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"height": 56, "width": 56},
                "resample": 3,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
            }
        )
    )
    edit(folder / "config.json", mm_vision_tower="siglip", image_aspect_ratio=aspect_ratio)
    model, processor = converted(folder, tmp_path / "out")
    require_equal(load(folder), model, processor, images)


def test_weights_stay_in_the_dtype_that_they_are_stored_in_unless_asked(oracle, tmp_path):
    source = oracle / "llava-v1.5-tiny"
    for words, dtypes in (
        ([], {torch.float16, torch.float32}),
        (["--dtype", "bfloat16"], {torch.bfloat16}),
    ):
        out = tmp_path / "-".join(["out", *words])
        assert convert.main([str(source), str(out), *words]) == 0
        assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == dtypes
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_is_converted_already_is_left_alone(oracle, tmp_path, capsys):
    out = tmp_path / "out"
    converted(oracle / "llava-v1.5-tiny", out)
    assert convert.main([str(out), str(tmp_path / "again")]) == 1
    assert "which transformers loads as it is" in capsys.readouterr().err
    assert convert.main([str(oracle / "vicuna-tiny"), str(tmp_path / "again")]) == 1
    assert "is a text checkpoint" in capsys.readouterr().err


def test_the_tower_that_is_read_is_not_overwritten(oracle, copy, capsys):
    tower = copy("clip-tiny-patch14")
    folder = copy("llava-v1.5-tiny")
    assert convert.main([str(folder), str(tower), "--overwrite"]) == 1
    assert "is read from; write elsewhere" in capsys.readouterr().err


def test_a_tokenizer_that_would_read_otherwise_writes_nothing(oracle, tmp_path, monkeypatch):
    real = checkpoint.export_tokenizer

    def wrong(*args, **kwargs):
        tokenizer, image_id = real(*args, **kwargs)
        tokenizer.backend_tokenizer.normalizer = None
        return tokenizer, image_id

    monkeypatch.setattr(checkpoint, "export_tokenizer", wrong)
    spec = LoadSpec(str(oracle / "llava-v1.5-tiny"), device="cpu")
    with pytest.raises(errors.TokenizerError, match="would not give the same prompt"):
        checkpoint.convert(spec, Output(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_read_one_by_one(oracle, tmp_path, monkeypatch):
    alive, most = 0, 0
    real = checkpoint.TensorStore.read

    class Counted:
        def __init__(self) -> None:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def read(self, planned):
        tensor = real(self, planned)
        tensor.counted = Counted()
        return tensor

    monkeypatch.setattr(checkpoint.TensorStore, "read", read)
    assert convert.main([str(oracle / "llava-v1.5-tiny"), str(tmp_path / "out")]) == 0
    assert 1 <= most <= 2


# --- templates


def conversations():
    """Every order of a few parts, and other ways in which messages come."""
    pieces = ["Hello", " spaced ", "", "\nnew line", IMAGE]
    for content in itertools.product(pieces, repeat=3):
        given = [TextPart(text=part) if isinstance(part, str) else part for part in content]
        yield [ChatMessage(role="user", content=given)]
    seen = ChatMessage(role="user", content=[TextPart(text="See"), IMAGE, IMAGE])
    answer = ChatMessage(role="assistant", content="I see.")
    yield [ChatMessage(role="system", content="Be brief."), seen, answer, seen]
    yield [ChatMessage(role="user", content="Hello"), answer, seen]
    yield [seen, answer, ChatMessage(role="user", content="And?"), answer, seen]


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("name", template_names())
def test_an_exported_template_renders_what_ours_does(oracle, name, wraps):
    template = named_template(name)
    tokenizer = tiny_models.tokenizer()
    exported = export_template(template, wraps_in_start_end=wraps)
    image = "<im_start><image><im_end>" if wraps else "<image>"
    random.seed(0)
    for messages in random.sample([*conversations()], 40):
        count = sum(
            not isinstance(part, TextPart)
            for message in messages
            if isinstance(message.content, list)
            for part in message.content
        )
        wanted = render_conversation(
            tokenizer, template, messages, [Image.new("RGB", (8, 8))] * count
        )
        plain = [
            {
                "role": message.role,
                "content": message.content
                if isinstance(message.content, str)
                else [
                    {"type": "text", "text": part.text}
                    if isinstance(part, TextPart)
                    else {"type": "image"}
                    for part in message.content
                ],
            }
            for message in messages
        ]
        found = tokenizer.apply_chat_template(
            plain, chat_template=exported, tokenize=False, add_generation_prompt=True
        )
        assert found == wanted.replace(PLACEHOLDER, image)
