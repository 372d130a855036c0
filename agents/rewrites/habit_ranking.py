"""The ranker of habits: how far the habits of people tell what they meant, learned from a sample of people.

Whether a query should have been one of the user's habits cannot be told from likeness alone: where few queries are
habits, the nearest one may be anything. So nothing is shipped. The texts of some people are kept, and when a version is
published, the ranker is fitted to what became of them (see `habit_training`). It is published only if the lower bound
of its wins to losses reaches `rephrases.online_odds` for somebody, and until then nobody is served a habit.

The people are those of the lowest hashes (bottom-k; Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC
2007), with all that they asked. So the sample is a sum: whichever rows are dropped on the way, the lowest are the
same. People are hashed, without a secret: whoever knows or guesses an id can find its rows.

A fit is kept for a while (see `keeping`). It is erased with anybody who is forgotten, as is what it was made from: it
may have been made from rows that others have displaced since.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, Self

import msgspec
import numpy as np

from backchannel.agents.columnar.frames import MISSING
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.habit_training import Asked, Person, trained
from backchannel.agents.rewrites.habits import Habits, own_turns
from backchannel.agents.rewrites.keeping import Fitted
from backchannel.agents.rewrites.serving import Rewriter
from backchannel.agents.sums import ALL, USER, Delta, Groups, Key, SumReader, Sums, SumTable

SIZE: Final = 4_000
"""Rows of the sample."""
_MOST: Final = 400  # rows of a person; who has more is left out, and is likely a program
_ENCODING: Final = "people 1"
_FITTED: Final = "fitted to"


class HabitRanking(Learner):
    """The learner of the ranker of habits. Its section: `ALL` -> `Ranker`, and what it was `Fitted` to.

    Its table holds, by person, text, state and the state of the next query (`ALL` unless that is a rephrase): the
    success, the failure, and the rephrases, in turns.

    Args:
        config: when a rewrite is published.
        size: the rows of the sample.
    """

    name = Rewriter.habit_ranking
    serving = Rewriter
    salt = name
    fitted = (ALL, _FITTED)

    def __init__(self, config: RephraseConfig, size: int = SIZE) -> None:
        self.config: Final = config
        self.table: Final = SumTable(
            name="sampled_habits",
            key=(("encoding", str), (USER, str), ("text", str), ("state", str), ("following", str)),
            sums=("success", "failure", "rephrased"),
            half_life_ms=round(config.half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self.bound = (self.table, size)
        self._size: Final = size
        self._half_life_ms: Final = config.half_life_days * 86_400_000

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.rephrases)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if habits are."""
        return Habits.is_wanted(config)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`. Turns without a user are left out, and turns that were served a rewrite."""
        rows = own_turns(outcomes)
        if not len(rows):
            return {}
        landmark = self.table.landmark(int(outcomes.times.max(initial=0)))
        weights = self.table.weights(outcomes.times, landmark)[rows]
        success, rephrased, following = (
            one[rows] for one in (outcomes.success, outcomes.rephrased, outcomes.following)
        )
        steps = (rephrased > 0) & (following != MISSING) & outcomes.named[following]
        users, people = np.unique(outcomes.users[rows], return_inverse=True)
        hashes = [self.key_of(outcomes.columns.pools.people[user]) for user in users.tolist()]
        groups = Groups(
            (people, hashes),
            (outcomes.query[rows], outcomes.keys),
            (outcomes.state[rows], outcomes.keys),
            (np.where(steps, following + 1, 0), [ALL, *outcomes.keys]),
        )
        sums = (weights * success, weights * (1.0 - success), weights * np.where(steps, rephrased, 0.0))
        keys: list[Key] = [(_ENCODING, *key) for key in groups.keys]
        return {self.table.name: Sums(self.table, keys, groups.sums(self.table, sums, landmark).values, landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """See `Learner.solve`. The rows stay while nearly all that they were fitted to is there, and little else."""
        if not changed.get(self.table.name):
            return {}
        people, now = self._sampled(sums, at)
        then = sums.published(self.name, _FITTED)
        if then and msgspec.json.decode(then, type=Fitted).is_kept(now, self._half_life_ms):
            return {}
        ranker = trained(people, self.config.habits)
        sure = ranker is not None and np.isfinite(ranker.least(self.config.online_odds))
        return {ALL: msgspec.json.encode(ranker) if sure else None, _FITTED: msgspec.json.encode(now)}

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - a Learner
        """See `Learner.excess`: the rows of the highest hashes."""
        rows = sums.read(self.table, "encoding", crowded).keys
        return sorted(set(rows).difference(self._kept(rows)))

    def _kept(self, keys: Iterable[Key]) -> list[Key]:
        """Return the rows that are in the sample, sorted. A row that is not never will be, as rows are only added."""
        people = groupby(sorted(key for key in keys if key[0] == _ENCODING), itemgetter(1))
        return [key for _, own in people for key in islice(own, _MOST)][: self._size]

    def _sampled(self, sums: SumReader, at: int) -> tuple[list[Person], Fitted]:
        rows = sums.read(self.table, "encoding", [_ENCODING])
        values = dict(zip(rows.keys, rows.at(at).round(6).tolist(), strict=True))
        kept, people = self._kept(rows.keys), list[Person]()
        for name, own in groupby(kept, itemgetter(1)):
            keys = list(own)
            if len(keys) < _MOST and not (keys[-1] == kept[-1] and len(kept) == self._size):  # nothing is missing
                asked = defaultdict[tuple[str, str], Asked](Asked)
                for key in keys:
                    asked[key[2], key[3]].add(key[4], *values[key])
                people.append(Person(name, dict(asked)))
        # To three digits, which many people share: versions are kept, and readers see them.
        places = [float(f"{int(key[1], 16) / 2.0**96:.3g}") for key in kept]
        turns = [success + failure for success, failure, _ in map(values.__getitem__, kept)]
        return people, Fitted.to(places, turns, at, full=len(kept) == self._size)
