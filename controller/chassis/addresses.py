"""The controllers of one fleet, of which a client asks one until it cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class Addresses:
    """Addresses in their order, and which of them is asked now.

    Args:
        addresses: at least one; what stands before ``/v1``.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(address.rstrip("/").removesuffix("/v1") for address in addresses)
        self._at = 0

    @property
    def current(self) -> str:
        """Who is asked."""
        return self._addresses[self._at]

    def tries(self) -> Iterator[str]:
        """Whom to ask: the current one, and the next where that was passed over meanwhile."""
        for _ in self._addresses:
            yield self.current

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def pass_over(self, address: str) -> None:
        """From now on the next one is asked, unless somebody else has gone on to it already."""
        if address == self.current:
            self._at = (self._at + 1) % len(self._addresses)

    def __str__(self) -> str:
        return ", ".join(self._addresses)
