"""Readers of corpora: three public ones, and your own as JSON lines, CSV or Parquet.

Your own corpus is a folder with `documents` and, if there are judged queries, `judgements`, each as `.jsonl`, `.csv`
or `.parquet`; JSON lines and CSV may be compressed (`.gz`).

- Columns of documents: `id`, `title` and, optionally, `body`, `brand`, `category`, `released` (ms since the Unix
  epoch, or an ISO date). Any other value is a number if it looks like one, or else an attribute.
- Columns of judgements: `query`, `id`, `grade` (0 and up; relevant from 1).
"""

import csv
import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Final, cast

from backchannel.ops.lab.search import trec
from backchannel.ops.lab.search.corpus import Corpus, CorpusError, Document, Faults, SearchQuery

_FORMS: Final = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
_FIELDS: Final = ("id", "title", "body", "brand", "category", "released")

Row = Mapping[str, Any]


def read(folder: Path) -> Corpus:
    """Read the corpus in `folder`, whatever its format.

    Raises:
        CorpusError: there is no corpus, or nothing in it can be used.
        ModuleNotFoundError: it is in Parquet, and the extra `parquet` is not installed.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder. Give the folder of a corpus; see docs/search.md")
    for file, reader in _KNOWN.items():
        if (folder / file).exists():
            return reader(folder)
    return own(folder)


def icecat_chorus(folder: Path) -> Corpus:
    """Read the Icecat catalogue of querqy/chorus: 19,406 products, 135 queries, graded 0 to 3; relevant from 2."""
    faults = Faults()
    documents = (_icecat_product(row) for row in _rows(folder / "products.jsonl.gz", faults))
    grades = _grades(
        (
            (row.get("query"), row.get("product_id"), row.get("rating"))
            for row in _rows(folder / "judgements.csv.gz", faults)
        ),
        faults,
    )
    queries = [SearchQuery(text, judged) for text, judged in grades.items()]
    return Corpus("icecat_chorus", documents, queries, relevant_from=2.0, faults=faults)


def cranfield(folder: Path) -> Corpus:
    """Read the Cranfield collection: 1,400 abstracts, 225 queries, graded 0 to 4; relevant from 1."""
    faults = Faults()
    documents = [
        Document(
            doc_id=_text(row.get("id")),
            title=_text(row.get("title")),
            body=_without_title(_text(row.get("text")), _text(row.get("title"))),
            attributes={"author": _text(row["author"])} if row.get("author") else {},
        )
        for row in _rows(folder / "documents.jsonl.gz", faults)
    ]
    text_of = {
        _text(row.get("id")): _text(row.get("text")).rstrip(" .") for row in _rows(folder / "queries.jsonl.gz", faults)
    }
    judged = (
        (text_of.get(row["query_id"]), row["doc_id"], row["gain"]) for row in _rows(folder / "qrels.tsv.gz", faults)
    )
    queries = [SearchQuery(text, grades) for text, grades in _grades(judged, faults).items()]
    return Corpus("cranfield", documents, queries, faults=faults)


def own(folder: Path) -> Corpus:
    """Read your own corpus; see the module."""
    faults = Faults()
    found = _find(folder, "documents")
    if found is None:
        raise CorpusError(f"{folder}: no corpus: it needs documents.jsonl, documents.csv or documents.parquet")
    documents = [_own_document(row, faults) for row in _rows(found, faults)]
    judgements = _find(folder, "judgements")
    rows = _rows(judgements, faults) if judgements else ()
    grades = _grades(((row.get("query"), row.get("id"), row.get("grade")) for row in rows), faults)
    return Corpus(folder.name, documents, [SearchQuery(text, judged) for text, judged in grades.items()], faults=faults)


_KNOWN: Final[dict[str, Callable[[Path], Corpus]]] = {
    "products.jsonl.gz": icecat_chorus,
    "qrels.tsv.gz": cranfield,
    trec.LOG: trec.trec_session,
}
"""The file that identifies a public corpus -> its reader."""


def _without_title(text: str, title: str) -> str:
    """Return an abstract without the title that it begins with; one document of Cranfield has its title twice."""
    while title and text.startswith(title):
        text = text.removeprefix(title).strip()
    return text


def _icecat_product(row: Row) -> Document:
    attributes: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for name, value in row.get("attrs", {}).items():
        if name.startswith("n_"):
            numbers[name[2:]] = float(value)
        elif name.startswith("t_"):
            attributes[name[2:]] = _text(value)
        elif value is True:
            attributes[name[2:]] = name[2:].replace("_", " ")
    return Document(
        doc_id=_text(row.get("id")),
        title=_text(row.get("title")),
        body=_text(row.get("short")),
        brand=_text(row.get("supplier")),
        category=attributes.pop("product_type", ""),
        attributes=attributes,
        numbers=numbers | {"price": float(row.get("price") or 0) / 100},
        released=_time(row.get("date")) or 0,
    )


def _own_document(row: Row, faults: Faults) -> Document:
    doc_id = _text(row.get("id"))
    released = _time(row.get("released"))
    if released is None:
        faults.add("`released` is neither milliseconds nor an ISO date", f"{row.get('released')!r} of {doc_id}")
    attributes: dict[str, str] = {}
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if name in _FIELDS or value in (None, ""):
            continue
        number = _number(value)
        if number is None:
            attributes[name] = _text(value)
        else:
            numbers[name] = number
    title, body, brand, category = (_text(row.get(field)) for field in ("title", "body", "brand", "category"))
    return Document(doc_id, title, body, brand, category, attributes, numbers, released or 0)


def _grades(judged: Iterable[tuple[Any, Any, Any]], faults: Faults) -> dict[str, dict[str, float]]:
    grades: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for query, doc_id, grade in judged:
        number = _number(grade)
        if query in (None, "") or doc_id in (None, ""):
            faults.add("judgement without a query or an id", f"{query!r}, {doc_id!r}")
        elif number is None or number < 0:
            faults.add("judgement whose grade is not a number from 0 up", f"{grade!r} of {doc_id} for {query!r}")
        else:
            grades[_text(query)][_text(doc_id)] = number
    return grades


def _find(folder: Path, name: str) -> Path | None:
    return next((folder / f"{name}{form}" for form in _FORMS if (folder / f"{name}{form}").exists()), None)


def _rows(file: Path, faults: Faults) -> Iterator[Row]:
    if not file.exists():
        raise CorpusError(f"{file}: no such file, although the rest of this corpus exists")
    try:
        yield from _read(file, faults)
    except (OSError, EOFError, ValueError, csv.Error, zlib.error) as error:  # damaged, or not in UTF-8
        raise CorpusError(f"{file}: {error}") from None


def _read(file: Path, faults: Faults) -> Iterator[Row]:
    if file.suffix == ".parquet":
        from pyarrow import parquet  # noqa: PLC0415 - an extra

        yield from parquet.read_table(file).to_pylist()
        return
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as packed:
        lines = TextIOWrapper(cast(IO[bytes], packed), encoding="utf-8", newline="")
        if ".jsonl" in file.suffixes:
            yield from _json_rows(lines, file.name, faults)
        else:
            yield from csv.DictReader(lines, delimiter="\t" if ".tsv" in file.suffixes else ",")


def _json_rows(lines: Iterable[str], name: str, faults: Faults) -> Iterator[Row]:
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        else:
            faults.add("line that is not a JSON object", f"{name} line {place}")


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(cast(Any, value))
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e300 else None


def _time(value: object) -> int | None:
    """Return ms since the Unix epoch; 0 for an empty value, None if it is not a time."""
    if value in (None, ""):
        return 0
    number = _number(value)
    if number is not None:
        return max(int(number), 0)
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return max(int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000), 0)
