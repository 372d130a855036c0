"""`label next`: turns for people to label."""

import json
from pathlib import Path

from click.testing import CliRunner

from backchannel.ops.cli import main
from tests.ops.commands.test_diagnose import ran, turn
from tests.support.ledgers import sqlite_url


def test_it_prints_turns_without_labels_and_what_is_known_of_them(tmp_path: Path) -> None:
    labelled = [event for number in range(30) for event in turn(number, ("correct", "recognition")[number % 2])]
    others = [event for number in (30, 31, 32) for event in turn(number, "correct")[:2]]
    unlabelled = [event for number in (33, 34) for event in turn(number, "recognition")[:2]]
    ran(tmp_path, [*labelled, *others, *unlabelled])
    command = ["label", "next", str(tmp_path / "events.jsonl"), "--store", sqlite_url(tmp_path), "--count", "4"]
    found = [json.loads(line) for line in CliRunner().invoke(main, command).stdout.splitlines()]
    assert len(found) == 4
    assert {one["query_id"] for one in found} < {f"q{number}" for number in range(30, 35)}
    for one in found:
        expected = "recognition" if one["query_id"] in {"q33", "q34"} else "correct"
        assert one["diagnosis"]["failure_point"] == expected
