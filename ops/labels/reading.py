"""The closed turns of event files, a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.pipeline.sources import Sources
from backchannel.streams.turns.accounts import LOST
from backchannel.streams.turns.assembler import TurnAssembler

_BATCH: Final = 2_000
"""The largest number of turns at once: bounds memory, as the evidence of a turn has about 1,000 numbers."""


class Losses(Struct):
    """The number of events that are in no turn: invalid, late, or without a query."""

    count: int = 0


def closed_turns(
    paths: Sequence[str], config: Config, losses: Losses, progress: Callable[[float], None] = lambda _: None
) -> Iterator[list[Turn]]:
    """Yield the closed turns of files, which are merged by time, in batches.

    Args:
        paths: paths of event files in time order.
        config: the configuration of turns and events.
        losses: filled in at the end.
        progress: called with the share of the files that was read; never for pipes.

    Raises:
        SourceError: a file cannot be read, or is empty.
        TooManyOpenError: more turns are open than the configuration allows.
    """
    decoder = EventDecoder(config=config.events)
    with Sources(paths, decoder) as sources:
        sources.resume({})
        assembler = TurnAssembler(sources.topics, config.turns)
        for topic, chunk in sources.read({}, assembler.newest, lambda: False):
            if chunk is not None:
                decoded = decoder.decode_many(chunk.lines)
                losses.count += sum(isinstance(event, EventError) for event in decoded)
                events = [None if isinstance(event, EventError) else event for event in decoded]
                assembler.add(topic, chunk.offsets, events)
                if sources.size:
                    progress(sources.consumed / sources.size)
            yield from _batches(assembler.advance(sources.ended))
        yield from _batches(assembler.finish())
        losses.count += sum(assembler.counts[name] for name in LOST if name in assembler.counts)


def _batches(turns: Sequence[Turn]) -> Iterator[list[Turn]]:
    for first in range(0, len(turns), _BATCH):
        yield list(turns[first : first + _BATCH])
