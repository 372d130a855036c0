"""What learners from labels share: sums of labelled turns by fold of people, and of all turns by kind and value."""

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final
from zlib import crc32

import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.labelled.kinds import KINDS, ROOM, excess, groups_of
from backchannel.agents.labelled.ridge import LabelSums
from backchannel.agents.learner import Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Delta, Floats, Integers, Key, SumReader, Sums, SumTable

FOLDS: Final = 5
_DAY_MS: Final = 86_400_000


class LabelLearner(Learner):
    """A learner whose labels, few, are of some turns, and which tells about all turns.

    Args:
        labels: the table of labels, and their half-life in days.
        turns: the table of turns, and their half-life in days.

    Attributes:
        encoding: the encoding of vectors: those of another one mean something else, and are kept apart.
        width: the length of a vector.
        points: the number of values that a label can have.
        labels: sums of labelled turns, by encoding and fold of people; see `ridge.LabelSums`.
        turns: sums of turns, by encoding, kind and value; the first one is the number of turns.
    """

    encoding: ClassVar[str]
    width: ClassVar[int]
    points: ClassVar[int]

    def __init__(self, labels: tuple[str, float], turns: tuple[str, float]) -> None:
        (own, own_days), (every, days) = labels, turns
        self.labels: Final = SumTable(
            name=own, key=(("encoding", str), ("fold", int)), half_life_ms=round(own_days * _DAY_MS)
        )
        self.turns: Final = SumTable(
            name=every, key=(("encoding", str), ("kind", str), ("value", str)), half_life_ms=round(days * _DAY_MS)
        )
        self.tables = (self.labels, self.turns)
        self.bound = (self.turns, ROOM)

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:
        """See `Learner.excess`: the values with the fewest turns."""
        return excess(sums, self.turns, crowded, at)

    def folds(self, sums: SumReader, at: int, without: int | None = None) -> list[LabelSums]:
        """Return the sums of labelled turns of each fold of people, decayed to `at` (event time, ms).

        Args:
            sums: the sums of all turns so far.
            at: the event time (ms) that sums are decayed to.
            without: a fold to leave out, see `fold_of`.
        """
        stored = sums.read(self.labels, "encoding", [self.encoding])
        rows = sorted((key, row) for key, row in zip(stored.keys, stored.at(at), strict=True) if key[1] != without)
        return [LabelSums.unpacked(row, self.width, self.points) for _, row in rows]

    def _labelled(self, outcomes: Outcomes, rows: Integers, sums_of: Callable[[Integers, Floats], LabelSums]) -> Delta:
        """Return the sums of labelled turns.

        Args:
            outcomes: the turns.
            rows: indexes of the labelled turns, (labelled,).
            sums_of: the sums over some of these, from their indexes in `rows` and the weights of their times.
        """
        times = outcomes.times[rows]
        landmark = self.labels.landmark(int(times.max()))
        weights = self.labels.weights(times, landmark)
        people = np.array([fold_of(name) for name in outcomes.columns.pools.people], dtype=np.int64)
        folds = people[outcomes.people[rows]]
        keys = np.unique(folds).tolist()
        own = (np.flatnonzero(folds == fold) for fold in keys)
        packed = np.array([sums_of(some, weights[some]).packed() for some in own])
        return {self.labels.name: Sums(self.labels, [(self.encoding, fold) for fold in keys], packed, landmark)}

    def _by_kind(self, columns: Columns, sums_of: Callable[[Integers, int, Floats], Floats]) -> Delta:
        """Return the sums of turns by each kind's values.

        Args:
            columns: the turns.
            sums_of: the sums of each of a kind's values, (values, sums), from the index of each turn's value, the
                number of values, and the weights of the turns' times.
        """
        times = columns.turns.query.ts
        landmark = self.turns.landmark(int(times.max()))
        weights = self.turns.weights(times, landmark)
        keys: list[Key] = []
        found = []
        whole = sums_of(np.zeros(len(columns), dtype=np.int64), 1, weights)
        for kind, known, places in groups_of(columns):
            # The only value of a kind, as most have one at most, has the sums of all turns.
            rows = whole if len(known) == 1 else sums_of(places, len(known), weights)
            for value, row in zip(known, rows, strict=True):
                if value or kind == KINDS[0]:
                    keys.append((self.encoding, kind, value))
                    found.append(row)
        return {self.turns.name: Sums(self.turns, keys, np.array(found), landmark)}


def fold_of(person: str) -> int:
    """Return the fold of a user or, without a `user_id`, of a session, from 0 below FOLDS."""
    return crc32(person.encode(errors="surrogatepass")) % FOLDS
