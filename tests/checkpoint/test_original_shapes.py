"""Original checkpoints of every shape answer as the original forward pass, stated again, does."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image

from tests.checkpoint import tiny_models
from tests.checkpoint.original_llava import Original, legacy_sentencepiece
from worker.checkpoint.load import LoadedCheckpoint, load_checkpoint
from worker.checkpoint.spec import LoadSpec

ORACLE = Path(__file__).parent.parent / "data" / "oracle"
TOWER = ORACLE / "clip-tiny-patch14"
VOCABULARY = 3000  # of the tokenizer beside the oracle's checkpoints
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]  # (width, height)
NEW_TOKENS = 8

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLASSES = {
    "llama": ("LlavaLlamaForCausalLM", hf.LlamaConfig, hf.LlamaForCausalLM),
    "mistral": ("LlavaMistralForCausalLM", hf.MistralConfig, hf.MistralForCausalLM),
    "qwen2": ("LlavaQwenForCausalLM", hf.Qwen2Config, hf.Qwen2ForCausalLM),
}


@dataclass(frozen=True)
class Case:
    """A kind of checkpoint: its language model, its projector, and keys of its config.

    ``text`` are keys as older configs have them, ``now`` the same ones in transformers 5's terms.
    """

    language_model: str = "llama"
    projector: str = "mlp2x_gelu"
    config: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()


def projector_of(kind: str, inputs: int, outputs: int) -> torch.nn.Module:
    if kind == "linear":
        return torch.nn.Linear(inputs, outputs)
    layers: list[torch.nn.Module] = [torch.nn.Linear(inputs, outputs)]
    for _ in range(int(kind[3]) - 1):
        layers += [torch.nn.GELU(), torch.nn.Linear(outputs, outputs)]
    return torch.nn.Sequential(*layers)


def make(case: Case, folder: Path) -> Original:
    """Writes the checkpoint in the original layout; the model as the original code has it."""
    torch.manual_seed(0)
    architecture, config_class, model_class = CLASSES[case.language_model]
    folder.mkdir()
    shutil.copytree(TOWER, folder.parent / TOWER.name, dirs_exist_ok=True)
    text = TEXT | {"vocab_size": VOCABULARY + len(case.added)}
    bos: int | None = 1
    if case.language_model == "qwen2":
        made = tiny_models.tokenizer()
        made.save_pretrained(folder)
        text |= {"vocab_size": 300, "bos_token_id": None, "eos_token_id": 257}
        bos = None

        def tokenize(piece: str) -> list[int]:
            return made(piece, add_special_tokens=False)["input_ids"]
    else:
        shutil.copy(ORACLE / "vicuna-tiny" / "tokenizer.model", folder)
        settings = json.loads((ORACLE / "vicuna-tiny" / "tokenizer_config.json").read_text())
        for number, name in enumerate(case.added, VOCABULARY):
            settings["added_tokens_decoder"][str(number)] = {
                **settings["added_tokens_decoder"]["1"],
                "content": name,
            }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        specials = {"<unk>": 0, "<s>": 1, "</s>": 2}
        specials |= {name: number for number, name in enumerate(case.added, VOCABULARY)}
        tokenize = legacy_sentencepiece(str(folder / "tokenizer.model"), specials, 1)
    language_model = model_class(config_class(**text, **case.now)).eval()
    projector = projector_of(case.projector, 64, text["hidden_size"])
    newline = torch.randn(text["hidden_size"])
    config = {
        **text,
        **case.text,
        "architectures": [architecture],
        "model_type": f"llava_{case.language_model.removesuffix('2')}",
        "mm_vision_tower": TOWER.name,
        "mm_hidden_size": 64,
        "mm_projector_type": case.projector,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
        **case.config,
    }
    (folder / "config.json").write_text(json.dumps(config))
    state = dict(language_model.state_dict())
    if case.text.get("tie_word_embeddings"):
        del state["lm_head.weight"]
    state |= {f"model.mm_projector.{k}": v for k, v in projector.state_dict().items()}
    if config["image_aspect_ratio"] == "anyres":
        state["model.image_newline"] = newline
    torch.save(state, folder / "pytorch_model.bin")
    return Original(
        config=config,
        language_model=language_model,
        tower=hf.CLIPVisionModel.from_pretrained(TOWER).eval(),
        image_processor=hf.CLIPImageProcessorPil.from_pretrained(TOWER),
        projector=projector,
        image_newline=newline,
        tokenize=tokenize,
        bos=bos,
    )


def load(folder: Path) -> LoadedCheckpoint:
    spec = LoadSpec(str(folder), device="cpu", dtype="float32")
    return load_checkpoint(spec, lambda _progress: None)


def noise(width: int, height: int) -> Image.Image:
    """A picture in which every pixel counts."""
    torch.manual_seed(width * 10_000 + height)
    values = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    return Image.fromarray(values.numpy())


@torch.inference_mode()
def require_same(loaded: LoadedCheckpoint, original: Original, prompt: str, *images) -> None:
    """The same number of positions, the same log-probabilities at each, the same answer."""
    prepared = loaded.prompting.prepare_text(prompt, images)
    ours = loaded.model(**loaded.inputs(prepared)).logits[0].log_softmax(-1)
    theirs = original.logits(prompt, list(images)).log_softmax(-1)
    assert ours.shape[0] == theirs.shape[0]
    vocabulary = min(ours.shape[1], theirs.shape[1])
    # At the images' positions as well: what stands there must be the same features.
    torch.testing.assert_close(ours[:, :vocabulary], theirs[:, :vocabulary], atol=1e-4, rtol=0)
    expected = original.answer(prompt, list(images), NEW_TOKENS)
    loaded.model.generation_config.eos_token_id = None
    answer = loaded.model.generate(
        **loaded.inputs(prepared), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )
    assert answer[0, prepared.prompt_tokens :].tolist() == expected


VICUNA = "A chat. USER: <image>\nWhat is this? ASSISTANT:"
ANYRES = {
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": PINPOINTS,
    "mm_patch_merge_type": "spatial_unpad",
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
CASES = {
    "llama, pad": Case(),
    "llama, square": Case(config={"image_aspect_ratio": "square"}),
    "llama, no aspect ratio named": Case(config={"image_aspect_ratio": None}),
    "llama, linear projector": Case(projector="linear"),
    "llama, three layers": Case(projector="mlp3x_gelu"),
    "llama, class token kept": Case(config={"mm_vision_select_feature": "cls_patch"}),
    "llama, another layer": Case(config={"mm_vision_select_layer": -1}),
    "llama, anyres": Case(config=ANYRES),
    "llama, longer positions": Case(
        text={"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0},
        now={"rope_parameters": LINEAR_ROPE},
    ),
    "llama, start and end": Case(
        config={"mm_use_im_start_end": True, "mm_use_im_patch_token": True},
        added=("<im_patch>", "<im_start>", "<im_end>"),
    ),
    "mistral, pad": Case(
        "mistral",
        text={"rope_theta": 1e6, "sliding_window": None},
        now={
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
        },
    ),
    "mistral, anyres": Case(
        "mistral",
        config=ANYRES,
        text={"rope_theta": 1e6, "sliding_window": None},
        now={
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_window": None,
        },
    ),
    "mistral, linear projector, sliding window": Case(
        "mistral", projector="linear", text={"sliding_window": 8}, now={"sliding_window": 8}
    ),
    "qwen2, anyres": Case("qwen2", config=ANYRES),
    "qwen2, tied head": Case(
        "qwen2", text={"tie_word_embeddings": True}, now={"tie_word_embeddings": True}
    ),
}
PROMPTS = {
    "llama": VICUNA,
    "mistral": "[INST] <image>\nWhat is this? [/INST]",
    "qwen2": "<|im_start|>user\n<image>\nWhat is this?<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def test_it_answers_as_the_original_forward_pass(case, tmp_path):
    original = make(case, tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint")
    prompt = PROMPTS[case.language_model]
    wide, tall = noise(90, 40), noise(33, 120)
    require_same(loaded, original, prompt, wide)
    # Two in one question, of other shapes, the second after text.
    both = prompt.replace("<image>", "<image>\n<image>").replace("this?", "this? <image> And?")
    require_same(loaded, original, both, wide, tall, wide)


def test_a_later_turn_keeps_its_image_where_it_was_put(tmp_path):
    original = make(Case(config=ANYRES), tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint")
    prompt = (
        "A chat. USER: <image>\nWhat is this? ASSISTANT: A dog.</s>USER: And this? <image> "
        "ASSISTANT: A cat.</s>USER: Compare them. ASSISTANT:"
    )
    require_same(loaded, original, prompt, noise(200, 31), noise(64, 64))


@pytest.fixture(scope="module")
def anyres(tmp_path_factory):
    folder = tmp_path_factory.mktemp("anyres") / "checkpoint"
    original = make(Case(config=ANYRES), folder)
    return load(folder), original


@pytest.mark.parametrize(
    "size",
    [
        (1, 1), (2, 1), (1, 2), (1, 100), (100, 1), (3, 160), (160, 3), (7, 300), (300, 7),
        (56, 56), (57, 56), (55, 112), (112, 57), (640, 480), (480, 640), (333, 77), (77, 333),
        (1000, 999), (168, 56), (56, 168), (999, 333),
    ],
)  # fmt: skip
def test_an_image_of_any_shape_is_cut_and_unpadded_as_by_the_original(anyres, size):
    loaded, original = anyres
    require_same(loaded, original, VICUNA, noise(*size))


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (640, 480), (57, 333)])
@pytest.mark.parametrize("aspect_ratio", ["pad", "square"])
def test_an_image_of_any_shape_is_padded_or_cropped_as_by_the_original(
    aspect_ratio, size, tmp_path
):
    original = make(Case(config={"image_aspect_ratio": aspect_ratio}), tmp_path / "checkpoint")
    require_same(load(tmp_path / "checkpoint"), original, VICUNA, noise(*size))


def test_an_adapter_of_the_language_model_alone_loads_over_an_original_checkpoint():
    base, adapter = ORACLE / "llava-v1.5-tiny", ORACLE / "vicuna-tiny-text-lora"
    spec = LoadSpec(str(adapter), model_base=str(base), device="cpu", dtype="float32")
    adapted = load_checkpoint(spec, lambda _progress: None)
    assert (adapted.card.format, adapted.card.base) == ("llava-lora", base.name)
    assert adapted.card.facts.projector == load(base).card.facts.projector == "mlp2x_gelu"
    prompt = adapted.prompting.prepare_text(VICUNA, [noise(90, 40)])
    with torch.inference_mode():
        ours = adapted.model(**adapted.inputs(prompt)).logits
        plain = load(base).model(**adapted.inputs(prompt)).logits
    assert not torch.allclose(ours, plain, atol=1e-2)
