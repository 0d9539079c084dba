"""Rows that read their own keys say what masked rows say, and read nothing else."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tests.engine.recorder import Recorder
from tests.engine.test_families import LANGUAGE, checkpoint_of
from tests.engine.test_slot_model import GREEDY, LLAVA, LORA, NF4, read
from tests.engine.test_transformers_model import loaded
from worker.checkpoint.prompt import PreparedPrompt
from worker.engine.engine_prompt import EnginePrompt
from worker.engine.processor import is_x86
from worker.engine.ragged_attention import RaggedAttention
from worker.engine.slot_model import SlotModel

pytestmark = pytest.mark.skipif(not is_x86(), reason="rows are masked on this machine")
TINY = transformers.LlamaConfig(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
)
CPU = torch.device("cpu")


class Counting(TorchDispatchMode):
    """Counts the sampled products: one in each layer whose rows read their own keys."""

    def __init__(self):
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.products += "sampled_addmm" in func.name()
        return func(*args, **(kwargs or {}))


def attention(window=None, *, device=CPU, is_recorded=False):
    """Of a tiny model, with the function that its layers would call."""
    model = transformers.LlamaForCausalLM(TINY)
    model.config._attn_implementation = "sdpa"
    found = RaggedAttention(model, model.config, device, window, is_recorded=is_recorded)

    def attend(*args, **options):
        name = model.config._attn_implementation
        return AttentionInterface().get_interface(name, None)(model, *args, **options)[0]

    return found, attend


def masks(lengths, span, window):
    """As `KVSlots.begin_step` makes them."""
    places, newest = torch.arange(span), torch.tensor(lengths)[:, None] - 1
    full = places <= newest
    near = None if window is None else (full & (places > newest - window))[:, None, None]
    return full[:, None, None], near


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=2, max_size=6),
    kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 4]),
    sizes=st.sampled_from([(8, 8), (16, 12)]),
    window=st.sampled_from([None, 1, 5, 100]),
    scaling=st.sampled_from([None, 0.5]),
)
def test_rows_get_what_masked_rows_get(lengths, kv_heads, group, sizes, window, scaling):
    torch.manual_seed(sum(lengths))
    slots, memory, span = len(lengths) + 1, 96, max(lengths) + 3
    query = torch.randn(len(lengths), kv_heads * group, 1, sizes[0])
    keys, values = (torch.randn(slots, kv_heads, memory, size) for size in sizes)
    full, near = masks(lengths, span, window)
    mask = full if near is None else near
    held = (tensor[: len(lengths), :, :span] for tensor in (keys, values))
    module = torch.nn.Module()
    module.num_key_value_groups = group
    expected, _ = sdpa_attention_forward(module, query, *held, mask, scaling=scaling)
    for tensor in (keys, values):  # what nobody may see
        tensor[len(lengths) :] = torch.nan
        for row, length in enumerate(lengths):
            tensor[row, :, length:] = torch.nan
            if window is not None:
                tensor[row, :, : max(0, length - window)] = torch.nan
    ragged, attend = attention(window)
    held = (tensor[: len(lengths), :, :span] for tensor in (keys, values))
    with ragged.step(lengths, full, near), Counting() as counting:
        found = attend(query, *held, mask, scaling=scaling)
    assert counting.products == 1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LANGUAGE)
def test_every_layer_of_every_language_model_reads_rows_of_their_own(name):
    model = language_model(LANGUAGE[name])
    assert products_of_a_step(SlotModel(checkpoint_of(model))) == model.config.num_hidden_layers
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("which", [LLAVA, LORA, NF4], ids=["full", "lora", "nf4"])
def test_every_layer_below_images_and_adapters_does_too(which):
    model = SlotModel(loaded(*which))
    rows = [read(model, "wide"), read(model, "short")]
    with Counting() as counting:
        model.step(rows)
    assert counting.products == model._model.config.get_text_config().num_hidden_layers


def language_model(config, dtype=torch.float32):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        config, dtype=dtype, attn_implementation="sdpa"
    ).eval()


def products_of_a_step(model, lengths=(30, 3)):
    """Sampled products of a step of rows of such lengths."""
    served, rows = model.serving("tiny"), []
    for length in lengths:
        prepared = PreparedPrompt("", tuple(range(length)), 0, {})
        row = model.open(EnginePrompt(prepared, served), GREEDY)
        assert model.prefill(row, 4_096) is not None
        rows.append(row)
    with Counting() as counting:
        model.step(rows)
    return counting.products


def test_one_row_is_its_own_span():
    assert products_of_a_step(SlotModel(checkpoint_of(language_model(TINY))), lengths=(9,)) == 0


def test_recorded_steps_and_other_dtypes_and_devices_are_left_as_they_are():
    recorded = SlotModel(checkpoint_of(language_model(TINY)), capture=Recorder())
    assert products_of_a_step(recorded) == 0
    assert products_of_a_step(SlotModel(checkpoint_of(language_model(TINY, torch.bfloat16)))) == 0
    elsewhere, _ = attention(device=torch.device("meta"))
    assert not elsewhere._configs


def test_a_mask_of_somebody_else_is_used_as_it_is():
    ragged, attend = attention()
    query, memory = torch.randn(2, 2, 1, 4), torch.randn(2, 2, 64, 4)
    full, _ = masks((5, 9), 20, None)
    mask = full & (torch.arange(20) > 2)
    held = memory[:, :, :20]
    with ragged.step((5, 9), full, None), Counting() as counting:
        found = attend(query, held, held, mask)
    assert counting.products == 0
    expected = torch.nn.functional.scaled_dot_product_attention(query, held, held, mask)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_step_that_fails_leaves_the_model_as_it_was():
    model = transformers.LlamaForCausalLM(TINY)
    before = model.config._attn_implementation
    ragged = RaggedAttention(model, model.config, CPU, None, is_recorded=False)
    seen = []

    def fail():
        with ragged.step((5, 9), *masks((5, 9), 20, None)):
            seen.append(model.config._attn_implementation)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert seen != [before]
    assert model.config._attn_implementation == before


def test_what_was_not_a_number_in_one_layer_is_forgotten_in_the_next():
    ragged, attend = attention()
    query, memory = torch.randn(2, 2, 1, 4), torch.randn(2, 2, 64, 4)
    held = memory[:, :, :20]
    full, _ = masks((5, 9), 20, None)
    with ragged.step((5, 9), full, None):
        assert attend(torch.full_like(query, torch.nan), held, held, full).isnan().all()
        assert attend(query, held, held, full).isfinite().all()
