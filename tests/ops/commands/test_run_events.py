"""What `run` says of values, names and kinds that it cannot use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.schemas.codec import EventError
from backchannel.schemas.events import Impression, Query, Result
from backchannel.streams.config import Config
from backchannel.streams.pipeline.local import LocalPipeline
from tests.support.ledgers import sqlite_url

pytestmark = pytest.mark.usefixtures("patient_health")

TS = 1_700_000_000_000


def turn(number: int, **changes: Any) -> list[dict[str, Any]]:
    """A query, what it was shown, and a click on it."""
    common = {"session_id": f"s{number}", "query_id": f"q{number}", "ts": TS + 1000 * number}
    result = {"entity_id": "a", "position": 1, "strategies": ["lexical", "hybrid"]}
    return [
        {**common, "type": "query", "event_id": f"{number}q", "text": "jazz", **changes.get("query", {})},
        {**common, "type": "impression", "event_id": f"{number}i", "results": [result]},
        {**common, "type": "click", "event_id": f"{number}c", "entity_id": "a", **changes.get("click", {})},
    ]


def run(folder: Path, events: list[dict[str, Any]], *options: str) -> tuple[int, dict[str, Any], str]:
    """Run a file; return the exit code, the summary, and what health says of a check of `options`."""
    file = folder / "events"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    command = ["run", str(file), "--store", sqlite_url(folder), *options]
    text = CliRunner().invoke(main, command)
    folder.joinpath("store.db").unlink()
    done = CliRunner().invoke(main, [*command, "--json"])
    return done.exit_code, json.loads(done.stdout), " ".join(text.stdout.split())


def health(folder: Path, check: str, *options: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["health", "--store", sqlite_url(folder), "--check", check, "--json", *options])
    found: dict[str, Any] = json.loads(done.stdout)["checks"][0]
    return found


def test_values_that_are_left_out_are_counted_by_field(tmp_path: Path) -> None:
    events = turn(1, query={"context": {"x": None, "ua": "x" * 300}, "user_id": ""}, click={"dwell_ms": -1})
    code, found, text = run(tmp_path, events)
    assert (code, found["turns"], found["lost"]) == (0, 1, 0.0)
    assert {field: one["count"] for field, one in found["dropped"].items()} == {
        "context": 2,
        "user_id": 1,
        "dwell_ms": 1,
    }
    assert "2 values of context left out, such as context.x" in text
    assert "context 2, dwell_ms 1, user_id 1" in health(tmp_path, "losses")["summary"]


def test_names_are_shown_as_they_are_even_if_they_look_like_markup(tmp_path: Path) -> None:
    odd = "[/b] [red]:smile:"
    events = turn(1, click={"entity_id": odd, "kind": odd})
    events[1]["results"] = [{"entity_id": odd, "position": 1, "strategies": [odd]}]
    events[1]["allocation"] = {odd: 5}
    _, found, text = run(tmp_path, events)
    assert found["strategies"][0]["strategy"] == odd
    assert text.count(odd) == 2
    shown = CliRunner().invoke(main, ["memory", "recall", "jazz", "--store", sqlite_url(tmp_path)])
    assert odd in shown.stdout, shown.output


def test_strict_configuration_makes_them_dead_letters(tmp_path: Path) -> None:
    (tmp_path / "strict.toml").write_text("[events]\nstrict = true\n")
    code, found, _ = run(tmp_path, turn(1, click={"dwell_ms": -1}), "--config", str(tmp_path / "strict.toml"))
    assert (code, found["dead_letters"], found["dropped"]) == (3, 1, {})


def test_a_strategy_that_nobody_configured_is_named_with_the_line_that_adds_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[bandit]\nstrategies = ["lexical", "new"]\n')
    events = [event for number in range(3) for event in turn(number)]
    code, found, text = run(tmp_path, events, "--config", str(file))
    assert (code, found["unknown_strategies"]) == (0, {"hybrid": 3})
    assert "hybrid in 3 turns" in text
    assert '"new", "hybrid"]' in text
    check = health(tmp_path, "names", "--config", str(file))
    assert check["status"] == "warn"
    assert '"hybrid"]' in check["remedy"]


def test_without_configured_strategies_those_of_the_events_are_taken(tmp_path: Path) -> None:
    code, found, text = run(tmp_path, [event for number in range(3) for event in turn(number)])
    assert (code, found["unknown_strategies"], found["taken"]) == (0, {}, True)
    assert [(one["strategy"], round(one["turns"])) for one in found["strategies"]] == [("lexical", 3), ("hybrid", 3)]
    assert "these are those that events name" in text
    assert health(tmp_path, "names")["status"] == "ok"


def test_kinds_of_which_nothing_is_configured_are_shown_and_a_dislike_is_no_success(tmp_path: Path) -> None:
    kinds = ["play", "play", *["thumbs_down"] * 20]
    events = [event for number, kind in enumerate(kinds) for event in turn(number, click={"kind": kind})]
    _, found, text = run(tmp_path, events)
    assert found["unknown_kinds"] == {"play": 2}
    assert "play (2)" in text
    rewards = [one["reward"] for one in found["strategies"] if one["strategy"] == "lexical"]
    assert rewards == [pytest.approx(2 / 22, abs=0.01)]


def test_an_event_with_numbers_of_numpy_is_learned_and_an_invalid_one_refused_at_once(tmp_path: Path) -> None:
    whole: Any = np.int64
    single: Any = np.float32
    common: dict[str, Any] = {"session_id": "s", "query_id": "q"}
    results = (Result("a", whole(1), ("lexical",), {"lexical": whole(1)}, {"price": single(0.5)}),)
    query = Query(event_id="1", ts=whole(TS), text="jazz", context={"hour": np.float64(3)}, **common)
    shown = Impression(
        event_id="2",
        ts=whole(TS),
        results=results,
        allocation={"lexical": whole(3)},
        propensities={"lexical": np.float64(0.5)},
        policy_version=whole(4),
        **common,
    )
    with LocalPipeline(sqlite_url(tmp_path), Config(), "s") as pipeline:
        with pytest.raises(EventError, match=r"results\[0\].position"):
            pipeline.feed([query, Impression(event_id="3", ts=TS, results=(Result("a", whole(-1)),), **common)])
        pipeline.feed([query, shown])
        pipeline.finish()
        pipeline.commit()
        assert pipeline.publish() is not None
        assert pipeline.ledger.counts()["learned"] == 2
