"""Readers see whole versions, and pull only changed rows."""

import subprocess
import sys
import threading
from contextlib import closing
from math import nan
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rapidfuzz.fuzz import ratio

from backchannel.agents.memory.serving import Guess, PairEvidence, Row
from backchannel.streams.config import Config
from backchannel.streams.extras import install
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.serving.reader import NoPolicyError, PolicyReader
from backchannel.streams.snapshots import versions as snapshots
from backchannel.streams.store.engine import Store
from tests.support.ledgers import sqlite_url
from tests.support.pipelines import learn_mixed


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_there_is_a_clear_error_before_the_first_version(url: str, reader: PolicyReader) -> None:
    with pytest.raises(NoPolicyError, match="nothing has been learned into it yet"):
        _ = reader.policy
    with LocalPipeline(url, Config(), "test"), pytest.raises(NoPolicyError, match="nothing has been published"):
        _ = reader.policy
    assert reader.status.version is None


def test_why_there_is_no_policy_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To whoever asks for one; in a service that begins without, in the log."""
    with (
        PolicyReader(sqlite_url(tmp_path), poll_s=60) as reader,
        pytest.raises(NoPolicyError, match="there is no file"),
    ):
        _ = reader.policy
    assert not caplog.messages
    with PolicyReader(sqlite_url(tmp_path), poll_s=0.01) as reader:
        for _ in range(1000):
            if caplog.messages:
                break
            threading.Event().wait(0.01)
        with pytest.raises(NoPolicyError, match="there is no file"):
            _ = reader.policy
    (said,) = caplog.messages
    assert said.startswith("there is no file")


def test_a_policy_can_be_served_before_anything_was_learned(pipeline: LocalPipeline, reader: PolicyReader) -> None:
    pipeline.publish()
    policy = reader.policy
    assert policy.version == 1
    decision = policy.allocate({}, 10)
    assert sum(decision.allocation.values()) == 10
    assert decision.policy_version == 1
    assert policy.recall("anything", 5) == []
    assert policy.rewrite("anything") is None


def test_a_reader_serves_what_was_learned(url: str, reader: PolicyReader) -> None:
    bandit = msgspec.structs.replace(Config().bandit, half_lives_days=())  # so that every turn counts
    with LocalPipeline(url, msgspec.structs.replace(Config(), bandit=bandit), "test") as pipeline:
        learn_mixed(pipeline, 2000)
        pipeline.publish()
    policy = reader.policy
    query, remembered = next(iter(policy.memory().items()))
    assert policy.recall(f"  {query.upper()}!", 2) == remembered[:2]
    assert all(0 < one.score <= 1 for one in remembered)
    assert sorted(remembered, key=lambda one: -one.lower) == remembered
    assert sum(turns for turns, _ in policy.evidence().values()) == pytest.approx(5 * 2000, rel=1e-2)


def test_there_is_no_new_version_without_changes(pipeline: LocalPipeline) -> None:
    learn_mixed(pipeline, 100)
    assert pipeline.publish() is not None
    assert pipeline.publish() is None


def test_a_policy_in_use_never_changes(pipeline: LocalPipeline, reader: PolicyReader) -> None:
    learn_mixed(pipeline, 500)
    pipeline.publish()
    policy = reader.policy
    before = policy.memory()
    learn_mixed(pipeline, 500, start_ms=1_700_100_000_000)
    pipeline.publish()
    assert reader.refresh()
    assert policy.memory() == before
    assert reader.policy.version == policy.version + 1
    assert reader.policy.memory() != before


def test_only_changed_rows_are_pulled(
    pipeline: LocalPipeline, reader: PolicyReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_mixed(pipeline, 2000)
    pipeline.publish()
    reader.refresh()
    pulled: list[int] = []
    original = snapshots.difference

    def watch(*arguments: object) -> snapshots.Difference:
        found = original(*arguments)  # type: ignore[arg-type]
        pulled.append(len(found.live))
        return found

    monkeypatch.setattr(snapshots, "difference", watch)
    learn_mixed(pipeline, 1, start_ms=1_700_100_000_000)
    pipeline.publish()
    reader.refresh()
    assert len(pulled) == 1
    assert pulled[0] < 10 < len(reader.policy.memory())


FORKING = """
import os, sys, time
from contextlib import closing
import numpy as np
from backchannel.streams.serving.reader import PolicyReader
from backchannel.streams.snapshots import versions
from backchannel.streams.store.dialects.sqlite import Sqlite
from backchannel.streams.store.engine import Store

def wait_for_version_2():
    until = time.monotonic() + 30
    while reader.policy.version == 1 and time.monotonic() < until:
        time.sleep(0.01)

reader = PolicyReader(sys.argv[1], poll_s=0.05, rng=np.random.default_rng(7))
reader.__enter__()
preloaded = reader.policy
go, ready = os.pipe(), os.pipe()
for _ in range(2):
    if os.fork() == 0:
        drawn = [sorted(preloaded.allocate({}, 10).allocation.items()) for _ in range(30)]
        _ = reader.policy
        os.write(ready[1], b".")
        os.read(go[0], 1)
        wait_for_version_2()
        line = f"{reader.policy.version} {reader.status.error} {hash(str(drawn))}\\n"
        os.write(1, line.encode())  # at once: the lines of two that print may mix
        os._exit(0)
for _ in range(2):
    os.read(ready[0], 1)
with closing(Store(sys.argv[1])) as store, store.write() as connection:
    made = versions.newest(connection)
    changed = {"memory": {"song": b'{"rows":[]}'}}
    versions.publish(connection, [changed], versions.Provenance(
        created=made.created, watermark=made.watermark, positions={}, fingerprint=made.fingerprint))
os.write(go[1], b"..")
for _ in range(2):
    assert os.wait()[1] == 0
wait_for_version_2()
reader.close()
print(f"{reader.policy.version} {reader.status.error} parent")
"""


def test_a_forked_process_has_a_reader_of_its_own(url: str, pipeline: LocalPipeline) -> None:
    """Servers load the application, fork, and ask the reader in each child."""
    pipeline.publish()
    done = subprocess.run([sys.executable, "-c", FORKING, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    *children, parent = [line.split() for line in done.stdout.splitlines()]
    assert parent == ["2", "None", "parent"]
    assert [child[:2] for child in children] == [["2", "None"]] * 2
    assert children[0][2] != children[1][2], "the children explore differently"


def test_it_refreshes_in_the_background(url: str, pipeline: LocalPipeline) -> None:
    pipeline.publish()
    with PolicyReader(url, poll_s=0.01, rng=rng()) as reader:
        assert reader.policy.version == 1
        learn_mixed(pipeline, 100)
        pipeline.publish()
        for _ in range(1000):
            if reader.policy.version == 2:
                break
            threading.Event().wait(0.01)
        assert reader.policy.version == 2


def test_guesses_follow_the_queries_of_each_version(store_url: str) -> None:
    provenance = snapshots.Provenance(created=0, watermark=0, positions={}, fingerprint="f")

    def publish(**rows: bytes | None) -> None:
        with closing(Store(store_url)) as store, store.write() as connection:
            memory = {name.replace("_", " "): row for name, row in rows.items()}
            snapshots.publish(connection, [{"memory": memory}], provenance)

    with LocalPipeline(store_url, Config(), "test") as pipeline:
        learn_mixed(pipeline, 10)
        pipeline.publish()
    row = msgspec.json.encode(Row(0, (PairEvidence("a", 0.0, 0.0, 0.5),)))
    publish(first_song=row)
    plain, reader = PolicyReader(store_url, rng=rng()), PolicyReader(store_url, rng=rng(), guess_from=0.9)
    with closing(reader), closing(plain):
        assert plain.policy.recall("frst song", 1) == []
        (guessed,) = reader.policy.recall("frst song", 1)
        assert guessed.guess == Guess("first song", ratio("frst song", "first song") / 100)
        assert reader.policy.recall("secnd song", 1) == []
        before = reader.policy
        publish(second_song=row, first_song=None)
        assert reader.refresh()
        (guessed,) = reader.policy.recall("secnd song", 1)
        assert guessed.guess == Guess("second song", ratio("secnd song", "second song") / 100)
        assert reader.policy.recall("frst song", 1) == []
        assert before.recall("frst song", 1)
        assert before.recall("secnd song", 1) == []


@pytest.mark.parametrize("guess_from", [0.1, 2.0, nan])
def test_a_similarity_out_of_bounds_is_an_error(tmp_path: Path, guess_from: float) -> None:
    with pytest.raises(ValueError, match="similarity"):
        PolicyReader(sqlite_url(tmp_path), guess_from=guess_from)


@pytest.mark.parametrize("poll_s", [0.0, -1.0, nan])
def test_refreshing_without_a_pause_is_an_error(tmp_path: Path, poll_s: float) -> None:
    with pytest.raises(ValueError, match="poll_s"):
        PolicyReader(sqlite_url(tmp_path), poll_s)


def test_guessing_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['rapidfuzz'] = None\n"
        "from backchannel.streams.serving.reader import PolicyReader\n"
        "PolicyReader('sqlite://')\n"
        "PolicyReader('sqlite://', guess_from=0.9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: guess_from=0.9 needs rapidfuzz: {install('guess')}")


def test_serving_imports_neither_kafka_nor_faust_nor_river() -> None:
    program = (
        "import sys, backchannel.streams.serving.reader\n"
        "heavy = {'faust', 'kafka', 'aiokafka', 'river', 'rapidfuzz', 'scipy', 'pandas', 'zstandard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
