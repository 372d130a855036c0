"""`diagnose`: labels in a log become a ranking of repairs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec import structs

from backchannel.ops.cli import main
from backchannel.schemas.codec import EventDecoder
from backchannel.schemas.events import Label
from backchannel.streams.extras import install
from backchannel.streams.turns.assembler import TurnAssembler, TurnConfig
from tests.agents.failures.test_challenger import needs_lightgbm
from tests.support.ledgers import sqlite_url

TS = 1_700_000_000_000


def turn(number: int, point: str) -> list[dict[str, Any]]:
    """A query that went right or was misheard, and its label."""
    ts = TS + 10 * number
    common = {"session_id": f"s{number}", "query_id": f"q{number}", "ts": ts}
    failed = point != "correct"
    heard: list[dict[str, Any]] = [
        {"text": "jess" if failed else "jazz", "score": -3.0 if failed else -0.1},
        {"text": "chess", "score": -3.2},
    ]
    return [
        {**common, "type": "query", "event_id": f"{number}q", "text": heard[0]["text"], "asr": {"hypotheses": heard}},
        {
            **common,
            "type": "impression",
            "event_id": f"{number}i",
            "results": [],
            "outcome": "asked" if failed else "answered",
        },
        {
            **common,
            "type": "label",
            "event_id": f"{number}l",
            "labeller": "eve",
            "labelled_at": ts + 999_999,
            "failure_point": point,
        },
    ]


def ran(folder: Path, events: list[dict[str, Any]], *options: str) -> dict[str, Any]:
    file = folder / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    done = CliRunner().invoke(main, ["run", str(file), "--store", sqlite_url(folder), "--json", *options])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


EVENTS = [event for number in range(60) for event in turn(number, ("correct", "correct", "recognition")[number % 3])]


def test_it_ranks_components_by_what_their_repair_would_save(tmp_path: Path) -> None:
    assert ran(tmp_path, EVENTS)["turns"] == 60
    command = ["diagnose", "--store", sqlite_url(tmp_path), "--by", "all"]
    found = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert found["labels"].keys() == {"correct", "recognition"}
    [best] = found["repairs"]
    assert (best["failure_point"], best["kind"], round(best["turns"])) == ("recognition", "all", 60)
    assert best["share"]["low"] < 1 / 3 < best["share"]["high"]
    page = tmp_path / "diagnosis.html"
    assert "recognition" in CliRunner().invoke(main, [*command, "--report", str(page)]).stdout
    assert "From labels" in page.read_text()
    assert "<td>recognition</td>" in page.read_text()


def test_a_label_of_a_turn_that_has_closed_is_late() -> None:
    decode = EventDecoder().decode
    *events, label = (decode(json.dumps(event).encode()) for event in turn(0, "correct"))
    assembler = TurnAssembler(["log"], TurnConfig())
    later = structs.replace(events[0], query_id="later", ts=TS + 1_000_000)
    assembler.add("log", range(3), [*events, later])
    assert not any(closed.all(Label) for closed in assembler.finish())
    assembler.add("log", [3], [label])
    assert assembler.counts["late"] == 1


def test_without_labels_rules_tell_and_it_says_what_to_send(tmp_path: Path) -> None:
    ran(tmp_path, [event for event in turn(0, "correct") if event["type"] != "label"])
    command = ["diagnose", "--store", sqlite_url(tmp_path)]
    found = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert found["weak"]
    assert found["labels"] == {}
    assert {one["failure_point"] for one in found["repairs"]} > {"recognition", "understanding"}
    page = tmp_path / "diagnosis.html"
    assert "failures.min_labels" in CliRunner().invoke(main, [*command, "--report", str(page)]).stdout
    assert "at most 100%" in page.read_text()


def test_without_events_that_tell_it_says_what_to_send(tmp_path: Path) -> None:
    asked = {key: value for key, value in turn(0, "correct")[0].items() if key != "asr"}
    ran(tmp_path, [asked])
    done = CliRunner().invoke(main, ["diagnose", "--store", sqlite_url(tmp_path)])
    assert done.exit_code == 1
    assert "`outcome`" in done.output


@needs_lightgbm
def test_a_challenger_is_shown_beside_what_is_served(tmp_path: Path) -> None:
    ran(tmp_path, EVENTS)
    page, command = tmp_path / "diagnosis.html", ["diagnose", "--store", sqlite_url(tmp_path)]
    without = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert without["comparison"] is None
    done = CliRunner().invoke(main, [*command, "--challenger", "--json", "--report", str(page)])
    found = json.loads(done.stdout)
    assert found["repairs"] == without["repairs"]
    compared = found["comparison"]
    assert (compared["turns"], compared["people"]) == (60, 60)
    assert compared["labels"].keys() == {"correct", "recognition"}
    assert "result" in compared["unknown"]
    assert compared["ridge"]["accuracy"]["value"] == 1.0
    gained = compared["challenger"]["macro_f1"]["value"] - compared["ridge"]["macro_f1"]["value"]
    assert compared["gain"]["macro_f1"]["value"] == pytest.approx(gained)
    table = CliRunner().invoke(main, [*command, "--challenger"]).stdout
    for shown in (table, page.read_text()):
        words = " ".join(shown.split())
        assert "ridge, served" in words
        assert f"{compared['challenger']['accuracy']['value']:.3f} (" in words
        assert f"{compared['gain']['accuracy']['value']:+.3f} (" in words
        assert f"{compared['verdict']}. It is not served. Both learned from 60 labelled turns of 60 people" in words


def test_what_a_challenger_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[failures]\nsampled = 0\n")
    ran(tmp_path, EVENTS, "--config", str(config))
    command = ["diagnose", "--store", sqlite_url(tmp_path), "--challenger"]
    monkeypatch.setattr("backchannel.ops.commands.challenger.is_there", lambda: True)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert "keeps no labelled turns" in done.output
    assert "failures.sampled" in done.output
    monkeypatch.setattr("backchannel.ops.commands.challenger.is_there", lambda: False)
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert f"--challenger needs LightGBM: {install('challenger')}" in done.output
