"""Producers that partition differently are found out, and what to set is said."""

import pytest

from backchannel.streams.kafka.partitioning import PARTITIONERS, Sampled, disagreement

KEYS = [f"session-{number}" for number in range(200)]


def records(topic: str, partitioner: str, *, key: bool = True) -> list[Sampled]:
    place = PARTITIONERS[partitioner]
    return [Sampled(topic, place(one.encode(), 8), one.encode() if key else None, one) for one in KEYS]


def test_murmur2_is_what_java_has() -> None:
    """Values of Kafka's own UtilsTest."""
    of = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for key, value in of.items():
        assert PARTITIONERS["murmur2"](key, 1000) == (value & 0x7FFFFFFF) % 1000


@pytest.mark.parametrize("partitioner", PARTITIONERS)
def test_producers_that_agree_are_left_alone(partitioner: str) -> None:
    sampled = records("queries", partitioner) + records("clicks", partitioner, key=False)
    assert disagreement(sampled, 8, "queries") is None
    assert disagreement([], 8, "queries") is None
    assert disagreement(records("clicks", "murmur2"), 8, "queries") is None


def test_producers_that_disagree_are_named_with_the_remedy() -> None:
    sampled = records("queries", "murmur2") + records("clicks", "CRC-32") + records("impressions", "murmur2")
    found = disagreement(sampled, 8, "queries") or ""
    assert "of 200 sessions are in other partitions of clicks than of queries" in found
    assert "queries is partitioned by murmur2, clicks is partitioned by CRC-32" in found
    assert "impressions" not in found
    assert "partitioner=murmur2_random" in found


def test_events_without_keys_are_named() -> None:
    sampled = [Sampled("clicks", number % 8, None, KEYS[number % 50]) for number in range(200)]
    found = disagreement(records("queries", "murmur2") + sampled, 8, "queries") or ""
    assert "clicks has 50 of 50 sessions in several partitions, and 200 records have no key" in found
