"""`backchannel run` as its users see it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.load import mixed_stream
from backchannel.schemas.codec import encode
from backchannel.streams.config import Config
from backchannel.streams.serving.reader import PolicyReader
from tests.support.ledgers import assert_same, contents, sqlite_url


def write(path: Path, turns: int = 300) -> Path:
    lines = [encode(event) for event in mixed_stream(turns, np.random.default_rng(0), queries=30)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_it_says_what_it_learned(tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl")
    done = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "300  turns closed and learned from" in done.output
    assert "Policy version" in done.output
    assert "lexical" in done.output
    assert "Nothing new" not in done.output
    assert not (tmp_path / "events.jsonl.dead-letters.jsonl").exists()
    again = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(tmp_path)])
    assert "Nothing new" in again.output


def test_it_says_what_is_not_served_as_learned(tmp_path: Path) -> None:
    (tmp_path / "typo.toml").write_text('[bandit]\nstrategies = ["lexicl", "popular"]\n')
    command = ["run", str(write(tmp_path / "events.jsonl"))]
    kept, typo = ["--store", sqlite_url(tmp_path)], ["--config", str(tmp_path / "typo.toml")]
    first = CliRunner().invoke(main, [*command, *kept]).output
    assert "Verdict" not in first
    assert "withheld" not in first
    assert "do events write it so?" not in first
    assert "Verdict on the bandit: canary: " in CliRunner().invoke(main, [*command, *kept, *typo]).output
    CliRunner().invoke(main, ["snapshots", "rollback", "--to", "1", "--reason", "a typo", *kept])
    held = " ".join(CliRunner().invoke(main, [*command, *kept]).output.split())
    assert "Later versions are withheld: rolled back to version 1 at " in held
    assert "because a typo" in held


def test_it_says_which_strategies_and_features_no_turn_names(tmp_path: Path) -> None:
    (tmp_path / "typo.toml").write_text(
        '[bandit]\nstrategies = ["lexicl", "popular"]\nfeatures = [{ kind = "numeric", name = "houre" }]\n'
    )
    command = ["run", str(write(tmp_path / "events.jsonl")), "--config", str(tmp_path / "typo.toml")]
    done = CliRunner().invoke(main, [*command, "--store", sqlite_url(tmp_path)])
    assert "No learned turn names lexicl: do events write it so?" in done.output
    assert "No learned turn has a value of the features houre, or only their center" in " ".join(done.output.split())


def test_it_says_who_comes_back_if_there_is_a_salt(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[horizon]\nsalt = "a salt for tests only"\n')
    command = ["run", str(write(tmp_path / "events.jsonl")), "--config", str(tmp_path / "own.toml")]
    done = CliRunner().invoke(main, [*command, "--store", sqlite_url(tmp_path)])
    assert "Returns 1 to 7 days later: of " in done.output
    again = CliRunner().invoke(main, [*command, "--store", sqlite_url(tmp_path), "--json"])
    assert orjson.loads(again.stdout)["horizon"]["surrogate"]["mature"] == 0


def test_times_in_seconds_are_not_learned(tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl", turns=3)
    events = list(map(orjson.loads, file.read_bytes().splitlines()))
    for event in events[4:6]:
        event["ts"] //= 1000
    file.write_bytes(b"".join(orjson.dumps(event) + b"\n" for event in events))
    done = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(tmp_path)])
    assert f"{len(events) - 2}  events in" in done.output
    letters = list(map(orjson.loads, (tmp_path / "events.jsonl.dead-letters.jsonl").read_bytes().splitlines()))
    assert [letter["reason"] for letter in letters] == [
        f"ts: {event['ts']} is before 1980: it must be in ms since 1970; for times in seconds, set events.time"
        for event in events[4:6]
    ]


def test_bad_lines_go_to_the_dead_letters(tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl")
    lines = file.read_bytes().splitlines()
    lines[3:3] = [b'{"type": "click", "event_id": "x"}', b"\xff\xfe"]
    lines.append(b'{"type":"query","event_id":"f","ts":253402300799999,"session_id":"s","query_id":"f","text":"?"}')
    file.write_bytes(b"\n".join(lines) + b"\n")
    done = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(tmp_path), "--json"])
    assert done.exit_code == 3
    letters = [orjson.loads(line) for line in (tmp_path / "events.jsonl.dead-letters.jsonl").read_bytes().splitlines()]
    assert [letter["line"] for letter in letters] == [4, 5, len(lines)]
    assert letters[0]["reason"] == "ts: missing"
    assert letters[0]["record"] == '{"type": "click", "event_id": "x"}'
    assert letters[1]["record_base64"] == "//4="
    assert letters[2]["reason"].endswith(" s ahead of the clock, turns.max_ahead_s = 300")
    assert "3 invalid lines" in done.stderr
    assert orjson.loads(done.stdout)["dead_letters"] == 3


def test_where_dead_letters_cannot_be_written_the_option_is_named(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("no event\n")
    (tmp_path / "events.jsonl.dead-letters.jsonl").mkdir()
    done = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(tmp_path)])
    assert done.exit_code == 1
    assert done.stderr == f"Error: {file}.dead-letters.jsonl: Is a directory; --dead-letters names another file\n"


def test_run_again_it_learns_nothing_twice_and_goes_on_when_the_file_grows(tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl")
    command = ["run", str(file), "--store", sqlite_url(tmp_path), "--json"]
    first = orjson.loads(CliRunner().invoke(main, command).stdout)
    again = orjson.loads(CliRunner().invoke(main, command).stdout)
    assert (first["turns"], again["turns"], again["events"]) == (300, 0, 0)
    assert again["version"] == first["version"]
    more = mixed_stream(40, np.random.default_rng(1), start_ms=1_700_000_900_000)
    with file.open("ab") as grown:
        grown.writelines(encode(event) + b"\n" for event in more)
    grown_by = orjson.loads(CliRunner().invoke(main, command).stdout)
    assert grown_by["turns"] == 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    file = write(tmp_path / "events.jsonl", turns=20_000)
    store = sqlite_url(tmp_path)
    reading, writing = os.pipe()
    run = [sys.executable, "-m", "backchannel", "run", "-", "--store", store, "--json"]
    letters = ["--dead-letters", str(tmp_path / "letters")]
    with subprocess.Popen([*run, *letters], stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(reading)
        with os.fdopen(writing, "wb") as pipe:
            content = file.read_bytes()
            middle = content.index(b"\n", len(content) // 2) + 1
            pipe.write(content[:middle])
            pipe.flush()
            while not (tmp_path / "store.db").exists():
                time.sleep(0.01)
            time.sleep(0.5)
            process.send_signal(number)
            out, err = process.communicate()
    assert process.returncode == 128 + number, err
    stopped = orjson.loads(out)
    done = subprocess.run([*run, *letters], input=content, capture_output=True, check=True)
    assert stopped["turns"] + orjson.loads(done.stdout)["turns"] == 20_000
    whole = sqlite_url(tmp_path, "whole.db")
    CliRunner().invoke(main, ["run", str(file), "--store", whole], catch_exceptions=False)
    assert_same(contents(store, Config()), contents(whole, Config()))


def test_a_policy_can_be_read_from_what_was_run(tmp_path: Path) -> None:
    file = write(tmp_path / "events.jsonl", turns=2000)
    store = sqlite_url(tmp_path)
    CliRunner().invoke(main, ["run", str(file), "--store", store], catch_exceptions=False)
    reader = PolicyReader(store, rng=np.random.default_rng(0))
    decision = reader.policy.allocate({"query.words": 3.0}, 20)
    assert sum(decision.allocation.values()) == 20
    reader.close()


def test_a_forgotten_configuration_is_noticed(tmp_path: Path) -> None:
    file, store = write(tmp_path / "events.jsonl", turns=20), sqlite_url(tmp_path)
    (tmp_path / "own.toml").write_text("[bandit]\nfloor = 0.1\n")
    own = ["run", str(file), "--store", store, "--config", str(tmp_path / "own.toml")]
    for _ in range(2):
        assert "another configuration" not in CliRunner().invoke(main, own, catch_exceptions=False).output
    forgotten = CliRunner().invoke(main, own[:-2], catch_exceptions=False)
    assert "another configuration" in forgotten.stderr
    assert "snapshots rollback --to 1" in forgotten.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "no-such-file"], 1, "no-such-file: No such file"),
        (["run", "EMPTY"], 1, "is empty"),
        (["run", "EVENTS", "--store", "nonsense"], 2, "a URL like sqlite:///"),
        (["run", "EVENTS", "--config", "CONFIG"], 2, "turns.window_s: Expected `float` > 0"),
        (["run"], 2, "Missing argument"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "EMPTY").touch()
    (tmp_path / "CONFIG").write_text("[turns]\nwindow_s = -1\n")
    write(tmp_path / "EVENTS", turns=2)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == code
    assert message in done.output.replace("\n", " ")
