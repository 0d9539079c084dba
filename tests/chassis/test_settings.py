"""Settings: where each value comes from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from controller.chassis.settings import ProcessSettings, SettingsError
from controller.dispatch import DispatchMethod


class ExampleSettings(ProcessSettings):
    """An example process.

    More about it, that a usage line has no room for.
    """

    port: int = Field(default=21000, ge=0, le=65535, description="port, 0 % of them taken")
    controller_address: str | None = Field(default=None, description="where to register")
    method: DispatchMethod = DispatchMethod.LEAST_WORK
    worker_address: str = Field(default="", json_schema_extra={"flags": ["--worker"]})
    load_8bit: bool = False
    load_4bit: bool = False
    no_register: bool = False
    rate: float = 1.0


def parse(*argv: str, **environ: str) -> ExampleSettings:
    return ExampleSettings.parse(argv, program="example", env_prefix="EXAMPLE_", environ=environ)


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(content: str) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


def test_defaults_hold_when_nothing_is_said() -> None:
    settings = parse()
    assert settings.port == 21000
    assert settings.host == "127.0.0.1"
    assert settings.controller_address is None


def test_a_flag_beats_the_environment_which_beats_the_file(config: Any) -> None:
    path = config("port: 1\nrate: 1.5\nlog-level: debug\n")
    settings = parse("--config", path, "--port", "3", EXAMPLE_PORT="2", EXAMPLE_RATE="2.5")
    assert settings.port == 3
    assert settings.rate == 2.5
    assert settings.log_level == "debug"


def test_flags_may_be_abbreviated_and_aliased_as_llavas_command_lines_do() -> None:
    settings = parse("--controller", "http://c", "--worker", "http://w")
    assert settings.controller_address == "http://c"
    assert settings.worker_address == "http://w"
    assert parse("--worker-address", "http://w").worker_address == "http://w"


def test_switches_are_switched_on_and_off() -> None:
    assert parse("--load-8bit").load_8bit
    assert not parse("--no-load-8bit", EXAMPLE_LOAD_8BIT="true").load_8bit
    assert parse(EXAMPLE_LOAD_4BIT="1").load_4bit
    assert parse("--no-register").no_register


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        (["--port", "70000"], {}, ["port", "--port", "70000"]),
        (["--rate", "fast"], {}, ["rate", "--rate", "'fast'"]),
        ([], {"EXAMPLE_PORT": "x"}, ["port", "environment variable EXAMPLE_PORT", "'x'"]),
        ([], {"EXAMPLE_METHOD": "luck"}, ["method", "EXAMPLE_METHOD", "'luck'", "lottery"]),
    ],
)
def test_a_wrong_value_names_key_value_and_origin(
    argv: list[str], environ: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(*argv, **environ)
    for words in said:
        assert words in str(caught.value)


def test_an_unknown_key_in_the_file_is_refused(config: Any) -> None:
    with pytest.raises(SettingsError, match="prot"):
        parse("--config", config("prot: 1\n"))


@pytest.mark.parametrize("content", ["- a list\n", "port: [\n"])
def test_a_file_that_is_no_mapping_is_refused(config: Any, content: str) -> None:
    with pytest.raises(SettingsError, match=r"settings\.yaml"):
        parse("--config", config(content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        parse("--config", str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize("argv", [["--unknown", "1"], ["--method", "luck"], ["--load", "1"]])
def test_an_unknown_or_ambiguous_flag_is_a_usage_error(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_help_lists_each_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "An example process." in shown
    assert "More about it" not in shown
    assert "port, 0 % of them taken (default: 21000)" in " ".join(shown.split())
    assert "{shortest_queue,lottery,least_work,affinity}" in shown
    for name in ExampleSettings.model_fields:
        assert "--" + name.replace("_", "-") in shown


def test_printed_settings_can_be_read_again(
    capsys: pytest.CaptureFixture[str], config: Any
) -> None:
    with pytest.raises(SystemExit):
        parse("--port", "5", "--method", "lottery", "--print-config")
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["method"] == "lottery"
    assert parse("--config", config(printed)) == parse("--port", "5", "--method", "lottery")
