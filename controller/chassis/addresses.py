"""The controllers of one fleet, of which a client asks one until it cannot be reached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


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

    async def reach(
        self, ask: Callable[[str], Awaitable[T]], *, refused: tuple[type[Exception], ...]
    ) -> T:
        """The answer of the current one, or of the first after it that can be reached.

        Args:
            ask: asks one address.
            refused: what that raises where the address was asked nothing; the last one is raised
                if none can be reached.
        """
        left = len(self._addresses)
        while True:
            left -= 1
            address = self.current
            try:
                return await ask(address)
            except refused:
                self.pass_over(address)
                if not left:
                    raise

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def pass_over(self, address: str) -> None:
        """From now on the next one is asked, unless somebody else has gone on to it already."""
        if address == self.current:
            self._at = (self._at + 1) % len(self._addresses)

    def __str__(self) -> str:
        return ", ".join(self._addresses)
