"""The order in which topics are read: together, by the time of their records.

A turn's events are spread over several topics. Reading one topic far ahead of the others keeps turns open in memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from sys import maxsize

from faust.types import TP

from backchannel.streams.kafka.record import Record


def not_ahead(left: Mapping[TP, int], reached: Mapping[TP, int], most: int) -> set[TP]:
    """Return the topic partitions that are not ahead of another topic's same partition, by the time of their records.

    A fetch returns the same number of bytes of each topic. Without this check, small records would be read hours ahead
    of large ones, and their turns would wait in memory.

    Args:
        left: the number of unread records of each topic partition.
        reached: the time of the newest record read, ms, for the topic partitions with one.
        most: the number of unread records up to which a topic partition is never held back, so that wrong clocks do
            no harm once it has caught up.
    """
    behind: dict[int, int] = {}
    for tp, records in left.items():
        if records > 0:
            behind[tp.partition] = min(behind.get(tp.partition, maxsize), reached.get(tp, 0))
    return {tp for tp, records in left.items() if records <= most or reached.get(tp, 0) <= behind[tp.partition]}


def chunks_in_turn(records: Mapping[TP, list[Record]], size: int) -> Iterable[tuple[TP, Sequence[Record]]]:
    """Yield the records of each topic partition in chunks of at most `size`, one topic partition after the other."""
    longest = max(map(len, records.values()))
    for begin in range(0, longest, size):
        for tp, of_tp in records.items():
            if begin < len(of_tp):
                yield TP(*tp), of_tp[begin : begin + size]
