"""Logging for a process: one line an event, with the request's id; JSON where nobody watches."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["auto", "pretty", "json"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class _RequestIdFilter(logging.Filter):
    """Puts the current request's id on each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class _PrettyFormatter(logging.Formatter):
    """``12:30:01 INFO controller.relay: text [req-…]``."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = f"{clock} {record.levelname} {record.name}: {record.getMessage()}"
        current = getattr(record, "request_id", None)
        if current:
            line += f" [{current}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, str | None] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        current = getattr(record, "request_id", None)
        if current:
            fields["request_id"] = current
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure_logging(*, level: str = "INFO", log_format: LogFormat = "auto") -> None:
    """Sends this process's logs to standard error. Called by a process's entry point alone.

    Args:
        level: a name of the standard levels.
        log_format: ``auto`` is pretty on a terminal and under `paragone up`, JSON elsewhere.
    """
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_PrettyFormatter() if pretty else _JsonFormatter())
    stream.addFilter(_RequestIdFilter())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(level.upper())
    # These say on INFO, for each call, what our own lines say better.
    for name in ("httpx", "httpcore", "aiohttp.access", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
