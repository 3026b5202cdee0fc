"""The tags of a connection: a set in the same order in every process, so that a second run of an event is equal."""

from collections.abc import Iterable, Iterator, MutableSet
from collections.abc import Set as AbstractSet
from typing import Final

_NONE: Final = frozenset[str]()  # most connections have none, and a set of its own takes 216 bytes


class Tags(MutableSet[str]):
    """A set of texts that iterates in sorted order; compares, and is combined, as any set.

    Args:
        tags: What is in it at first.
    """

    __slots__ = ("_items",)

    def __init__(self, tags: Iterable[str] = ()) -> None:
        self._items: AbstractSet[str] = set(tags) or _NONE

    def __contains__(self, tag: object) -> bool:
        return tag in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Tags({list(self)!r})"

    def add(self, value: str) -> None:
        """Put one in."""
        self.update((value,))

    def discard(self, value: str) -> None:
        """Take one out, if it is there."""
        if isinstance(self._items, set):
            self._items.discard(value)

    def update(self, *others: Iterable[str]) -> None:
        """Put in all of these.

        Raises:
            TypeError: One of them is a text, which would be its letters.
        """
        if any(isinstance(other, str) for other in others):
            raise TypeError("conn.tags.update(text) would put in its letters: use add")
        if not isinstance(self._items, set):
            self._items = set()
        self._items.update(*others)
