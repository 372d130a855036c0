"""`backchannel prime` as its users see it."""

import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from backchannel.ops.cli import main
from backchannel.ops.commands.predictions import BadLine, PredictionFile
from backchannel.streams.extras import install
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader
from tests.support.ledgers import sqlite_url


def prime(folder: Path, content: bytes | str, name: str = "predictions.jsonl") -> Result:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CliRunner().invoke(main, ["prime", str(file), "--store", sqlite_url(folder), "--json"])


def policy(folder: Path) -> Policy:
    reader = PolicyReader(sqlite_url(folder))
    try:
        return reader.policy
    finally:
        reader.close()


def scores(folder: Path) -> dict[str, dict[str, float]]:
    return {
        query: {one.entity_id: round(one.score, 4) for one in found} for query, found in policy(folder).memory().items()
    }


GOOD = '{"query": "Hey Jude!", "entity_id": "a", "score": 0.4}\n'


def test_predictions_are_recalled(tmp_path: Path) -> None:
    done = prime(tmp_path, GOOD + '\n{"type": "prediction", "query": "hey jude", "entity_id": "b", "score": 1}')
    assert done.exit_code == 0, done.output
    assert orjson.loads(done.stdout)["changed"] == 2
    assert scores(tmp_path) == {"hey jude": {"b": 1.0, "a": 0.4}}
    assert [one.evidence for one in policy(tmp_path).recall("HEY jude", 5)] == [0, 0]


def test_good_lines_are_loaded_and_bad_ones_reported(tmp_path: Path) -> None:
    bad = {
        2: '{"query": "q", "entity_id": "a", "score": 1.01}',
        3: '{"query": "q", "entity_id": "a", "score": -0.1}',
        4: '{"query": "q", "entity_id": "a", "score": "high"}',
        5: '{"query": "q", "entity_id": "a"}',
        6: '{"query": " ", "entity_id": "a", "score": 0.5}',
        7: '{"query": "q", "entity_id": "", "score": 0.5}',
        8: '{"query": "q", "entity_id": "a\\u0000", "score": 0.5}',
        9: '{"type": "click", "query": "q", "entity_id": "a", "score": 0.5}',
        10: "[]",
        11: "{",
        12: '{"type": "entity", "entity_id": "a"}',
    }
    done = prime(tmp_path, GOOD + "\n".join(bad.values()))
    assert done.exit_code == 3
    primed = orjson.loads(done.stdout)
    assert [one["line"] for one in primed["bad"]] == list(bad)
    assert primed["bad"][0]["reason"] == "score: Expected `float` <= 1.0, got 1.01"
    assert primed["bad"][3]["reason"] == "score: missing"
    assert "predictions.jsonl:2: score: Expected" in done.stderr
    assert scores(tmp_path) == {"hey jude": {"a": 0.4}}


def test_the_last_of_duplicates_counts_and_unknown_columns_are_named(tmp_path: Path) -> None:
    again = '{"query": "hey  jude", "entity_id": "a", "score": 0.6, "model": "m1"}'
    primed = orjson.loads(prime(tmp_path, GOOD + again).stdout)
    assert (primed["duplicates"], primed["unknown"]) == (1, ["model"])
    assert scores(tmp_path) == {"hey jude": {"a": 0.6}}


def test_loading_again_changes_nothing_another_file_replaces_and_0_takes_back(tmp_path: Path) -> None:
    first = GOOD + '{"query": "other", "entity_id": "a", "score": 0.3}'
    prime(tmp_path, first)
    again = orjson.loads(prime(tmp_path, first).stdout)
    assert (again["changed"], again["version"]) == (0, None)
    prime(tmp_path, '{"query": "hey jude", "entity_id": "a", "score": 0.1}')
    assert scores(tmp_path) == {"hey jude": {"a": 0.1}, "other": {"a": 0.3}}
    prime(tmp_path, '{"query": "hey jude", "entity_id": "a", "score": 0}')
    assert scores(tmp_path) == {"other": {"a": 0.3}}


def test_csv(tmp_path: Path) -> None:
    lines = [
        "type,query,entity_id,score,title,aliases,mood",
        "prediction,hey jude,a,0.4,,,",
        ",hey jude,b,nan,,,",
        ",hey jude,c,,,,",
        "entity,,d,,Velvet Night,VN|Velvet,mellow",
        ",hey jude,e,1,,,,,",
    ]
    done = prime(tmp_path, "\ufeff" + "\r\n".join(lines), "predictions.csv")
    primed = orjson.loads(done.stdout)
    assert [one["line"] for one in primed["bad"]] == [3, 4, 6]
    assert (primed["predictions"], primed["entities"], primed["proposals"]) == (1, 1, 3)
    assert scores(tmp_path) == {
        "hey jude": {"a": 0.4},
        "velvet night": {"d": 0.5},
        "velvet": {"d": 0.5},
        "vn": {"d": 0.5},
    }


def test_csv_as_spreadsheets_and_statisticians_write_it(tmp_path: Path) -> None:
    done = prime(tmp_path, "query, entity_id, score\nhey jude, a, .4\nhey jude, b, +0.3\n", "predictions.csv")
    assert done.exit_code == 0, done.output
    assert scores(tmp_path) == {"hey jude": {"a": 0.4, "b": 0.3}}


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"query": ["hey jude", "x", None], "entity_id": ["a", "b", "c"], "score": [0.4, 2.0, 0.5]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "predictions.parquet")
    done = CliRunner().invoke(
        main, ["prime", str(tmp_path / "predictions.parquet"), "--store", sqlite_url(tmp_path), "--json"]
    )
    assert [one["line"] for one in orjson.loads(done.stdout)["bad"]] == [2, 3]
    assert scores(tmp_path) == {"hey jude": {"a": 0.4}}
    assert prime(tmp_path, b"PAR1 nonsense", "other.parquet").exit_code == 1


def test_parquet_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = prime(tmp_path, b"", "predictions.parquet")
    assert done.exit_code == 1
    assert install("parquet") in done.stderr


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    done = prime(tmp_path, b"query,entity_id,score\n\xff,a,0.5\n", "predictions.csv")
    assert done.exit_code == 1
    assert "predictions.csv" in done.stderr


@given(st.binary(max_size=200), st.sampled_from(["any.jsonl", "any.csv"]))
def test_no_content_breaks_it(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    assert prime(folder, content, name).exit_code in (0, 1, 3)


def test_a_line_is_a_value_of_the_struct(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD + "x")
    first, second = PredictionFile(tmp_path / "a.jsonl").lines()
    assert not isinstance(first, BadLine)
    assert isinstance(second, BadLine)
