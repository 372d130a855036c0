"""The order in which events are copied to topics keyed by session."""

from collections import deque

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from backchannel.schemas.codec import EventError
from backchannel.streams.kafka import rekeying
from backchannel.streams.kafka.rekeying import Waiting, merged

LOGS = [TopicPartition("queries", 0), TopicPartition("queries", 1), TopicPartition("clicks", 0)]


def queues(*times: list[int]) -> dict[TopicPartition, deque[Waiting]]:
    return {
        log: deque(Waiting(time, None, EventError("")) for time in own) for log, own in zip(LOGS, times, strict=True)
    }


def times(batch: list[Waiting]) -> list[int]:
    return [one.time for one in batch]


@given(st.tuples(*[st.lists(st.integers(0, 50), max_size=20).map(sorted)] * 3), st.sets(st.sampled_from(LOGS)))
def test_nothing_is_taken_that_something_unread_may_precede(
    own: tuple[list[int], ...], unread: set[TopicPartition]
) -> None:
    waiting = queues(*own)
    taken = times(merged(waiting, unread))
    assert taken == sorted(taken)
    left = [one.time for queue in waiting.values() for one in queue]
    assert sorted(taken + left) == sorted(time for one in own for time in one)
    for log, mine in zip(LOGS, own, strict=True):
        if log in unread:
            assert all(time <= (mine[-1] if mine else -1) for time in taken)
    if not unread:
        assert not left


def test_a_batch_is_bounded_and_the_rest_stays_in_order() -> None:
    waiting = queues(list(range(rekeying.BATCH)), [5], [])
    first, second = times(merged(waiting, set())), times(merged(waiting, set()))
    assert len(first) == rekeying.BATCH
    assert sorted(first + second) == first + second
