"""From a fleet to the command of each process."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from controller.fleet.commands import ProcessKind, ProcessPlan, plan_fleet
from controller.fleet.fleet_file import parse_fleet
from controller.fleet.loading import Loading
from controller.fleet.worker_spec import WorkerSpec
from controller.settings import ControllerSettings
from webui.settings import WebSettings
from worker.checkpoint.spec import FourBit
from worker.loading_settings import LoadingSettings
from worker.settings import WorkerSettings

FOLDER = Path("/fleets")

FULL = """
env: {SHARED: all, BOTH: fleet}
controller: {port: 7001, args: [--log-level, debug]}
web: {host: 0.0.0.0, port: 7002}
workers:
  - {name: plain, model_path: ./m, port: 7003}
  - name: rich
    model_path: ./l
    model_base: ./b
    quantisation: 4bit
    device: cuda
    gpus: [2, 3]
    port: 7004
    threads: 3
    limits: {concurrency: 7, queue: 0}
    env: {BOTH: worker}
    args: [--dtype, float16]
  - {name: eight, model_path: ./m, quantisation: 8bit, port: 7005}
"""


def plans(text: str = FULL, cores: int = 6) -> dict[str, ProcessPlan]:
    spec = parse_fleet(text, source="f.yaml", folder=FOLDER)
    return {plan.name: plan for plan in plan_fleet(spec, cores=cores)}


def test_the_controller_is_started_first():
    assert list(plans()) == ["controller", "plain", "rich", "eight", "web"]


def test_the_processes_understand_the_commands_that_are_made_for_them():
    made = plans()
    worker = WorkerSettings.parse(
        made["rich"].args, program="worker", env_prefix="UNSET_", environ={}
    )
    assert worker.model_path == "/fleets/l"
    assert worker.model_base == "/fleets/b"
    assert worker.model_name == "rich"
    assert (worker.load_4bit, worker.load_8bit) == (True, False)
    assert (worker.device, worker.port, worker.threads) == ("cuda", 7004, 3)
    assert (worker.limit_model_concurrency, worker.max_queue) == (7, 0)
    assert worker.controller_address == ("http://127.0.0.1:7001",)
    assert worker.worker_address == "http://127.0.0.1:7004"
    assert worker.dtype == "float16"
    eight = WorkerSettings.parse(
        made["eight"].args, program="worker", env_prefix="UNSET_", environ={}
    )
    assert (eight.load_4bit, eight.load_8bit) == (False, True)
    controller = ControllerSettings.parse(
        made["controller"].args, program="controller", env_prefix="UNSET_", environ={}
    )
    assert (controller.port, controller.log_level) == (7001, "debug")
    web = WebSettings.parse(made["web"].args, program="web", env_prefix="UNSET_", environ={})
    assert (web.host, web.port) == ("0.0.0.0", 7002)
    assert web.controller_url == ("http://127.0.0.1:7001",)


LOADING = """
workers:
  - name: spread
    model_path: ./m
    port: 7003
    quantisation: 4bit
    loading:
      dtype: bfloat16
      device_map: balanced
      max_memory: {0: 20GiB, 1: 20GB}
      num_gpus: 2
      bnb_4bit_quant_type: fp4
      bnb_4bit_use_double_quant: false
      bnb_4bit_compute_dtype: float16
      bnb_4bit_quant_storage: bfloat16
      attn_implementation: eager
      chat_template: ./mine.jinja
      merge_lora: true
      revision: v1
      trust_remote_code: false
      mmap: false
  - name: mapped
    model_path: ./m
    port: 7004
    quantisation: 8bit
    loading: {device_map: {"": 0, lm_head: cpu}, int8_threshold: 4, chat_template: vicuna_v1}
"""


def test_everything_about_loading_can_be_said_in_the_fleet_file():
    said = set(Loading.model_fields) | set(WorkerSpec.model_fields)
    elsewhere = {"load_8bit", "load_4bit", "model_name"}  # quantisation and name
    assert set(LoadingSettings.model_fields) - said == elsewhere
    made = plans(LOADING)
    read = {
        name: WorkerSettings.parse(
            made[name].args, program="worker", env_prefix="UNSET_", environ={}
        )
        for name in ("spread", "mapped")
    }
    spread, mapped = read["spread"].load_spec(), read["mapped"].load_spec()
    assert (spread.device_map, spread.num_gpus) == ("balanced", 2)
    assert spread.max_memory == {"cuda:0": 20 * 1024**3, "cuda:1": 20 * 10**9}
    assert spread.four_bit == FourBit("fp4", False, "float16", "bfloat16")
    assert (spread.dtype, spread.attn_implementation) == ("bfloat16", "eager")
    assert (spread.merge_lora, spread.trust_remote_code, spread.mmap) == (True, False, False)
    assert (spread.chat_template, spread.revision) == ("/fleets/mine.jinja", "v1")
    assert mapped.device_map == {"": "cuda:0", "lm_head": "cpu"}
    assert (mapped.int8_threshold, mapped.chat_template) == (4.0, "vicuna_v1")


ADAPTERS = """
workers:
  - name: full
    model_path: ./full
    model_base: ./base
    loras: {zh: ./lora=1, de: owner/de}
    port: 7003
"""


def test_a_worker_reads_the_adapters_of_the_fleet_file():
    plan = plans(ADAPTERS)["full"]
    settings = WorkerSettings.parse(plan.args, program="worker", env_prefix="UNSET_", environ={})
    assert [(each.name, each.path) for each in settings.loras()] == [
        ("full", "/fleets/full"),
        ("zh", "/fleets/lora=1"),
        ("de", "owner/de"),
    ]


def test_paths_below_the_current_folder_are_typed_short_adapters_too(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plan = plans(ADAPTERS.replace("./", f"{tmp_path}/"))["full"]
    assert "--model-path full --model-base base --model-name full " in plan.shell_command()
    assert " --lora zh=lora=1 --lora de=owner/de " in plan.shell_command()


def test_what_is_left_out_is_left_to_the_process():
    assert plans()["plain"].args == (
        *("--model-path", "/fleets/m", "--model-name", "plain", "--device", "auto"),
        *("--host", "127.0.0.1", "--port", "7003"),
        *("--controller-address", "http://127.0.0.1:7001"),
        *("--worker-address", "http://127.0.0.1:7003"),
    )


def test_cores_are_shared_out_among_the_workers():
    assert plans(cores=7)["plain"].environ({})["OMP_NUM_THREADS"] == "2"
    assert plans(cores=1)["plain"].environ({})["OMP_NUM_THREADS"] == "1"
    assert plans(cores=7)["rich"].environ({})["OMP_NUM_THREADS"] == "3"


def test_memory_is_shared_out_among_the_workers_of_a_device():
    workers = """
workers:
  - {name: auto, model_path: ./m, device: auto, port: 7001}
  - {name: host, model_path: ./m, device: cpu, port: 7002}
  - {name: none, model_path: ./m, gpus: [], port: 7003}
  - {name: zero, model_path: ./m, device: "cuda:0", port: 7004}
  - {name: both, model_path: ./m, gpus: [0, 1], replicas: 2, port: 7005}
"""
    shares = {
        name: plan.environ({}).get("PARAGONE_WORKER_MEMORY_SHARE")
        for name, plan in plans(workers).items()
    }
    # Where there is no GPU, what takes one if there is computes beside the others.
    assert shares["auto"] == f"{1 / 6:.4g}"
    assert shares["host"] == shares["none"] == f"{1 / 3:.4g}"
    assert shares["zero"] == shares["both"] == f"{1 / 3:.4g}"
    assert shares["both#2"] == "0.5"
    assert shares["controller"] is None


def test_the_fleet_file_overrides_the_environment_which_overrides_our_defaults():
    plan = plans()["rich"]
    inherited = {"BOTH": "shell", "OMP_NUM_THREADS": "9", "HOME": "/h"}
    env = plan.environ(inherited)
    assert env["BOTH"] == "worker"
    assert env["SHARED"] == "all"
    assert env["OMP_NUM_THREADS"] == "9"
    assert env["HOME"] == "/h"
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_no_process_reports_to_anybody():
    made = plans()
    assert made["web"].environ({})["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert made["plain"].environ({})["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_a_command_runs_with_this_interpreter():
    assert plans()["web"].argv()[:3] == [sys.executable, "-m", "webui"]
    assert plans()["web"].kind is ProcessKind.WEBUI


def test_a_shell_reads_the_printed_command_as_the_one_that_is_run():
    awkward = "workers: [{name: a, model_path: './my model', port: 1, env: {A: it's}}]"
    plan = plans(awkward)["a"]
    words = shlex.split(plan.shell_command())
    assert words[:4] == ["A=it's", "python", "-m", "worker"]
    assert tuple(words[4:]) == plan.args


def test_folders_below_the_current_one_are_printed_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = parse_fleet(
        "workers: [{name: a, model_path: ./m, port: 1}]", source="f", folder=tmp_path / "configs"
    )
    command = plan_fleet(spec, cores=1)[1].shell_command()
    assert "--model-path configs/m " in command


def test_processes_with_a_certificate_are_reached_by_https():
    made = plans(
        """
env: {PARAGONE_CONTROLLER_TLS_CERT: c.pem}
web: {args: [--tls-ce=w.pem]}
workers:
  - {name: plain, model_path: ./m, port: 7003, args: [--tls-ca, ca.pem]}
  - {name: shown, model_path: ./m, port: 7004, args: [--tls-cert, s.pem]}
"""
    )
    shown = {name: (plan.url, plan.certificate) for name, plan in made.items()}
    assert shown == {
        "controller": ("https://127.0.0.1:21001", "c.pem"),
        "plain": ("http://127.0.0.1:7003", None),
        "shown": ("https://127.0.0.1:7004", "s.pem"),
        "web": ("https://127.0.0.1:7860", "w.pem"),
    }
    flags = made["shown"].args
    assert flags[flags.index("--controller-address") + 1] == "https://127.0.0.1:21001"
    assert flags[flags.index("--worker-address") + 1] == "https://127.0.0.1:7004"
    page = made["web"].args
    assert page[page.index("--controller-url") + 1] == "https://127.0.0.1:21001"
