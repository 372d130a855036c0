"""What converters share: sessions, times in many formats, and ids that are the same in every run."""

import math
from collections.abc import Hashable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from hashlib import blake2b
from typing import Any, Final

GAP_S: Final = 1800.0
"""Seconds of silence after which a user's next query begins a new session."""

_SECONDS: Final = 1e11
"""Numbers below this are times in seconds; from it on they are in ms, from a thousand times it in µs, and so on."""

_REMEDY: Final = "write 2026-11-28T20:00:00Z, or seconds, ms or µs since 1970"


def ms_of(value: Any) -> int:
    """Return a time in ms since the Unix epoch, given as ISO text, a date, or a number of seconds, ms, µs or ns.

    Times without a time zone are UTC.

    Raises:
        ValueError: the value is not a time.
    """
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if isinstance(value, date):
        return ms_of(datetime.combine(value, time()))
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} is not a time: {_REMEDY}")
    if isinstance(value, str):
        text = value.strip()
        if text.replace(".", "", 1).lstrip("-").isdigit():
            return ms_of(float(text))
        try:
            return ms_of(datetime.fromisoformat(text))
        except ValueError:
            raise ValueError(f"{value!r} is not a time: {_REMEDY}") from None
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a time: {_REMEDY}")
    scale = 1e3 if number < _SECONDS else 1.0
    while number * scale >= _SECONDS * 1e3:
        scale /= 1e3
    return round(number * scale)


def id_of(*parts: object) -> str:
    """Return an id derived from its parts."""
    return blake2b(repr(parts).encode(), digest_size=10).hexdigest()


def sessions(queries: Iterable[tuple[Hashable, str, int]], gap_s: float = GAP_S) -> Mapping[Hashable, str]:
    """Return the session of each query: a session is a run of a user's queries without a gap.

    Args:
        queries: (key, user, time in ms) of each query, in any order.
        gap_s: the silence that separates sessions, s.
    """
    found: dict[Hashable, str] = {}
    last: dict[str, tuple[int, str]] = {}
    for key, user, ts in sorted(queries, key=lambda one: (one[2], str(one[0]))):
        before = last.get(user)
        session = before[1] if before and ts - before[0] < gap_s * 1000 else f"{user[:200]}/{ts}"
        last[user] = (ts, session)
        found[key] = session
    return found
