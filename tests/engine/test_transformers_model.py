"""Our decode loop against transformers' own generate, on tiny random checkpoints."""

import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.errors import DeviceLostError, OutOfMemoryError
from controller.protocol.fleet import Quantisation
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.spec import LoadSpec
from worker.engine.detokenizer import REPLACEMENT, Detokenizer
from worker.engine.protocol import Finished, GenerationRequest, SamplingParams, TextDelta
from worker.engine.sequential import SequentialEngine
from worker.engine.transformers_model import TransformersModel

ORACLE = Path(__file__).parent.parent / "data" / "oracle"
NEW_TOKENS = 24
GREEDY = SamplingParams(temperature=0.0)
IMAGE = ImagePart(image_url=ImageUrl(url="data:,"))


@cache
def loaded(name, base=None, quantisation=Quantisation.NONE):
    torch.set_num_threads(1)
    spec = LoadSpec(
        str(ORACLE / name),
        model_base=str(ORACLE / base) if base else None,
        model_name="tiny",
        quantisation=quantisation,
        dtype="float32",
        device="cpu",
    )
    return load_checkpoint(spec, lambda _progress: None)


def request(text, *images, **sampling):
    content = [TextPart(text=text)] + [IMAGE] * len(images)
    return GenerationRequest(
        request_id="req-1",
        model="tiny",
        messages=(ChatMessage(role="user", content=content),),
        images=tuple(Image.open(ORACLE / f"{name}.png").convert("RGB") for name in images),
        sampling=SamplingParams(**{"temperature": 0.0, "max_tokens": NEW_TOKENS, **sampling}),
    )


HI = request("Hi")


def first_tokens(model, asked, count=NEW_TOKENS, sampling=GREEDY):
    tokens = model.tokens(model.prepare(asked), sampling)
    try:
        return [next(tokens) for _ in range(count)]
    finally:
        tokens.close()


@pytest.mark.parametrize(
    ("name", "base", "quantisation", "images"),
    [
        ("llava-v1.5-tiny", None, Quantisation.NONE, ()),
        ("llava-v1.5-tiny", None, Quantisation.NONE, ("wide",)),
        ("llava-v1.5-tiny", None, Quantisation.NONE, ("wide", "tall")),
        ("llava-v1.5-tiny", None, Quantisation.INT8, ("wide",)),
        ("llava-v1.5-tiny", None, Quantisation.NF4, ("wide",)),
        ("llava-v1.5-tiny-lora", "vicuna-tiny", Quantisation.NONE, ("square",)),
        ("llava-v1.6-tiny", None, Quantisation.NONE, ("wide",)),
        ("llava-v1.6-tiny", None, Quantisation.NONE, ("tall", "square")),
        ("vicuna-tiny", None, Quantisation.NONE, ()),
    ],
)
def test_tokens_are_those_of_generate(name, base, quantisation, images):
    checkpoint = loaded(name, base, quantisation)
    model = TransformersModel(checkpoint)
    asked = request("What is in this image?", *images)
    inputs = checkpoint.inputs(model.prepare(asked).prepared)
    expected = checkpoint.model.generate(
        **inputs, do_sample=False, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS
    )[0, inputs["input_ids"].shape[1] :].tolist()
    ours = first_tokens(model, asked)
    # generate was kept from the end token, and we only are by the Answer.
    end = next((i for i, t in enumerate(ours) if t in checkpoint.eos_token_ids), NEW_TOKENS)
    assert end > 0
    assert ours[:end] == expected[:end]


def test_an_answer_does_not_depend_on_those_before_it():
    model = TransformersModel(loaded("llava-v1.5-tiny"))
    asked = request("What is in this image?", "wide")
    alone = first_tokens(model, asked)
    first_tokens(model, request("Something else", "tall"), 7)
    assert first_tokens(model, asked) == alone


def test_a_seed_gives_the_same_answer_and_another_seed_another_one():
    model = TransformersModel(loaded("llava-v1.5-tiny"))
    asked = request("Hello")

    def sample(seed):
        return first_tokens(model, asked, sampling=SamplingParams(temperature=1.5, seed=seed))

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(None) != sample(None)


@pytest.mark.anyio
async def test_the_engine_answers_with_the_decoded_tokens():
    checkpoint = loaded("llava-v1.5-tiny")
    model = TransformersModel(checkpoint)
    engine = SequentialEngine(model, max_waiting=1)
    asked = request("What is in this image?", "wide")
    events = [event async for event in engine.generate(asked)]
    await engine.aclose()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    tokens = first_tokens(model, asked)
    assert text == checkpoint.tokenizer.decode(tokens, skip_special_tokens=True)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == NEW_TOKENS
    assert finished.usage.prompt_tokens_details.image_tokens == 16


@pytest.mark.parametrize(
    "text",
    [
        "Two red circles and a blue square.\n\n- one\n- two   three",
        "图中有一个红色的圆形，背景是蓝色。",
        "emoji 👩‍👩‍👧 and 𝔘𝔫𝔦, then plain",
        "  leading and trailing  ",
    ],
)
def test_streamed_text_is_the_decoded_text(text):
    tokenizer = loaded("llava-v1.5-tiny").tokenizer
    ids = tokenizer(text, add_special_tokens=False).input_ids
    model = TransformersModel(loaded("llava-v1.5-tiny"))
    detokenizer = Detokenizer(model.serving("tiny").decode)
    pieces = [detokenizer.push(token_id) for token_id in ids]
    assert "".join(pieces) + detokenizer.flush() == model.serving("tiny").decode(ids)
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > len(ids) / 5


def raising(error):
    """A model whose forward fails."""

    class Failing:
        config = loaded("llava-v1.5-tiny").model.config

        def __call__(self, **_inputs):
            raise error

    return TransformersModel(replace(loaded("llava-v1.5-tiny"), model=Failing()))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 2147483648 bytes."),
    ],
)  # fmt: skip
def test_too_little_memory_is_told_with_what_was_needed(error):
    with pytest.raises(OutOfMemoryError, match=r"(2\.00 GiB|2147483648 bytes) needed, \d+ by"):
        first_tokens(raising(error), HI)


def test_memory_is_free_again_while_the_error_is_still_on_its_way():
    class Activations:
        pass

    alive = []

    class Failing:
        config = loaded("llava-v1.5-tiny").model.config

        def __call__(self, **_inputs):
            activations = Activations()
            alive.append(weakref.ref(activations))
            alive.append(weakref.ref(_inputs["past_key_values"]))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model = TransformersModel(replace(loaded("llava-v1.5-tiny"), model=Failing()))
    with pytest.raises(OutOfMemoryError) as caught:
        first_tokens(model, HI)
    assert [each() for each in alive] == [None, None]
    assert caught.value.__cause__ is not None


def test_a_dead_device_is_told_from_a_bug():
    with pytest.raises(DeviceLostError, match="until a restart"):
        first_tokens(raising(torch.AcceleratorError("CUDA error: device-side assert")), HI)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        first_tokens(raising(RuntimeError("shape mismatch")), HI)
