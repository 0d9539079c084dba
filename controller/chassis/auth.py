"""Who may ask: API keys, which are known here by their hashes alone, and shared tokens.

Keys are long random strings, not passwords, so one round of SHA-256 hides them well enough: what
cannot be guessed need not be slow to hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import limits
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from controller.protocol.errors import AuthenticationError


class KeyFileError(Exception):
    """A file of API keys cannot be used; the message names the file and the entry."""


class ApiKey(BaseModel):
    """One key: whose it is, and the SHA-256 of it (``printf %s KEY | sha256sum``).

    ``rate`` is how many requests it may send, such as ``60/minute`` or ``10/second;1000/hour``;
    ``concurrency`` how many of them may be open at the same time. Keys of one name share both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rate: str | None = None
    concurrency: int | None = Field(default=None, ge=1)

    @field_validator("rate")
    @classmethod
    def _is_a_rate(cls, value: str | None) -> str | None:
        if value is not None:
            limits.parse_many(value)
        return value


class _KeyFile(BaseModel):
    """The file: ``keys:`` and a list of entries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: list[ApiKey] = Field(min_length=1)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a YAML file.

    Raises:
        KeyFileError: it cannot be read, or an entry is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return tuple(_KeyFile.model_validate(content).keys)
    except (OSError, yaml.YAMLError) as exc:
        raise KeyFileError(f"API keys in {path}: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        # What was found is not repeated: somebody may have put the key itself there.
        raise KeyFileError(f"API keys in {path}: {where or 'file'}: {first['msg']}") from exc


class BearerCheck:
    """Tells whose secret an ``Authorization: Bearer ...`` header carries.

    Args:
        keys: those that are accepted.
        what: what the secret is called, in the error's words.
    """

    def __init__(self, keys: Sequence[ApiKey], *, what: str) -> None:
        # Looked up by hash: how long that takes tells nothing about the secret.
        self._names = {key.sha256: key.name for key in keys}
        self._what = what

    @classmethod
    def of_token(cls, token: str, *, what: str) -> BearerCheck:
        """A check that accepts one token."""
        return cls([ApiKey(name=what, sha256=_digest(token.encode()))], what=what)

    def owner(self, authorization: bytes | None) -> str:
        """The name of the key in a header.

        Raises:
            AuthenticationError: there is none, or it is not known.
        """
        if authorization is None:
            raise AuthenticationError(
                f"{self._what} is needed here: send the header Authorization: Bearer ..."
            )
        scheme, _, secret = authorization.partition(b" ")
        name = self._names.get(_digest(secret.strip())) if scheme.lower() == b"bearer" else None
        if name is not None:
            return name
        raise AuthenticationError(f"{self._what} was sent that is not known here; check it")


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
