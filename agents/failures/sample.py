"""A bounded sample of labelled turns, for learners that are no sums; see `challenger`.

A row is one turn: its evidence, which is what the ridge learns from, and the sums of its labels. The turns of the
lowest hashes are kept (bottom-k; Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007). So the sample
is a sum: whichever rows are dropped on the way, the lowest are the same.

Persons and sessions are kept, too, so that turns can be told by what was learned from other people. They are hashed,
without a secret: whoever knows or guesses an id can find its rows.
"""

from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np

from backchannel.agents.columnar.columns import Columns
from backchannel.agents.failures.evidence import ENCODING, WIDTH, evidence, vectors
from backchannel.agents.failures.learner import POINTS, FailureConfig
from backchannel.agents.labelled.labels import labels_of
from backchannel.agents.learner import Changed, Learner
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sketches import mixed
from backchannel.agents.sums import USER, Delta, Floats, Integers, Key, SumReader, Sums, SumTable


class LabelledTurns(NamedTuple):
    """Labelled turns.

    Attributes:
        vectors: their evidence, (turns, WIDTH).
        labels: the weight (decayed) of each failure point's labels, (turns, POINTS); of labellers who disagree each
            has an equal share.
        people: the hash of each turn's user, or of its session without one, (turns,).
        sessions: the number of each turn's session, (turns,).
    """

    vectors: Floats
    labels: Floats
    people: list[str]
    sessions: list[int]


class LabelSample(Learner):
    """The learner of the sample. It publishes nothing.

    Its table holds, by encoding of the evidence, hash of the turn, person (a user, or a session without one), session
    and evidence: the weight of the labels of each failure point.
    """

    name = "labelled_turns"
    serving = None
    salt = name

    def __init__(self, config: FailureConfig) -> None:
        self.table: Final = SumTable(
            name=self.name,
            key=(("encoding", str), ("turn", int), (USER, str), ("session", int), ("evidence", str)),
            sums=POINTS,
            half_life_ms=round(config.labels_half_life_days * 86_400_000),
        )
        self.tables = (self.table,)
        self.bound = (self.table, config.sampled)
        self._size: Final = config.sampled

    @classmethod
    def configured(cls, config: Any) -> Self:
        """See `Learner.configured`."""
        return cls(config.failures)

    @classmethod
    def is_wanted(cls, config: Any) -> bool:
        """See `Learner.is_wanted`: if `failures.sampled` is above 0."""
        return bool(config.failures.sampled)

    def learn(self, outcomes: Outcomes) -> Delta:
        """See `Learner.learn`."""
        rows, labels = labels_of(outcomes.columns, "failure_point", POINTS)
        if not len(rows):
            return {}
        columns, names = outcomes.columns.take(rows), outcomes.columns.pools.people
        keys = zip(
            [ENCODING] * len(rows),
            hashes_of(columns).tolist(),
            [self.key_of(names[code]) for code in outcomes.people[rows].tolist()],
            columns.turns.query.session_hash.tolist(),
            _texts(vectors((one.values() for one in evidence(columns)), len(rows))),
            strict=True,
        )
        places: dict[Key, int] = {}
        place = [places.setdefault(key, len(places)) for key in keys]
        landmark = self.table.landmark(int(outcomes.times[rows].max()))
        weights = self.table.weights(outcomes.times[rows], landmark)
        values = np.zeros((len(places), len(POINTS)))
        np.add.at(values, place, labels * weights[:, np.newaxis])
        return {self.table.name: Sums(self.table, list(places), values, landmark)}

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:  # noqa: ARG002 - a Learner
        """See `Learner.solve`: nothing is published."""
        return {}

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - a Learner
        """See `Learner.excess`: the turns of the highest hashes."""
        return [
            key
            for encoding in sorted(crowded)
            for key in sorted(sums.read(self.table, "encoding", [encoding]).keys)[self._size :]
        ]

    def turns(self, sums: SumReader, at: int) -> LabelledTurns:
        """Return the sampled turns, with labels decayed to `at` (event time, ms)."""
        stored = sums.read(self.table, "encoding", [ENCODING])
        keys = sorted(stored.keys)[: self._size]
        place = {key: row for row, key in enumerate(stored.keys)}
        return LabelledTurns(
            _vectors([key[4] for key in keys]),
            stored.at(at)[[place[key] for key in keys]],
            [key[2] for key in keys],
            [key[3] for key in keys],
        )


def hashes_of(columns: Columns) -> Integers:
    """Return the hash of each turn, (turns,), at least 0: those of the lowest ones are sampled."""
    return (mixed(columns.turns.query.hash.astype(np.uint64)) >> np.uint64(1)).astype(np.int64)


def _texts(found: Floats) -> list[str]:
    """Return vectors of zeros and ones, (turns, WIDTH), a bit for each number, as texts."""
    return [b64encode(bits).decode() for bits in np.packbits(found.astype(bool), axis=1)]


def _vectors(texts: Sequence[str]) -> Floats:
    """Return the vectors that `_texts` made texts."""
    packed = np.frombuffer(b"".join(map(b64decode, texts)), dtype=np.uint8).reshape(len(texts), -(-WIDTH // 8))
    return np.unpackbits(packed, axis=1, count=WIDTH).astype(float)
