"""Who may use the inspector: whoever knows its password, for half a day by a cookie that is worth nothing elsewhere."""

import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable
from typing import Final

COOKIE: Final = "innkeeper_inspector"
LEAST_PASSWORD: Final = 12
"""Shorter ones could be guessed."""

SIGNED_IN_S: Final = 12 * 3600
_TRIES: Final = 10
_TRIES_PER_S: Final = 60.0


class Login:
    """Checks the password and the cookies that come of it.

    Nothing is stored: a cookie carries its end, signed with a key that comes of the password. So a restart signs nobody
    out, another password signs everybody out.

    Args:
        password: At least :data:`LEAST_PASSWORD` characters.
        clock: Unix seconds.
    """

    def __init__(self, password: str, *, clock: Callable[[], float] = time.time) -> None:
        # Costly on purpose: else a stolen cookie would let its thief try millions of passwords a second.
        self._key = hashlib.scrypt(password.encode(), salt=b"innkeeper inspector", n=2**14, r=8, p=1)
        self._password = password.encode()
        self._clock = clock
        self._failed_at_s: deque[float] = deque(maxlen=_TRIES)

    def wait_s(self) -> float:
        """Return how long nobody may try: ten wrong passwords a minute are taken, whoever sends them."""
        if len(self._failed_at_s) < _TRIES:
            return 0.0
        return max(0.0, self._failed_at_s[0] + _TRIES_PER_S - self._clock())

    def knows(self, password: str) -> bool:
        """Return whether this is the password."""
        is_right = hmac.compare_digest(password.encode(errors="replace"), self._password)
        if not is_right:
            self._failed_at_s.append(self._clock())
        return is_right

    def cookie(self) -> str:
        """Return the value of a new cookie."""
        until = str(int(self._clock()) + SIGNED_IN_S)
        return f"{until}.{self._sign(until)}"

    def admits(self, cookie: str) -> bool:
        """Return whether a cookie is one of ours, and not over."""
        until, _, signature = cookie.partition(".")
        is_ours = hmac.compare_digest(signature.encode(errors="replace"), self._sign(until).encode())
        return is_ours and int(until) > self._clock()

    def _sign(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(errors="replace"), "sha256").hex()
