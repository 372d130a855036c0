"""Online rewrites: a failing query that nobody has rephrased yet is served as a near one that succeeds.

The chain knows a query only once people have rephrased it. Here, the queries near an unknown or failing query are
ranked by a small model (see `likeness`), and the best is served if the model's odds of a win to a loss are high enough.
The habits of the user who asks come first, and are ranked by a model of their own. It is the only one that compares
queries with interpretations, and is served only where it was trained on what became of the habits of other users.

Likeness is no evidence of meaning, so the odds alone do not suffice. An opposite is never served, even if the
recogniser may have heard it (only people's own rephrases are evidence for that, see `opposites`), nor is a query
rewritten that has itself succeeded more often than it failed; its target has. So a query that surely succeeds more
often than a target is never rewritten to that. A rewrite is served to few sessions at first, until its record shows
that it helps, and is withdrawn at the first sign that it does not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np

from backchannel.agents.rewrites.habitual import described
from backchannel.agents.rewrites.likeness import CANDIDATES, Asked, Numbers, Record
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.nearby import Nearby
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import HabitRow, RewriteRow, Settings, Usual
from backchannel.agents.rewrites.serving import Found
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import ALL

_decode_row: Final = msgspec.json.Decoder(RewriteRow).decode
_decode_settings: Final = msgspec.json.Decoder(Settings).decode
_SURE: Final = 1.2816  # standard deviations to bounds each of which holds with a probability of 90%


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
        self._served: Final[Counter[tuple[str, str]]] = Counter()

    def updated(self, added: Iterable[str], rows: Mapping[str, bytes]) -> "OnlineRewrites":
        """Return the online rewrites of a version with these `rows`, of which those of `added` are new."""
        return OnlineRewrites(self._nearby.updated(added, rows), rows)

    def rewrite(
        self,
        text: str,
        row: RewriteRow | None,
        usual: Usual | None = None,
        hypotheses: Mapping[str, float] = MappingProxyType({}),
        form: str = "",
    ) -> Found | None:
        """Return what a query should have been, if that is sure enough; None otherwise.

        Args:
            text: a normalised query.
            row: the row of its interpretation or, without one, of the text, if there is one.
            usual: what the user who asks usually asks.
            hypotheses: what the recogniser may have heard; see `hypotheses.heard`.
            form: its interpretation. With one, only habits are tried.
        """
        own = row or RewriteRow()
        # An interpretation that succeeds for others may be wrong for this text.
        succeeds = own.success > own.failure and not form
        if succeeds or not self._settings.odds or (usual and text in usual.habits):
            return None
        found = self._habit(text, form, own, usual.habits, usual.ranker) if usual and usual.ranker else None
        if found is None and not form:
            found = self._near(text, own, hypotheses)
        if found is not None and not own.tried.get(found.target):
            self._served[form or text, found.target] += 1
            if self._served[form or text, found.target] > self._settings.first:
                return None
        return found

    def _habit(self, text: str, form: str, own: RewriteRow, habits: HabitRow, ranker: Ranker) -> Found | None:
        near = (
            (target, numbers)
            for target, numbers in described(text, form, habits)
            if self._admitted(own, habits[target].form or target, habit=True)
        )
        found = self._surest(text, ranker, near)
        return found and Found(habits[found.target].form or found.target, found.odds, habit=True)

    def _near(self, text: str, own: RewriteRow, hypotheses: Mapping[str, float]) -> Found | None:
        failing = Record(own.success, own.failure)
        asked = Asked(text, failing, self._nearby.count, self._nearby.size, hypotheses)
        known = (one for one in hypotheses if one in self._rows and one not in (text, ALL))
        near = (
            (target, asked.describe(target, record))
            for target in dict.fromkeys((*known, *self._nearby.candidates(text, CANDIDATES)))
            if (record := self._admitted(own, target))
        )
        return self._surest(text, self._settings.ranker or EVERYBODY, near)

    def _admitted(self, own: RewriteRow, target: str, *, habit: bool = False) -> Record | None:
        """Return a target's record; None if a query with the row `own` may not be rewritten to it."""
        encoded = self._rows.get(target)
        row = _decode_row(encoded) if encoded else RewriteRow()
        if row.target or target in own.blocked or own.tried.get(target) is False or surely_better(own, row):
            return None
        unknown = not row.success + row.failure  # then it is a habit because of what the user's record says
        return Record(row.success, row.failure) if row.success > row.failure or (habit and unknown) else None

    def _surest(self, state: str, ranker: Ranker, described: Iterable[tuple[str, Numbers]]) -> Found | None:
        least = ranker.least(self._settings.odds)
        scored = ((ranker.score(numbers, least), target) for target, numbers in described)
        for score, target in sorted((pair for pair in scored if pair[0] >= least), reverse=True):
            if change(state, target) != Change.OPPOSITE:  # slow, so only the best are asked
                return Found(target, ranker.odds(score))
        return None


def surely_better(one: RewriteRow, other: RewriteRow) -> bool:
    """Return whether one surely succeeds more often than the other."""
    if one.success <= one.failure:
        return False
    success = np.array([one.success, other.success])
    lower, upper = wilson(success, success + np.array([one.failure, other.failure]), _SURE)
    return bool(lower[0] > upper[1])
