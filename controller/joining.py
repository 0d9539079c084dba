"""Which addresses may join the fleet: what keeps this process from being sent anywhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from controller.chassis.auth import BearerCheck
from controller.chassis.network import is_loopback
from controller.protocol.errors import AuthenticationError, PermissionDeniedError
from controller.upstream import host_of


class JoinRules:
    """Who may have requests sent to an address.

    Args:
        fleet_token: what members of the fleet show, or None.
        trusts_network: whether anybody may register any address.
        legacy_workers: hosts and networks whose legacy workers may join without the token, which
            they cannot show.
    """

    def __init__(
        self,
        *,
        fleet_token: BearerCheck | None,
        trusts_network: bool,
        legacy_workers: Sequence[str],
    ) -> None:
        self._fleet_token = fleet_token
        self._trusts_network = trusts_network
        self._hosts = frozenset(legacy_workers)
        self._networks = [network for name in legacy_workers if (network := _network(name))]

    @property
    def has_token(self) -> bool:
        """Whether callers of the fleet's API have shown that they belong to it."""
        return self._fleet_token is not None

    def check(self, address: str) -> None:
        """Lets a worker join that came in by the fleet's API, past its token.

        Raises:
            PermissionDeniedError: there is no token, and the address is another machine's.
        """
        if self.has_token or self._trusts_network or is_loopback(host_of(address) or ""):
            return
        raise PermissionDeniedError(
            f"{address} is not on this machine: without a fleet token anybody could have requests "
            f"sent to any address. Start the controller with --fleet-token, or with "
            f"--allow-anonymous-network-access if this network is trusted; a worker on this "
            f"machine registers as http://127.0.0.1:PORT",
            param="address",
        )

    def check_legacy(self, address: str, authorization: bytes | None) -> None:
        """Lets a legacy worker join: one that is named, or whose caller shows the token after all.

        Raises:
            PermissionDeniedError: neither.
        """
        host = host_of(address) or ""
        if host in self._hosts or any(_is_in(host, network) for network in self._networks):
            return
        if self._fleet_token is None:
            self.check(address)
            return
        try:
            self._fleet_token.owner(authorization)
        except AuthenticationError as exc:
            raise PermissionDeniedError(
                f"{address} may not join: this fleet asks for a token, which legacy workers cannot "
                f"show; name the host with the controller's --legacy-workers",
                param="worker_name",
            ) from exc


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:  # a host's name
        return None


def _is_in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
