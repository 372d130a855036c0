"""Corpora: what can be used is used, and what cannot is counted and named."""

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backchannel.ops.lab.search.corpus import Corpus, CorpusError, Document, SearchQuery
from backchannel.ops.lab.search.readers import read

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "title": "red lamp", "colour": "red", "power": 5, "released": "2024-03-01"},
    {"id": "b", "title": "blue lamp", "body": "for reading", "brand": "Alder", "category": "lamp", "released": 1000},
    {"id": "", "title": "nameless"},
    {"id": "a", "title": "again"},
    {"id": "c", "title": " ", "body": None},
    {"id": "d", "body": "only a body", "released": "soon"},
]
JUDGEMENTS: list[dict[str, Any]] = [
    {"query": "lamp", "id": "a", "grade": 1},
    {"query": "lamp", "id": "a", "grade": 2},
    {"query": " lamp ", "id": "b", "grade": 0},
    {"query": "lamp", "id": "zzz", "grade": 2},
    {"query": "lamp", "id": "b", "grade": "much"},
    {"query": "lamp", "id": "b", "grade": -1},
    {"query": "lamp", "id": "b", "grade": float("nan")},
    {"query": "fan", "id": "b", "grade": 0},
    {"query": "", "id": "b", "grade": 1},
]


def write_jsonl(folder: Path) -> None:
    (folder / "documents.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in DOCUMENTS) + "[1]\n{oops\n\n")
    (folder / "judgements.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in JUDGEMENTS))


def write_csv(folder: Path) -> None:
    for name, rows in (("documents", DOCUMENTS), ("judgements", JUDGEMENTS)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)


def write_parquet(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    for name, rows in (("documents", DOCUMENTS), ("judgements", JUDGEMENTS)):
        keys = dict.fromkeys(key for row in rows for key in row)
        numeric = {"power"}
        columns = {
            key: [row.get(key) if key in numeric or row.get(key) is None else str(row[key]) for row in rows]
            for key in keys
        }
        parquet.write_table(pyarrow.table(columns), folder / f"{name}.parquet")


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_ones_own_corpus_is_read_and_its_faults_are_named(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    corpus = read(tmp_path)
    assert [document.doc_id for document in corpus.documents] == ["a", "b", "d"]
    first, second, _ = corpus.documents
    assert first.attributes == {"colour": "red"}
    assert first.numbers == {"power": 5.0}
    assert first.released == 1_709_251_200_000
    assert (second.brand, second.category, second.released, second.numbers) == ("Alder", "lamp", 1000, {})
    (query,) = corpus.queries
    assert (query.text, query.grades) == ("lamp", {"a": 2.0, "b": 0.0})
    counts = dict(corpus.faults.counts)
    assert counts.pop("line that is not a JSON object", 2) == 2
    assert counts == {
        "document without an id": 1,
        "duplicate document id": 1,
        "document without text": 1,
        "`released` is neither milliseconds nor an ISO date": 1,
        "judgement of an unknown document": 1,
        "judgement whose grade is not a number from 0 up": 3,
        "judgement without a query or an id": 1,
        "query without a relevant document": 1,
    }
    assert any("zzz" in line for line in corpus.faults.lines())


def test_where_there_is_no_corpus_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        read(tmp_path / "none")
    with pytest.raises(CorpusError, match=r"documents\.jsonl"):
        read(tmp_path)
    (tmp_path / "documents.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(CorpusError, match="1 x document without text: a"):
        read(tmp_path)


def test_the_fingerprint_is_of_documents_and_judgements() -> None:
    documents = [Document("a", "one"), Document("b", "two")]
    queries = [SearchQuery("one", {"a": 1.0, "b": 0.0})]
    same = Corpus("other name", documents, [SearchQuery("one", {"b": 0.0, "a": 1.0})])
    corpus = Corpus("name", documents, queries)
    assert corpus.fingerprint == same.fingerprint
    assert corpus.fingerprint != Corpus("name", documents, [SearchQuery("one", {"a": 2.0})]).fingerprint


def test_cranfield_is_read(public_log: Callable[[str], Path]) -> None:
    corpus = read(public_log("cranfield"))
    assert (len(corpus.documents), len(corpus.queries), corpus.top_grade) == (1398, 225, 4.0)
    assert corpus.faults.counts["document without text"] == 2
    assert not any(document.body.startswith(document.title) for document in corpus.documents)


def test_icecat_is_read(public_log: Callable[[str], Path]) -> None:
    corpus = read(public_log("icecat_chorus"))
    assert (len(corpus.documents), len(corpus.queries), corpus.top_grade) == (19_406, 113, 3.0)
    assert corpus.documents[0].brand == "Xerox"
    assert corpus.documents[0].numbers["price"] == 49.95
    assert dict(corpus.faults.counts) == {"query without a relevant document": 22}


def test_trec_sessions_are_read(public_log: Callable[[str], Path]) -> None:
    corpus = read(public_log("trec_session_2013"))
    assert (len(corpus.documents), len(corpus.queries), corpus.top_grade) == (2736, 423, 4.0)
    assert corpus.faults.counts["query without a relevant document"] == 43
    assert all(min(query.grades.values()) >= 0 for query in corpus.queries)


def test_a_session_log_that_is_none_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "sessiontrack2013.xml.gz", "wt") as file:
        file.write("<sessiontrack2013><session>")
    with pytest.raises(CorpusError, match=r"qrels\.txt\.gz"):
        read(tmp_path)
    with gzip.open(tmp_path / "qrels.txt.gz", "wt") as file:
        file.write("1 0 a 1\n")
    with pytest.raises(CorpusError, match="not a session log"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"), [("documents.csv", b"\xff\xfe"), ("documents.jsonl.gz", b"x"), ("documents.parquet", b"x")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow.parquet")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=re.escape(f"{tmp_path / name}: ")):
        read(tmp_path)
