"""`ChatBot` and ``python -m worker.chat`` on the demo's checkpoint: the worker's own answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from controller.protocol.errors import BadImageError
from worker import ChatBot, LLaVAChatBot
from worker.checkpoint.errors import PathError

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "worker" / "demo"
PICTURES = ROOT / "webui" / "examples"
EXAMPLES = json.loads((PICTURES / "examples.json").read_text(encoding="utf-8"))["examples"]
SHAPES = str(PICTURES / "three-shapes.png")

pytestmark = pytest.mark.skipif(
    not (DEMO / "demo-llava").is_dir(), reason="the demo's checkpoints have not been made"
)


def answer_to(question: str, picture: str = "three-shapes.png", language: str = "en") -> str:
    (example,) = [example for example in EXAMPLES if example["image"] == picture]
    (prompt,) = [prompt for prompt in example["prompts"] if prompt["prompt"] == question]
    return prompt[f"answer_{language}"]


@pytest.fixture(scope="module")
def bot():
    made = ChatBot(str(DEMO / "demo-llava"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_chat_before(request):
    if "bot" in request.fixturenames:
        request.getfixturevalue("bot")._messages = []


def test_a_chat_goes_on_where_it_was(bot):
    first = bot.start_new_chat(SHAPES, "Describe the image.", do_sample=False)
    second = bot.continue_chat("Is the circle above the square?", temperature=0)
    assert first == answer_to("Describe the image.")
    assert second == answer_to("Is the circle above the square?")
    text = bot.get_conv_text()
    assert f"USER: <image>\nDescribe the image. ASSISTANT: {first}</s>USER: Is the" in text
    assert text.endswith(f"ASSISTANT: {second}")


@pytest.mark.parametrize("kind", ["path", "bytes", "pil", "palette", "list"])
def test_an_image_may_come_in_any_form(bot, kind):
    path = PICTURES / "three-shapes.png"
    image = {
        "path": path,
        "bytes": path.read_bytes(),
        "pil": Image.open(path).convert("RGB"),
        "palette": Image.open(path).convert("P"),
        "list": [SHAPES],
    }[kind]
    answer = bot.start_new_chat(image, "What is to the left of the star?", do_sample=False)
    assert answer == answer_to("What is to the left of the star?")


def test_several_images_are_all_shown(bot):
    bot.start_new_chat([SHAPES, SHAPES], "Describe the image.", do_sample=False)
    assert bot.get_conv_text().count("<image>") == 2


def test_without_a_chat_there_is_none_to_go_on_with(bot):
    with pytest.raises(RuntimeError, match="call start_new_chat first"):
        bot.continue_chat("and now?")
    with pytest.raises(RuntimeError, match="call start_new_chat first"):
        bot.get_conv_text()


def test_a_stream_is_the_answer_in_pieces(bot):
    pieces = list(bot.start_new_chat(SHAPES, "Describe the image.", do_sample=False, stream=True))
    assert len(pieces) > 10
    assert "".join(pieces) == answer_to("Describe the image.")
    assert bot.get_conv_text().endswith("".join(pieces))


def test_what_was_seen_of_a_stopped_stream_is_the_answer(bot):
    pieces = bot.start_new_chat(SHAPES, "Describe the image.", do_sample=False, stream=True)
    first = next(pieces)
    pieces.close()
    assert bot.get_conv_text().endswith(f"ASSISTANT: {first}")
    # The model is free again, at once.
    assert bot.continue_chat("What is to the left of the star?", do_sample=False)


def test_it_blocks_where_a_loop_is_running_already(bot):
    async def cell() -> str:
        return bot.start_new_chat(SHAPES, "Describe the image.", do_sample=False)

    assert asyncio.run(cell()) == answer_to("Describe the image.")


def test_the_same_seed_draws_the_same_answer(bot):
    def ask(seed: int) -> str:
        return bot.start_new_chat(SHAPES, "Describe the image.", temperature=3.0, seed=seed)

    assert ask(1) == ask(1) != ask(2)


def test_an_image_that_cannot_be_read_leaves_the_chat_as_it_was(bot):
    bot.start_new_chat(SHAPES, "Describe the image.", do_sample=False)
    before = bot.get_conv_text()
    with pytest.raises(BadImageError, match=r"none\.png cannot be read"):
        bot.start_new_chat("none.png", "Describe the image.")
    assert bot.get_conv_text() == before


def test_names_that_do_not_exist_are_refused(bot):
    with pytest.raises(TypeError, match="there is no 'num_beams'; beside those"):
        bot.start_new_chat(SHAPES, "x", num_beams=4)
    with pytest.raises(TypeError, match="there is no setting 'load_in_2bit'; there are"):
        ChatBot(str(DEMO / "demo-llava"), load_in_2bit=True)
    with pytest.raises(ValueError, match="top_p: Input should be less than or equal to 1"):
        bot.start_new_chat(SHAPES, "x", top_p=2)


def test_a_wrong_path_is_known_at_once(tmp_path):
    with pytest.raises(PathError):
        ChatBot(str(tmp_path / "none"))


def test_the_tutorials_spelling_works(caplog):
    import torch  # noqa: PLC0415 - only here

    bot = LLaVAChatBot(
        model_path=str(DEMO / "demo-llava-zh-lora"),
        model_base=str(DEMO / "demo-base"),
        load_in_4_bit=True,
        bnb_4bit_compute_dtype=torch.float32,
        bnb_8bit_quant_type="nf8",
    )
    try:
        assert bot.card.quantisation == "4bit"
        answer = bot.start_new_chat(img_path=SHAPES, prompt="Describe the image.", do_sample=False)
        assert answer == answer_to("Describe the image.", language="zh")
    finally:
        bot.close()
    assert "bnb_8bit_quant_type is no setting of 8-bit loading" in caplog.text
    with pytest.raises(RuntimeError, match="this ChatBot was closed"):
        bot.continue_chat("and now?")


def python(*words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        input=typed,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=ROOT,
    )


def test_importing_the_package_imports_nothing():
    result = python(
        "-c", "import sys; before = set(sys.modules); import worker; print(set(sys.modules)-before)"
    )
    assert "worker.chatbot" not in result.stdout
    assert "torch" not in result.stdout


def test_a_process_ends_that_never_closed_its_chatbot():
    code = (
        "from worker import ChatBot\n"
        f"bot = ChatBot({str(DEMO / 'demo-llava')!r})\n"
        f"print(bot.start_new_chat({SHAPES!r}, 'Describe the image.', do_sample=False))\n"
    )
    result = python("-c", code)
    assert result.returncode == 0
    assert result.stdout.strip() == answer_to("Describe the image.")
    assert result.stderr == ""


def test_a_terminal_chat_loads_a_checkpoint_and_answers_from_a_pipe():
    result = python(
        "-m",
        "controller.cli",
        "chat",
        "--model-path",
        str(DEMO / "demo-llava"),
        "--image-file",
        SHAPES,
        "--temperature",
        "0",
        "--max-new-tokens",
        "100",
        typed="Describe the image.\nIs the circle above the square?\n",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        answer_to("Describe the image."),
        answer_to("Is the circle above the square?"),
    ]


def test_a_terminal_chat_says_what_is_wrong_with_a_checkpoint(tmp_path):
    result = python("-m", "worker.chat", "--model-path", str(tmp_path / "none"), "--query", "x")
    assert result.returncode == 1
    assert result.stderr.startswith("paragone chat: ")
    assert python("-m", "worker.chat", "--query", "x").returncode == 2
