"""Settings of a process: one frozen model; default < file < environment < flag.

Flags are made from the model's fields, so that a setting is written once. As in argparse, a flag
may be abbreviated (LLaVA's published command lines use ``--controller`` and ``--worker``).
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from controller.chassis.command_line import CommandLine
from controller.chassis.logs import LogFormat
from controller.chassis.tls import check_certificate, client_context
from controller.chassis.wording import cause_of


class SettingsError(Exception):
    """A wrong setting; the message names the key, the value, and where it came from."""


class FlagSettings(BaseModel):
    """Settings that are read from flags, the environment and a file. Subclasses add fields.

    A field's extra ``flags`` (``json_schema_extra={"flags": ["--worker"]}``) are further spellings
    of its flag; with the extra ``positional`` it is given without one, and shown by that name;
    with ``repeated`` its flag may be given again, and the field is all of its values; ``expected``
    says for people what its pattern is.
    """

    help_examples: ClassVar[Sequence[str]] = ()  # command lines, which end the help

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def parse(
        cls,
        argv: Sequence[str] | None = None,
        *,
        program: str,
        env_prefix: str,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Settings from a command line, the environment and a ``--config`` file.

        Args:
            argv: the arguments without the program's name; None takes the process's own.
            program: what the usage line calls the program.
            env_prefix: e.g. ``PARAGONE_WORKER_``: ``PARAGONE_WORKER_PORT=21002``.
            environ: the environment; None takes the process's own.

        Raises:
            SettingsError: a value is wrong, a key unknown, or the file unreadable.
            SystemExit: usage errors, ``--help`` and ``--print-config``, as argparse does.
        """
        parser = _build_parser(cls, program)
        flags = vars(parser.parse_args(argv))
        config_path: str | None = flags.pop("config", None)
        print_config: bool = flags.pop("print_config")
        given: dict[str, Any] = {}
        origin: dict[str, str] = {}
        for key, value in _from_file(config_path).items():
            given[key], origin[key] = value, str(config_path)
        for key, value in (os.environ if environ is None else environ).items():
            name = key.removeprefix(env_prefix).lower()
            if key.startswith(env_prefix) and name in cls.model_fields:
                given[name], origin[name] = value, f"environment variable {key}"
        for key, value in flags.items():
            given[key], origin[key] = value, "--" + key.replace("_", "-")
        try:
            settings = cls.model_validate(given)
        except ValidationError as exc:
            raise SettingsError(_explain(exc, cls, origin)) from exc
        if print_config:
            sys.stdout.write(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
            raise SystemExit(0)
        return settings


class ProcessSettings(FlagSettings):
    """What every process that serves can be told."""

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(ge=0, le=65535, description="port to listen on; 0 picks a free one")
    tls_cert: Path | None = Field(
        default=None, description="PEM file of the certificate to serve HTTPS with"
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file of its key, where that is not in the same file"
    )
    tls_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities to trust beside the system's, when connecting to "
        "others",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="addresses or networks of reverse proxies whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed, with commas between them",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe lines that are logged"
    )
    log_format: LogFormat = Field(
        default="auto", description="auto is pretty on a terminal, JSON lines elsewhere"
    )

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_proxies(cls, value: object) -> object:
        return split_list(value)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:  # a name could be anybody's by tomorrow, and "*" is everybody
            ipaddress.ip_network(each, strict=False)
        return value

    @model_validator(mode="after")
    def _has_usable_certificates(self) -> Self:
        if self.tls_key is not None and self.tls_cert is None:
            raise ValueError("--tls-key says nothing without --tls-cert")
        if self.tls_cert is not None:
            check_certificate(self.tls_cert, self.tls_key)
        client_context(self.tls_ca)
        return self

    @property
    def scheme(self) -> str:
        """What the addresses of this process begin with."""
        return "http" if self.tls_cert is None else "https"


def split_list(value: object) -> object:
    """A list as flags and the environment have it: with commas between its parts."""
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    return value


def _from_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise SettingsError(f"--config {path}: {exc}") from exc
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path}: expected a mapping of settings")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _build_parser(model: type[FlagSettings], program: str) -> argparse.ArgumentParser:
    parser = CommandLine(
        examples=model.help_examples,
        prog=program,
        description=(model.__doc__ or "").strip().splitlines()[0],
        # Only what was typed is passed on, so that file and environment can fill the rest.
        argument_default=argparse.SUPPRESS,
        allow_abbrev=True,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    parser.add_argument(
        "--print-config", action="store_true", default=False, help="print the settings and exit"
    )
    for name, field in model.model_fields.items():
        _add_flag(parser, name, field)
    return parser


def _add_flag(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    aliases = typing.cast("list[str]", extra.get("flags", []))
    spellings = ["--" + name.replace("_", "-"), *aliases]
    text = field.description or ""
    default = field.get_default(call_default_factory=False)
    if not field.is_required() and default not in (None, "", ()):
        shown = default.value if isinstance(default, Enum) else default
        text = f"{text} (default: {shown})".strip()
    text = text.replace("%", "%%")
    kind = _strip_optional(field.annotation)
    if "positional" in extra:
        # Optional for argparse, as file and environment may have it too.
        parser.add_argument(name, nargs="?", metavar=str(extra["positional"]), help=text)
    elif "repeated" in extra:
        parser.add_argument(*spellings, dest=name, action="append", metavar=name.upper(), help=text)
    elif kind is bool:
        if name.startswith("no_"):  # "--no-register" is a name of its own, not a negation
            parser.add_argument(*spellings, dest=name, action="store_true", help=text)
        else:
            parser.add_argument(
                *spellings, dest=name, action=argparse.BooleanOptionalAction, help=text
            )
    elif typing.get_origin(kind) is Literal:
        parser.add_argument(*spellings, dest=name, choices=typing.get_args(kind), help=text)
    elif isinstance(kind, type) and issubclass(kind, Enum):
        parser.add_argument(
            *spellings, dest=name, choices=[member.value for member in kind], help=text
        )
    elif extra.get("repeatable"):
        parser.add_argument(
            *spellings, dest=name, action="append", metavar=str(extra["repeatable"]), help=text
        )
    else:
        parser.add_argument(*spellings, dest=name, metavar=name.upper(), help=text)


def _strip_optional(annotation: object) -> object:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return annotation


def _explain(exc: ValidationError, model: type[FlagSettings], origin: Mapping[str, str]) -> str:
    lines = []
    for error in exc.errors():
        key = ".".join(str(part) for part in error["loc"]) or "settings"
        source = origin.get(str(error["loc"][0])) if error["loc"] else None
        place = f"{key} (from {source})" if source else key
        if not error["loc"]:  # a rule about several settings; its message names them
            lines.append(error["msg"].removeprefix("Value error, "))
            continue
        lines.append(f"{place}: {cause_of(error, _expected(model, str(error['loc'][0])))}")
    return "; ".join(lines)


def _expected(model: type[FlagSettings], name: str) -> str | None:
    field = model.model_fields.get(name)
    extra = field.json_schema_extra if field is not None else None
    return str(extra["expected"]) if isinstance(extra, dict) and "expected" in extra else None
