"""`label export`: lines for training, from a log."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backchannel.ops.cli import main
from tests.ops.commands.test_diagnose import TS, ran
from tests.support.ledgers import sqlite_url

DAY = 86_400_000


def session(number: int, text: str = "play chess", meant: str = "play(song=jazz)") -> list[dict[str, Any]]:
    """Somebody is misunderstood, says it again, and chooses the result."""
    common = {"session_id": f"s{number}", "user_id": f"u{number}"}
    ts = TS + 1_000_000 * number
    asked = [
        {"query_id": f"q{number}a", "ts": ts, "text": text, "interpretation": "game(name=chess)"},
        {"query_id": f"q{number}b", "ts": ts + 5_000, "text": text, "interpretation": meant},
    ]
    own = [{**common, **one, "type": "query", "event_id": f"{one['query_id']}q"} for one in asked]
    of_last = {"session_id": f"s{number}", "query_id": f"q{number}b"}
    return [
        *own,
        {
            **of_last,
            "type": "impression",
            "event_id": f"i{number}",
            "ts": ts + 5_100,
            "results": [{"entity_id": "e1", "position": 1}],
        },
        {**of_last, "type": "click", "event_id": f"c{number}", "ts": ts + 6_000, "entity_id": "e1"},
    ]


def labelled(number: int, meant: str) -> dict[str, Any]:
    asked = session(number)[0]
    return {
        **{name: asked[name] for name in ("ts", "session_id", "query_id")},
        "type": "label",
        "event_id": f"l{number}",
        "labeller": "ann",
        "labelled_at": TS,
        "failure_point": "understanding",
        "interpretation": meant,
    }


def exported(folder: Path, *options: str, events: str = "events.jsonl") -> tuple[Result, list[dict[str, Any]]]:
    command = ["label", "export", *(str(folder / name) for name in events.split()), "--store", sqlite_url(folder)]
    done = CliRunner().invoke(main, [*command, *options])
    return done, [json.loads(line) for line in done.stdout.splitlines()] if done.exit_code in {0, 3} else []


def test_the_rephrases_interpretation_is_copied_back_and_said_to_be_unchecked(tmp_path: Path) -> None:
    ran(tmp_path, session(0))
    done, lines = exported(tmp_path, "--precision", ".7")
    assert done.exit_code == 0, done.stderr
    first, second = lines
    assert first["logged"] == "game(name=chess)"
    told = first["interpretation"]
    assert (told["value"], told["provenance"], told["query_id"]) == ("play(song=jazz)", "rephrase", "q0b")
    assert "precision" not in told
    assert first["entity"]["value"] == "e1"
    assert first["goal"]["value"] == second["goal"]["value"] == "q0a"
    assert (second["interpretation"]["provenance"], second["entity"]["provenance"]) == ("success", "click")
    assert "interpretation by rephrase: 1 written; unchecked" in done.stderr


def test_labels_decide_what_is_sure_enough_and_come_first(tmp_path: Path) -> None:
    ran(tmp_path, [event for number in range(31) for event in session(number)])
    for meant, count in (("play(song=jazz)", 31), ("stop()", 0)):
        lines = (json.dumps(labelled(number, meant)) for number in range(30))
        (tmp_path / "labels.jsonl").write_text("\n".join(lines) + "\n")
        done, found = exported(tmp_path, events="events.jsonl labels.jsonl")
        assert done.exit_code == 0, done.stderr
        copied = [one["interpretation"] for one in found if one["query_id"].endswith("a") and "interpretation" in one]
        assert [one["value"] for one in copied[:30]] == [meant] * 30
        assert {one["provenance"] for one in copied[:30]} == {"label"}
        assert len(copied) == max(count, 30)
        if count:
            assert (copied[-1]["provenance"], copied[-1]["precision"]) == ("rephrase", 1.0)
        else:
            assert "no confidence is enough for 90%, by 30 held-out labels" in done.stderr


def test_what_few_people_said_is_left_out_and_ids_are_hashed(tmp_path: Path) -> None:
    common = [event for number in range(3) for event in session(number)]
    rare = session(3, "call maria", "call(name=maria)")
    own = session(4, meant="play(song=mine)")
    ran(tmp_path, [*common, *rare, *own])
    key = tmp_path / "secret.key"
    key.write_text("0123456789abcdef")
    done, lines = exported(tmp_path, "--precision", ".7", "--min-users", "3", "--key", str(key))
    assert done.exit_code == 0, done.stderr
    text = done.stdout
    for secret in ("maria", "mine", "q0a", '"s0"', '"u0"', str(TS)):
        assert secret not in text
    assert "2 turns left out" in done.stderr
    copied = [one for one in lines if one.get("logged") == "game(name=chess)"]
    assert sum("interpretation" in one for one in copied) == 3
    assert len({one["user_id"] for one in lines}) == 4
    assert {one["goal"]["value"] for one in lines} == {one["query_id"] for one in copied}
    assert sum("logged" in one for one in lines) == 7
    assert all(one["ts"] % DAY == 0 for one in lines)
    again, _ = exported(tmp_path, "--precision", ".7", "--min-users", "3", "--key", str(key))
    assert again.stdout == text


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--min-users", "2"], 2, "add --key"),
        (["--key", "short.key"], 2, "has 5 bytes"),
        (["--key", "none.key"], 1, "No such file"),
        (["--output", "events.jsonl/no"], 1, "Not a directory"),
        (["--store", "sqlite:///none.db"], 1, "none.db"),
    ],
)
def test_it_says_what_is_wrong(
    options: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(tmp_path, session(0))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.key").write_text("short")
    done, _ = exported(tmp_path, *options)
    assert done.exit_code == code, done.output
    assert said in done.output


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done, _ = exported(tmp_path, events="pipe")
    assert done.exit_code == 2
    assert "cannot be read twice" in done.output


def test_invalid_lines_are_counted(tmp_path: Path) -> None:
    ran(tmp_path, session(0))
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write("{}\n")
    output = tmp_path / "labels.out"
    done, lines = exported(tmp_path, "--output", str(output))
    assert (done.exit_code, lines) == (3, [])
    assert "1 events are invalid" in done.stderr
    assert output.read_bytes().count(b"\n") == 2
