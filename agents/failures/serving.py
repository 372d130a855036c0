"""The serving half of failure points: which component failed in a turn, and how often each did."""

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import ClassVar, Final, Self

import msgspec
import numpy as np
from msgspec import Struct

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures.rules import POINTS, RULES
from backchannel.agents.labelled.kinds import by_kind
from backchannel.agents.labelled.ridge import Model
from backchannel.agents.serving import Sections
from backchannel.agents.sums import ALL
from backchannel.schemas.snapshot import Estimate, Snapshot
from backchannel.schemas.turn import Turn

CORRECT: Final = "correct"
_NO_COMPONENT: Final = frozenset({CORRECT, "unsupported"})
"""Failure points with nothing to repair: what nobody can do is no defect of a component."""
_REASONS: Final = 5


class Diagnosis(Struct, frozen=True):
    """What failed first in a turn.

    Attributes:
        failure_point: the most probable one; `correct` if nothing failed.
        probabilities: failure point -> probability. Those without enough labels are missing: unknown, not zero.
        reasons: what holds of the turn and speaks for the failure point, against a correct turn (or, of a correct turn,
            against the next probable failure point): in words -> difference of scores, the largest first. Without
            labels, the rule that holds -> the probability of what it says.
        weak: whether rules say so, as there are not enough labels.
    """

    failure_point: str
    probabilities: dict[str, float]
    reasons: dict[str, float]
    weak: bool = False


class Weights(Struct, frozen=True):
    """The model, as published; see `Model`. `points` are the failure points with enough labels, in order.

    Attributes:
        mean: the mean vector of labelled turns, (width,).
        defects: failure point -> mean probability of a defect of its turns.
    """

    points: list[str]
    encoding: str
    weights: list[list[float]]
    means: list[list[float]]
    covariance: list[list[float]]
    labels: list[float]
    mean: list[float]
    defects: dict[str, float]


class Shares(Struct, frozen=True):
    """The shares of failure points in some turns.

    Attributes:
        turns: number of turns (decayed) whose events say how they went.
        shares: failure point -> its share of the turns; those without enough labels are missing.
    """

    turns: float
    shares: dict[str, Estimate]


class Repair(Struct, frozen=True):
    """What the repair of a component would save.

    Attributes:
        kind, value: the turns: those of an `intent`, `device`, `locale` or `day`, or `all`.
        failure_point: the component.
        turns: number of turns (decayed).
        share: the share of the turns in which it was the first to fail.
        recovers: how much more probable defects are in turns in which it failed than in correct ones, 0 to 1. Without
            labels, 1: what is saved is at most that.
        saved: turns x share x recovers: defects saved, with the interval of the share.
    """

    kind: str
    value: str
    failure_point: str
    turns: float
    share: Estimate
    recovers: float
    saved: Estimate


class Diagnoser:
    """Diagnoses turns, by labels or, as long as there are not enough, by rules.

    Args:
        section: the rows of the section.
    """

    name: ClassVar[str] = "failures"

    def __init__(self, section: Mapping[str, bytes]) -> None:
        self._rows: Final = section

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self:  # noqa: ARG003 - a Serving
        """See `Serving.of`."""
        return cls(sections.get(cls.name, {}))

    @cached_property
    def known(self) -> tuple[Weights, Model] | None:
        """The weights and their model; None if there are not enough labels."""
        row = self._rows.get(ALL)
        if row is None:
            return None
        weights = msgspec.json.decode(row, type=Weights)
        return weights, Model(*map(np.array, (weights.weights, weights.means, weights.covariance, weights.labels)))

    def diagnose(self, turn: Turn) -> Diagnosis | None:
        """Return what failed first in a turn; None if neither its events nor labels tell."""
        from backchannel.agents.failures import evidence as of  # noqa: PLC0415 - serving has no rapidfuzz

        columns = columns_of([turn])
        [found] = of.evidence(columns)
        if self.known is None:
            return _by_rule(set(found.values()), of.RULED) if len(of.is_told(columns)) else None
        known, model = self.known
        probabilities = model.probabilities(of.vectors([found.values()], 1))[0]
        ordered = np.argsort(-probabilities, kind="stable").tolist()
        chosen, other = ordered[0], ordered[1]
        if known.points[chosen] != CORRECT and CORRECT in known.points:
            other = known.points.index(CORRECT)
        directions = model.directions()
        scores = model.weights @ (directions[:, chosen] - directions[:, other]) * (1.0 - np.array(known.mean))
        reasons = {said: float(scores[slot].round(3)) for said, slot in found.items()}
        largest = sorted((said for said in reasons if reasons[said] > 0), key=lambda said: -reasons[said])
        return Diagnosis(
            known.points[chosen],
            dict(zip(known.points, probabilities.round(4).tolist(), strict=True)),
            {said: reasons[said] for said in largest[:_REASONS]},
        )

    def shares(self) -> dict[str, dict[str, Shares]]:
        """Return the shares by kind (`all`, `intent`, `device`, `locale`, `day`) and value."""
        return by_kind(self._rows, Shares)

    def repairs(self) -> list[Repair]:
        """Return what the repair of each component would save, for each set of turns, the most first."""
        known = self.known and self.known[0]
        if known is not None and CORRECT not in known.points:
            return []
        found = []
        for kind, by_value in self.shares().items():
            for value, one in by_value.items():
                for point, share in one.shares.items():
                    if point in _NO_COMPONENT:
                        continue
                    recovers = 1.0 if known is None else max(known.defects[point] - known.defects[CORRECT], 0.0)
                    scale = one.turns * recovers
                    saved = Estimate(share.value * scale, share.low * scale, share.high * scale)
                    found.append(Repair(kind, value, point, one.turns, share, recovers, saved))
        return sorted(found, key=lambda one: (-one.saved.value, one.kind, one.value, one.failure_point))


def _by_rule(slots: Collection[int], ruled: slice) -> Diagnosis:
    rule = next(RULES[place] for place, slot in enumerate(range(ruled.start, ruled.stop)) if slot in slots)
    chances = dict(zip(POINTS, rule.chances, strict=True))
    point = max(POINTS, key=lambda one: chances[one])
    return Diagnosis(point, chances, {rule.name: chances[point]}, weak=True)
