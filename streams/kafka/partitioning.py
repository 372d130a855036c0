"""Whether producers agree about partitions: a session's events must be in the same partition of all topics.

Clients hash keys differently: Java's and most others' with murmur2, librdkafka's (confluent-kafka, node-rdkafka and
many more) with CRC-32 by default. Where they are mixed, most clicks are in a different partition from their queries,
and cannot be learned from.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple
from zlib import crc32

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.partitioner import murmur2

from backchannel.schemas.codec import EventDecoder, EventError
from backchannel.schemas.forms import EventConfig
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.decoding import event_decoders

SAMPLE: Final = 2_000
"""Number of the newest records of each topic to compare."""

TIMEOUT_S: Final = 10.0
"""Seconds after which the records read so far must suffice."""

PARTITIONERS: Final[Mapping[str, Callable[[bytes, int], int]]] = {
    "murmur2": lambda key, count: (murmur2(key) & 0x7FFFFFFF) % count,
    "CRC-32": lambda key, count: crc32(key) % count,
}
"""Name of a client's hash -> the function from a key and the number of partitions to a partition."""


class Sampled(NamedTuple):
    """The parts of a record that show how it was partitioned."""

    topic: str
    partition: int
    key: bytes | None
    session: str


def disagreement(records: Iterable[Sampled], partitions: int, first: str) -> str | None:
    """Return which topics disagree about the partitions of sessions, and the remedy; None if none do.

    Args:
        records: a sample of the topics' records.
        partitions: the number of partitions of each topic.
        first: the topic to compare the others with: the queries'.
    """
    places: defaultdict[str, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    keyless: Counter[str] = Counter()
    fits: defaultdict[str, Counter[str]] = defaultdict(Counter)
    keyed: Counter[str] = Counter()
    for topic, partition, key, session in records:
        places[topic][session].add(partition)
        if key is None:
            keyless[topic] += 1
        else:
            keyed[topic] += 1
            fits[topic].update(name for name, place in PARTITIONERS.items() if place(key, partitions) == partition)
    faults, disagreeing = [], []
    reference: Mapping[str, set[int]] = places.get(first, {})  # nobody may have asked yet
    for topic, sessions in places.items():
        torn = sum(len(numbers) > 1 for numbers in sessions.values())
        if torn:
            why = f", and {keyless[topic]:,} records have no key" if keyless[topic] else ""
            faults.append(f"{topic} has {torn:,} of {len(sessions):,} sessions in several partitions{why}")
        if topic == first:
            continue
        common = sessions.keys() & reference.keys()
        apart = sum(not sessions[one] & reference[one] for one in common)
        if apart:
            disagreeing.append(topic)
            faults.append(f"{apart:,} of {len(common):,} sessions are in other partitions of {topic} than of {first}")
    if not faults:
        return None
    found = {
        topic: name
        for topic in ([first, *disagreeing] if disagreeing else [])
        for name in PARTITIONERS
        if keyed[topic] and fits[topic][name] == keyed[topic]
    }
    if found:
        faults.append(", ".join(f"{topic} is partitioned by {name}" for topic, name in found.items()))
    return (
        f"{'; '.join(faults)}. A session's events must be in the same partition of all topics, or nobody learns from "
        "them: let all producers send the session id as the key, and partition by murmur2 "
        "(librdkafka: partitioner=murmur2_random), or copy the events with `backchannel topics rekey`"
    )


def sample(config: KafkaConfig, events: EventConfig, partitions: int) -> list[Sampled]:
    """Return the newest records of the event topics, with at most `SAMPLE` of each.

    Invalid events are left out. If the brokers do not answer in time, the sample is smaller.
    """
    found: list[Sampled] = []
    asyncio.run(_sample(config, event_decoders(config, events), partitions, found.append))
    return found


async def _sample(
    config: KafkaConfig, decoders: Mapping[str, EventDecoder], partitions: int, put: Callable[[Sampled], None]
) -> None:
    consumer = AIOKafkaConsumer(
        **config.client_settings(asynchronous=True), isolation_level=config.isolation, enable_auto_commit=False
    )
    await consumer.start()
    try:
        logs = [TopicPartition(name, number) for name in config.event_topics.values() for number in range(partitions)]
        consumer.assign(logs)
        starts, ends = await consumer.beginning_offsets(logs), await consumer.end_offsets(logs)
        left = {}
        for log, end in ends.items():
            begin = max(starts[log], end - max(SAMPLE // partitions, 1))
            consumer.seek(log, begin)
            if begin < end:
                left[log] = end
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        while left and asyncio.get_running_loop().time() < deadline:
            for log, records in (await consumer.getmany(*left, timeout_ms=500)).items():
                for record in records:
                    try:
                        session = decoders[log.topic].decode(record.value or b"").session_id
                    except EventError:
                        continue
                    put(Sampled(log.topic, log.partition, record.key, session))
            left = {log: end for log, end in left.items() if await consumer.position(log) < end}
    finally:
        await consumer.stop()
