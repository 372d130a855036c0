"""Whatever form the events come in, `run` learns the same of them, and loses none without saying so."""

import json
import os
import random
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from msgspec import structs
from sqlalchemy import exc

from backchannel.ops.cli import main
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import Config
from backchannel.streams.store.ledger import Ledger
from tests.streams.turns.test_event_file import FORMS, write
from tests.support.ledgers import assert_same, contents, sqlite_url

pytestmark = pytest.mark.usefixtures("patient_health")

START = 1_700_000_000_000


def events(turns: int) -> list[bytes]:
    """Return events of some hours, in time order."""
    stream = mixed_stream(turns, np.random.default_rng(0), queries=30, start_ms=START)
    return [encode(structs.replace(event, ts=START + 600 * (event.ts - START))) for event in stream]


TURNS = 200
LINES = events(TURNS)


def content(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def run(store: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments), "--store", store, "--json"])


def summary(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def health(store: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["health", "--store", store, "--check", "losses", "--json"])
    return done.exit_code, json.loads(done.stdout)["checks"][0]["summary"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The store into which all events were learned from a plain file."""
    folder = tmp_path_factory.mktemp("whole")
    store = sqlite_url(folder)
    assert summary(run(store, write(folder / "events.jsonl", content(LINES))))["turns"] == TURNS
    return store


@pytest.mark.parametrize("name", FORMS)
def test_every_form_learns_the_same_at_once_resumed_and_grown(tmp_path: Path, whole: str, name: str) -> None:
    store, file = sqlite_url(tmp_path), tmp_path / name
    half = len(LINES) // 2
    letters = ("--dead-letters", tmp_path / "letters")
    grown = [summary(run(store, write(file, content(LINES[:size])), *letters)) for size in (half, half, len(LINES))]
    assert [one["events"] for one in grown] == [half, 0, len(LINES) - half]
    assert health(store) == (0, health(store)[1])
    assert "accounted for: 100%" in health(store)[1]
    at_once = sqlite_url(tmp_path, "at once.db")
    assert summary(run(at_once, write(file, content(LINES)), *letters))["turns"] == TURNS
    assert_same(contents(at_once, Config()), contents(whole, Config()))


def test_a_descriptor_is_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    def feed() -> None:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content(LINES))

    threading.Thread(target=feed).start()
    done = run(sqlite_url(tmp_path), f"/dev/fd/{reading}", "--dead-letters", tmp_path / "letters")
    os.close(reading)
    assert summary(done)["turns"] == TURNS


def learned(store: str) -> dict[str, Any]:
    """Return what a store holds, but for where it has read."""
    return {**contents(store, Config()), "positions": None}


def test_disorder_is_told_and_sorted(tmp_path: Path) -> None:
    turns = 1500  # more than are read at once
    ordered = events(turns)
    shuffled = random.Random(0).sample(ordered, len(ordered))
    whole = sqlite_url(tmp_path, "whole.db")
    run(whole, write(tmp_path / "ordered", content(ordered)))
    file, store = write(tmp_path / "events", content(shuffled)), sqlite_url(tmp_path)
    refused = run(store, file)
    assert refused.exit_code == 1
    assert "not in time order" in refused.stderr
    assert "run --sort" in refused.stderr
    found = summary(run(store, file, "--sort"))  # nothing was learned before
    assert (found["turns"], found["late"], found["orphans"]) == (turns, 0, 0)
    assert_same(learned(store), learned(whole))
    assert summary(run(store, file, "--sort"))["events"] == 0
    again = run(store, file)
    assert again.exit_code == 1
    assert "sorted before, and would count twice" in again.stderr


def test_a_file_that_was_read_as_it_stands_is_not_sorted_later(tmp_path: Path) -> None:
    file, store = write(tmp_path / "events", content(LINES)), sqlite_url(tmp_path)
    summary(run(store, file))
    refused = run(store, file, "--sort")
    assert refused.exit_code == 1
    assert "unsorted before" in refused.stderr


def test_several_sources_are_merged_by_time(tmp_path: Path, whole: str) -> None:
    kinds = {kind: [line for line in LINES if f'"{kind}"'.encode() in line[:20]] for kind in ("query", "impression")}
    kinds["others"] = [line for line in LINES if not any(line in some for some in kinds.values())]
    sizes = {kind: len(lines) for kind, lines in kinds.items()}
    assert all(sizes.values())
    store = sqlite_url(tmp_path)
    files = [write(tmp_path / f"{kind}.gz", content(lines)) for kind, lines in kinds.items()]
    assert summary(run(store, *files))["turns"] == TURNS
    assert_same(learned(store), learned(whole))
    assert summary(run(store, *reversed(files)))["events"] == 0
    for others in (files[:1], files[:2]):
        refused = run(store, *others)
        assert refused.exit_code == 1
        assert "would count twice" in refused.stderr
    shuffled = [
        write(tmp_path / f"{kind} shuffled", content(random.Random(0).sample(lines, len(lines))))
        for kind, lines in kinds.items()
    ]
    other = sqlite_url(tmp_path, "sorted.db")
    assert summary(run(other, "--sort", *shuffled))["turns"] == TURNS
    assert_same(learned(other), learned(whole))


def test_the_same_file_twice_is_a_mistake(tmp_path: Path) -> None:
    file = write(tmp_path / "events", content(LINES))
    done = run(sqlite_url(tmp_path), file, file)
    assert done.exit_code == 1
    assert "give each source once" in done.stderr
    other = write(tmp_path / "other", content([LINES[0], *LINES[2:]]))
    alike = run(sqlite_url(tmp_path), file, other)
    assert alike.exit_code == 1
    assert f"{other} is {file} again, or begins with the same line" in alike.stderr


def test_a_half_written_last_line_is_left_and_read_when_it_is_whole(tmp_path: Path, whole: str) -> None:
    file, store = tmp_path / "events", sqlite_url(tmp_path)
    part = content(LINES)[:-20]
    first = run(store, write(file, part))
    assert summary(first)["events"] == len(LINES) - 1
    assert f"line {len(LINES)} has no line break" in first.stderr
    second = summary(run(store, write(file, content(LINES))))
    assert (second["events"], second["dead_letters"]) == (1, 0)
    assert_same(contents(store, Config()), contents(whole, Config()))
    complete = run(sqlite_url(tmp_path, "complete.db"), write(file, part), "--complete")
    assert (complete.exit_code, json.loads(complete.stdout)["dead_letters"]) == (3, 1)


def test_two_files_that_begin_alike_are_both_learned(tmp_path: Path) -> None:
    store, header, half = sqlite_url(tmp_path), b'{"export": 1}', len(LINES) // 2
    done = [
        run(store, write(tmp_path / day, content([header, *lines])))
        for day, lines in (("monday", LINES[:half]), ("tuesday", LINES[half:]))
    ]
    assert [json.loads(one.stdout)["events"] for one in done] == [half, len(LINES) - half]


@pytest.mark.parametrize(("lost", "code"), [(1, 0), (12, 3)])
def test_who_loses_more_than_a_percent_does_not_end_with_0_and_health_says_so(
    tmp_path: Path, lost: int, code: int
) -> None:
    orphans = [line.replace(b'"query_id":"query-', b'"query_id":"lost-') for line in LINES if b'"impression"' in line]
    store = sqlite_url(tmp_path)
    every = sorted([*LINES, *orphans[:lost]], key=lambda line: json.loads(line)["ts"])
    done = run(store, write(tmp_path / "events", content(every)))
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert found["orphans"] == lost
    assert found["lost"] == pytest.approx(lost / (len(LINES) + lost))
    status, said = health(store)
    assert (status > 0) == (code > 0)
    assert f"{lost:,} without a turn" in said
    assert "accounted for: 100%" in said


def test_damage_in_the_middle_keeps_what_was_read(tmp_path: Path) -> None:
    file, store = tmp_path / "events.gz", sqlite_url(tmp_path)
    whole = Path(write(file, content(LINES))).read_bytes()
    file.write_bytes(whole[: len(whole) * 3 // 4])
    damaged = run(store, file)
    assert damaged.exit_code == 1
    assert "is damaged" in damaged.stderr
    file.write_bytes(whole)
    assert summary(run(store, file))["events"] <= len(LINES)
    assert "accounted for: 100%" in health(store)[1]


def test_a_store_that_fails_is_one_line_and_keeps_the_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    store, file = sqlite_url(tmp_path), write(tmp_path / "events", content(LINES))

    def fail(*_: object) -> None:
        raise exc.OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "_commit", fail)
        failed = run(store, file)
    assert failed.exit_code == 1
    assert failed.stderr.count("\n") == 1
    assert "disk is full" in failed.stderr
    assert summary(run(store, file))["turns"] == TURNS
    assert_same(contents(store, Config()), contents(whole, Config()))
