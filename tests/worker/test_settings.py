"""LLaVA's command lines work as they stand, and mistakes are named."""

import logging

import pytest

from controller.chassis.settings import SettingsError
from controller.protocol.fleet import Quantisation
from worker.settings import ENV_PREFIX, WorkerSettings
from worker.vision.policy import DEFAULT_IMAGE_POLICY, RemotePolicy


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
