"""When an owner's commits trim the room's streams, and how many of the newest outputs they leave."""

from innkeeper.turn import TRIM_EVERY_BYTES, TRIM_EVERY_COMMITS, RecentOutputs, Turn


class Trimming:
    """Counts what one owner has committed since it trimmed last."""

    def __init__(self) -> None:
        self._recent = RecentOutputs()
        self._untrimmed_bytes = 0

    def keep_count(self, version: int, turn: Turn, now_s: float) -> int:
        """Return how many outputs a commit leaves; 0 where it does not trim.

        Args:
            version: That the commit makes.
            turn: What it carries.
            now_s: The caller's clock.
        """
        self._recent.add(len(turn.outputs), now_s)
        self._untrimmed_bytes += turn.out_bytes
        if version % TRIM_EVERY_COMMITS and self._untrimmed_bytes <= TRIM_EVERY_BYTES:
            return 0
        self._untrimmed_bytes = 0
        return self._recent.keep_count
