"""Where a partition stands: what has been read, what has been learned, and from where to resume."""

from typing import Final

from msgspec import Struct

BEGINNING: Final = -(1 << 62)
"""A time before every event."""


class TopicPosition(Struct, frozen=True):
    """One topic of a partition.

    Attributes:
        read: the offset after the last record that was read.
        resume: the offset to read from after a restart; at most `read`. What lies between is read once more to
            rebuild the open turns, and counts no second time.
        newest: the newest event time among the records before `read`, in ms.
        dropped: offsets from `resume` on of duplicate queries, which must not open a turn when they are read again.
    """

    read: int = 0
    resume: int = 0
    newest: int = BEGINNING
    dropped: tuple[int, ...] = ()


class Position(Struct, frozen=True):
    """A partition: all turns that end at or before `watermark` (ms) are closed, and in the ledger with it."""

    watermark: int = BEGINNING
    topics: dict[str, TopicPosition] = {}

    def topic(self, name: str) -> TopicPosition:
        """Return where topic `name` stands: at its start, when nothing of it was read."""
        return self.topics.get(name) or TopicPosition()


class Claim(Struct, frozen=True):
    """The right to commit for a partition, until somebody else claims it.

    Attributes:
        source: the stream that the partition is of.
        number: of the partition.
        epoch: of this claim; a later claim has a higher one.
        commits: made for the partition so far, under any claim.
        position: where the partition stands.
    """

    source: str
    number: int
    epoch: int
    commits: int
    position: Position
