"""LLaVA's command lines work as they stand, and mistakes are named."""

import logging

import pytest

from controller.chassis.remote_images import RemotePolicy
from controller.chassis.settings import SettingsError
from controller.protocol.fleet import Quantisation
from worker.checkpoint.spec import FourBit, LoadSpec
from worker.settings import ENV_PREFIX, WorkerSettings
from worker.vision.policy import DEFAULT_IMAGE_POLICY


def parse(line, **environ):
    return WorkerSettings.parse(
        line.split(), program="worker", env_prefix=ENV_PREFIX, environ=environ
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # From LLaVA's README and docs.
        (
            (
                "--host 0.0.0.0 --controller http://localhost:10000 --port 40000 "
                "--worker http://localhost:40000 --model-path liuhaotian/llava-v1.5-13b"
            ),
            {
                "host": "0.0.0.0",
                "port": 40000,
                "controller_address": ("http://localhost:10000",),
                "worker_address": "http://localhost:40000",
                "model_path": "liuhaotian/llava-v1.5-13b",
            },
        ),
        (
            (
                "--host 0.0.0.0 --controller http://localhost:10000 --port 40000 "
                "--worker http://localhost:40000 --model-path liuhaotian/llava-v1.5-13b --load-4bit"
            ),
            {"load_4bit": True, "load_8bit": False},
        ),
        (
            (
                "--host 0.0.0.0 --controller-address http://localhost:10000 --port 40000 "
                "--worker-address http://localhost:40000 --model-path checkpoints/llava-lora "
                "--model-base lmsys/vicuna-7b-v1.5 --device mps"
            ),
            {"model_base": "lmsys/vicuna-7b-v1.5", "device": "mps"},
        ),
        (
            (
                "--model-path m --multi-modal --limit-model-concurrency 8 --stream-interval 2 "
                "--no-register --use-flash-attn --model-name n --load-8bit"
            ),
            {
                "limit_model_concurrency": 8,
                "stream_interval": 2,
                "no_register": True,
                "load_8bit": True,
                "model_name": "n",
            },
        ),
    ],
)
def test_llavas_published_command_lines_work(line, expected):
    settings = parse(line)
    assert {key: getattr(settings, key) for key in expected} == expected


def test_several_controllers_are_given_with_commas():
    settings = parse("--model-path m --controller http://a:1/,http://b:2")
    assert settings.controller_address == ("http://a:1", "http://b:2")


def test_the_environment_fills_what_flags_leave_open():
    settings = parse("--port 1", PARAGONE_WORKER_MODEL_PATH="m", PARAGONE_WORKER_PORT="2")
    assert (settings.model_path, settings.port) == ("m", 1)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "model_path"),
        ("--model-path m --load-8bit --load-4bit", "--load-8bit and --load-4bit"),
        ("--model-path m --device gpu", "device (from --device)"),
        ("--model-path m --port 70000", "port (from --port)"),
        ("--model-path m --controller localhost:21001", "http://host:port"),
        ("--model-path m --worker http://", "http://host:port"),
        ("--model-path m --controller ,", "--no-register"),
        ("--model-path m --max-queue -1", "max_queue (from --max-queue)"),
        ("--model-path m --threads 0", "threads (from --threads)"),
        ("--model-path m --allow-remote-images https://example.org", "a host such as example.org"),
        ("--model-path m --allow-remote-images example.org/cats", "a host such as example.org"),
        ("--model-path m --max-image-pixels 100000000", "max_image_pixels"),
    ],
)
def test_a_wrong_setting_is_named(line, reason):
    with pytest.raises(SettingsError) as caught:
        parse(line)
    assert reason in str(caught.value)


def test_a_worker_needs_no_controller():
    assert parse("--model-path m --no-register --controller ,").controller_address == ()


def test_settings_come_to_what_is_loaded():
    spec = parse("--model-path a/checkpoint-7 --load-4bit --dtype bfloat16").load_spec()
    assert spec.quantisation is Quantisation.NF4
    assert spec.dtype == "bfloat16"
    assert spec.served_name == "a_checkpoint-7"


def test_remote_images_are_off_unless_hosts_are_named():
    assert parse("--model-path m").image_policy() == DEFAULT_IMAGE_POLICY
    policy = parse(
        "--model-path m --allow-remote-images Example.org,*.cats.org --remote-image-seconds 3 "
        "--max-images 2 --max-image-bytes 5000 --max-image-pixels 1000"
    ).image_policy()
    assert policy.remote == RemotePolicy(("example.org", "*.cats.org"), 3.0)
    assert (policy.max_images, policy.limits.max_bytes, policy.limits.max_pixels) == (2, 5000, 1000)


def test_llavas_flags_without_a_meaning_here_say_so(caplog):
    with caplog.at_level(logging.INFO):
        parse("--model-path m").explain_inherited_flags()
        assert caplog.text == ""
        parse(
            "--model-path m --multi-modal --use-flash-attn --stream-interval 3"
        ).explain_inherited_flags()
    for flag in ("--multi-modal", "--use-flash-attn", "--stream-interval 3"):
        assert flag in caplog.text


def test_a_token_is_not_shown_with_the_settings(capsys):
    with pytest.raises(SystemExit):
        parse("--model-path m --print-config", PARAGONE_WORKER_FLEET_TOKEN="secret")
    shown = capsys.readouterr().out
    assert "fleet_token" in shown
    assert "secret" not in shown


def test_every_flag_of_loading_comes_to_what_is_loaded():
    line = (
        "--model-path m --load-4bit --dtype bfloat16 --device-map balanced --num-gpus 2 "
        "--max-memory 0=20GiB,1=10GB --bnb-4bit-quant-type fp4 --no-bnb-4bit-use-double-quant "
        "--bnb-4bit-compute-dtype float16 --bnb-4bit-quant-storage bfloat16 --no-mmap "
        "--attn-implementation eager --revision main --trust-remote-code --merge-lora "
        "--chat-template vicuna_v1 --model-name n --model-base b"
    )
    assert parse(line).load_spec() == LoadSpec(
        "m",
        model_base="b",
        model_name="n",
        quantisation=Quantisation.NF4,
        dtype="bfloat16",
        device_map="balanced",
        num_gpus=2,
        max_memory={"cuda:0": 20 * 1024**3, "cuda:1": 10 * 10**9},
        four_bit=FourBit("fp4", False, "float16", "bfloat16"),
        attn_implementation="eager",
        revision="main",
        trust_remote_code=True,
        merge_lora=True,
        chat_template="vicuna_v1",
        mmap=False,
    )
    assert parse("--model-path m --load-8bit --int8-threshold 3").load_spec().int8_threshold == 3
    assert parse("--model-path m").load_spec().trust_remote_code is False


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--int8-threshold 3", "--int8-threshold says nothing without --load-8bit"),
        ("--bnb-4bit-quant-type fp4", "--bnb-4bit-quant-type says nothing without --load-4bit"),
        ("--device cpu --num-gpus 2", "--device cpu puts the model on one device, --num-gpus"),
        ("--device-map disk", "read again for each token"),
        ('--device-map {"":0} --max-memory 0=1GiB', "--max-memory is for the strategies"),
        ("--num-gpus 1 --max-memory 1=1GiB", "names cuda:1, and --num-gpus 1 leaves it out"),
        ("--max-memory 20GiB", "'20GiB' is not DEVICE=SIZE"),
        ("--num-gpus 0", "num_gpus (from --num-gpus)"),
    ],
)
def test_flags_of_loading_that_contradict_each_other_are_named(flags, reason):
    with pytest.raises(SettingsError) as caught:
        parse(f"--model-path m {flags}")
    assert reason in str(caught.value)


def test_a_file_of_settings_may_write_devices_as_mappings(tmp_path):
    file = tmp_path / "worker.yaml"
    file.write_text("model-path: m\nmax-memory: {0: 20GiB, cpu: 60GiB}\ndevice-map: auto\n")
    spec = parse(f"--config {file}").load_spec()
    assert spec.max_memory == {"cuda:0": 20 * 1024**3, "cpu": 60 * 1024**3}
    file.write_text('model-path: m\ndevice-map: {"": 0, lm_head: cpu}\n')
    assert parse(f"--config {file}").load_spec().device_map == {"": "cuda:0", "lm_head": "cpu"}
