"""The position of a partition: what has been read, what has been learned, and where to resume."""

from typing import Final

from msgspec import Struct

BEGINNING: Final = -(1 << 62)
"""A time before every event."""


class Identity(Struct, frozen=True):
    """The identity of an event file, which survives moving, renaming, compressing and appending.

    Attributes:
        lines: the number of lines that `marks` covers.
        marks: number of lines -> digest of that many first lines; at powers of two and at `lines`.
        order: for a file that is sorted while it is read, the digest of the lines before `TopicPosition.read`.
    """

    lines: int = 0
    marks: dict[int, str] = {}
    order: str = ""


class TopicPosition(Struct, frozen=True, omit_defaults=True):
    """The position in one topic of a partition.

    Attributes:
        read: the offset after the last record that was read.
        resume: the offset to read from after a restart; at most `read`. The records in between are re-read to rebuild
            the open turns, and do not count again.
        newest: the newest event time among the records before `read`, ms since the Unix epoch.
        identity: the identity of the event file behind the topic; None for other topics.
        dropped: offsets from `resume` on of duplicate queries, which must not open a turn when they are re-read.
        id: Kafka's id of the topic, which changes if the topic is recreated; empty if unknown.
    """

    read: int = 0
    resume: int = 0
    newest: int = BEGINNING
    dropped: tuple[int, ...] = ()
    id: str = ""
    identity: Identity | None = None


class Position(Struct, frozen=True):
    """The position of a partition: all turns that end at or before `watermark` (ms) are closed and in the ledger."""

    watermark: int = BEGINNING
    topics: dict[str, TopicPosition] = {}

    def topic(self, name: str) -> TopicPosition:
        """Return the position in topic `name`; its start if nothing was read."""
        return self.topics.get(name) or TopicPosition()


class Claim(Struct, frozen=True):
    """The right to commit for a partition, until another process claims it.

    Attributes:
        source: the name of the stream.
        number: the number of the partition.
        epoch: the epoch of this claim; later claims have higher ones.
        commits: the number of commits for the partition so far, under any claim.
        position: the position of the partition.
    """

    source: str
    number: int
    epoch: int
    commits: int
    position: Position
