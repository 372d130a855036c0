"""What happened to each record: an account that must balance."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from backchannel.schemas.events import EVENT_TYPES

LOST: Final = ("late", "orphan", "dead_letter")
"""The counts of records that were received and not learned."""

FIELD_DROPPED: Final = "field_dropped:"
"""Prefix of the counts of values that were left out of events, before the name of the field."""

ANSWERED: Final = "answered:"
"""Prefix of the counts of answers to questions, before the kind of question."""


def counted_by_name(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Return the counts whose names begin with `prefix`, by the rest of the name."""
    return {
        name.removeprefix(prefix): count for name, count in sorted(counts.items()) if name.startswith(prefix) and count
    }


class Account(Struct, frozen=True):
    """What happened to the received records, by the ledger's counters.

    Attributes:
        received: events and dead letters.
        learned: events of turns that have closed.
        open: events of turns that have not closed yet.
        duplicates: events seen before.
        late: events whose turn had already closed.
        orphans: events without a turn.
        dead_letters: invalid records.
        dropped: field -> number of its optional values that were unusable, and left out of accepted events.
    """

    received: int
    learned: int
    open: int
    duplicates: int
    late: int
    orphans: int
    dead_letters: int
    dropped: dict[str, int]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Account":
        """Return the account of some counts; see `Assembler.counts`."""
        dead = counts.get("dead_letter", 0)
        return cls(
            received=sum(counts.get(name, 0) for name in EVENT_TYPES) + dead,
            learned=counts.get("learned", 0),
            open=counts.get("open", 0),
            duplicates=counts.get("duplicate", 0),
            late=counts.get("late", 0),
            orphans=counts.get("orphan", 0),
            dead_letters=dead,
            dropped=counted_by_name(counts, FIELD_DROPPED),
        )

    @property
    def lost(self) -> int:
        """The number of records that were received and not learned."""
        return self.late + self.orphans + self.dead_letters

    @property
    def share_lost(self) -> float:
        """The share of records that were received and not learned; 0 if none were received."""
        return self.lost / self.received if self.received else 0.0

    @property
    def unaccounted(self) -> int:
        """The number of records that are in no count: 0 unless there is a bug."""
        return self.received - self.learned - self.open - self.duplicates - self.lost
