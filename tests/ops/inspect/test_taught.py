"""`backchannel taught`: what people taught, and how an operator undoes it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backchannel.ops.cli import main
from backchannel.schemas.events import Means, Never, Prefer, Rule, Teach
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from tests.support.ledgers import sqlite_url


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = sqlite_url(tmp_path)
    rules: list[Rule] = [
        Means(source="mum", target="call [bold]Mary[/bold]"),
        Prefer(entity_id="e1", query="jazz"),
        Never(entity_id="e2"),
    ]
    with LocalPipeline(url, Config(), "test") as pipeline:
        pipeline.feed(
            [
                Teach(event_id=f"t{at}", ts=at, session_id="s", query_id="q", user_id="me", rule=rule)
                for at, rule in enumerate(rules)
            ]
        )
        pipeline.commit()
    return url


def run(store: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["taught", *arguments, "--store", store])


def test_rules_are_listed_shown_and_undone(store: str) -> None:
    assert json.loads(run(store, "list", "--json").output)["owners"] == {"user:me": {"holding": 3, "ended": 0}}
    shown = run(store, "show", "--user", "me").output
    assert "'mum' means 'call bold mary bold'" in shown
    assert "'e1' first for 'jazz'" in shown
    assert "never 'e2'" in shown
    listed = json.loads(run(store, "show", "--user", "me", "--json").output)
    assert [one["event_id"] for one in listed] == ["t2", "t1", "t0"]
    assert "nothing" in run(store, "show", "--user", "you").output
    assert run(store, "undo", "t2").exit_code == 0
    assert "never" not in run(store, "show", "--user", "me").output
    assert "user:me" in run(store, "list").output
    again = run(store, "undo", "t2")
    assert (again.exit_code, "t2" in again.output) == (1, True)


def test_the_history_lists_what_no_longer_holds(store: str) -> None:
    assert run(store, "undo", "t2").exit_code == 0
    shown = run(store, "list", "--history").output
    assert [word for word in ("holds", "undone") if word in shown] == ["holds", "undone"]
    assert "never 'e2'" in shown
    exported = json.loads(run(store, "list", "--history", "--json").output)["user:me"]
    assert [(one["event_id"], one.get("undone", False)) for one in exported] == [
        ("undo/t2", True),
        ("t1", False),
        ("t0", False),
    ]
