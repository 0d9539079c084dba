"""Too little memory is refused before any is filled: needed, free, and a way out."""

from __future__ import annotations

from dataclasses import replace

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlavaConfig, MistralConfig, Qwen2Config

from controller.protocol.fleet import Quantisation
from worker.checkpoint import errors, kv, memory
from worker.checkpoint.host_memory import HostMemory, host_memory
from worker.checkpoint.load import load_checkpoint
from worker.checkpoint.memory import Free, Held, WeightCount
from worker.checkpoint.preflight import skeleton
from worker.checkpoint.quantise import require_widths
from worker.checkpoint.spec import FourBit, LoadSpec
from worker.checkpoint.survey import survey

CPU = torch.device("cpu")


@pytest.fixture
def sized(oracle):
    """A survey of a tiny checkpoint, and a check of it against so many free bytes."""

    def check(free, name="vicuna-tiny", limited_by=None, **options):
        surveyed = survey(LoadSpec(str(oracle / name), device="cpu", **options))
        memory.require_memory(
            surveyed.spec,
            surveyed.placement,
            surveyed.size,
            surveyed.bones,
            lambda _device: Free(free, limited_by),
        )
        return surveyed

    return check


# What vicuna-tiny (1 260 416 weights, 491 520 of them in linear layers) needs beside its weights:
# 256 tokens of keys and values, and its largest tensor.
@pytest.mark.parametrize(
    ("options", "free", "way_out"),
    [
        ({"dtype": "float32"}, 5_200_000, r"It fits with --dtype bfloat16 \(3.5 MiB\) or --load-8"),
        ({"dtype": "bfloat16"}, 3_300_000, r"It fits with --load-8bit \(3.1 MiB\) or --load-4bit"),
        ({"dtype": "bfloat16"}, 3_000_000, r"It fits with --load-4bit \(2.8 MiB\)"),
        (
            {"dtype": "bfloat16"},
            1000,
            "It fits with none of --load-8bit, --load-4bit either; use a larger",
        ),
        (
            {"dtype": "bfloat16", "quantisation": Quantisation.NF4},
            1000,
            "It is held as small as can be; use a larger device",
        ),
    ],
)
def test_too_little_memory_says_what_is_needed_what_is_free_and_what_would_fit(
    sized, options, free, way_out
):
    with pytest.raises(errors.MemoryShortageError, match=way_out) as caught:
        sized(free, **options)
    text = str(caught.value)
    assert f"{free / 2**20:.1f} MiB are free" in text
    assert "for a context of 256 tokens" in text
    assert "while loading" in text


def test_what_is_needed_is_what_then_suffices(sized):
    surveyed = sized(10**12, dtype="bfloat16")
    (need,) = surveyed.size.need(surveyed.held).values()
    sized(need.total, dtype="bfloat16")
    with pytest.raises(errors.MemoryShortageError):
        sized(need.total - 1, dtype="bfloat16")


def test_the_limit_of_a_container_is_named(sized):
    with pytest.raises(errors.MemoryShortageError, match=r"free within /sys/fs/cgroup/job_7\."):
        sized(1000, limited_by="/sys/fs/cgroup/job_7")


def test_a_quantised_adapter_is_not_suggested_where_it_is_to_be_merged(sized):
    with pytest.raises(errors.MemoryShortageError) as caught:
        sized(1000, "vicuna-tiny-text-lora", merge_lora=True, dtype="bfloat16")
    assert "--load" not in str(caught.value)


def test_loading_stops_before_a_weight_is_read(oracle, monkeypatch):
    monkeypatch.setattr(memory, "host_memory", lambda: HostMemory(1000, "/a/cgroup"))
    phases = []
    with pytest.raises(errors.MemoryShortageError, match="within /a/cgroup"):
        load_checkpoint(
            LoadSpec(str(oracle / "llava-v1.5-tiny"), device="cpu"),
            lambda progress: phases.append(progress.phase),
        )
    assert phases == ["reading config"]


@pytest.mark.parametrize("quantisation", list(Quantisation))
def test_the_estimate_is_what_the_loaded_weights_take(oracle, quantisation):
    spec = LoadSpec(
        str(oracle / "llava-v1.5-tiny"), device="cpu", dtype="bfloat16", quantisation=quantisation
    )
    surveyed = survey(spec)
    (need,) = surveyed.size.need(surveyed.held).values()
    model = load_checkpoint(spec, lambda _progress: None).model
    held = sum(parameter.nbytes for parameter in model.parameters())
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            held += state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
        scales = getattr(parameter, "SCB", None)
        held += 0 if scales is None else scales.nbytes
    assert need.weights == pytest.approx(held, rel=0.002)


def test_scales_that_are_not_quantised_take_more():
    count = WeightCount(quantisable=64 * 1000)
    held = Held(Quantisation.NF4, torch.bfloat16)
    plain = replace(held, four_bit=FourBit(double_quantisation=False))
    assert count.num_bytes(held) == 32_000 + 1000 + 1000 * 4 // 256
    assert count.num_bytes(plain) == 32_000 + 4000


# --- keys and values


def test_keys_and_values_are_counted_by_layers_and_heads():
    config = LlamaConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    token = 2 * 3 * 2 * 16 * 2  # keys and values, layers, heads, head size, bytes
    assert kv.bytes_per_token(config, torch.bfloat16) == token
    assert kv.context_bytes(config, torch.bfloat16, 100) == 100 * token
    assert kv.context_bytes(LlavaConfig(text_config=config), torch.float32, 100) == 200 * token


def test_a_sliding_window_bounds_them_where_it_is_in_use():
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "sliding_window": 10,
    }
    full = 4 * 2 * 64 * 4 * 100
    assert kv.context_bytes(MistralConfig(**sizes), torch.float32, 100) == full // 10
    assert kv.context_bytes(Qwen2Config(**sizes), torch.float32, 100) == full
    mixed = Qwen2Config(
        **sizes,
        use_sliding_window=True,
        layer_types=["full_attention", "sliding_attention"] * 2,
    )
    assert kv.context_bytes(mixed, torch.float32, 100) == full // 2 + full // 20


# --- free memory


def cgroup(folder, limit, used, cached, *, v1=False):
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if v1
        else ("memory.max", "memory.current", "inactive_file")
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


@pytest.mark.parametrize(
    ("line", "folder", "v1"),
    [
        ("0::/slurm/job_7/step_0", "slurm/job_7", False),
        ("0::/not/mounted/here", "", False),
        ("4:cpu,memory:/slurm/job_7/step_0", "memory/slurm/job_7", True),
        ("4:memory:/docker/abc", "memory", True),
    ],
)
def test_the_limit_of_any_cgroup_above_counts_without_what_is_only_cached(
    tmp_path, line, folder, v1
):
    root, membership = tmp_path / "cgroup", tmp_path / "self"
    cgroup(root / folder, 5_000_000, 3_000_000, 500_000, v1=v1)
    membership.write_text(f"9:cpuset:/x\n{line}\n")
    assert host_memory(root, membership) == HostMemory(2_500_000, str(root / folder))


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_a_cgroup_without_a_limit_leaves_what_the_machine_has(tmp_path, limit):
    membership = tmp_path / "self"
    cgroup(tmp_path, limit, 1, 0)
    membership.write_text("0::/\n")
    found = host_memory(tmp_path, membership)
    assert found.limited_by is None
    assert 0 < found.free <= psutil.virtual_memory().total


def test_free_memory_is_within_what_the_machine_has():
    assert 0 < memory.free_bytes(CPU) <= psutil.virtual_memory().total


# --- widths that bitsandbytes takes


def four_bit_skeleton(**sizes):
    config = LlamaConfig(
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1} | sizes,
        num_attention_heads=4,
        vocab_size=100,
    )
    return skeleton(LlamaForCausalLM, config)


NF4 = LoadSpec("m", quantisation=Quantisation.NF4)


@pytest.mark.parametrize(
    ("sizes", "packs", "complaint"),
    [
        ({"intermediate_size": 96}, False, "model.layers.0.mlp.down_proj on a CPU: it has 96 in"),
        ({"hidden_size": 32}, True, "model.layers.0.self_attn.q_proj on a CPU: it has 32 inputs"),
        (
            {"intermediate_size": 144},
            True,
            "model.layers.0.mlp.gate_proj on a CPU: it has 144 outputs.*multiples of 32",
        ),
    ],
)
def test_a_width_that_4_bit_loading_cannot_take_on_a_cpu_names_the_layer_and_the_way_out(
    monkeypatch, sizes, packs, complaint
):
    monkeypatch.setattr("worker.checkpoint.quantise._packs_by_32", lambda: packs)
    bones = four_bit_skeleton(**sizes)
    with pytest.raises(errors.QuantisationError, match=complaint) as caught:
        require_widths(bones, NF4, CPU)
    assert "Use --load-8bit, load in full precision, or use a GPU" in str(caught.value)
    require_widths(bones, NF4, torch.device("cuda", 0))
    require_widths(bones, replace(NF4, quantisation=Quantisation.INT8), CPU)


def test_widths_that_fit_are_let_through_and_the_head_is_not_asked():
    require_widths(four_bit_skeleton(), NF4, CPU)  # the head has 100 outputs, and stays as it is


@pytest.fixture
def odd_width(copy, edit):
    """A checkpoint whose MLP is 336 wide, which is no multiple of 64."""
    folder = copy("vicuna-tiny")
    edit(folder / "config.json", intermediate_size=336)
    state = load_file(folder / "model.safetensors")
    for name, tensor in state.items():
        if ".mlp." in name:
            shape = [336 if side == 256 else side for side in tensor.shape]
            state[name] = torch.zeros(shape, dtype=tensor.dtype)
    save_file(state, folder / "model.safetensors")
    return str(folder)


def test_4_bit_loading_of_a_wrong_width_is_refused_before_loading(odd_width, monkeypatch):
    monkeypatch.setattr("worker.checkpoint.load._build", lambda *_: pytest.fail("it was loaded"))
    spec = LoadSpec(odd_width, device="cpu", quantisation=Quantisation.NF4)
    with pytest.raises(errors.QuantisationError, match=r"mlp\.\w+ on a CPU: it has 336"):
        load_checkpoint(spec, lambda _progress: None)


def test_a_width_that_4_bit_loading_cannot_take_is_not_suggested(sized, odd_width):
    with pytest.raises(errors.MemoryShortageError) as caught:
        sized(1000, odd_width, dtype="bfloat16")
    assert "--load-8bit" in str(caught.value)
    assert "--load-4bit" not in str(caught.value)
