"""Opposites: what people did after the recogniser had heard a query and its opposite.

Likeness is no evidence that somebody meant the opposite of what was recognised. Only those can tell who said it when
the recogniser was unsure between both: whether they then went on to the other one, or were content. So an opposite
needs evidence from such turns alone, far more than other rewrites need, and is served only where both were heard again.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.hypotheses import heard
from backchannel.agents.rewrites.meanings import Change, change
from backchannel.agents.rewrites.records import Record
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Delta, Floats, Groups, Integers, SumTable
from backchannel.schemas.events import Recognition

SHARE: Final = 0.8
"""The share, by its lower bound, of those with both hypotheses who must go on to the opposite, of all who went on to
anything or succeeded."""
TIMES: Final = 5.0
"""The `min_support`s of turns that went on to the opposite. Each person counts for a few turns at most."""

_decode: Final = msgspec.msgpack.Decoder(Recognition).decode
Sketches: TypeAlias = Callable[..., list[Floats]]


class BothHeard:
    """The sums over turns whose hypotheses hold the query and an opposite.

    Args:
        ends: the columns: sketches of the people who went on to the opposite, and of those who did not.
        half_life_ms: the half-life of evidence, ms.
    """

    def __init__(self, ends: Collection[str], half_life_ms: int) -> None:
        self.table: Final = SumTable(
            name="heard_both", key=(("state", str), ("target", str)), sums=tuple(ends), half_life_ms=half_life_ms
        )

    def learn(self, outcomes: Outcomes, rows: Integers, weights: Floats, landmark: int, sketches: Sketches) -> Delta:
        """Return the delta contributed by some turns.

        Args:
            outcomes: the turns.
            rows: the turns that were served no rewrite, (rows,).
            weights: the weight of each turn, (turns,).
            landmark: the landmark of the weights.
            sketches: returns the masses of turns, (n,), as the columns of a sketch of the people who asked.
        """
        keys, contexts = outcomes.keys, outcomes.columns.pools.contexts
        recognitions = outcomes.columns.turns.query.asr
        found = [
            (row, target)
            for row in rows[recognitions[rows] != MISSING].tolist()
            for target in _opposites(keys[outcomes.state[row]], contexts[recognitions[row]])
        ]
        if not found:
            return {}
        turns = np.array([row for row, _ in found])
        names = sorted({target for _, target in found})
        targets = np.searchsorted(names, [target for _, target in found])
        following = outcomes.following[turns]
        rephrased = np.where(following != MISSING, outcomes.rephrased[turns], 0.0)
        reached = np.array([*keys, ""], dtype=object)[following] == np.array(names, dtype=object)[targets]
        others = np.where(reached, 0.0, rephrased) + (1.0 - rephrased) * outcomes.unrephrased[turns]
        masses = weights[turns] * np.where(reached, rephrased, 0.0), weights[turns] * others
        groups = Groups((outcomes.state[turns], keys), (targets, names))
        return {self.table.name: groups.sums(self.table, sketches(outcomes, turns, *masses), landmark)}


def are_meant(record: Record | None, min_support: float, deviations: float) -> bool:
    """Return whether enough of those who had both hypotheses meant the opposite.

    Args:
        record: the weights of those who went on to it and of those who did not, in turns; None: nobody had both.
        min_support: see `RephraseConfig`.
        deviations: standard deviations to the lower bound of the share.
    """
    if record is None or record[0] < TIMES * min_support:
        return False
    lower, _ = wilson(np.array(record[0]), np.array(sum(record)), deviations)
    return bool(lower > SHARE)


@lru_cache(maxsize=1 << 14)
def _opposites(state: str, recognition: bytes) -> tuple[str, ...]:
    """Return the hypotheses that are opposites of a state which is a hypothesis, too."""
    texts = heard(_decode(recognition).hypotheses)
    return tuple(text for text in texts if change(state, text) == Change.OPPOSITE) if state in texts else ()
