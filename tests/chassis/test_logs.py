"""Log lines: one an event, with the request's id, readable by people or by machines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from controller.chassis.logs import LogFormat, configure_logging, request_id


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logging.getLogger("example")
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_lines_carry_the_request_id(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(log_format="json")
    token = request_id.set("req-1")
    logger.info("hello %s", "wörld")
    request_id.reset(token)
    logger.info("later")
    first, second = (json.loads(line) for line in lines(capsys))
    assert first["message"] == "hello wörld"
    assert first["request_id"] == "req-1"
    assert first["level"] == "INFO"
    assert first["logger"] == "example"
    assert "request_id" not in second


def test_a_traceback_is_part_of_its_json_line(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(log_format="json")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: bad" in json.loads(line)["traceback"]


def test_pretty_lines_are_for_people(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(log_format="pretty")
    token = request_id.set("req-1")
    logger.warning("look")
    request_id.reset(token)
    (line,) = lines(capsys)
    assert line.endswith("WARNING example: look [req-1]")


@pytest.mark.parametrize("log_format", ["auto", "json"])
def test_where_nobody_watches_lines_are_json(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure_logging(log_format=log_format)
    logger.info("x")
    assert json.loads(lines(capsys)[0])["message"] == "x"


def test_below_the_level_nothing_is_said(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(level="warning", log_format="json")
    logger.info("x")
    assert lines(capsys) == []
