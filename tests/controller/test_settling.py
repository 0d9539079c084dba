"""A controller that has just started, whose workers may not have told of themselves yet."""

from __future__ import annotations

import openai
import pytest

from tests.controller.conftest import question, running_controller

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_that_nobody_told_of_yet_is_a_503_that_says_both_why_and_when(
    stream: bool,
) -> None:
    async with running_controller(settling_seconds=600) as fleet:
        reply = await fleet.ask("other", stream=stream)
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "2"
        assert reply.headers["x-error-code"] == "model_unheard_of"
        error = reply.json()["error"]
        assert (error["code"], error["param"]) == ("model_unheard_of", "model")
        assert "has not registered here yet, or does not exist" in error["message"]
        shown = await fleet.client.get("/v1/models/other")
        assert (shown.status_code, shown.headers["retry-after"]) == (503, "2")
        assert await fleet.models() == []


async def test_a_client_that_comes_back_then_finds_the_worker() -> None:
    async with running_controller(settling_seconds=600) as fleet:
        early = await fleet.ask()
        assert early.status_code == 503
        await fleet.worker()
        assert (await fleet.ask()).status_code == 200
        assert (await fleet.ask("other")).status_code == 503


async def test_on_the_legacy_wire_too_nobody_is_named(  # its clients know no Retry-After
) -> None:
    async with running_controller(settling_seconds=600) as fleet:
        reply = await fleet.client.post("/get_worker_address", json={"model": "other"})
        assert reply.json() == {"address": ""}


async def test_the_openai_client_takes_it_for_a_server_to_ask_again() -> None:
    async with running_controller(settling_seconds=600) as fleet, fleet.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**question("other"))
        assert caught.value.code == "model_unheard_of"
