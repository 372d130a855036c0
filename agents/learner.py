"""The contract of a learner."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from backchannel.agents.outcomes import Outcomes
from backchannel.agents.serving import Serving
from backchannel.agents.sums import Delta, Key, SumReader, Sums, SumTable

Changed = Mapping[str, Collection[str]]
"""Table name -> the values of the first key column whose rows changed."""


TOGETHER: Final = 20_000
"""Key values solved per portion, to bound memory."""


def portions_of(table: SumTable, values: Collection[str], together: int) -> Iterator[Changed]:
    """Yield `values` of the first key column of a table in portions of at most `together`; at least one portion."""
    ordered = sorted(values)
    for first in range(0, len(ordered) or 1, together):
        yield {table.name: ordered[first : first + together]}


class Learner(ABC):
    """Closed turns -> a delta of sums; sums -> a section of the policy.

    A learner holds its configuration and nothing else: `learn` and `solve` are pure. However the turns are split over
    batches and workers and in whatever order they come, the merged deltas are the same.

    Attributes:
        name: of its section of the policy; that of what serves it.
        serving: what serves its section; None if it publishes nothing.
        tables: of its sums.
        bound: one of them, and how many rows the ledger keeps of it for a value of its first key column; None: all.
    """

    name: ClassVar[str]
    serving: ClassVar[type[Serving] | None]
    tables: Sequence[SumTable]
    bound: tuple[SumTable, int] | None = None

    @classmethod
    def configured(cls, config: Any) -> Self:  # noqa: ARG003 - for those that take something
        """Return the learner of a whole configuration, see `registry.LearningConfig`."""
        return cls()

    @classmethod
    def is_wanted(cls, config: Any) -> bool:  # noqa: ARG003 - for those that are not always
        """Return whether a configuration asks for it."""
        return True

    @abstractmethod
    def learn(self, outcomes: Outcomes) -> Delta:
        """Return what `outcomes` add; of none, an empty delta."""

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:  # noqa: ARG002 - for large ones
        """Split what changed into portions, at least one, each of which `solve` can be given by itself.

        Args:
            changed: table -> values of its first key column.
            together: the most values in a portion, to bound memory.
        """
        yield changed

    @abstractmethod
    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """Return the rows of the section that may differ from the last time: key -> JSON, or None to remove it.

        Args:
            sums: where to read the sums.
            changed: what changed in them since the last time. Before the first time, all tables, with no changes.
            at: event time (ms) as of which to forget.
        """

    def compact(self, sums: Sums, at: int) -> Mapping[Key, Key | None]:  # noqa: ARG002 - for those who have packed sums
        """Return which of all rows of packed sums to add to another as of `at` (ms), or to drop.

        Returns:
            old key -> the key it becomes; None: it has faded.
        """
        return {}

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - for those who have a bound
        """Return which rows of `bound`'s table to drop as of `at` (ms): as many as those of `crowded` are too many."""
        return ()
