"""What is said when a controller cannot be asked."""

from __future__ import annotations

import httpx
import pytest

from controller.fleet.probe import ProbeError, fetch_workers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("reason", "way_out"),
    [
        ("All connection attempts failed", "start a fleet with `paragone up FILE`"),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate",
            "name the file of its authority in PARAGONE_CONTROLLER_TLS_CA",
        ),
    ],
)
async def test_the_way_out_fits_the_reason(reason: str, way_out: str) -> None:
    def fail(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(reason)

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(ProbeError) as caught:
            await fetch_workers(client, "https://controller:21001")
    assert reason in str(caught.value)
    assert way_out in str(caught.value)
