"""The partitions of an assignment, as the assembling process holds them: chunks become batches, packed for learning."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec import Struct

from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Teach
from backchannel.schemas.forms import EventConfig
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.decoding import event_decoders
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import DeadLetter, Partition, PartitionState
from backchannel.streams.turns.position import Claim
from backchannel.streams.worker.packing import packed


class Records(Struct, frozen=True):
    """A chunk, as it is sent to the process that holds its partition.

    Attributes:
        number: the number of the partition.
        topic: the topic.
        offsets: the records' offsets, ascending.
        values: the raw records.
        appended: when the broker appended the records; see `TurnAssembler.add`.
    """

    number: int
    topic: str
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    appended: Sequence[int] | None


class Added(Struct, frozen=True):
    """What came of chunks.

    Attributes:
        dead: the invalid events of each chunk that were not read before.
        taught: what the chunks taught that was not read before.
        states: the states of their partitions after them, by number.
    """

    dead: list[list[DeadLetter]]
    taught: list[Teach]
    states: dict[int, PartitionState]


class Ends(Struct, frozen=True):
    """What is known of the ends of a partition's logs; see `TurnAssembler.advance`.

    Attributes:
        caught_up: topics that were read to their end.
        newest: topic -> the newest event time (ms) when it was asked where they end.
        quiet: whether to close all open turns, since nothing has come for long.
    """

    caught_up: Collection[str]
    newest: Mapping[str, int]
    quiet: bool


class Partitions:
    """The partitions of one assignment.

    Args:
        topics: topic name -> the decoder of its records.
        turns: the configuration of turns.
        operators: who may teach for everyone.
    """

    def __init__(self, topics: Mapping[str, EventDecoder], turns: TurnConfig, operators: Collection[str] = ()) -> None:
        self._topics: Final = topics
        self._turns: Final = turns
        self._operators: Final = operators
        self._partitions: dict[int, Partition] = {}

    def assign(self, claims: Sequence[Claim]) -> dict[int, PartitionState]:
        """Hold the partitions of `claims`, each at its claim's position, and no others; return their states."""
        self._partitions = {
            claim.number: Partition(claim, self._topics, self._turns, self._operators) for claim in claims
        }
        return self._states()

    def add(self, chunks: Sequence[Records], now: int) -> Added:
        """Add chunks in order, and close the turns that each ends; see `Partition.add`, also for the errors."""
        dead, taught = [], list[Teach]()
        for chunk in chunks:
            partition = self._partitions[chunk.number]
            dead.append(partition.add(chunk.topic, chunk.offsets, chunk.values, now, chunk.appended))
            partition.advance(now=now)
            taught += partition.take_taught()
        return Added(
            dead, taught, {number: self._partitions[number].state for number in {one.number for one in chunks}}
        )

    def advance(self, ends: Mapping[int, Ends], now: int) -> dict[int, PartitionState]:
        """Advance the watermarks of all partitions, given the ends of their logs; return their states.

        Args:
            ends: partition -> what is known of its logs.
            now: wall clock, ms since the Unix epoch.
        """
        for number, known in ends.items():
            partition = self._partitions[number]
            partition.advance(known.caught_up, known.newest, now)
            if known.quiet:
                partition.finish(now)
        return self._states()

    def batches(self, claims: Sequence[Claim]) -> bytes:
        """Return the batches of the partitions of `claims`, to be committed with these, as `packed` packs them.

        Raises:
            RuntimeError: one of the partitions is still being rebuilt.
        """
        for claim in claims:
            self._partitions[claim.number].claim = claim
        return packed([self._partitions[claim.number].batch() for claim in claims])

    def _states(self) -> dict[int, PartitionState]:
        return {number: partition.state for number, partition in self._partitions.items()}


def assembled(kafka: KafkaConfig, events: EventConfig, turns: TurnConfig, operators: Collection[str]) -> Partitions:
    """Return partitions of the topics of `kafka`, none for now; see `event_decoders` for the errors."""
    return Partitions(event_decoders(kafka, events), turns, operators)
