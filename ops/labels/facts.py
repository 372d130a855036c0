"""What the events and the models say of turns, before it is put together for whole goals; see `learned`."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs

from backchannel.agents.columnar.columns import Columns, Queries
from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.failures import rules
from backchannel.agents.failures.evidence import RULED, evidence, is_told, vectors
from backchannel.agents.failures.learner import FailurePoints
from backchannel.agents.goals.learner import ended_badly, ends_of
from backchannel.agents.labelled.labels import latest
from backchannel.agents.labelled.learner import FOLDS, fold_of
from backchannel.agents.labelled.ridge import Model
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.sums import SumReader
from backchannel.schemas.events import Feedback, Label, Query
from backchannel.schemas.turn import Turn

_BEFORE_MEANING: Final = ("false_wake", "recognition", "understanding")
"""The failure points with which an interpretation is wrong."""


class Diagnosis(Struct, frozen=True):
    """The probabilities of a turn's failure points, and who says so: `ridge` or `rule`."""

    probabilities: dict[str, float]
    provenance: str


class Judgements(Struct, frozen=True):
    """What people said about a turn: failure point, interpretation and goal -> the share of labellers who said so."""

    points: dict[str, float] = {}
    interpretations: dict[str, float] = {}
    goals: dict[str, float] = {}


class Facts(Struct, frozen=True):
    """What is known of one turn by itself.

    Attributes:
        query: the query.
        following: the `query_id` of the session's next query within the attribution window; None without one.
        rephrased: the probability that the next query rephrases this one, by texts alone or with interpretations,
            whichever is higher: where a query was misunderstood, its interpretation says that it is another one.
        ends: the probability that the turn is the last of its goal, or the share of labellers who say so.
        understood: the probability that the query's interpretation is right: its success (see `agents.outcomes`) or
            what a model from labels says. Rules do not count: that nothing speaks against a turn is no success.
        chosen: the entity that was chosen, and its gain; see `agents.outcomes`.
        reached: the success of a goal of which this is the last turn, 0 to 1.
        defect: the probability that such a goal ended in a defect.
        is_answered: whether somebody gave feedback on the turn.
        diagnosis: the failure points; None if the events do not tell.
        judged: what people said.
    """

    query: Query
    following: str | None
    rephrased: float
    ends: float
    understood: float
    chosen: tuple[str, float] | None
    reached: float
    defect: float
    is_answered: bool
    diagnosis: Diagnosis | None
    judged: Judgements


class Observer:
    """Finds the facts of turns.

    Args:
        sums: all sums so far.
        at: the event time (ms) that they are decayed to.
        failures: the learner of failure points.
        rewards: the worth of feedback.
    """

    def __init__(self, sums: SumReader, at: int, failures: FailurePoints, rewards: RewardConfig) -> None:
        self._judge: Final = Judge(rewards)
        self._feedback_weight: Final = rewards.feedback_weight
        self._models: Final[dict[int | None, tuple[list[str], Model] | None]] = {}
        for fold in (None, *range(FOLDS)):
            found = failures.fit(sums, at, fold)
            self._models[fold] = found and (found[0].points, found[1].model)

    def facts(self, turns: Sequence[Turn], *, held_out: bool) -> list[Facts]:
        """Return the facts of turns, in their order.

        Args:
            turns: closed turns.
            held_out: whether to tell each turn without its labels, and to diagnose it with what was learned from other
                people's labels only.
        """
        if not turns:
            return []
        columns = columns_of(turns)
        outcomes = self._judge.judge(columns)
        rephrased = np.maximum(outcomes.rephrased, self._judge.judge(_by_text(columns)).rephrased)
        ends = ends_of(outcomes)
        defects = ended_badly(outcomes, self._feedback_weight)
        people = [columns.pools.people[code] for code in outcomes.people.tolist()]
        diagnoses = self._diagnoses(columns, [fold_of(person) if held_out else None for person in people])
        chosen = _chosen(outcomes)
        found = []
        for row, turn in enumerate(turns):
            judged = _judged(turn)
            goals = judged.goals
            understood = float(outcomes.success[row])
            if (diagnosis := diagnoses.get(row)) is not None and diagnosis.provenance == "ridge":
                right = 1.0 - sum(diagnosis.probabilities.get(point, 0.0) for point in _BEFORE_MEANING)
                understood = max(understood, min(right, 1.0 - float(outcomes.defects[row])))
            found.append(
                Facts(
                    query=turn.query,
                    following=None if turn.next is None else turn.next.query_id,
                    rephrased=float(rephrased[row]),
                    ends=1.0 - goals.get("continues", 0.0) if goals and not held_out else float(ends[row]),
                    understood=understood,
                    chosen=chosen.get(row),
                    reached=float(outcomes.unrephrased[row]),
                    defect=float(defects[row]),
                    is_answered=bool(turn.all(Feedback)),
                    diagnosis=diagnosis,
                    judged=judged,
                )
            )
        return found

    def _diagnoses(self, columns: Columns, folds: Sequence[int | None]) -> dict[int, Diagnosis]:
        rows = is_told(columns).tolist()
        found = vectors((one.values() for one in evidence(columns.take(np.array(rows, dtype=np.int64)))), len(rows))
        diagnoses = {}
        own = np.array([folds[row] if folds[row] is not None else -1 for row in rows], dtype=np.int64)
        for fold in np.unique(own).tolist():
            places = np.flatnonzero(own == fold)
            known = self._models[None if fold < 0 else fold]
            if known is None:
                names, chances = list(rules.POINTS), found[places][:, RULED] @ rules.CHANCES
            else:
                names, chances = known[0], known[1].probabilities(found[places])
            for place, row in zip(places.tolist(), chances.tolist(), strict=True):
                probabilities = dict(zip(names, row, strict=True))
                diagnoses[rows[place]] = Diagnosis(probabilities, "rule" if known is None else "ridge")
        return diagnoses


def _by_text(columns: Columns) -> Columns:
    """Return the turns without interpretations."""
    turns = columns.turns

    def bare(queries: Queries) -> Queries:
        return structs.replace(queries, form=np.full_like(queries.form, MISSING))

    following = structs.replace(turns.following, rows=bare(turns.following.rows))
    return structs.replace(columns, turns=structs.replace(turns, query=bare(turns.query), following=following))


def _chosen(outcomes: Outcomes) -> dict[int, tuple[str, float]]:
    """Return turn -> the clicked entity with the highest gain above 0, and that gain."""
    gains, names, clicked = outcomes.gains, outcomes.columns.pools.entities, outcomes.clicked
    found: dict[int, tuple[str, float]] = {}
    for turn, entity, gain in zip(gains.turns.tolist(), gains.entities.tolist(), gains.gains.tolist(), strict=True):
        if clicked[turn] and gain > found.get(turn, ("", 0.0))[1]:
            found[turn] = names[entity], gain
    return found


def _judged(turn: Turn) -> Judgements:
    """Return what people said about a turn, each by their latest label."""
    labels = turn.all(Label)

    def said(field: str) -> list[str]:
        values = ((one.labeller, one.labelled_at, getattr(one, field)) for one in labels)
        return latest(one for one in values if one[2] is not None)

    return Judgements(_shares(said("failure_point")), _shares(said("interpretation")), _shares(said("goal")))


def _shares(said: Sequence[str]) -> dict[str, float]:
    return {value: count / len(said) for value, count in sorted(Counter(said).items())}
