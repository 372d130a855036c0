"""An account of what can be learned from converted events, and a configuration that fits them."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.schemas.events import Click, Event, Impression, Query

LATE_SHARE: Final = 0.99
"""Share of the clicks within the window of a fitting configuration."""

SHORTEST_S: Final = 120.0
LONGEST_S: Final = 3600.0
"""Bounds of the window, s: a turn is learned from once its window has passed, so a long one delays learning."""

MOST_STRATEGIES: Final = 32
GAINS: Final = {"click": 0.5, "add": 0.8, "purchase": 1.0}
"""Worth of kinds of clicks in a log with several kinds; others, and a log's only kind, are worth 1."""


class Account(Struct):
    """Counts of the contents of events, gathered as they pass; see `watched`.

    Attributes:
        counts: number of events by type and content.
        kinds: number of clicks by kind.
        strategies: number of results by strategy.
        delays: seconds from a query to its clicks.
        dropped: number of records that were left out, by reason.
    """

    counts: Counter[str]
    kinds: Counter[str]
    strategies: Counter[str]
    delays: list[float]
    dropped: Counter[str]

    @classmethod
    def empty(cls) -> "Account":
        """Return an empty account."""
        return cls(Counter(), Counter(), Counter(), [], Counter())

    def watched(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events, counting them."""
        asked: dict[str, int] = {}
        sessions: Counter[str] = Counter()
        for event in events:
            if isinstance(event, Query):
                asked[event.query_id] = event.ts
                sessions[event.session_id] += 1
                self.counts["user"] += event.user_id is not None
                self.counts["following"] += sessions[event.session_id] > 1
            elif isinstance(event, Impression):
                self.counts["impression"] += 1
                self.counts["propensities"] += bool(event.propensities)
                self.counts["features"] += any(one.features for one in event.results)
                self.strategies.update(name for one in event.results for name in one.strategies)
            elif isinstance(event, Click):
                self.kinds[event.kind] += 1
                if event.query_id in asked:
                    self.delays.append((event.ts - asked[event.query_id]) / 1000)
            yield event

    def says(self) -> Iterator[str]:
        """Yield lines on what can be learned and what cannot."""
        clicks = self.kinds.total()
        if clicks and self.counts["impression"]:
            yield f"memory index: yes, from {clicks:,} clicks and {self.counts['impression']:,} result lists"
        elif clicks:
            yield "memory index: hardly; the results shown are missing, so clicks cannot be related to showings"
        else:
            yield "memory index: no; there are no clicks"
        following = self.counts["following"]
        yield (
            f"rewrites: yes, from {following:,} queries that follow another in their session"
            if following
            else "rewrites: no; no session has two queries. Map a session or a user"
        )
        names = ", ".join(sorted(self.strategies)[:5])
        if len(self.strategies) > 1:
            yield f"strategy bandit: yes, {len(self.strategies)} strategies: {names}"
        else:
            yield f"strategy bandit: no; results name {'only one strategy: ' + names if names else 'no strategies'}"
        yield (
            "off-policy estimates: yes"
            if self.counts["propensities"]
            else "off-policy estimates: no; decisions have no propensities, which `backchannel serve` logs"
        )
        yield f"ranking: {'yes' if self.counts['features'] else 'no; results have no features'}"
        for reason, count in sorted(self.dropped.items()):
            yield f"left out: {count:,} {reason}"

    def settings(self) -> str:
        """Return a configuration, as TOML, to learn from these events with."""
        late = float(np.quantile(self.delays, LATE_SHARE)) if self.delays else 0.0
        window = min(max(60.0 * math.ceil(late / 60.0), SHORTEST_S), LONGEST_S)
        covered = np.mean(np.array(self.delays) < window) if self.delays else 1.0
        several = len(self.kinds) > 1
        gains = {kind: GAINS.get(kind, 1.0) if several else 1.0 for kind in sorted(self.kinds)} or {"click": 1.0}
        lines = ["# Written by `backchannel convert`; `backchannel config` explains every key."]
        if self.strategies:
            names = sorted(sorted(self.strategies, key=lambda name: -self.strategies[name])[:MOST_STRATEGIES])
            lines += ["", "[bandit]", f"strategies = [{', '.join(map(_quoted, names))}]"]
        lines += ["", "[turns]", f"# {covered:.0%} of the clicks come within it.", f"window_s = {window:.1f}"]
        lines += ["", "[rewards]"]
        lines.append(f"click_gain = {{ {', '.join(f'{_quoted(kind)} = {gain}' for kind, gain in gains.items())} }}")
        if not self.kinds:
            lines += [
                "# There are no clicks: a query that is neither interrupted nor rephrased counts as a success.",
                "unclicked_gain = 0.5",
            ]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
