"""Who may do what: which paths need an API key, which the fleet's token, and which neither.

And how much: a key's requests are counted here, where it is known whose they are.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from controller.chassis.auth import BearerCheck
from controller.chassis.http import error_response
from controller.protocol.errors import AuthenticationError, RateLimitError
from controller.protocol.legacy import GENERATE_STREAM
from controller.quota import Quotas

# What legacy clients ask for, and controllers above this one. A legacy worker's own paths are
# guarded by whose addresses may join: it has nothing to show.
_LEGACY_CLIENT_PATHS = frozenset(
    {
        GENERATE_STREAM,
        "/get_worker_address",
        "/list_language_models",
        "/list_models",
        "/list_multimodal_models",
        "/worker_get_status",
    }
)


class Access:
    """Turns away, before a byte of the body is read, whoever has not the secret that is needed.

    ``/v1`` and the legacy clients' paths need an API key; ``/fleet`` the fleet's token;
    ``GET /fleet/workers`` either of them.
    The rest (health, version, metrics, documentation) is open. A secret that was not configured is
    not asked for.

    Args:
        app: who answers the others.
        api_keys: of clients, or None.
        fleet_token: of workers and operators, or None.
        quotas: what each API key may use.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_keys: BearerCheck | None,
        fleet_token: BearerCheck | None,
        quotas: Quotas,
    ) -> None:
        self._app = app
        self._api_keys = api_keys
        self._fleet_token = fleet_token
        self._quotas = quotas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks, then passes on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            owner = self._owner(scope)
            if owner is None or scope["method"] != "POST" or not self._quotas.bind(owner):
                await self._app(scope, receive, send)
                return
            async with self._quotas.use(owner):
                await self._app(scope, receive, send)
        except AuthenticationError as exc:
            response = error_response(exc)
            response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, send)
        except RateLimitError as exc:
            await error_response(exc)(scope, receive, send)

    def _owner(self, scope: Scope) -> str | None:
        """Whose secret came with a request; None where none is needed.

        Raises:
            AuthenticationError: none came, or one that does not do here.
        """
        needed = self._needed(scope["path"], scope["method"])
        if not needed:
            return None
        authorization = next(
            (value for name, value in scope["headers"] if name == b"authorization"), None
        )
        for check in needed[1:]:
            try:
                return check.owner(authorization)
            except AuthenticationError:
                continue
        return needed[0].owner(authorization)

    def _needed(self, path: str, method: str) -> list[BearerCheck]:
        """The checks of which one has to be passed; none where the path is open."""
        if path.startswith("/v1/") or path in _LEGACY_CLIENT_PATHS:
            checks = [self._api_keys]
        elif path == "/fleet/workers" and method == "GET":
            checks = [self._fleet_token, self._api_keys]
        elif path.startswith("/fleet/"):
            checks = [self._fleet_token]
        else:
            checks = []
        return [check for check in checks if check is not None]
