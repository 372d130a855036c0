"""What was learned of turns, put together for whole goals.

Turns of one goal ask for the same thing. So what was right in the end is right for the failing turns before it: the
interpretation with which a later rephrase succeeded, slots included, and the entity that was chosen then are copied
back. How sure that is: the probability that each query on the way rephrases the one before it, times that of the
success; see `Facts`. The most probable of the turn's own and all later interpretations counts.

After P. Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents", AAAI 2020, which
copies rephrases, and T. Falke et al., "Leveraging user paraphrasing behavior in dialog systems to automatically collect
annotations", COLING 2020, which copies their interpretations.
"""

from collections.abc import Sequence
from math import prod
from typing import Final

from msgspec import Struct

from backchannel.agents.labelled.kinds import parts_of
from backchannel.ops.labels.facts import Facts
from backchannel.schemas.events import Context

LONGEST: Final = 64
"""Turns of a goal that are held at once: more are a machine's."""
ENDED: Final = {"reached": "yes", "missed": "no"}
"""A label of the last turn of a goal -> whether the goal was reached."""
_ENDS: Final = 0.5


class Told(Struct, frozen=True, omit_defaults=True):
    """Something that was learned of a turn.

    Attributes:
        value: what it is.
        confidence: how probable it is, by what is known.
        provenance: who says so: `label` (people), `ridge` or `rule` (see `agents.failures`), `success` (of the turn
            itself), `rephrase` (of a later turn), `click`, `feedback`, `signals` or `starts` (see `agents.goals`).
        query_id: the query that it was copied from; None if it is the turn's own.
        slots: slot -> value, of an interpretation.
        precision: the share of right ones among held-out labels; None if there are too few to tell.
    """

    value: str
    confidence: float
    provenance: str
    query_id: str | None = None
    slots: Context = {}
    precision: float | None = None


class Learned(Struct, frozen=True, omit_defaults=True):
    """What was learned of a turn; what is not known is None.

    Attributes:
        ts, session_id, query_id, user_id, locale, text: those of the query.
        logged: its interpretation as it was logged.
        interpretation: what was meant.
        entity: the entity that was chosen.
        failure_point: the first component that failed.
        goal: the `query_id` of the first query of the turn's goal.
        reached: whether the goal was reached, "yes" or "no".
    """

    ts: int
    session_id: str
    query_id: str
    text: str
    user_id: str | None = None
    locale: str | None = None
    logged: str | None = None
    interpretation: Told | None = None
    entity: Told | None = None
    failure_point: Told | None = None
    goal: Told | None = None
    reached: Told | None = None


FIELDS: Final = ("interpretation", "entity", "failure_point", "goal", "reached")
"""The fields of `Learned` that are told."""


class Goals:
    """Holds the turns of each session until their goal has ended. A session's turns come in time order."""

    def __init__(self) -> None:
        self._open: Final[dict[str, list[Facts]]] = {}

    def add(self, facts: Facts) -> list[list[Facts]]:
        """Add a turn, and return the goals that this ends."""
        session = facts.query.session_id
        goal = self._open.pop(session, [])
        ended = []
        if goal and (goal[-1].following != facts.query.query_id or len(goal) >= LONGEST):
            ended.append(goal)  # the query after it came too late to be a turn
            goal = []
        goal.append(facts)
        if facts.following is None or facts.ends > _ENDS:
            ended.append(goal)
        else:
            self._open[session] = goal
        return ended

    def finish(self) -> list[list[Facts]]:
        """Return the goals that have not ended."""
        rest = list(self._open.values())
        self._open.clear()
        return rest


def learned(goal: Sequence[Facts], *, judged: bool = True) -> list[Learned]:
    """Return what was learned of the turns of a goal.

    Args:
        goal: the turns, in time order.
        judged: whether to tell what people said where they did; False to compare the two.
    """
    first, last = goal[0].query.query_id, goal[-1]
    sure = prod(1.0 - one.ends for one in goal[:-1]) * (last.ends if last.ends > _ENDS else 1.0 - last.ends)
    reached = (judged and _labelled(last)) or _reached(last)
    found = []
    for place, one in enumerate(goal):
        query = one.query
        meant, chosen = _copied(goal[place:])
        point = _failure_point(one)
        if judged:
            meant, point = _said(one.judged.interpretations) or meant, _said(one.judged.points) or point
        found.append(
            Learned(
                ts=query.ts,
                session_id=query.session_id,
                query_id=query.query_id,
                text=query.text,
                user_id=query.user_id,
                locale=query.locale,
                logged=query.interpretation,
                interpretation=meant,
                entity=chosen,
                failure_point=point,
                goal=_told(first, sure, "starts"),
                reached=reached,
            )
        )
    return found


def is_same(one: str, other: str) -> bool:
    """Return whether two interpretations have the same parts, in any order."""
    return parts_of(one) == parts_of(other)


def _copied(goal: Sequence[Facts]) -> tuple[Told | None, Told | None]:
    """Return the interpretation and the entity of the first of some turns, its own or a later one's."""
    meant: Told | None = None
    chosen: Told | None = None
    same = 1.0
    for place, one in enumerate(goal):
        source = one.query.query_id if place else None
        sure = same * one.understood
        if one.query.interpretation and sure > (meant.confidence if meant else 0.0):
            slots = one.query.nlu.slots if one.query.nlu else {}
            how = "rephrase" if place else "success"
            meant = _told(one.query.interpretation, sure, how, source, slots)
        if one.chosen and same * one.chosen[1] > (chosen.confidence if chosen else 0.0):
            chosen = _told(one.chosen[0], same * one.chosen[1], "rephrase" if place else "click", source)
        same *= one.rephrased
        if not same:
            break
    return meant, chosen


def _failure_point(one: Facts) -> Told | None:
    if one.diagnosis is None:
        return None
    probabilities = one.diagnosis.probabilities
    point = max(probabilities, key=lambda name: probabilities[name])
    return _told(point, probabilities[point], one.diagnosis.provenance)


def _reached(last: Facts) -> Told | None:
    how = "feedback" if last.is_answered else "signals"
    if max(last.reached, last.defect) <= 0:
        return None
    return _told("yes", last.reached, how) if last.reached >= last.defect else _told("no", last.defect, how)


def _labelled(last: Facts) -> Told | None:
    """Return what most labellers said of the goal whose last turn this is; None if they did not."""
    return _said({ENDED[label]: share for label, share in last.judged.goals.items() if label in ENDED})


def _said(shares: dict[str, float]) -> Told | None:
    """Return what most labellers said; the first of the alphabet if as many said something else."""
    if not shares:
        return None
    value = max(shares, key=lambda said: shares[said])
    return _told(value, shares[value], "label")


def _told(
    value: str, confidence: float, provenance: str, source: str | None = None, slots: Context | None = None
) -> Told:
    return Told(value, round(confidence, 4), provenance, source, slots or {})
