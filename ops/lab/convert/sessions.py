"""What logs leave out: sessions, times in many forms, and ids that are the same in every run."""

import math
from collections.abc import Hashable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from hashlib import blake2b
from typing import Any, Final

GAP_S: Final = 1800.0
"""Seconds of silence after which a user's next query begins a session."""

_SECONDS: Final = 1e11
"""Below it, a number is a time in seconds; from there on it is one in ms, and from a thousand times that on in µs."""


def ms_of(value: Any) -> int:
    """Return a time in ms since the Unix epoch: of an ISO text, a date, or a number of seconds, ms, µs or ns.

    Without a time zone, it is UTC.

    Raises:
        ValueError: it is no time.
    """
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(value, date):
        return ms_of(datetime.combine(value, time()))
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is no time")
    if isinstance(value, str):
        text = value.strip()
        if text.replace(".", "", 1).lstrip("-").isdigit():
            return ms_of(float(text))
        try:
            return ms_of(datetime.fromisoformat(text))
        except ValueError:
            raise ValueError(f"{value!r} is no time: write it as 2026-11-28T20:00:00Z, or in ms since 1970") from None
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is no time since 1970")
    scale = 1e3 if number < _SECONDS else 1.0
    while number * scale >= _SECONDS * 1e3:
        scale /= 1e3
    return round(number * scale)


def id_of(*parts: object) -> str:
    """Return an id that follows from its parts."""
    return blake2b(repr(parts).encode(), digest_size=10).hexdigest()


def sessions(queries: Iterable[tuple[Hashable, str, int]], gap_s: float = GAP_S) -> Mapping[Hashable, str]:
    """Return the session of each query: a user's queries with less than a gap between each and the next.

    Args:
        queries: (any key, user, time in ms), in any order.
        gap_s: the gap, s.
    """
    found: dict[Hashable, str] = {}
    last: dict[str, tuple[int, str]] = {}
    for key, user, ts in sorted(queries, key=lambda one: (one[2], str(one[0]))):
        before = last.get(user)
        session = before[1] if before and ts - before[0] < gap_s * 1000 else f"{user[:200]}/{ts}"
        last[user] = (ts, session)
        found[key] = session
    return found
