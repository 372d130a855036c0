"""Online rewrites: a failing query that nobody has rephrased yet is served as a near one that succeeds.

The chain knows a query only once people have rephrased it. Here, the queries near an unknown or failing query are
ranked by a small model (see `likeness`), and the best is served if the model's odds of a win to a loss are high enough.

Likeness is no evidence of meaning, so the odds alone do not suffice. An opposite is never served, nor is a query
rewritten that has itself succeeded more often than it failed, or that succeeds surely more often than its target does.
A rewrite is served to few sessions at first, until its record shows that it helps, and is withdrawn at the first sign
that it does not.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from math import sqrt
from types import MappingProxyType
from typing import Final

import msgspec

from backchannel.agents.rewrites.likeness import CANDIDATES, Asked, Record
from backchannel.agents.rewrites.likeness_weights import CURVE, SCORER
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.rewrites.rows import RewriteRow, Settings
from backchannel.agents.rewrites.serving import Found
from backchannel.agents.sums import ALL

_SURE: Final = 1.2816  # standard deviations to bounds that hold with 90% probability each, as in `learner`
_decode_row: Final = msgspec.json.Decoder(RewriteRow).decode
_decode_settings: Final = msgspec.json.Decoder(Settings).decode
_SCORES: Final = [score for score, _ in CURVE]


class OnlineRewrites:
    """The online rewrites of one policy version.

    Args:
        nearby: the index of the states that have a row.
        rows: the rows of the global layer, by state.
    """

    def __init__(self, nearby: Nearby | None = None, rows: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self._nearby: Final = nearby or Nearby()
        self._rows: Final = rows
        self._settings: Final = _decode_settings(rows.get(ALL, b"{}"))
        self._served: Final[Counter[str]] = Counter()

    def updated(self, added: Iterable[str], rows: Mapping[str, bytes]) -> "OnlineRewrites":
        """Return the online rewrites of a version with these `rows`, of which those of `added` are new."""
        return OnlineRewrites(self._nearby.updated(added, rows), rows)

    def rewrite(self, state: str, row: RewriteRow | None) -> Found | None:
        """Return what a query should have been, if that is sure enough; None otherwise.

        Args:
            state: a normalised query.
            row: its row, if it has one.
        """
        own = row or RewriteRow()
        if own.success > own.failure or not self._settings.odds:
            return None
        found = self._best(state, own)
        if found is not None and not own.tried.get(found.target):
            self._served[state] += 1
            if self._served[state] > self._settings.first:
                return None
        return found

    def _best(self, state: str, own: RewriteRow) -> Found | None:
        asked = Asked(state, Record(own.success, own.failure), self._nearby.count, self._nearby.size)
        surely = _bound(own, -_SURE)
        scored: list[tuple[float, str]] = []
        for target in self._nearby.candidates(state, CANDIDATES):
            encoded = self._rows.get(target)
            row = _decode_row(encoded) if encoded else RewriteRow()
            if row.success <= row.failure or row.target or surely > _bound(row, _SURE):
                continue
            if target not in own.blocked and own.tried.get(target) is not False:
                scored.append((SCORER.score(asked.describe(target, Record(row.success, row.failure))), target))
        for score, target in sorted(scored, reverse=True):
            odds = odds_of(score)
            if odds < self._settings.odds:
                break
            if change(state, target) != Change.OPPOSITE:  # slow, so only the best are asked
                return Found(target, odds)
        return None


def odds_of(score: float) -> float:
    """Return the lower bound of wins to losses among pairs that score at least `score`; 0 if it is too low."""
    place = bisect_right(_SCORES, score)
    return CURVE[place - 1][1] if place else 0.0


def _bound(row: RewriteRow, z: float) -> float:
    """Return a bound of a state's success rate (Wilson's, as `statistics.wilson`): the lower one if `z` is negative."""
    turns = row.success + row.failure
    rest = row.success * (1.0 - row.success / turns) if turns else 0.0
    return (row.success + z * z / 2 + z * sqrt(rest + z * z / 4)) / (turns + z * z)
