"""What became of every record: the account that must balance."""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from backchannel.schemas.events import EVENT_TYPES

LOST: Final = ("late", "orphan", "dead_letter")
"""The counts of what was received and not learned."""

FIELD_DROPPED: Final = "field_dropped:"
"""How the counts begin of values that were left out of events; the name of the field follows."""


def counted_by_name(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Return the counts whose names begin with `prefix`, by what follows."""
    return {
        name.removeprefix(prefix): count for name, count in sorted(counts.items()) if name.startswith(prefix) and count
    }


class Account(Struct, frozen=True):
    """What became of the records that were received, by the ledger's counters.

    Attributes:
        received: events and dead letters.
        learned: events of turns that have closed.
        open: events of turns that have not closed yet.
        duplicates: events seen before.
        late: events whose turn had already closed.
        orphans: events without a turn.
        dead_letters: invalid records.
        dropped: field -> optional values of it that could not be used, and were left out of events that were taken.
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
        """Return the account of what was counted; see `Assembler.counts`."""
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
        """The number of records of which nobody knows what became: 0, or there is a bug."""
        return self.received - self.learned - self.open - self.duplicates - self.lost
