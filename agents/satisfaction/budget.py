"""How often a user may be asked: a hard bound that processes keep without talking to each other.

The day (UTC) is divided into as many windows as a user may be asked questions. In each window a user has one place
among those that ask (see `Budget`), which follows from a hash of the user and the window; only the process that holds
this place may ask, and at most once. A process that has not held its place since before the window began cannot know
what was asked in it, and asks nothing until the next one. So the bound also holds over restarts; what they cost are
questions, never the bound.
"""

from hashlib import blake2b
from threading import Lock
from typing import Final

DAY_MS: Final = 86_400_000


class Budget:
    """The questions that one process may ask. It may be used by several threads.

    Args:
        per_day: the questions that a user may be asked in a day, by all places together; at least 1.
        since: since when the process holds its place, ms since the Unix epoch.
        place: its place, 0 to `places` - 1, which no other process holds at the same time.
        places: the number of places.
    """

    def __init__(self, per_day: int, since: int, place: int = 0, places: int = 1) -> None:
        self._per_day: Final = per_day
        self._since: Final = since
        self._place: Final = place
        self._places: Final = places
        self._lock: Final = Lock()
        self._window = -1
        self._asked: set[bytes] = set()

    def spend(self, user: str, now: int) -> bool:
        """Count a question to a user at `now`, ms since the Unix epoch; False: there must not be one."""
        with self._lock:
            if not self._allows(user, now):
                return False
            self._asked.add(_digest(user, self._window))
            return True

    def _allows(self, user: str, now: int) -> bool:
        window = now * self._per_day // DAY_MS
        if window < self._window or window * DAY_MS < self._since * self._per_day:
            return False  # the clock went back, or nobody here knows what was asked before
        if window > self._window:
            self._window, self._asked = window, set()
        digest = _digest(user, window)
        return int.from_bytes(digest) % self._places == self._place and digest not in self._asked


def _digest(user: str, window: int) -> bytes:
    return blake2b(f"{window} {user}".encode(errors="surrogatepass"), digest_size=8).digest()
