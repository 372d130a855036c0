"""How sure something must be to be exported, so that what is exported is right as often as was declared.

Labels are held out: what people said of a turn is compared with what is told without their labels. What is told of
turns is sorted by confidence, and cut where at least the declared share of the labelled turns above is right, by the
lower bound of Wilson's interval. Each cut that is tried is a chance to be lucky, so each has a fifth fewer labelled
turns than the one before. After A. Angelopoulos et al., "Learn then test", arXiv 2110.01052, without its bound on luck.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.statistics import wilson
from backchannel.ops.labels.facts import Facts
from backchannel.ops.labels.learned import ENDED, FIELDS, Learned, Told, is_same, learned

_SURE: Final = 1.645
"""The bound of the share of right ones holds with a probability of 95%, in standard deviations."""


class Cut(Struct, frozen=True):
    """From which confidence on something is exported.

    Attributes:
        confidence: the confidence; None if no confidence is enough.
        labels: number of held-out labels from that confidence on; 0 if there are too few labels to tell.
        precision: the share of right ones among these; None if there are too few labels to tell.
    """

    confidence: float | None
    labels: int = 0
    precision: float | None = None


class Precision:
    """Compares what is told with labels, and says what to export.

    Args:
        declared: the share of what is exported that is to be right, above 0 and below 1.
    """

    def __init__(self, declared: float) -> None:
        self.declared: Final = declared
        self._checks: Final[defaultdict[tuple[str, str], list[tuple[float, float]]]] = defaultdict(list)
        self._cuts: Final[dict[tuple[str, str], Cut]] = {}

    def check(self, goal: list[Facts]) -> None:
        """Compare what is told of the turns of a goal with what people said about them."""
        if not any(one.judged.points or one.judged.interpretations or one.judged.goals for one in goal):
            return
        found = learned(goal, judged=False)
        ended, reached = goal[-1].judged.goals, found[-1].reached
        if ended and reached is not None:
            right = sum(share for label, share in ended.items() if ENDED.get(label) == reached.value)
            self.add("reached", reached, right)
        for facts, one in zip(goal, found, strict=True):
            points, meant = facts.judged.points, facts.judged.interpretations
            if points and one.failure_point is not None:
                self.add("failure_point", one.failure_point, points.get(one.failure_point.value, 0.0))
            if meant and one.interpretation is not None:
                value = one.interpretation.value
                right = sum(share for said, share in meant.items() if is_same(said, value))
                self.add("interpretation", one.interpretation, right)

    def add(self, field: str, told: Told, right: float) -> None:
        """Add a comparison.

        Args:
            field: the field of `Learned`.
            told: what was told.
            right: the share of labellers who said the same.
        """
        self._checks[field, told.provenance].append((told.confidence, right))
        self._cuts.clear()

    def cut(self, field: str, provenance: str) -> Cut:
        """Return the cut of a field, by provenance."""
        found = self._cuts.get((field, provenance))
        if found is None:
            found = self._cuts[field, provenance] = cut(self._checks.get((field, provenance), []), self.declared)
        return found

    def passing(self, one: Learned) -> Learned:
        """Return what may be exported of what was learned, with its precision."""
        kept: dict[str, Told | None] = {}
        for field in FIELDS:
            told: Told | None = getattr(one, field)
            if told is None:
                continue
            own = self.cut(field, told.provenance)
            sure = own.confidence is not None and told.confidence >= own.confidence
            kept[field] = structs.replace(told, precision=own.precision) if sure else None
        return structs.replace(one, **kept)

    def cuts(self) -> Iterator[tuple[str, str, Cut]]:
        """Yield field, provenance and cut of everything that was exported or compared."""
        for field, provenance in sorted(self._cuts.keys() | self._checks.keys()):
            yield field, provenance, self.cut(field, provenance)


def cut(checks: list[tuple[float, float]], declared: float) -> Cut:
    """Return the cut.

    With too few labels to tell, even if all of them were right, it is the declared share itself: confidences are
    believed.

    Args:
        checks: the confidence of each comparison and the share of labellers who said the same.
        declared: see `Precision`.
    """
    confidences, right = np.array(sorted(checks, reverse=True), dtype=float).reshape(-1, 2).T
    count = len(right)
    if _bound(float(count), count) < declared:
        return Cut(declared)
    size = count
    while size and _bound(float(size), size) >= declared:
        # All comparisons with the same confidence are on one side.
        above = int((confidences >= confidences[size - 1]).sum())
        if _bound(float(right[:above].sum()), above) >= declared:
            return Cut(float(confidences[size - 1]), above, round(float(right[:above].mean()), 4))
        size = size * 4 // 5
    return Cut(None, count)


def _bound(right: float, count: int) -> float:
    low, _ = wilson(np.array([right]), np.array([float(count)]), _SURE)
    return float(low[0])
