"""Families that share batches say what generate says, whatever else is in the batch."""

import importlib.util
import warnings

import pytest
import torch
import transformers
from PIL import Image

from controller.protocol.chat import ChatMessage, ImagePart, ImageUrl, TextPart
from controller.protocol.fleet import ModelCard
from tests.checkpoint.tiny_models import FAMILIES, TEXT, tokenizer
from worker.checkpoint.load import LoadedCheckpoint, load_checkpoint
from worker.checkpoint.prompt import PreparedPrompt
from worker.checkpoint.spec import LoadSpec
from worker.engine.batchable import FEATURES_IN_PLACE, LANGUAGE_MODELS, READ_WHOLE, why_not
from worker.engine.engine_prompt import EnginePrompt, image_digests
from worker.engine.protocol import SamplingParams
from worker.engine.slot_model import SlotModel

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore:__array__ impl:DeprecationWarning"
)

NEW_TOKENS = 10
CARD = ModelCard(name="tiny")
TOKENIZER = tokenizer()
GREEDY = SamplingParams(temperature=0.0)
WINDOW = 12  # tokens; shorter than the prompts
PICTURES = [Image.effect_noise(size, 80).convert("RGB") for size in ((60, 40), (20, 20))]


def generated(model, **inputs):
    """transformers' own answer, however often it says that it is over."""
    model.generation_config.eos_token_id = None
    ids = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=258)
    return ids[0, inputs["input_ids"].shape[1] :].tolist()


def batched(model, prompts):
    """The answers of rows that join one after another, each read in parts of another size."""
    rows, answers = [], []
    for prompt, part in zip(prompts, (7, 4_096, 5, 64, 4_096, 9), strict=False):
        row = model.open(prompt, GREEDY)
        while (token := model.prefill(row, part)) is None:
            pass
        rows.append(row)
        answers.append([token])
        for answer, token in zip(answers, model.step(rows), strict=True):
            answer.append(token)
    for _ in range(NEW_TOKENS):
        for answer, token in zip(answers, model.step(rows), strict=True):
            answer.append(token)
    for row in rows:
        model.close(row)
    return [answer[:NEW_TOKENS] for answer in answers]


def check(model, prompts):
    checkpoint = model.serving("tiny").checkpoint
    expected = [
        generated(checkpoint.model, **checkpoint.inputs(prompt.prepared)) for prompt in prompts
    ]
    assert batched(model, prompts) == expected
    # And again, from what is known by now.
    assert batched(model, prompts) == expected
    can_be_known = any(
        model._batching.reads_images_in_parts or not prompt.image_tokens for prompt in prompts
    )
    assert (model.cache_stats().prefix_hits > 0) == can_be_known


SEEING = sorted((FEATURES_IN_PLACE | READ_WHOLE) & set(FAMILIES))


@pytest.mark.parametrize("family", SEEING)
def test_a_family_that_sees_shares_batches(family, tmp_path):
    tiny = FAMILIES[family]
    if tiny.needs is not None and importlib.util.find_spec(tiny.needs) is None:
        pytest.skip(f"this family's processor needs {tiny.needs}, which is not installed")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, processor = tiny.make()
        transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
    spec = LoadSpec(str(tmp_path), model_name="tiny", device="cpu", dtype="float32")
    model = SlotModel(load_checkpoint(spec, lambda _progress: None))
    served = model.serving("tiny")
    image = ImagePart(image_url=ImageUrl(url="data:,"))

    def asked(text, *pictures):
        message = ChatMessage(role="user", content=[*[image] * len(pictures), TextPart(text=text)])
        prepared = served.checkpoint.prepare([message], pictures)
        return EnginePrompt(prepared, served, image_digests(pictures, "default"))

    prompts = [
        asked("What is this?", PICTURES[0]),
        asked("Compare the two of them.", *PICTURES),
        asked("And what do you see here, if anything?", PICTURES[1]),
        asked("Which is larger?", PICTURES[1], PICTURES[0]),
    ]
    if tiny.takes_text_alone:
        prompts.insert(1, asked("Tell me a story of the sea and of those who sail it."))
    check(model, prompts)


ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
LANGUAGE = {
    "gemma": transformers.GemmaConfig(**TEXT, head_dim=16),
    "gemma3": transformers.Gemma3TextConfig(
        **TEXT, head_dim=16, rope_parameters=ROPES, **ALTERNATING
    ),
    "granite": transformers.GraniteConfig(**TEXT),
    "llama": transformers.LlamaConfig(**TEXT),
    "mistral with a window": transformers.MistralConfig(**TEXT, sliding_window=WINDOW),
    "olmo2": transformers.Olmo2Config(**TEXT),
    "phi3": transformers.Phi3Config(**TEXT, sliding_window=None),
    "phi3 with a window": transformers.Phi3Config(**TEXT, sliding_window=WINDOW),
    "qwen2": transformers.Qwen2Config(**TEXT),
    "qwen2 with windows": transformers.Qwen2Config(**TEXT, use_sliding_window=True, **ALTERNATING),
    "qwen3": transformers.Qwen3Config(**TEXT, head_dim=16),
    "smollm3": transformers.SmolLM3Config(**TEXT),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_shares_batches(name):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        LANGUAGE[name], dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    assert why_not(model.config) is None
    slots = SlotModel(checkpoint_of(model))
    served = slots.serving("tiny")
    torch.manual_seed(1)
    prompts = [
        EnginePrompt(
            PreparedPrompt("", tuple(torch.randint(0, 250, (length,)).tolist()), 0, {}), served
        )
        for length in (30, 3, 17, 64, 1)
    ]
    check(slots, prompts)


def checkpoint_of(model):
    """A model that was loaded from nowhere."""
    return LoadedCheckpoint(
        card=CARD,
        model=model,
        tokenizer=TOKENIZER,
        prompting=None,
        context_length=2_048,
        device=torch.device("cpu"),
        devices=(torch.device("cpu"),),
        dtype=torch.float32,
        eos_token_ids=frozenset({257}),
        image_token_id=None,
    )


def test_every_language_model_that_is_let_through_is_here():
    here = {LANGUAGE[name].model_type for name in LANGUAGE}
    for family in SEEING:
        if FAMILIES[family].needs is None:
            config, _ = FAMILIES[family].make()
            here.add(config.get_text_config(decoder=True).model_type)
    assert here >= LANGUAGE_MODELS
