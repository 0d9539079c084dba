"""Workers know how long an answer may take, so that what they have of it is not lost."""

from __future__ import annotations

import pytest

from controller.relay import WORKER_LEAD_SECONDS
from tests.controller.conftest import Fleet, question

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("body", "headers", "seconds"),
    [
        ({"timeout": 60}, {}, 60),
        ({}, {"x-request-timeout": "60"}, 60),
        ({"timeout": 90}, {"x-request-timeout": "60"}, 60),
        ({"timeout": 2}, {}, 2),
    ],
)
async def test_a_worker_is_told_a_little_less_than_the_time_that_is_left(
    fleet: Fleet, body: dict, headers: dict, seconds: float
) -> None:
    worker = await fleet.worker()
    reply = await fleet.client.post("/v1/chat/completions", json=question(**body), headers=headers)
    assert reply.status_code == 200
    told = float(worker.received[0].headers["x-request-timeout"])
    lead = min(WORKER_LEAD_SECONDS, seconds / 10)
    assert 0 < told <= seconds - lead


async def test_without_a_deadline_a_worker_is_told_none(fleet: Fleet) -> None:
    worker = await fleet.worker()
    assert (await fleet.ask()).status_code == 200
    assert "x-request-timeout" not in worker.received[0].headers
