"""What the attribution window cuts off, by strategy and position."""

from collections import Counter
from typing import Final

from sqlalchemy import BigInteger, Connection, Double, Text, column, inspect, select, table

from backchannel.agents.quality.delays import cut_off

_DELAY: Final = table(
    "delay",
    column("strategy", Text),
    column("position", BigInteger),
    column("bucket", BigInteger),
    column("clicks", Double),
)


def read_delays(connection: Connection) -> dict[tuple[str, int], dict[int, float]]:
    """Return strategy and first position -> time bucket -> clicks, of all time; empty before `store upgrade`."""
    found: dict[tuple[str, int], dict[int, float]] = {}
    if inspect(connection).has_table(_DELAY.name):
        for row in connection.execute(select(_DELAY)):
            found.setdefault((row.strategy, row.position), {})[row.bucket] = row.clicks
    return found


def shares_cut_off(delays: dict[tuple[str, int], dict[int, float]], window_s: float) -> dict[str, float]:
    """Return strategy -> the share of its clicks that come after the window, where there are enough to tell.

    A strategy's positions follow with their first position after a colon.
    """
    clicks: dict[str, Counter[int]] = {}
    for (strategy, position), counts in delays.items():
        for name in (strategy, f"{strategy}:{position}"):
            clicks.setdefault(name, Counter()).update(counts)
    shares = {name: cut_off(counts, window_s) for name, counts in sorted(clicks.items())}
    return {name: share for name, share in shares.items() if share is not None}
