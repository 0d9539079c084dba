"""API keys and tokens: known by their hashes, named in errors, never repeated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from controller.chassis.auth import ApiKey, BearerCheck, KeyFileError, read_keys
from controller.protocol.errors import AuthenticationError

SECRET = "sk-0123456789abcdef"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.fixture
def check() -> BearerCheck:
    return BearerCheck([ApiKey(name="alice", sha256=DIGEST)], what="An API key")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_known_key_names_its_owner(check: BearerCheck, scheme: str) -> None:
    assert check.owner(f"{scheme} {SECRET}".encode()) == "alice"


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        f"Basic {SECRET}".encode(),
        SECRET.encode(),
    ],
)
def test_anything_else_is_refused(check: BearerCheck, header: bytes | None) -> None:
    with pytest.raises(AuthenticationError, match="An API key"):
        check.owner(header)


def test_a_hash_is_not_a_key(check: BearerCheck) -> None:
    with pytest.raises(AuthenticationError):
        check.owner(f"Bearer {DIGEST}".encode())


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n  - name: alice\n    sha256: {DIGEST}\n")
    assert read_keys(path) == (ApiKey(name="alice", sha256=DIGEST),)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("keys: []", "keys"),
        ("", "file"),
        (f"keys: [{{name: alice, sha256: {SECRET}}}]", "keys.0.sha256"),
        (f"keys: [{{name: alice, key: {SECRET}, sha256: {DIGEST}}}]", "keys.0.key"),
        ("keys: [", "keys.yaml"),
    ],
)
def test_a_wrong_file_is_refused_without_repeating_what_may_be_a_key(
    tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    with pytest.raises(KeyFileError, match=said) as caught:
        read_keys(path)
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="nowhere"):
        read_keys(tmp_path / "nowhere.yaml")
