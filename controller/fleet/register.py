"""`paragone register`: adds an OpenAI-compatible server to a controller's fleet."""

from __future__ import annotations

import os
import sys
from typing import Final

import httpx
from pydantic import ValidationError

from controller.fleet.probe import TOKEN_VARIABLE, ProbeError, fleet_client
from controller.protocol.errors import ErrorBody
from controller.protocol.fleet import ExternalReply

KEY_VARIABLE: Final = "PARAGONE_EXTERNAL_API_KEY"


async def register_external(controller_url: str, address: str) -> None:
    """Has a controller serve another server's models, and prints which they are.

    Args:
        controller_url: the controller.
        address: the server: what stands before ``/v1``.

    Raises:
        ProbeError: the controller does not answer, or refuses; the message says why.
    """
    message = {"address": address, "api_key": os.environ.get(KEY_VARIABLE)}
    url = controller_url.rstrip("/") + "/fleet/external"
    try:
        async with fleet_client(os.environ) as client:
            response = await client.post(url, json=message)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise ProbeError(
            f"no controller answers at {controller_url} ({exc}); name another one with "
            f"--controller URL"
        ) from exc
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ProbeError(
            f"{url} asks for the fleet's token: set {TOKEN_VARIABLE} as for the controller"
        )
    try:
        if response.is_success:
            reply = ExternalReply.model_validate_json(response.content)
        else:
            raise ProbeError(ErrorBody.model_validate_json(response.content).error.message)
    except ValidationError as exc:
        raise ProbeError(f"{url} did not answer as a controller of Paragone does") from exc
    sys.stdout.write(f"{address} is {reply.worker_id}: {', '.join(reply.models)}\n")
