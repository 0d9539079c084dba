"""A cache of bounded bytes that forgets what was not asked for the longest. No torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class ByteLru(Generic[KeyT, ValueT]):
    """Values with sizes; the least recently used go when there is no more room.

    Args:
        capacity_bytes: what all values may take together; 0 keeps nothing.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.num_bytes = 0
        self.queries = 0
        self.hits = 0
        self._values: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: KeyT) -> ValueT | None:
        """The value, which counts as used now."""
        self.queries += 1
        found = self._values.get(key)
        if found is None:
            return None
        self.hits += 1
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: KeyT, value: ValueT, num_bytes: int) -> None:
        """Keeps a value, unless it alone is larger than the whole cache."""
        self._forget(key)
        if num_bytes > self.capacity_bytes:
            return
        self._values[key] = (value, num_bytes)
        self.num_bytes += num_bytes
        while self.num_bytes > self.capacity_bytes:
            self._forget(next(iter(self._values)))

    def clear(self) -> int:
        """Forgets everything; the bytes that this freed."""
        freed, self.num_bytes = self.num_bytes, 0
        self._values.clear()
        return freed

    def _forget(self, key: KeyT) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self.num_bytes -= found[1]
