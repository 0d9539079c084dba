"""Asks a fleet's processes how they are, over the wire that everybody else uses."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
from pydantic import ValidationError

from controller.chassis.tls import client_context
from controller.fleet.commands import ProcessKind
from controller.protocol.fleet import FleetView, WorkerView

# The controller and the page are ready once they answer: models come and go without them.
_READY_PATHS: Final[Mapping[ProcessKind, str]] = {
    ProcessKind.CONTROLLER: "/health",
    ProcessKind.WORKER: "/ready",
    ProcessKind.WEBUI: "/health",
}

# Also the controller's own settings, so that one variable does for both.
TOKEN_VARIABLE: Final = "PARAGONE_CONTROLLER_FLEET_TOKEN"  # noqa: S105 - a name, not a token
AUTHORITIES_VARIABLE: Final = "PARAGONE_CONTROLLER_TLS_CA"


class ProbeError(Exception):
    """A controller gave no usable answer; the message says why and what to do."""


def fleet_client(
    environ: Mapping[str, str], tls: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """A client that knows the fleet's token, if there is one, and never goes through a proxy.

    Args:
        environ: where the controller's own variables for the token and for the authorities that
            are trusted are looked up.
        tls: whose certificates are believed instead.

    Raises:
        ProbeError: the file of authorities cannot be used.
    """
    token = environ.get(TOKEN_VARIABLE)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    if tls is None:
        authorities = environ.get(AUTHORITIES_VARIABLE)
        try:
            tls = client_context(Path(authorities) if authorities else None)
        except ValueError as exc:
            raise ProbeError(f"{AUTHORITIES_VARIABLE}: {exc}") from exc
    timeout = httpx.Timeout(2.0)
    return httpx.AsyncClient(trust_env=False, timeout=timeout, headers=headers, verify=tls)


async def is_ready(client: httpx.AsyncClient, kind: ProcessKind, url: str) -> bool:
    """Whether a process serves now."""
    try:
        response = await client.get(url + _READY_PATHS[kind])
    except httpx.HTTPError:
        return False
    return response.is_success


async def fetch_workers(client: httpx.AsyncClient, controller_url: str) -> list[WorkerView]:
    """The workers on a controller's list.

    Raises:
        ProbeError: it does not answer, or not as a controller does.
    """
    url = controller_url.rstrip("/") + "/fleet/workers"
    try:
        response = await client.get(url)
        response.raise_for_status()
    except httpx.HTTPStatusError as exc:
        if exc.response.status_code == httpx.codes.UNAUTHORIZED:
            raise ProbeError(
                f"{url} asks for the fleet's token: set {TOKEN_VARIABLE} as for the controller"
            ) from exc
        raise ProbeError(
            f"{url} answered {exc.response.status_code}: is that a controller of Paragone?"
        ) from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        if "CERTIFICATE_VERIFY_FAILED" in str(exc):
            raise ProbeError(
                f"the certificate at {controller_url} is of no authority that is trusted here "
                f"({exc}): name the file of its authority in {AUTHORITIES_VARIABLE}"
            ) from exc
        raise ProbeError(
            f"no controller answers at {controller_url} ({exc}); start a fleet with "
            f"`paragone up FILE`, or name another controller with --controller URL"
        ) from exc
    try:
        return FleetView.model_validate_json(response.content).workers
    except ValidationError as exc:
        raise ProbeError(f"{url} did not answer as a controller of Paragone does") from exc
