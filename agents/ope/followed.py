"""What followed the decisions of a trial: the rest of their sessions, and returns, by who decided.

In a trial, a coin is tossed for each decision. With share s and the probability w that the policy on trial made a
decision (see `trials`), its score is

    c_t = w_t / s - (1 - w_t) / (1 - s),

which is 0 on average, whatever happened before. So for whatever follows, F_t, the mean of c_t F_t is what one decision
by the policy on trial adds to it, others being made as they were: sessions need not be decided by one policy alone, and
no probabilities of many decisions are multiplied. Summed over a session's turns,

    sum_t g^t c_t (V_t - b_t),    V_t = r_t + g r_t+1 + g^2 r_t+2 + ...,

that is how fast the value of a session rises with the share (the policy gradient theorem: Sutton, McAllester, Singh &
Mansour, NeurIPS 2000), and so what a share of 1 adds to one of 0, as far as decisions do not depend on each other. b_t
is a ridge regression of V_t on what was there before the decision (see `horizon.rest`), which takes variance out and
changes no mean. For returns, F is whether one followed the visit (see `horizon.visits`), b the share of all visits
that one followed, and the scores of a visit's turns are added up.

Both are ratios to what sessions or returns amount to during the trial, with units of people, in bounds that hold at all
looks together; see `sequences.ratio_bounds`.

Assumptions, as `docs/design.md` asks of every learner: what one person adds is bounded, as in `horizon`. Sessions that
have not ended, and visits that are not mature, are left out. Overlap, depth and position do not enter, as whole pages
are compared.
"""

from typing import Any, Final, Self

import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.horizon.keys import panel_of, sessions_of
from backchannel.agents.horizon.learner import HorizonConfig, Returns
from backchannel.agents.horizon.rest import GAP_MS, RestOfSession, Walks, expected, walks_of
from backchannel.agents.horizon.visits import HOUR_MS, visits_of
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.ope.decisions import chances_of
from backchannel.agents.ope.sequences import UNKNOWN, ratio_bounds
from backchannel.agents.ope.trials import reached_in, tosses_of
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import GRID, USER, Delta, Floats, Groups, Integers, Key, SumReader, SumTable
from backchannel.schemas.snapshot import Estimate, Trial


class Followed(Learner):
    """Sums of the scores of decisions in trials. It publishes nothing; the gate reads it.

    Its table holds, by person (a user, or a session without one), session, time (ms) and trial: the number of turns;
    the sum of their scores, on the grid, rounded up or down at random (by a hash of the turn) so that their expectation
    is right; and the number of goals that ended with these turns and were reached.

    Args:
        config: see `HorizonConfig`.
    """

    name = "followed"
    serving = None

    def __init__(self, config: HorizonConfig) -> None:
        self.config: Final = config
        self.salt = config.salt
        key = ((USER, str), ("session", int), ("ts", int), ("trial", str))
        self.table: Final = SumTable(name="trial_turns", key=key, sums=("turns", "score", "reached"))
        self.tables = (self.table,)
        self._rest: Final = RestOfSession(config)
        self._returns: Final = Returns(config)

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.horizon)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if there is a salt."""
        return bool(config.horizon.salt)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        found = tosses_of(outcomes)
        tossed = np.flatnonzero((found.shares > 0.0) & (found.shares < 1.0))
        turns, shares, weights = found.turns[tossed], found.shares[tossed], found.weights[tossed]
        if not len(turns):
            return {}
        person, known = panel_of(outcomes, self.config.salt, self.config.share)
        person = person[turns]
        rows = np.flatnonzero(person != MISSING)
        if not len(rows):
            return {}
        numbers, trial = np.unique(found.trials[tossed], return_inverse=True)
        names = sorted(map(str, numbers.tolist()))
        renamed = np.array([names.index(str(number)) for number in numbers.tolist()], dtype=np.int64)
        session, sessions = sessions_of(outcomes)
        times, time = np.unique(outcomes.times[turns], return_inverse=True)
        parts = ((person, known), (session[turns], sessions), (time, times.tolist()), (renamed[trial], names))
        groups = Groups(*((one[rows], values) for one, values in parts))
        scores = weights / shares - (1.0 - weights) / (1.0 - shares)
        scores = np.floor(scores * GRID + chances_of(outcomes.columns)[turns]) / GRID
        values = np.ones(len(turns)), scores, reached_in(outcomes, turns)
        return {self.table.name: groups.sums(self.table, [one[rows] for one in values])}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 -- Learner's
        """See `Learner.solve`: nothing is published."""
        return {}

    def sessions(self, sums: SumReader, trial: Trial, at: int, confidence: float) -> tuple[Estimate, Estimate]:
        """Return what deciding by the policy on trial adds to a session's discounted success, and to the goals that are
        reached in its turns of the trial, discounted, too; both as a share of that.

        Args:
            sums: the sums of this learner and of `horizon.rest.RestOfSession`.
            trial: the trial.
            at: the event time (ms) up to which everything is known.
            confidence: the confidence of either bound by itself.
        """
        if at < trial.began + GAP_MS:  # none has ended
            return UNKNOWN, UNKNOWN
        by_turn = {key[:3]: (row[1] / row[0], row[2] / row[0]) for key, row in self._tossed(sums, trial).items()}
        walks = walks_of(sums.read(self._rest.table), at, trial.began)
        scores, reached = np.array([by_turn.get(key, (0.0, 0.0)) for key in walks.keys]).reshape(-1, 2).T
        discount = self.config.discount
        of_goals = sessions_gain(walks._replace(success=reached), scores, discount, confidence)
        return sessions_gain(walks, scores, discount, confidence), of_goals

    def returns(self, sums: SumReader, trial: Trial, at: int, confidence: float) -> Estimate:
        """Return what deciding by the policy on trial adds to the share of visits that a return follows, relatively.

        Args:
            sums: the sums of this learner and of `horizon.learner.Returns`.
            trial: the trial.
            at: the event time (ms) up to which everything is known.
            confidence: the confidence of either bound by itself.
        """
        times = self._returns.times
        if at < trial.began + times.most_ms:  # none is mature, and there may be many
            return UNKNOWN
        kept = sums.read(self._returns.table)
        found: dict[Key, float] = {}
        for (user, _, ts, _), (_, score, _) in self._tossed(sums, trial).items():
            visit = user, ts // HOUR_MS * HOUR_MS
            found[visit] = found.get(visit, 0.0) + score
        visits = visits_of(kept, times, at)
        users, hours, _ = kept.ordered()[0].columns
        known = dict.fromkeys(one for one in zip(users, hours, strict=True) if one[1] >= at - times.keep_ms)
        own = np.flatnonzero(np.array([one in found for one in known], dtype=bool) & visits.mature)
        scores = np.array([found.get(one, 0.0) for one in known])[own]
        returned, weights = visits.returned[own], visits.weights[own]
        usual = float(weights @ returned / weights.sum()) if len(own) else 0.0
        changes, totals = weights * scores * (returned - usual), weights * returned
        return _ratio(visits.people[own], changes, totals, confidence)

    def _tossed(self, sums: SumReader, trial: Trial) -> dict[Key, list[float]]:
        """Return the rows of a trial."""
        found = sums.read(self.table)
        return {
            key: row for key, row in zip(found.keys, found.values.tolist(), strict=True) if key[3] == str(trial.number)
        }


def sessions_gain(walks: Walks, scores: Floats, discount: float, confidence: float) -> Estimate:
    """Return what deciding by the policy on trial adds to the discounted success of sessions, as a share of it.

    Args:
        walks: the turns.
        scores: the scores of their decisions, (turns,); 0 where no coin was tossed.
        discount: what a success is worth one turn later.
        confidence: the confidence of either bound by itself.
    """
    value = walks.success + walks.later(discount)
    weights = walks.ended * walks.capped(np.ones(len(value)))
    surprise = value - expected(walks, value, weights)
    changes = weights * discount**walks.place * scores * surprise
    totals = weights * value * (walks.place == 0)
    known = weights > 0
    return _ratio(walks.people[known], changes[known], totals[known], confidence)


def _ratio(people: Integers, changes: Floats, totals: Floats, confidence: float) -> Estimate:
    """Return `ratio_bounds` of values of turns or visits, (n,), added up by person."""
    codes = np.unique(people, return_inverse=True)[1]
    size = int(codes.max(initial=-1)) + 1
    change, total = (np.bincount(codes, one, size).astype(float) for one in (changes, totals))
    return ratio_bounds(change, total, confidence)
