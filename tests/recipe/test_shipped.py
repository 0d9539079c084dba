"""What lies under worker/demo: files, sizes, and a tokenizer that reads as it was trained."""

import json
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "worker" / "demo"
PROMPT = (
    "USER: <image>\nWhere is the red circle? ASSISTANT: The red circle is on the left.</s>USER: Hi"
)


def config(folder: str, name: str = "config.json") -> dict[str, object]:
    return json.loads((DEMO / folder / name).read_text(encoding="utf-8"))


def test_all_of_it_takes_25_megabytes_at_most() -> None:
    assert sum(file.stat().st_size for file in DEMO.rglob("*") if file.is_file()) <= 25_000_000


def test_the_full_checkpoint_is_laid_out_as_llava_does_it() -> None:
    full = config("demo-llava")
    assert full["architectures"] == ["LlavaLlamaForCausalLM"]
    assert full["mm_projector_type"] == "mlp2x_gelu"
    assert full["mm_vision_tower"] == "demo-tower"
    assert (DEMO / str(full["mm_vision_tower"]) / "config.json").is_file()


def test_the_adapter_carries_its_own_projector_and_names_its_base() -> None:
    folder = DEMO / "demo-llava-zh-lora"
    assert (folder / "adapter_model.safetensors").is_file()
    assert (folder / "non_lora_trainables.safetensors").is_file()
    base = config("demo-llava-zh-lora", "adapter_config.json")["base_model_name_or_path"]
    assert (DEMO / str(base) / "model.safetensors").is_file()


def test_the_tokenizer_leaves_a_free_row_for_the_image_token() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(DEMO / "demo-llava" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() < int(str(config("demo-llava")["vocab_size"]))


def test_pieces_around_the_image_are_read_alike_with_and_without_their_neighbours() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "demo-llava")
    apart = [tokenizer(p, add_special_tokens=False)["input_ids"] for p in PROMPT.split("<image>")]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = tokenizer.convert_tokens_to_ids("<image>")
    together = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    assert together == [*apart[0], image, *apart[1]]


@pytest.mark.parametrize(
    "text", ["The star is red.", "图中有两个圆形：红色和蓝色。", "naïve 😀 ¿qué?"]
)
def test_any_text_survives_the_tokenizer_and_an_answer_loses_its_leading_space(text: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "demo-llava")
    ids = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_a_prompt_begins_with_the_begin_token() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "demo-base")
    assert tokenizer("Hello")["input_ids"][0] == tokenizer.bos_token_id == 1
