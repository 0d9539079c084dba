"""The operator's own say on questions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from webui.conversation import Turn
from webui.moderation import ModerationError, moderator
from webui.questions import RefusedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("house_rules")

    def no_cats(text: str, images: Sequence[Path]) -> str | None:
        return "No cats here." if "cat" in text else None

    async def no_dogs(text: str, images: Sequence[Path]) -> str | None:
        return "No dogs here." if "dog" in text else None

    def broken(text: str, images: Sequence[Path]) -> str | None:
        raise OSError("the rules are away")

    for function in (no_cats, no_dogs, broken):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, "house_rules", module)


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize(("name", "text"), [("no_cats", "a cat"), ("no_dogs", "a dog")])
async def test_what_the_function_refuses_is_refused_with_its_reason(name: str, text: str) -> None:
    check = moderator(f"house_rules:{name}")
    await check(Turn("a bird"))
    with pytest.raises(RefusedError, match=r"No (cats|dogs) here"):
        await check(Turn(text))


@pytest.mark.usefixtures("rules")
async def test_where_the_function_fails_nothing_may_be_asked() -> None:
    with pytest.raises(RefusedError, match="log has the cause"):
        await moderator("house_rules:broken")(Turn("a bird"))


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("name", ["nowhere_at_all:f", "house_rules:nothing", "house_rules", ":"])
async def test_a_function_that_is_not_there_is_named_at_the_start(name: str) -> None:
    with pytest.raises(ModerationError, match="--moderate"):
        moderator(name)


async def test_without_a_function_everything_may_be_asked() -> None:
    await moderator(None)(Turn("a cat"))
