"""Learning from a journal equals learning from a file, wherever it was interrupted."""

import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import CommitConfig, Config
from backchannel.streams.journal.journal import Journal, JournalError
from backchannel.streams.journal.learner import JournalLearner
from backchannel.streams.pipeline.local import LocalPipeline
from backchannel.streams.store.engine import StoreAwayError
from backchannel.streams.turns.assembler import TurnConfig
from backchannel.streams.turns.partition import DeadLetter
from tests.support.ledgers import assert_same, contents, sqlite_url

CONFIG = Config(turns=TurnConfig(window_s=30.0, lateness_s=2.0), commits=CommitConfig(events=300, publish_s=0.01))
STOPPED = threading.Event()
STOPPED.set()


def learn(url: str, folder: Path) -> None:
    """Learn what is there, and stop."""
    learner = JournalLearner(url, CONFIG, folder)
    learner.run(STOPPED)
    learner.close()


def learned(url: str) -> dict[str, Any]:
    """Return what a store holds; a journal and a file have positions of their own."""
    return contents(url, CONFIG) | {"positions": {}}


def test_interrupted_learning_equals_learning_from_a_file(tmp_path: Path) -> None:
    events = list(mixed_stream(300, np.random.default_rng(3), queries=20, gap_ms=300))
    folder, parts = tmp_path / "journal", np.array_split(np.arange(len(events)), 4)
    journal = Journal(folder, 1 << 40, segment_bytes=10_000)
    for part in parts:
        journal.append(b"".join(encode(events[place]) + b"\n" for place in part))
        learn(sqlite_url(tmp_path, "journal.db"), folder)
    journal.close()
    with LocalPipeline(sqlite_url(tmp_path, "file.db"), CONFIG, "file") as pipeline:
        pipeline.feed(events)
        pipeline.commit()
        pipeline.publish()
    assert_same(learned(sqlite_url(tmp_path, "file.db")), learned(sqlite_url(tmp_path, "journal.db")))


def test_a_new_store_learns_the_whole_journal_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1 << 40)
    for event in mixed_stream(50, np.random.default_rng(1), queries=5, gap_ms=1_000):
        journal.append(encode(event) + b"\n")
    journal.close()
    learn(sqlite_url(tmp_path, "first.db"), tmp_path / "journal")
    learn(sqlite_url(tmp_path, "second.db"), tmp_path / "journal")
    assert_same(learned(sqlite_url(tmp_path, "first.db")), learned(sqlite_url(tmp_path, "second.db")))


def test_one_that_is_refused_does_not_disturb_the_one_that_learns(tmp_path: Path) -> None:
    folder, url = tmp_path / "journal", sqlite_url(tmp_path)
    with closing(JournalLearner(url, CONFIG, folder)) as learner, closing(Journal(folder, 1 << 40)) as journal:
        with pytest.raises(JournalError, match="another service learns"):
            JournalLearner(url, CONFIG, folder)
        for event in mixed_stream(50, np.random.default_rng(1), queries=5, gap_ms=1_000):
            journal.append(encode(event) + b"\n")
        learner.run(STOPPED)
    assert learned(url)["bandit"]


def test_the_turns_of_a_quiet_journal_close_without_another_event(tmp_path: Path) -> None:
    config = Config(turns=TurnConfig(window_s=0.1, lateness_s=0.0), commits=CommitConfig(publish_s=0.05))
    journal = Journal(tmp_path / "journal", 1 << 40)
    for event in mixed_stream(3, np.random.default_rng(1), queries=5, gap_ms=1):
        journal.append(encode(event) + b"\n")
    journal.close()
    url, stop = sqlite_url(tmp_path), threading.Event()
    learner = JournalLearner(url, config, tmp_path / "journal")
    thread = threading.Thread(target=learner.run, args=(stop,))
    thread.start()
    for _ in range(200):
        if contents(url, config)["counts"].get("turn") == 3:
            break
        stop.wait(0.05)
    stop.set()
    thread.join()
    learner.close()
    assert contents(url, config)["counts"]["turn"] == 3


def test_while_the_store_is_away_nothing_more_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read and is not committed is in memory."""
    journal = Journal(tmp_path / "journal", 1 << 40)
    for event in mixed_stream(300, np.random.default_rng(1), queries=5, gap_ms=1_000):
        journal.append(encode(event) + b"\n")
    monkeypatch.setattr("backchannel.streams.journal.journal._BLOCK", 10_000)
    monkeypatch.setattr("backchannel.streams.journal.learner.AWAY_S", 0.001)
    stop, attempts, read = threading.Event(), list[int](), list[int]()
    feed = LocalPipeline.feed_records

    def away(_: LocalPipeline) -> None:
        attempts.append(len(read))
        if len(attempts) == 20:
            stop.set()
        raise StoreAwayError("it is away")

    def counted(pipeline: LocalPipeline, offsets: Sequence[int], records: Sequence[bytes]) -> list[DeadLetter]:
        read.append(len(records))
        return feed(pipeline, offsets, records)

    monkeypatch.setattr(LocalPipeline, "commit", away)
    monkeypatch.setattr(LocalPipeline, "feed_records", counted)
    commits = CommitConfig(events=1, publish_s=1.0)
    learner = JournalLearner(sqlite_url(tmp_path), msgspec.structs.replace(CONFIG, commits=commits), journal.folder)
    with closing(journal), closing(learner):
        learner.run(stop)
    assert len(attempts) >= 20
    assert max(attempts) <= 2  # and one more block when it stops


def test_when_it_stops_it_commits_the_rest_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal", 1 << 40)
    for event in mixed_stream(300, np.random.default_rng(1), queries=5, gap_ms=1_000):
        journal.append(encode(event) + b"\n")
    journal.close()
    monkeypatch.setattr("backchannel.streams.journal.journal._BLOCK", 10_000)
    uncommitted = []
    commit = LocalPipeline.commit

    def counted(pipeline: LocalPipeline) -> None:
        uncommitted.append(pipeline.partition.uncommitted)
        commit(pipeline)

    monkeypatch.setattr(LocalPipeline, "commit", counted)
    learn(sqlite_url(tmp_path), journal.folder)
    assert max(uncommitted) < sum(uncommitted) / 2


def test_what_is_no_event_is_logged_and_the_rest_is_learned(tmp_path: Path) -> None:
    events = list(mixed_stream(5, np.random.default_rng(1), queries=5, gap_ms=1_000))
    journal = Journal(tmp_path / "journal", 1 << 40)
    journal.append(b'{"type": "que\n' + b"".join(encode(event) + b"\n" for event in events))
    journal.close()
    learn(sqlite_url(tmp_path), tmp_path / "journal")
    counts = contents(sqlite_url(tmp_path), CONFIG)["counts"]
    assert counts["dead_letter"] == 1
    assert sum(counts.get(kind, 0) for kind in ("query", "impression", "click", "barge_in")) == len(events)
