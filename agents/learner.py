"""The contract of a learner."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Final, Self

from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.serving import Serving
from backchannel.agents.sums import Delta, Key, SumReader, SumTable

Changed = Mapping[str, Collection[str]]
"""Table name -> the values of the first key column whose rows changed."""

TOGETHER: Final = 1_000
"""Key values solved per portion, to bound memory."""


def portions_of(table: SumTable, values: Collection[str], together: int) -> Iterator[Changed]:
    """Yield `values` of the first key column of a table in portions of at most `together`; at least one portion."""
    ordered = sorted(values)
    for first in range(0, len(ordered) or 1, together):
        yield {table.name: ordered[first : first + together]}


@cache
def _salted(salt: str) -> "hashlib.blake2b":
    """Return a hash that has begun with the salt; a copy of it takes half as long as another one."""
    return hashlib.blake2b(f"{salt}\0".encode(errors="surrogatepass"), digest_size=12)


def hash_of(salt: str, user: str) -> str:
    """Return the salted hash of a user: 96 bits, as hex."""
    salted = _salted(salt).copy()
    salted.update(user.encode(errors="surrogatepass"))
    return salted.hexdigest()


class Learner(ABC):
    """Closed turns -> a delta of sums; sums -> a section of the policy.

    A learner holds its configuration and nothing else: `learn` and `solve` are pure. The merged deltas do not depend on
    how turns are split over batches and workers, nor on their order.

    Attributes:
        name: the section of the policy that it publishes; the same as its serving half's.
        serving: the class that serves the section; None if it publishes nothing.
        tables: the tables that hold its sums.
        bound: a table, and the number of rows that the ledger keeps in it per value of the first key column; None if
            nothing is bounded.
        keep: a table, its key column that holds a time (ms), and the age (ms) from which its rows are dropped; None if
            age drops nothing. What is that old must not affect the section.
        salt: what users are hashed with in the tables kept by user; None if they are not. If they are, no row of the
            section is about a single user.
        fitted: the rows of the section that are fitted to the rows of a few users, and kept while these change. They
            are erased with any user, and made anew.
    """

    name: ClassVar[str]
    serving: ClassVar[type[Serving] | None]
    tables: Sequence[SumTable]
    bound: tuple[SumTable, int] | None = None
    keep: tuple[SumTable, str, int] | None = None
    salt: str | None = None
    fitted: Sequence[str] = ()

    @classmethod
    def configured(cls, config: Any) -> Self:  # noqa: ARG003 - for overrides
        """Return the learner for a whole configuration (see `registry.LearningConfig`)."""
        return cls()

    @classmethod
    def is_wanted(cls, config: Any) -> bool:  # noqa: ARG003 - for overrides
        """Return whether a configuration asks for this learner."""
        return True

    def key_of(self, user: str) -> str:
        """Return the key of a user's rows in the tables kept by user: the `user_id`, or its hash of 96 bits, as hex."""
        return user if self.salt is None else hash_of(self.salt, user)

    @property
    def is_personal(self) -> bool:
        """Whether rows of the section are about single users, under their ids."""
        return self.serving is not None and self.salt is None and any(table.by_user for table in self.tables)

    @abstractmethod
    def learn(self, outcomes: Outcomes) -> Delta:
        """Return the delta contributed by `outcomes`; empty if there are none."""

    def portions(self, changed: Changed, together: int = TOGETHER) -> Iterator[Changed]:  # noqa: ARG002 - for overrides
        """Split the changes into one or more portions, each of which can be solved by itself.

        Args:
            changed: the changed values of the first key column, by table.
            together: maximum number of values in a portion, to bound memory.
        """
        yield changed

    @abstractmethod
    def solve(self, sums: SumReader, changed: Changed, at: int) -> dict[str, bytes | None]:
        """Return the rows of the section that may have changed: key -> JSON, or None for a row to remove.

        Args:
            sums: the sums of all turns so far.
            changed: the changes since the section was last solved. Before the first time it names all tables, with no
                values.
            at: the event time (ms) that sums are decayed to.
        """

    def compact(
        self,
        table: SumTable,  # noqa: ARG002 - for overrides
        keys: Sequence[Key],  # noqa: ARG002
        sums: SumReader,  # noqa: ARG002
        at: int,  # noqa: ARG002
    ) -> Mapping[Key, Key | None]:
        """Return the rows of a packed table to add to another row, or to drop.

        Args:
            table: the table.
            keys: the keys of all its rows. Those of an earlier configuration may be longer or shorter.
            sums: the sums of all turns so far.
            at: the event time to compact at, ms.

        Returns:
            The key of each such row -> the key of the row it is added to; None to drop it.
        """
        return {}

    def excess(self, sums: SumReader, crowded: Collection[str], at: int) -> Sequence[Key]:  # noqa: ARG002 - for overrides
        """Return the rows to drop: enough to bring every crowded value back to its bound.

        Args:
            sums: the sums of all turns so far.
            crowded: values of the first key column that have more rows than `bound` allows.
            at: the event time (ms) that sums are decayed to.
        """
        return ()
