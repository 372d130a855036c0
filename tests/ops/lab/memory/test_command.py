"""`backchannel memory evaluate`, `guesses` and `converge`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from backchannel.ops.cli import main
from backchannel.ops.lab.memory.relevance import Judged, evaluate
from backchannel.schemas.events import Click, Impression, Query
from backchannel.schemas.events import Result as Shown
from tests.support.turns import closed_turn


def made_up(sessions: int, relevant_clicked: bool) -> Judged:
    """Return sessions with ten documents in random order, of which the relevant one or another one is clicked."""
    rng = np.random.default_rng(5)
    turns = []
    for number in range(sessions):
        ids = {"session_id": f"s{number}", "query_id": f"q{number}"}
        documents = [f"d{one}" for one in rng.permutation(10)]
        results = tuple(Shown(document, position) for position, document in enumerate(documents, start=1))
        clicked = "d3" if relevant_clicked else "d5"
        turns.append(
            closed_turn(
                Query(event_id="q", ts=0, text="jazz", session_id=ids["session_id"], query_id=ids["query_id"]),
                (Impression(event_id="i", ts=0, results=results, session_id="s", query_id="q"),),
                (Click(event_id="c", ts=0, entity_id=clicked, session_id="s", query_id="q"),),
            )
        )
    grades = {"1": {f"d{one}": 2 * (one == 3) for one in range(10)}}
    return Judged(turns, {f"s{number}": "1" for number in range(sessions)}, grades)


def test_if_people_click_relevant_documents_every_score_finds_them() -> None:
    found = evaluate(made_up(20, relevant_clicked=True), "text", 5, np.random.default_rng(0))
    assert (found.sessions, found.impressions, found.informed) == (20, 20, 1.0)
    shown, *learned = found.everywhere
    assert 0 < shown.ndcg.low < shown.ndcg.value < shown.ndcg.high < 0.9
    assert shown.ndcg_gain.value == 0
    for one in learned:
        assert (one.ndcg.value, one.auc.value) == (1.0, 1.0), one.ranking
        assert one.ndcg_gain.low > 0
        assert one.ndcg_gain.value == pytest.approx(1 - shown.ndcg.value)


def test_if_people_click_other_documents_every_score_is_worse() -> None:
    found = evaluate(made_up(20, relevant_clicked=False), "topic", 5, np.random.default_rng(0))
    shown, *learned = found.everywhere
    assert all(one.ndcg.value < shown.ndcg.value for one in learned)


def test_the_real_log(public_log: Callable[[str], Path]) -> None:
    files = [str(public_log(f"trec_session_2013/{name}")) for name in ("sessiontrack2013.xml.gz", "qrels.txt.gz")]
    done = CliRunner().invoke(main, ["memory", "evaluate", *files, "--json"])
    assert done.exit_code == 0, done.output
    document = orjson.loads(done.stdout)
    text, topic = document["rankings"]
    bands = document["guesses"]["bands"]
    assert 0 < sum(one["guesses"] for one in bands) < document["guesses"]["unseen"] == 467
    assert bands[-1]["right"] / bands[-1]["guesses"] > 0.9 > 0.5 > bands[0]["right"] / bands[0]["guesses"]
    assert (text["impressions"], topic["impressions"]) == (235, 235)
    assert text["informed"] < topic["informed"] < 1
    for found in (text, topic):
        for one in found["everywhere"]:
            assert 0.5 < one["ndcg"]["low"] < one["ndcg"]["value"] < one["ndcg"]["high"] < 0.75
    shown, clicks = topic["where_informed"][:2]
    assert clicks["auc"]["value"] > shown["auc"]["value"]
    again = orjson.loads(CliRunner().invoke(main, ["memory", "evaluate", *files, "--json"]).stdout)
    assert again == document


def test_guesses_are_better_the_more_similar_the_query(public_log: Callable[[str], Path]) -> None:
    data = str(public_log("slurp_asr").parent)
    done = CliRunner().invoke(main, ["memory", "guesses", data, "--json"])
    assert done.exit_code == 0, done.output
    found = orjson.loads(done.stdout)
    shares = [one["right"] / one["guesses"] for one in found["bands"]]
    assert shares == sorted(shares)
    assert shares[-1] > 0.95
    for one, share in zip(found["bands"], shares, strict=True):
        assert one["low"] < share < one["high"]
    assert "0.95" in CliRunner().invoke(main, ["memory", "guesses", data]).stdout


def test_bad_judgements_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.xml").write_text("<sessiontrack2013></sessiontrack2013>")
    (tmp_path / "qrels.txt").write_text("1 0 doc 2\n1 0 doc\n")
    done = CliRunner().invoke(main, ["memory", "evaluate", str(tmp_path / "log.xml"), str(tmp_path / "qrels.txt")])
    assert done.exit_code == 1
    assert "qrels.txt:2: '1 0 doc'" in done.stderr


def test_scores_approach_the_truth_and_predictions_help_at_first() -> None:
    done = CliRunner().invoke(main, ["memory", "converge", "--turns", "1600", "--seeds", "1", "--json"])
    assert done.exit_code == 0, done.output
    errors: dict[str, list[float]] = {}
    for one in orjson.loads(done.stdout):
        errors.setdefault(one["variant"], []).append(one["error"])
    for found in errors.values():
        assert len(found) == 6
        assert found[-1] < found[0]
    assert errors["learned curve, predictions"][0] < 0.9 * errors["learned curve"][0]
    assert errors["learned curve"][-1] < errors["no position bias"][-1]


def test_without_json_tables_are_printed() -> None:
    done = CliRunner().invoke(main, ["memory", "converge", "--turns", "200", "--seeds", "1"])
    assert done.exit_code == 0, done.output
    assert "learned curve, predictions" in done.stdout
