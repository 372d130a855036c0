"""What takes the records of the transport: a receiver decides where to resume, takes chunks, and makes them durable."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from faust.types import TP

from backchannel.schemas.errors import BackchannelError
from backchannel.streams.kafka.record import Record


class LogError(BackchannelError, RuntimeError):
    """A topic partition no longer holds the records to read next. The message names it and the offsets."""


class LogBounds(NamedTuple):
    """The offsets that a topic partition holds: from `start` up to, but excluding, `end`."""

    start: int
    end: int


class Chunk(NamedTuple):
    """Consecutive records of one topic partition, in log order."""

    tp: TP
    records: Sequence[Record]
    ack: Callable[[], None]
    """To be called once the chunk is durable. Lag tools see the partition's longest prefix of acked chunks."""


class Receiver(Protocol):
    """What a worker does with the records. All three methods are awaited in Faust's event loop."""

    async def resume(self, bounds: Mapping[TP, LogBounds]) -> Mapping[TP, int]:
        """Return the offset to read from for each topic partition of a new assignment.

        Awaited on every assignment, before its first chunk; everything held from an earlier assignment is void.
        `bounds` tell whether the records to read next still exist. It is cancelled and called again if the assignment
        changes meanwhile, and has 0.9 of Faust's request timeout, 81 s. An error ends the worker.
        """

    async def receive(self, chunk: Chunk) -> None:
        """Take a chunk. The next one comes when this returns, so waiting here holds back consumption.

        Chunks of one topic partition come in order, without gaps. A chunk that was taken before a change of
        assignment may still be waiting here when `resume` is called, so change state before the first await. An error
        ends the worker.
        """

    async def flush(self) -> None:
        """Make everything received durable, and ack it. Until the next `resume` no partition is assigned.

        Awaited when partitions are revoked, and twice when the worker stops; also while a `receive` is waiting. It is
        cancelled if it takes longer than the group would wait. An error ends the worker.
        """
