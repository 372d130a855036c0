"""Workers with a real broker: whatever happens to them, they learn what `backchannel run` learns."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from aiokafka import AIOKafkaProducer
from kafka import TopicPartition

from backchannel.ops.local.broker import Broker
from backchannel.schemas.events import Click
from backchannel.streams.kafka.config import KafkaConfig
from backchannel.streams.kafka.topics import admin_client
from backchannel.streams.pipeline.local import LocalPipeline
from tests.integration.workers import PATIENCE_S, Fleet, disordered, records_of, send
from tests.support.ledgers import sqlite_url

KILLS = 32
OUTAGE_S = 15.0


def test_killed_again_and_again_they_learn_what_an_uninterrupted_run_learns(kafka: KafkaConfig, tmp_path: Path) -> None:
    """One worker, then two, are killed while one of them starts, joins, learns or commits."""
    rng = random.Random(20261120)
    events = disordered(200_000, seed=1)
    share = len(events) // KILLS + 1
    done: Counter[str] = Counter()
    # No partition may count as quiet before the group has noticed a kill.
    with Fleet(tmp_path, kafka, window_s=30, commit_events=700) as fleet:
        for number in range(KILLS):
            asyncio.run(send(kafka, events[number * share : (number + 1) * share]))
            size = 1 if number < KILLS // 2 else 2
            while len(fleet.workers) < size:
                fleet.start()
            if rng.random() < 0.7:
                fleet.until_commits(rng.randint(1, 12), or_read=min((number + 1) * share, len(events)))
                time.sleep(rng.random() * 0.1)
            else:
                time.sleep(rng.random() * 4)
            victim = rng.choice(fleet.workers)
            how = rng.choice([signal.SIGKILL, signal.SIGTERM])
            fleet.end(victim, how)
            done[f"{how.name} of {size}"] += 1
        fleet.start()
        counts = fleet.assert_learned(events)
        claims = fleet.claims()
    print(f"\n{len(events):,} events, {done.total()} kills {dict(done)}, {claims} claims: {counts}")
    assert sum(counts[name] for name in ("query", "impression", "click", "barge_in")) == len(events) >= 200_000


def test_the_death_of_any_of_its_processes_ends_a_worker_and_the_next_goes_on(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    events = disordered(6_000, seed=10)
    share = len(events) // 3 + 1
    with Fleet(tmp_path, kafka, window_s=10, commit_events=300) as fleet:
        for number in range(3):
            worker = fleet.start()
            asyncio.run(send(kafka, events[number * share : (number + 1) * share]))
            fleet.until_commits(2, or_read=min((number + 1) * share, len(events)))
            os.kill(fleet.processes(worker)[number], signal.SIGKILL)
            fleet.workers.remove(worker)
            assert worker.wait(PATIENCE_S) == 1, fleet.logs()
        fleet.start()
        for name in ("assembling", "learning", "publishing"):
            assert f"the {name} process has died: exit code -9" in fleet.logs()
        fleet.assert_learned(events)


def test_stopped_while_another_took_over_and_continued_it_changes_nothing(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(6_000, seed=6)
    half = len(events) // 2
    with Fleet(tmp_path, kafka, window_s=10, commit_events=300) as fleet:
        first = fleet.start()
        asyncio.run(send(kafka, events[:half]))
        fleet.until_commits(2, or_read=half)
        stopped = fleet.stop(first)
        fleet.start()
        asyncio.run(send(kafka, events[half:]))
        fleet.until_claims(4)  # of all partitions
        fleet.workers.remove(first)
        try:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
            fleet.assert_learned(events)
            first.terminate()
            # What it had read, but not committed, is the other worker's: it says so and ends, for its supervisor.
            assert first.wait(60) == 0 or "was claimed by another process" in fleet.logs()
        finally:
            first.kill()


def test_a_second_worker_joins_and_leaves_under_load(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(60_000, seed=2)
    with Fleet(tmp_path, kafka, window_s=10) as fleet:
        fleet.start()
        load = threading.Thread(target=lambda: asyncio.run(send(kafka, events, rate=2_000)))
        load.start()
        for how in (signal.SIGTERM, signal.SIGKILL):
            fleet.until(lambda: fleet.read() > 0)
            second = fleet.start()
            fleet.until_claims(1)
            time.sleep(3)
            fleet.end(second, how)
        load.join()
        fleet.assert_learned(events)


def test_it_goes_on_by_itself_after_the_broker_was_away(
    own_broker: Broker, new_topics: Callable[[str], KafkaConfig], tmp_path: Path
) -> None:
    kafka = new_topics(str(own_broker.servers))
    events = disordered(30_000, seed=3)
    with Fleet(tmp_path, kafka, window_s=10, commit_events=1_000) as fleet:
        asyncio.run(send(kafka, events[:20_000]))
        fleet.start()
        fleet.until(lambda: fleet.read() > 2_000)
        own_broker.stop()
        time.sleep(OUTAGE_S)
        own_broker.start()
        asyncio.run(send(kafka, events[20_000:]))
        fleet.assert_learned(events)


def test_it_goes_on_by_itself_after_the_store_was_locked(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(30_000, seed=4)
    with Fleet(tmp_path, kafka, window_s=10, commit_events=1_000) as fleet:
        asyncio.run(send(kafka, events))
        fleet.start()
        fleet.until(lambda: fleet.read() > 2_000)
        with closing(sqlite3.connect(fleet.database, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = fleet.counts()
            time.sleep(OUTAGE_S)
            assert fleet.counts() == before, "the position stands still"
            other.execute("ROLLBACK")
        fleet.assert_learned(events)


def test_poison_goes_to_the_dead_letters_and_everything_else_is_learned(kafka: KafkaConfig, tmp_path: Path) -> None:
    rng = random.Random(5)
    events = disordered(30_000, seed=5)
    blob = rng.randbytes(1_000_000)

    def poison(number: int) -> bytes | None:
        return (
            rng.randbytes(rng.randint(0, 200)),
            json.dumps({"event_id": number, "ts": "now", "session_id": [], "query_id": None}).encode(),
            None,
            blob[number:],
        )[number % 4]

    async def spoil(count: int) -> dict[tuple[str, int, int], tuple[bytes | None, bytes]]:
        sent = {}
        async with AIOKafkaProducer(bootstrap_servers=kafka.servers, acks="all") as producer:
            for number in range(count):
                topic = rng.choice(list(kafka.event_topics.values()))
                value, key = poison(number), b"session-%d" % number
                at = await producer.send_and_wait(topic, value, key=key)
                sent[topic, at.partition, at.offset] = (value, key)
        return sent

    async def work() -> dict[tuple[str, int, int], tuple[bytes | None, bytes]]:
        both = await asyncio.gather(spoil(len(events) // 100), send(kafka, events, rate=6_000))
        return both[0]

    with Fleet(tmp_path, kafka, window_s=10) as fleet:
        fleet.start()
        sent = asyncio.run(work())
        fleet.assert_learned(events, dead_letters=len(sent))
        assert fleet.logs().count("dead letter:") <= len(sent)
    letters = records_of(kafka, [kafka.dead_letter_topic])
    found, reasons = {}, Counter[str]()
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers}
        found[headers["topic"], int(headers["partition"]), int(headers["offset"])] = (letter.value, letter.key)
        reasons[headers["reason"].split(":")[0]] += 1
    assert found == sent
    assert len(letters) == len(sent)
    print(f"\n{len(sent)} dead letters: {dict(reasons)}")


def test_announcements_name_the_versions_of_the_store(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(2_000, seed=6)
    with Fleet(tmp_path, kafka, window_s=1) as fleet:
        fleet.start()
        asyncio.run(send(kafka, events))
        fleet.assert_learned(events)
        with closing(sqlite3.connect(fleet.database)) as connection:
            headers = [json.loads(header) for (header,) in connection.execute("SELECT header FROM snapshot")]
    announced = records_of(kafka, [kafka.snapshot_topic])
    known = {header["version"]: header for header in headers}
    assert announced
    for one in announced:
        said = json.loads(one.value)
        assert one.key == b"policy"
        assert said == {name: known[said["version"]][name] for name in ("version", "watermark", "checksum")}


def test_a_version_that_its_publisher_did_not_announce_is_announced_by_the_next(
    kafka: KafkaConfig, tmp_path: Path
) -> None:
    with Fleet(tmp_path, kafka, window_s=1) as fleet:
        with LocalPipeline(sqlite_url(tmp_path, "worker.db"), fleet.config, "file") as embedded:
            embedded.feed(disordered(500, seed=8))
            embedded.finish()
            embedded.commit()
            published = embedded.publish()
        assert published
        fleet.start()
        fleet.until(lambda: any(records_of(kafka, [kafka.snapshot_topic])))
    first = json.loads(records_of(kafka, [kafka.snapshot_topic])[0].value)
    assert first["version"] == published.version


def test_records_that_are_lost_stop_the_worker_until_that_is_accepted(kafka: KafkaConfig, tmp_path: Path) -> None:
    events = disordered(4_000, seed=7)
    clicks = kafka.event_topics["click"]
    with Fleet(tmp_path, kafka, window_s=1) as fleet:
        asyncio.run(send(kafka, events[:3_000]))
        first = fleet.start()
        fleet.until(lambda: fleet.read() == 3_000)
        fleet.end(first, signal.SIGTERM)
        asyncio.run(send(kafka, events[3_000:]))
        with admin_client(kafka) as admin:
            partitions = [TopicPartition(clicks, number) for number in range(4)]
            admin.delete_records(dict.fromkeys(partitions, -1))  # all records
        refusal = fleet.refusal()
        assert refusal["level"] == "critical"
        assert f"{clicks} lost offsets" in refusal["message"]
        assert "`backchannel worker --accept-loss`" in refusal["message"]
        fleet.start("--accept-loss")
        others = sum(not isinstance(event, Click) for event in events[3_000:])
        fleet.until(lambda: fleet.read() == 3_000 + others)


def test_too_many_open_turns_stop_the_worker_and_say_why(kafka: KafkaConfig, tmp_path: Path) -> None:
    with Fleet(tmp_path, kafka, window_s=3600, max_open=100) as fleet:
        asyncio.run(send(kafka, disordered(4_000, seed=8)))
        assert "more than turns.max_open = 100" in fleet.refusal()["message"]
