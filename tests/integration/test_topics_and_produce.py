"""Topics and `backchannel produce` against a real broker."""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from backchannel.ops.commands.topics import create_topics
from backchannel.ops.lab.load import mixed_stream
from backchannel.ops.local.broker import Broker
from backchannel.schemas.codec import EventDecoder, encode
from backchannel.schemas.events import name_of
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.partitioning import PARTITIONERS
from backchannel.streams.kafka.topics import TopicError, admin_client, check_topics, delete_topics, topic_ids
from tests.integration.workers import records_of

EVENTS = [
    {"type": "query", "event_id": "1", "ts": 1000, "session_id": "s", "query_id": "q", "text": "hi", "new_field": 1},
    {"type": "click", "event_id": "2", "ts": 2000, "session_id": "s", "query_id": "q", "entity_id": "e"},
    {"type": "click", "event_id": "3", "ts": 3000, "session_id": "t", "query_id": "r", "entity_id": "e"},
]


def backchannel(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process, as people do."""
    return subprocess.run(
        [sys.executable, "-m", "backchannel", *arguments], capture_output=True, text=True, check=False
    )


def refusal(config: KafkaConfig) -> str:
    """Return why the check fails, once it does: a change of topics takes a moment to be visible."""
    for _ in range(100):
        try:
            check_topics(config)
        except TopicError as error:
            return str(error)
        time.sleep(0.1)
    pytest.fail("the check passed")


def test_created_topics_pass_the_check_and_are_left_alone(kafka: KafkaConfig) -> None:
    assert check_topics(kafka) == 4
    assert create_topics(kafka, partitions=4) == create_topics(kafka, partitions=None) == []
    with pytest.raises(TopicError, match="not have 7 partitions"):
        create_topics(kafka, partitions=7)
    assert check_topics(kafka) == 4


def test_missing_topics_are_named(kafka: KafkaConfig) -> None:
    with admin_client(kafka) as admin:
        admin.delete_topics([kafka.event_topics["click"]])
    assert refusal(kafka).startswith(f"missing: {kafka.event_topics['click']}; `backchannel topics create`")


def test_a_topic_that_is_created_anew_has_another_id(kafka: KafkaConfig) -> None:
    before = topic_ids(kafka)
    assert before.keys() == set(kafka.event_topics.values())
    delete_topics(kafka)
    assert "missing: " in refusal(kafka)
    create_topics(kafka, partitions=4)
    after = topic_ids(kafka)
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())


def test_a_compacted_event_topic_is_refused(kafka: KafkaConfig) -> None:
    with admin_client(kafka) as admin:
        topic = ConfigResource(ConfigResourceType.TOPIC, kafka.event_topics["click"], {"cleanup.policy": "compact"})
        admin.alter_configs([topic])
    assert refusal(kafka).startswith(f"{kafka.event_topics['click']}: compacted")


def test_producers_that_disagree_about_partitions_are_found_out(kafka: KafkaConfig, tmp_path: Path) -> None:
    def produce(event: str, partitioner: str) -> None:
        place = PARTITIONERS[partitioner]
        own = {"text": "jazz", "entity_id": "a", "results": [{"entity_id": "a", "position": 1}]}
        with KafkaProducer(bootstrap_servers=kafka.servers) as producer:
            for number in range(200):
                key = b"session-%d" % number
                ids = {"session_id": key.decode(), "event_id": f"{event}-{number}", "query_id": f"{number}"}
                value = json.dumps(own | ids | {"ts": 1_700_000_000_000}).encode()
                producer.send(kafka.event_topics[event], value, key, partition=place(key, 4))

    settings = tmp_path / "backchannel.toml"
    settings.write_text(f'[kafka]\nservers = "{kafka.servers}"\ntopic_prefix = "{kafka.topic_prefix}"\n')
    check = ("topics", "check", "--config", str(settings))
    produce("query", "murmur2")
    produce("impression", "murmur2")
    assert backchannel(*check).stdout == "the topics are set up correctly: 4 partitions each\n"
    produce("click", "CRC-32")
    refused = backchannel(*check)
    assert refused.returncode == 1
    assert f"sessions are in other partitions of {kafka.event_topics['click']} than of" in refused.stderr
    deleted = backchannel("topics", "delete", "--yes", "--config", str(settings))
    assert deleted.stdout.startswith("deleted: ")
    assert "missing: " in refusal(kafka)


def test_events_are_copied_to_topics_keyed_by_session_once_and_in_order(kafka: KafkaConfig, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    events = list(mixed_stream(300, rng, queries=20))
    with KafkaProducer(bootstrap_servers=kafka.servers, transactional_id=kafka.group) as producer:
        producer.init_transactions()
        producer.begin_transaction()  # ends in a marker, which is never read
        for event in events:
            topic, place = kafka.event_topics[name_of(type(event))], int(rng.integers(4))
            producer.send(topic, encode(event), b"some other key", partition=place)
        producer.send(kafka.event_topics["click"], b'{"event_id": 1}')
        producer.commit_transaction()
    settings = tmp_path / "backchannel.toml"
    settings.write_text(f'[kafka]\nservers = "{kafka.servers}"\ntopic_prefix = "{kafka.topic_prefix}"\n')
    rekey = ("topics", "rekey", "--end", "--json", "--config", str(settings), "--to")
    keyed = KafkaConfig(servers=kafka.servers, topic_prefix=f"{kafka.topic_prefix}keyed-")
    first = backchannel(*rekey, keyed.topic_prefix, "--partitions", "3")
    assert json.loads(first.stdout) == {"copied": len(events), "dead_letters": 1}, first.stderr
    assert json.loads(backchannel(*rekey, keyed.topic_prefix).stdout) == {"copied": 0, "dead_letters": 0}
    records = records_of(keyed, keyed.event_topics.values())
    assert sorted(record.value for record in records) == sorted(map(encode, events))
    for record in records:
        assert record.key == EventDecoder().decode(record.value).session_id.encode()
        assert record.partition == PARTITIONERS["murmur2"](record.key, 3)
    for topic in keyed.event_topics.values():
        for place in range(3):
            times = [record.timestamp for record in records if (record.topic, record.partition) == (topic, place)]
            assert times == sorted(times)
    (letter,) = records_of(keyed, [keyed.dead_letter_topic])
    assert dict(letter.headers)["topic"] == kafka.event_topics["click"].encode()
    itself = backchannel(*rekey, kafka.topic_prefix)
    assert itself.returncode == 1
    assert "would be copied to itself" in itself.stderr


def test_unequal_partition_counts_are_named(kafka: KafkaConfig) -> None:
    names = kafka.event_topics
    with admin_client(kafka) as admin:
        admin.create_partitions({names["impression"]: 6})
    others = ", ".join(name for event_type, name in names.items() if event_type != "impression")
    assert f"{others}: 4; {names['impression']}: 6" in refusal(kafka)


def test_a_snapshot_topic_that_is_not_compacted_is_refused(kafka: KafkaConfig) -> None:
    with admin_client(kafka) as admin:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, kafka.snapshot_topic, {"cleanup.policy": "delete"})]
        )
    assert f"{kafka.snapshot_topic} is not compacted" in refusal(kafka)


def test_no_broker_is_one_line_that_says_what_to_set() -> None:
    result = backchannel("topics", "check", "--servers", "127.0.0.1:1")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "127.0.0.1:1" in line
    assert "BACKCHANNEL_KAFKA" in line


def test_the_commands_from_broker_to_records(tmp_path: Path) -> None:
    """The broker is started by its command, and records have the file's bytes, keys and times."""
    data = ["--data", str(tmp_path / "kafka")]
    started = backchannel("broker", "start", *data)
    if started.returncode and not os.environ.get("CI"):
        pytest.skip(started.stderr)
    assert started.returncode == 0, started.stderr
    try:
        found = json.loads(backchannel("broker", "status", "--json", *data).stdout)
        assert found["running"]
        servers = ["--servers", found["servers"]]
        assert "created: queries" in backchannel("topics", "create", "--partitions", "3", *servers).stdout
        assert "3 partitions each" in backchannel("topics", "check", *servers).stdout

        lines = [json.dumps(event) for event in EVENTS]
        file = tmp_path / "events.jsonl.gz"
        file.write_bytes(gzip.compress("\n".join([lines[0], "", '{"type": "click"}', *lines[1:]]).encode()))
        for options in ([], ["--now", "--rate", "1000"]):
            produced = backchannel("produce", str(file), *servers, *options)
            assert produced.returncode == 3
            assert "line 3: event_id: missing" in produced.stderr
            assert "clicks 2, queries 1" in produced.stderr

        config = KafkaConfig(servers=found["servers"])
        records = records_of(config, config.event_topics.values())
        assert sorted(
            (r.value.decode(), r.key.decode(), r.timestamp) for r in records if r.timestamp <= 3000
        ) == sorted((line, event["session_id"], event["ts"]) for line, event in zip(lines, EVENTS, strict=True))
        live = [record for record in records if record.timestamp > 3000]
        assert len(live) == 3
        assert all(json.loads(record.value)["ts"] == record.timestamp for record in live)
        partitions = {(record.key, record.partition) for record in records}
        assert len(partitions) == 2, "a session is in one partition of all topics"
    finally:
        assert backchannel("broker", "stop", *data).stdout == "stopped\n"
    assert "not running" in backchannel("broker", "status", *data).stdout


def test_a_killed_broker_comes_back_where_it_was_with_its_data(
    own_broker: Broker, new_topics: Callable[[str], KafkaConfig]
) -> None:
    address = own_broker.servers
    kafka = new_topics(str(address))
    own_broker.kill()
    assert own_broker.servers is None
    assert own_broker.start() == address
    assert check_topics(kafka) == 4
