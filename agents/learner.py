"""The contract of a learner."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from backchannel.agents.outcomes import Outcome
from backchannel.agents.sums import Delta, Key, SumReader, SumTable

Changed = Mapping[str, Collection[str]]
"""Table name -> the values of the first key column whose rows changed."""


class Learner(Protocol):
    """Closed turns -> a delta of sums; sums -> a section of the policy.

    A learner holds its configuration and nothing else: `learn` and `solve` are pure. However the turns are split over
    batches and workers and in whatever order they come, the merged deltas are the same.
    """

    @property
    def name(self) -> str:
        """The name of its section."""

    @property
    def tables(self) -> Sequence[SumTable]:
        """The tables of its sums."""

    def learn(self, outcomes: Sequence[Outcome]) -> Delta:
        """Return what `outcomes` add; of none, an empty delta."""

    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """Return the rows of the section that may differ from the last time: key -> JSON, or None to remove it.

        Args:
            sums: where to read the sums.
            changed: what changed in them since the last time.
            at: event time (ms) as of which to forget.
        """

    def compact(self, table: SumTable, keys: Iterable[Key], at: int) -> dict[Key, Key]:
        """Return the rows that may be added to another: old key -> the key it becomes."""
