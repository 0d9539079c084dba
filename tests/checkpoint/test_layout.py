"""A model goes to the devices that the flags say, or is refused before anything is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from controller.protocol.fleet import Quantisation
from worker.checkpoint import budgets, errors, layout
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.memory import Held, count_weights
from worker.checkpoint.placement import Placement
from worker.checkpoint.preflight import skeleton
from worker.checkpoint.spec import LoadSpec
from worker.checkpoint.survey import survey
from worker.engine.batchable import why_not_batched

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
MIB = 2**20


@pytest.fixture(scope="module")
def bones():
    """8 layers of 2 MiB in bfloat16, with embeddings and a head of 0.5 MiB each."""
    config = LlamaConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=4,
        vocab_size=1024,
    )
    return skeleton(LlamaForCausalLM, config)


@pytest.fixture
def gpus(monkeypatch):
    """Pretends to a number of GPUs with so much free memory each."""

    def pretend(count, free):
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr(layout, "require_device", lambda _device: None)
        monkeypatch.setattr(layout, "free_bytes", lambda _device: free)

    return pretend


@pytest.fixture
def plan(oracle):
    """Of a checkpoint without an adapter."""
    return survey(LoadSpec(str(oracle / "vicuna-tiny"), device="cpu")).plan


def laid_out(plan, bones, **options):
    return layout.lay_out(LoadSpec("m", **options), plan, Placement(FIRST, torch.bfloat16), bones)


# --- as flags are written


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("20GiB", 20 * 1024**3),
        ("20G", 20 * 1024**3),
        ("20GB", 20 * 10**9),
        ("1.5 mib", 1.5 * 2**20),
        ("512", 512),
    ],
)
def test_sizes_are_read_as_accelerate_reads_them(text, num_bytes):
    assert budgets.parse_size(text) == num_bytes


def test_budgets_name_gpus_by_number_or_as_torch_does():
    assert budgets.parse_max_memory("0=1KiB, cuda:1=2KiB,cpu=3KiB") == {
        "cuda:0": 1024,
        "cuda:1": 2048,
        "cpu": 3072,
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0", "'0' is not DEVICE=SIZE"),
        ("0=much", "'much' is not a size"),
        ("gpu=1GiB", "'gpu' is neither a device"),
        ("disk=1GiB", "would be read again for each token"),
        ("0=1GiB,cuda:0=2GiB", "cuda:0 is named twice"),
        (",", "names no device"),
    ],
)
def test_a_wrong_budget_says_what_is_wrong(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        budgets.parse_max_memory(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("auto", "auto"),
        ("balanced_low_0", "balanced_low_0"),
        ("cuda", "cuda:0"),
        ("1", "cuda:1"),
        ('{"lm_head": 1, "model": "cpu"}', {"lm_head": "cuda:1", "model": "cpu"}),
    ],
)
def test_a_device_map_is_a_strategy_a_device_or_json(text, meaning):
    assert budgets.parse_device_map(text) == meaning


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("everywhere", "neither a device .* nor one of auto, balanced"),
        ("{", "not a JSON object"),
        ("{}", "it places nothing"),
        ('{"model": "disk"}', "read again for each token"),
    ],
)
def test_a_wrong_device_map_says_what_is_wrong(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        budgets.parse_device_map(text)


# --- what goes where


def test_a_model_that_fits_stays_on_one_gpu(plan, bones, gpus):
    gpus(2, 100 * MIB)
    assert laid_out(plan, bones).devices == (FIRST,)


def test_a_model_that_does_not_fit_on_the_first_gpu_is_laid_out_over_all_that_are_visible(
    plan, bones, gpus
):
    gpus(2, 16 * MIB)
    found = laid_out(plan, bones)
    assert found.devices == (FIRST, SECOND)
    assert found.device == found.device_of("model.embed_tokens.weight") == FIRST
    assert found.device_of("model.layers.7.mlp.up_proj.weight") == SECOND
    # A layer is never cut in two: what it hands on would travel back and forth.
    for index in range(8):
        parts = {
            found.device_of(name)
            for name, _ in bones.named_parameters()
            if name.startswith(f"model.layers.{index}.")
        }
        assert len(parts) == 1


def test_one_named_gpu_is_never_left(plan, bones, gpus):
    gpus(2, 16 * MIB)
    assert laid_out(plan, bones, device="cuda:0").devices == (FIRST,)


def test_num_gpus_takes_the_first_ones(plan, bones, gpus):
    gpus(4, 100 * MIB)
    assert laid_out(plan, bones, num_gpus=2, device_map="balanced").devices == (FIRST, SECOND)


def test_balanced_shares_alike_and_sequential_fills_one_after_the_other(plan, bones, gpus):
    gpus(2, 100 * MIB)
    budget = {"cuda:0": 16 * MIB, "cuda:1": 16 * MIB}
    sizes = {}
    for strategy in ("balanced", "sequential"):
        found = laid_out(plan, bones, device_map=strategy, max_memory=budget)
        held = Held(Quantisation.NONE, torch.bfloat16)
        counts = count_weights(bones, found)
        sizes[strategy] = {device: count.num_bytes(held) for device, count in counts.items()}
    assert sizes["sequential"][FIRST] > sizes["balanced"][FIRST]
    for shares in sizes.values():
        assert max(shares.values()) <= 16 * MIB
        assert sum(shares.values()) == 2 * sum(p.numel() for p in bones.parameters())


def test_what_is_quantised_takes_less_of_a_budget(plan, bones, gpus):
    gpus(2, 100 * MIB)
    budget = {"cuda:0": 12 * MIB, "cuda:1": 12 * MIB}
    options = {"max_memory": budget, "device_map": "sequential"}
    full = laid_out(plan, bones, **options)
    small = laid_out(plan, bones, quantisation=Quantisation.NF4, **options)
    assert full.devices == (FIRST, SECOND)
    assert small.devices == (FIRST,)


def test_the_cpu_holds_layers_only_where_it_is_named(plan, bones, gpus):
    gpus(1, 100 * MIB)
    budget = {"cuda:0": 12 * MIB}
    with pytest.raises(errors.MemoryShortageError, match=r"with cpu=... in --max-memory") as caught:
        laid_out(plan, bones, max_memory=budget)
    assert "(0=12.0 MiB); model.layers." in str(caught.value)
    found = laid_out(plan, bones, max_memory=budget | {"cpu": 100 * MIB})
    assert found.devices == (FIRST, CPU)


def test_nothing_goes_to_the_disk(plan, bones, gpus):
    gpus(1, 100 * MIB)
    with pytest.raises(errors.MemoryShortageError, match="would be the first on the disk"):
        laid_out(plan, bones, max_memory={"cuda:0": 8 * MIB, "cpu": 6 * MIB})


def test_quantised_layers_do_not_go_to_the_cpu_beside_a_gpu(plan, bones, gpus):
    gpus(1, 100 * MIB)
    with pytest.raises(errors.QuantisationError, match=r"cannot keep 8bit layers in main memory"):
        laid_out(
            plan,
            bones,
            quantisation=Quantisation.INT8,
            max_memory={"cuda:0": 6 * MIB, "cpu": 100 * MIB},
        )


def test_an_adapter_is_not_kept_apart_from_layers_in_main_memory(oracle, bones, gpus):
    gpus(1, 100 * MIB)
    spec = LoadSpec(
        str(oracle / "vicuna-tiny-text-lora"), str(oracle / "vicuna-tiny"), device="cpu"
    )
    adapter = survey(spec).plan
    options = {"max_memory": {"cuda:0": 12 * MIB, "cpu": 100 * MIB}}
    with pytest.raises(errors.AdapterError, match=r"model.layers.\d.* would. Allow the GPUs more"):
        laid_out(adapter, bones, **options)
    assert laid_out(adapter, bones, merge_lora=True, **options).devices == (FIRST, CPU)


def test_modules_go_where_the_map_says_by_the_longest_name(plan, bones, gpus):
    gpus(2, 100 * MIB)
    given = {"": "cuda:1", "model.layers": "cuda:0", "model.layers.7": "cuda:1"}
    found = laid_out(plan, bones, device_map=given)
    assert found.device_of("model.layers.6.mlp.up_proj.weight") == FIRST
    assert found.device_of("model.layers.7.mlp.up_proj.weight") == SECOND
    assert found.device == SECOND
    assert found.transformers_map == {"": 1, "model.layers": 0, "model.layers.7": 1}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"": "cuda:0", "model.layer": "cuda:1"}, r"no module of this model; the closest is model"),
        ({"model": "cuda:0"}, r'says nothing of lm_head.weight; .* with "": 0'),
    ],
)
def test_a_map_that_does_not_fit_the_model_names_the_module(plan, bones, gpus, given, complaint):
    gpus(2, 100 * MIB)
    with pytest.raises(errors.CheckpointError, match=complaint):
        laid_out(plan, bones, device_map=given)


@pytest.mark.parametrize(
    "options",
    [
        {"device_map": {"": "cuda:7"}},
        {"device_map": "cuda:7"},
        {"max_memory": {"cuda:7": MIB}},
        {"num_gpus": 8},
    ],
)
def test_a_gpu_that_is_not_there_is_named(oracle, options):
    with pytest.raises(errors.CheckpointError, match=r"cuda:\d is a GPU that is not there"):
        survey(LoadSpec(str(oracle / "vicuna-tiny"), **options))


# --- on this machine


@pytest.mark.parametrize(
    "options",
    [
        {"device_map": "cpu"},
        {"device_map": "auto"},
        {"device_map": {"model.vision_tower": "cpu", "": "cpu"}},
        {"max_memory": {"cpu": 2**30}},
        {"max_memory": {"cpu": 2**30}, "quantisation": Quantisation.NF4},
    ],
)
def test_a_layout_over_the_cpu_alone_loads_and_computes(oracle, monkeypatch, options):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    spec = LoadSpec(str(oracle / "llava-v1.5-tiny"), dtype="float32", **options)
    loaded = load_checkpoint(spec, lambda _progress: None)
    assert loaded.devices == (CPU,)
    with torch.inference_mode():
        prompt = loaded.prompting.prepare_text("Hello", [])
        assert loaded.model(**loaded.inputs(prompt)).logits.isfinite().all()
    assert loaded.card.facts.devices == ["cpu"]
    assert why_not_batched(loaded) is None
    split = replace(loaded, devices=(FIRST, SECOND))
    assert why_not_batched(split) == "its layers are on cuda:0, cuda:1"


def test_a_budget_that_is_too_small_is_refused_before_a_weight_is_read(oracle):
    with pytest.raises(errors.MemoryShortageError, match=r"\(cpu=1.0 MiB\); none of it would"):
        survey(LoadSpec(str(oracle / "vicuna-tiny"), max_memory={"cpu": MIB}))


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_attention_is_computed_as_asked(oracle, name):
    spec = LoadSpec(str(oracle / "vicuna-tiny"), device="cpu", attn_implementation=name)
    model = load_checkpoint(spec, lambda _progress: None).model
    assert model.config._attn_implementation == name


def test_an_attention_that_is_not_installed_is_named_before_loading(oracle):
    spec = LoadSpec(
        str(oracle / "vicuna-tiny"), device="cpu", attn_implementation="flash_attention_3"
    )
    with pytest.raises(
        errors.CheckpointError, match=r"--attn-implementation flash_attention_3 is not to be had"
    ):
        survey(spec)
