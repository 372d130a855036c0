"""Goals: how many there were, how many were reached, and how many ended in a defect, as sums.

A goal is one or more turns of a session in a row that serve one task. It ends with a turn if the session's next query
begins another goal (see `starts`), or does not come within the attribution window. So every turn has a probability of
being the last of its goal, and as each goal has one last turn, the sum of these probabilities is the number of goals.
How the last turn went is how the goal went: a user who says it twice and then gets it has one goal, reached, not two
turns of which one failed.

People can correct this with labels. What they said of a turn takes the place of what its texts and signals say. What
they would say of the other turns is told from that: labelled turns add X'X and X'Y of their evidence (see `evidence`)
by fold of people, all turns add their evidence by intent, device, locale and day, and the weights are solved at
publish, as those of failure points are. So a new label also changes what is said of earlier turns.

A turn is all that is needed, so the sums are exact in any order, on any number of workers and after a restart; goals
have no state that could be lost. A query that comes too late to be a turn is in nobody's sums, and is the next query of
no turn that closed before; the goal before it then ends there.

Assumptions, as `docs/design.md` asks of every learner: goals are not interleaved, and someone who gives up in silence
after a rephrase has neither reached the goal nor told a defect. That, too, is why goals that are neither reached nor
defective are unknown, not failed. Nobody's goals are bounded: they are for charts, as turns are in `quality`.
Labels are made by people who are trusted.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Self, get_args

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.goals.evidence import ENCODING, WIDTH, slots_of, vectors
from backchannel.agents.goals.serving import GoalRate, GoalRates
from backchannel.agents.goals.starts import Starts, last_outcomes
from backchannel.agents.labelled.kinds import KINDS, published
from backchannel.agents.labelled.labels import labels_of
from backchannel.agents.labelled.learner import LabelLearner
from backchannel.agents.labelled.ridge import Fit, LabelSums
from backchannel.agents.learner import Changed
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.outcomes.said import said_of
from backchannel.agents.outcomes.shared import once
from backchannel.agents.sums import ALL, GRID, Booleans, Delta, Floats, Groups, Integers, SumReader, SumTable
from backchannel.schemas.events import GoalLabel
from backchannel.schemas.snapshot import Estimate

SUMS: Final = ("goals", "reached", "defects")
"""See `Goals`."""
FAILED: Final = frozenset({"failed", "nothing"})
"""The outcomes with which a goal ends in a defect; see `schemas.events.Impression`."""

LABELS: Final[tuple[str, ...]] = get_args(GoalLabel)
"""What became of a goal with a turn: `continues`, `reached`, `missed`."""

_RIDGE: Final = 5.0
_STARTS: Final = Starts()


class GoalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How goals are learned from labels."""

    labels_half_life_days: Annotated[float, Meta(ge=1, le=100_000, description="half-life of labels, in days")] = 365.0
    half_life_days: Annotated[
        float, Meta(ge=0.1, le=100_000, description="half-life of the turns that rates are of, in days")
    ] = 30.0
    min_labels: Annotated[
        float,
        Meta(
            ge=1,
            le=1e6,
            description="labels (decayed) of each kind, `continues`, `reached` and `missed`, below which nothing is "
            "told from labels",
        ),
    ] = 20.0


class Goals(LabelLearner):
    """Sums over goals by strategy and time bucket, and what labels say. Its section: kind -> value -> `GoalRate`.

    A goal counts where its last turn is: in the bucket of that turn's query, in the rows of `ALL` and of each strategy
    that the turn asked.

    - `goals`: the probability that the turn is the last of its goal;
    - `reached`: that, times the success of the turn; see `agents.outcomes`. It includes what people said about it. Of
      labelled turns it is the share of labellers who say `reached`;
    - `defects`: that, times the probability that the turn was a defect: interrupted, or the system said that it could
      not or found nothing, unless people said otherwise. A rephrase is none: it goes on with the goal. Of labelled
      turns it is the share of labellers who say `missed`.

    Args:
        config: how goals are learned from labels.
        bucket_s: the length of a time bucket, s.
        strategies: names of the strategies with rows of their own; without any, those that turns name.
        feedback_weight: see `RewardConfig`.
    """

    name = GoalRates.name
    serving = GoalRates
    encoding = ENCODING
    width = WIDTH
    points = len(LABELS)

    def __init__(
        self, config: GoalConfig, bucket_s: float, strategies: Sequence[str], feedback_weight: float = 1.0
    ) -> None:
        super().__init__(("goal_labels", config.labels_half_life_days), ("goal_turns", config.half_life_days))
        self.config: Final = config
        self.bucket_s: Final = bucket_s
        self.table: Final = SumTable(name=self.name, key=(("strategy", str), ("bucket", int)), sums=SUMS)
        self.tables = (self.table, *self.tables)
        self._strategies: Final = tuple(strategies)
        self._feedback_weight: Final = feedback_weight

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        rewards: RewardConfig = config.rewards
        return cls(config.goals, config.quality.bucket_s, config.bandit.strategies, rewards.feedback_weight)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        turns = len(outcomes)
        if not turns:
            return {}
        begins = begins_of(outcomes)
        labelled, labels = labels_of(outcomes.columns, "goal", LABELS)
        ends = ends_of(outcomes)
        badly = ended_badly(outcomes, self._feedback_weight)
        went = [np.rint(ends * one * GRID) / GRID for one in (outcomes.unrephrased, badly)]
        for values, said in zip((ends, *went), (1.0 - labels[:, 0], *labels.T[1:]), strict=True):
            values[labelled] = said
        delta = self._by_bucket(outcomes, [ends, *went])
        slots = slots_of(outcomes, begins)

        def of_turns(places: Integers, values: int, weights: Floats) -> Floats:
            lines = (places[:, None] * WIDTH + slots).ravel()
            total = np.bincount(lines, np.repeat(weights, slots.shape[1]), values * WIDTH)
            return np.asarray(total, dtype=float).reshape(values, WIDTH)

        delta |= self._by_kind(outcomes.columns, of_turns)
        if len(labelled):
            found = vectors(slots[labelled])

            def of_labels(own: Integers, weights: Floats) -> LabelSums:
                return LabelSums.of(found[own], labels[own], np.zeros(len(own)), weights)

            delta |= self._labelled(outcomes, labelled, of_labels)
        return delta

    def _by_bucket(self, outcomes: Outcomes, values: Sequence[Floats]) -> Delta:
        # First a line per turn for all strategies together, then one per strategy asked.
        strategies = sorted(outcomes.strategies_of(self._strategies))
        asked = outcomes.asked_of(strategies)
        rows = np.concatenate((np.arange(len(outcomes)), asked.rows))
        codes = np.concatenate((np.zeros(len(outcomes), dtype=np.int64), asked.codes + 1))
        bucket_ms = round(self.bucket_s * 1000)
        first, last = (int(one) // bucket_ms for one in (outcomes.times.min(), outcomes.times.max()))
        buckets = range(first * bucket_ms, (last + 1) * bucket_ms, bucket_ms)
        groups = Groups((codes, [ALL, *strategies]), ((outcomes.times // bucket_ms - first)[rows], buckets))
        return {self.table.name: groups.sums(self.table, [one[rows] for one in values])}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. Rates are small, and solved anew whenever anything changed."""
        if not changed.keys() & {self.labels.name, self.turns.name}:
            return {}
        section: dict[str, bytes | None] = dict.fromkeys(KINDS)
        fit = self.fit(sums, at)
        if fit is None:
            return section
        for kind, by_value in published(sums, self.turns, ENCODING, at).items():
            section[kind] = msgspec.json.encode({value: _rate(fit, total) for value, total in by_value.items()})
        return section

    def fit(self, sums: SumReader, at: int) -> Fit | None:
        """Return the fit of the labels by `at` (event time, ms); None if there are too few."""
        folds = self.folds(sums, at)
        if len(folds) < 2 or min(np.sum([one.labels for one in folds], axis=0)) < self.config.min_labels:
            return None
        return Fit.of(folds, _RIDGE)


def ends_of(outcomes: Outcomes) -> Floats:
    """Return the probability that each turn is the last of its goal, whatever labels say, on the grid, (turns,).

    The next query does not both rephrase this one and begin a goal, so it begins one at most with the probability that
    it is not a rephrase.
    """
    begins = begins_of(outcomes)
    rephrased = np.rint(outcomes.rephrased * GRID) / GRID
    return np.where(np.isnan(begins), 1.0, np.minimum(begins, 1.0 - rephrased))


def reached_of(outcomes: Outcomes) -> Floats:
    """Return the probability that a success of each turn reaches a goal, (turns,): that the turn is its last.

    Of labelled turns it is the share of the labellers who say that the goal was reached.
    """
    reached = ends_of(outcomes)
    labelled, labels = labels_of(outcomes.columns, "goal", LABELS)
    reached[labelled] = labels[:, LABELS.index("reached")]
    return reached


def ended_badly(outcomes: Outcomes, feedback_weight: float) -> Floats:
    """Return the probability that a goal whose last turn this is ended in a defect, (turns,); see `Goals`."""
    columns = outcomes.columns
    defects = (outcomes.barged_in | _failed(columns)).astype(float)
    weight = feedback_weight * outcomes.heard
    return np.asarray((1.0 - weight) * defects + weight * (1.0 - np.nan_to_num(said_of(columns))))


def _failed(columns: Columns) -> Booleans:
    failed = np.array([*(name in FAILED for name in columns.pools.labels), False])
    return np.asarray(failed[last_outcomes(columns)])


@once
def begins_of(outcomes: Outcomes) -> Floats:
    """Return the probability that the query after each turn begins a goal, (turns,); NaN without one."""
    columns = outcomes.columns
    begins = np.full(len(columns), np.nan)
    followed = np.flatnonzero(columns.turns.following.counts)
    begins[followed] = _STARTS.probabilities(columns, followed)
    return begins


def _rate(fit: Fit, total: Floats) -> GoalRate:
    """Return the rate of turns with some sum of vectors, (WIDTH,)."""
    turns = float(total[0])
    continues, reached, missed = fit.shares(total, turns)
    goals = Estimate(*(round(1.0 - one, 4) for one in (continues.value, continues.high, continues.low)))
    ended = reached.value + missed.value
    if not ended:
        return GoalRate(round(turns, 3), goals, Estimate(0.0, 0.0, 1.0))
    share = reached.value / ended
    # By the delta method, as if errors were opposite, which is the worst case.
    spread = ((1.0 - share) * (reached.high - reached.low) + share * (missed.high - missed.low)) / (2.0 * ended)
    bounds = (share, max(share - spread, 0.0), min(share + spread, 1.0))
    return GoalRate(round(turns, 3), goals, Estimate(*(round(one, 4) for one in bounds)))
