import json
from pathlib import Path

from PIL import Image
from recipe.examples import make_examples

SHIPPED = Path(__file__).resolve().parents[2] / "webui" / "examples"


def test_the_shipped_examples_are_those_of_the_recipe(tmp_path: Path) -> None:
    make_examples(tmp_path)
    made = json.loads((tmp_path / "examples.json").read_text(encoding="utf-8"))
    shipped = json.loads((SHIPPED / "examples.json").read_text(encoding="utf-8"))
    assert made == shipped
    for example in made["examples"]:
        one, two = Image.open(tmp_path / example["image"]), Image.open(SHIPPED / example["image"])
        assert one.tobytes() == two.tobytes()


def test_every_example_has_answers_in_both_languages() -> None:
    shipped = json.loads((SHIPPED / "examples.json").read_text(encoding="utf-8"))
    prompts = [prompt for example in shipped["examples"] for prompt in example["prompts"]]
    assert len(shipped["examples"]) >= 6
    assert all(prompt["answer_en"].isascii() for prompt in prompts)
    assert not any(prompt["answer_zh"].isascii() for prompt in prompts)
