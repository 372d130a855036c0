"""`backchannel health`: every verdict, and an answer whatever hangs."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import structs

from backchannel.agents.bandit.section import Unseen
from backchannel.ops.cli import main
from backchannel.ops.health import command as health
from backchannel.ops.health.check import Check, Facts
from backchannel.ops.health.checks import CHECKS, judge, worst
from backchannel.schemas.alarm import Alarm
from backchannel.schemas.events import EVENT_TYPES
from backchannel.schemas.snapshot import Snapshot, Verdict
from backchannel.streams.config import Config, ConfigError, parse
from backchannel.streams.monitoring.trends import Rates
from backchannel.streams.monitoring.vitals import BrokerVitals, PartitionState, StoreVitals, WorkerState
from backchannel.streams.pipeline.learners import UNKNOWN_KIND
from backchannel.streams.snapshots.versions import Head
from backchannel.streams.store.engine import Store
from backchannel.streams.turns.position import Position, TopicPosition
from tests.support.ledgers import sqlite_url

NOW = 1_800_000_000_000
CONFIG = Config()
TOPICS = list(CONFIG.kafka.event_topics.values())


def position(read: int, behind_s: float) -> Position:
    newest = round(NOW - 1000 * behind_s)
    return Position(newest - 10_000, {topic: TopicPosition(read, read, newest) for topic in TOPICS})


def worker(name: str = "a", seen_s: float = 2.0, committed_s: float = 1.0, **fields: Any) -> WorkerState:
    values = {"version": "0.1.0", "started": 0, "rate": 100.0, "partitions": [0, 1], **fields}
    return WorkerState(name, seen=round(NOW - 1000 * seen_s), committed=round(NOW - 1000 * committed_s), **values)


SNAPSHOT = Snapshot(
    version=9,
    parent=8,
    created=NOW - 5_000,
    watermark=NOW - 12_000,
    positions={},
    fingerprint="",
    rows={},
    checksum="",
)
STORE = StoreVitals(
    partitions=[PartitionState(CONFIG.kafka.source, number, 1, position(90, 1.0)) for number in (0, 1)],
    workers=[worker()],
    head=Head(9, None),
    served=SNAPSHOT,
    newest=SNAPSHOT,
    withheld=None,
    unpublished=True,
    recent={"query": 1000, "turn": 990},
    counted={"query": 5000, "learned": 4900, "open": 100},
    alarms=[],
    bytes=1_000_000,
)
BROKERS = BrokerVitals(2, None, {(topic, number): 100 for topic in TOPICS for number in (0, 1)})


def verdicts(
    store: StoreVitals | str = STORE, brokers: BrokerVitals | str = BROKERS, names: Sequence[str] = ()
) -> dict[str, Check]:
    return {check.name: check for check in judge(Facts(NOW, store, brokers), CONFIG, names)}


def store(**changes: Any) -> StoreVitals:
    return structs.replace(STORE, **changes)


def version(number: int, verdict: Verdict, reason: str) -> Snapshot:
    return structs.replace(SNAPSHOT, version=number, verdict=verdict, reason=reason)


def made(seconds: float) -> Snapshot:
    return structs.replace(SNAPSHOT, created=round(NOW - 1000 * seconds))


def partitions(read: int, behind_s: float) -> list[PartitionState]:
    return [PartitionState(CONFIG.kafka.source, number, 1, position(read, behind_s)) for number in (0, 1)]


def test_all_is_well() -> None:
    found = verdicts()
    assert list(found) == list(CHECKS)
    assert {check.status for check in found.values()} == {"ok"}
    assert not any(check.remedy for check in found.values())
    assert worst(list(found.values())) == "ok"


@pytest.mark.parametrize(
    ("name", "facts", "status", "says"),
    [
        ("lag", {"partitions": partitions(90, 61)}, "warn", f"{20 * len(EVENT_TYPES)} records unread"),
        ("lag", {"partitions": partitions(90, 601)}, "critical", "10 min behind"),
        ("lag", {"partitions": partitions(100, 10_000)}, "ok", "everything is read"),
        ("lag", {"partitions": []}, "ok", "not read yet"),
        ("watermarks", {"partitions": partitions(90, 61)}, "warn", "partition 1, 71 s"),
        ("watermarks", {"partitions": partitions(100, 10_000)}, "ok", "2 partitions"),
        ("workers", {"workers": []}, "critical", "0 alive"),
        ("workers", {"workers": [worker(seen_s=30)]}, "warn", "a has been silent for 30 s"),
        ("workers", {"workers": [worker(seen_s=61)]}, "critical", "silent for 61 s"),
        ("workers", {"workers": [worker(), worker("b", seen_s=90)]}, "warn", "1 alive, 100 events/s; b "),
        ("workers", {"workers": [worker(), worker("b", seen_s=7200)]}, "ok", "1 alive"),
        ("workers", {"workers": [worker(partitions=[1])]}, "critical", "partitions without a worker: 0"),
        ("workers", {"workers": [worker(), worker("b", version="9")]}, "ok", "versions 0.1.0, 9"),
        ("commits", {"workers": [worker(committed_s=31)]}, "warn", "the last one 31 s ago"),
        ("commits", {"workers": [worker(committed_s=301)]}, "critical", "5 min ago"),
        ("commits", {"workers": [worker(committed_s=999)], "partitions": partitions(100, 1)}, "ok", "17 min ago"),
        ("commits", {"workers": []}, "warn", "no worker has committed"),
        (
            "policy",
            {"fault": "its header is odd"},
            "critical",
            "its header is odd",
        ),
        ("policy", {"served": None}, "warn", "no version is served yet"),
        (
            "policy",
            {"newest": made(61)},
            "warn",
            "5.0 s old, learned up to 2027-01-15 07:59:48 UTC",
        ),
        ("policy", {"newest": made(61)}, "warn", "61 s"),
        ("policy", {"newest": made(601)}, "critical", "10 min"),
        ("policy", {"newest": made(601), "unpublished": False}, "ok", "version 9"),
        ("policy", {"head": Head(9, "rolled back")}, "warn", "held: rolled back"),
        ("policy", {"newest": version(10, "hold", "worse")}, "warn", "the gate's verdict on version 10 is hold: worse"),
        (
            "policy",
            {"newest": version(10, "hold", "worse"), "withheld": NOW - 240_000},
            "warn",
            "for 4 min; the gate's verdict on version",
        ),
        ("policy", {"newest": version(10, "publish", "better")}, "ok", "version 9"),
        ("dead-letters", {"recent": {"query": 98, "dead_letter": 2}}, "warn", "2 of 100 in ten minutes, 2%"),
        ("dead-letters", {"recent": {"dead_letter": 9}}, "critical", "100%"),
        ("dead-letters", {"recent": {}}, "ok", "no events"),
        ("orphans", {"recent": {"click": 1, "orphan": 1}}, "warn", "1 of 1 in ten minutes, 100%"),
        ("losses", {"recent": (one := {"click": 1, "orphan": 1}), "counted": one}, "warn", "1 of 1 records"),
        ("late-events", {"recent": {"click": 100, "late": 2}}, "warn", "2 of 100"),
        ("orphans", {"recent": {"click": 200, "query": 200, "orphan": 175}}, "critical", "175 of 400"),
        ("orphans", {"recent": {"click": 200, "orphan": -3}}, "ok", "-3 of 200"),
        ("late-clicks", {"delays": {("a", 1): {3: 99.0}}}, "ok", "too few clicks"),
        (
            "late-clicks",
            {"delays": {("a", 1): {3: 500.0}, ("b", 2): {3: 100.0, 20: 60.0, 24: 50.0}, ("b", 4): {24: 10.0}}},
            "warn",
            "of the clicks on what b brings come after the window, and 0.0% of a's",
        ),
        ("names", {"unseen": Unseen(["semntic"])}, "warn", "no learned turn names the strategies semntic"),
        ("names", {"unseen": Unseen([], ["devise"])}, "warn", "a value of the features devise, or only their center"),
        ("names", {"counted": {f"{UNKNOWN_KIND}odd": 3}}, "ok", "clicks of kind odd: 3"),
        ("store", {"bytes": 60_000_000_000}, "warn", "60 GB"),
        ("store", {"free": 10_000_000_000}, "ok", "answers, 1 MB"),
        ("store", {"free": 500_000_000}, "warn", "500 MB are free on its disk"),
        ("store", {"free": 0}, "critical", "when it is full, nothing is learned"),
        (
            "drift",
            {"alarms": [Alarm("click_rate", "", NOW, NOW - 1000, 0.4, 0.2, NOW - 5)]},
            "warn",
            "click rate went from 0.4 to 0.2 at 2027-01-15 07:59:59 UTC",
        ),
        ("drift", {"alarms": [Alarm("reward", "new", 0, 0, 0.4, 0.2, NOW - 90_000_000)]}, "ok", "no alarm in 24 hours"),
        ("drift", {"rates": Rates(100, 0.2, 50, 0.6, 0.1)}, "ok", "of 50 goals 60.0% were reached, and 10.0% ended in"),
    ],
)
def test_a_verdict_says_what_is_wrong(name: str, facts: dict[str, Any], status: str, says: str) -> None:
    check = verdicts(store(**facts))[name]
    assert check.status == status, check
    assert says in check.summary
    if status == "critical":
        assert check.remedy


def test_a_strategy_is_not_compared_with_itself() -> None:
    assert verdicts(store(delays={("a", 1): {3: 500.0}}))["late-clicks"].summary.endswith("come after the window")


def test_without_brokers_or_store_the_rest_is_judged() -> None:
    found = verdicts(brokers="no broker accepts a connection")
    assert (found["broker"].status, found["lag"].status, found["workers"].status) == ("critical", "warn", "ok")
    found = verdicts(store="store: locked")
    assert (found["store"].status, found["topics"].status, found["drift"].status) == ("critical", "ok", "warn")
    assert found["drift"].summary == "unknown: the store does not answer"
    found = verdicts(brokers=BrokerVitals(0, "missing: clicks", {}))
    assert (found["topics"].status, found["topics"].summary) == ("critical", "missing: clicks")


def test_what_fills_an_empty_store_is_said() -> None:
    assert "A new store is filled by `backchannel worker`" in verdicts(store="store is empty")["store"].remedy


def test_why_there_is_no_answer_is_said_once() -> None:
    away: dict[str, Any] = {"store": "it is locked", "brokers": "refused"}
    assert sum("it is locked" in check.summary for check in verdicts(**away).values()) == 1
    found = verdicts(**away, names=["losses"])
    assert [check.summary for check in found.values()] == ["unknown: the store does not answer (it is locked)"]
    found = verdicts(**away, names=["store", "lag"])
    assert list(found) == ["lag", "store"]
    assert found["lag"].summary == "unknown: the brokers do not answer (refused) and the store does not answer"


def test_another_groups_positions_are_not_ours() -> None:
    others = [structs.replace(one, source="kafka:other") for one in STORE.partitions]
    assert f"{200 * len(EVENT_TYPES):,} records unread" in verdicts(store(partitions=others))["lag"].summary


def test_bounds_rise() -> None:
    with pytest.raises(ConfigError, match="lag_s"):
        parse({"health": {"lag_s": [60, 6]}}, "here")


# --- the command


@pytest.fixture
def deaf() -> Iterator[int]:
    """The port of a server that accepts connections but never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def learned(tmp_path: Path) -> str:
    url = sqlite_url(tmp_path)
    one = Store(url)
    one.create(())
    one.close()
    return url


def run(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(main, ["health", "--json", *arguments])
    report = json.loads(result.output)
    assert result.exit_code == {"ok": 0, "warn": 3, "critical": 1}[report["status"]]
    return result.exit_code, {check["name"]: check for check in report["checks"]}


def test_an_absent_broker_is_critical_and_the_store_is_judged(learned: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    code, checks = run("--store", learned, "--servers", f"127.0.0.1:{port}")
    assert code == 1
    assert "no broker accepts a connection" in checks["broker"]["summary"]
    assert (checks["store"]["status"], checks["policy"]["summary"]) == ("ok", "no version is served yet")


def test_what_hangs_is_left_behind(deaf: int) -> None:
    """In a separate process, because abandoned threads must not keep it from ending."""
    hanging = ["--store", f"postgresql+psycopg://127.0.0.1:{deaf}/x", "--servers", f"127.0.0.1:{deaf}"]
    done = subprocess.run(
        [sys.executable, "-m", "backchannel", "health", "--json", *hanging], capture_output=True, check=False
    )
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["store"]["summary"] == checks["broker"]["summary"] == f"no answer within {health.PATIENCE_S:g} s"


def test_it_starts_without_what_only_learners_need() -> None:
    """Importing River and SciPy takes a second of the five that the answer may take."""
    told = (
        "import backchannel.ops.health.command, sys; print(*{'river', 'scipy', 'pandas', 'faust'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path, "none.db")
    code, checks = run("--store", url, "--servers", "127.0.0.1:1", "--check", "store", "--check", "drift")
    assert code == 1
    assert list(checks) == ["store", "drift"]
    assert "there is no file" in checks["store"]["summary"]
    assert not (tmp_path / "none.db").exists()


def test_a_single_check_has_its_own_exit_code(learned: str) -> None:
    assert run("--store", learned, "--servers", "127.0.0.1:1", "--check", "store")[0] == 0
    assert run("--store", learned, "--servers", "127.0.0.1:1", "--check", "policy")[0] == 3


def test_the_screen_says_it_in_words(learned: str) -> None:
    result = CliRunner().invoke(main, ["health", "--store", learned, "--servers", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "-> start the brokers" in result.output
    assert "critical" in result.output


def test_watching_looks_again(learned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def judge(*_: object) -> list[Check]:
        nonlocal looks
        looks += 1
        return [Check("store", "ok", "answers")]

    def rest(_: float) -> None:
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(health, "judge", judge)
    monkeypatch.setattr(time, "sleep", rest)
    result = CliRunner().invoke(main, ["health", "--store", learned, "--watch"])
    assert (result.exit_code, looks) == (0, 4)


def test_an_unknown_kind_of_store_is_a_mistake_in_the_command() -> None:
    result = CliRunner().invoke(main, ["health", "--store", "mysql://h/d", "--json"])
    assert result.exit_code == 2
    assert "--store" in result.output
