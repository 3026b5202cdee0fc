"""Memory that bursts left behind, given back to the system."""

import ctypes
import gc
import sys
from collections.abc import Callable

_BURST_COUNT = 200
_LOOK_COUNT = 32


def _find_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim


_trim = _find_trim()


class Thrift:
    """Counts what was made and dropped, and gives memory back once a burst is over.

    A thousand joins or a thousand rooms gone to sleep leave free blocks that the C library keeps; with glibc they go
    back to the system (a few ms, so only when ``settle`` finds that the burst has ended). Elsewhere nothing happens.

    What lives on is taken out of the garbage collector's sight: a look at 5,000 sockets took 250 ms, in which nobody
    was served, and found nothing. While a burst lasts that is done every few things, as a look at what has come since
    takes a millisecond then, not thirty. All of it is looked through when as many have gone as live.
    """

    def __init__(self) -> None:
        self._count = 0
        self._settled_count = 0
        self._live_count = 0
        self._dropped_count = 0
        self._grown_count = 0  # since the last look or settling

    def made(self) -> None:
        """Note one thing made."""
        self._count += 1
        self._live_count += 1
        self.grew()

    def grew(self) -> None:
        """Note that something waits to be made: it takes memory, and may be gone before it is."""
        self._grown_count += 1
        if self._grown_count >= _LOOK_COUNT:
            self._grown_count = 0
            gc.collect(0)
            gc.freeze()

    def dropped(self) -> None:
        """Note one thing dropped."""
        self._count += 1
        self._live_count -= 1
        self._dropped_count += 1

    def settle(self) -> None:
        """Call it every second: gives memory back after at least 200 things, in a call that finds no new ones."""
        self._grown_count = 0
        burst_ended = self._count >= _BURST_COUNT and self._count == self._settled_count
        self._settled_count = self._count
        if not burst_ended:
            return
        self._count = self._settled_count = 0
        if self._dropped_count >= max(_BURST_COUNT, self._live_count):
            self._dropped_count = 0
            gc.unfreeze()
            gc.collect()
        else:
            gc.collect(1)
        gc.freeze()
        if _trim is not None:
            _trim(0)
