"""A corpus: documents, queries and graded judgements, checked once and then immutable."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Final, Literal

import msgspec
from msgspec import Struct

Origin = Literal["real", "simulated", "generated"]


class Document(Struct, frozen=True):
    """A document that can be found.

    Attributes:
        doc_id: its id, unique in the corpus.
        title: its title.
        body: its description.
        brand, category: its brand and category; empty if unknown.
        attributes: name -> a short text.
        numbers: name -> a number.
        released: event time from which it can be found, ms since the Unix epoch; 0 if unknown.
    """

    doc_id: str
    title: str
    body: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = {}
    numbers: Mapping[str, float] = {}
    released: int = 0


class SearchQuery(Struct, frozen=True):
    """A query of a corpus.

    Attributes:
        text: the query as typed.
        grades: document id -> judged grade, at least 0; only for judged documents.
        kind: the kind of a simulated query, see `simulator`; empty for a real one.
    """

    text: str
    grades: Mapping[str, float]
    kind: str = ""


class Faults:
    """Unusable parts of a corpus: counted by kind of fault, with the first examples."""

    SHOWN: Final = 3

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, what: str, where: str) -> None:
        """Count a fault, and keep `where` it is if it is among the first of its kind."""
        self.counts[what] += 1
        if self.counts[what] <= self.SHOWN:
            self.examples.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        """Describe the faults for people, the most frequent first."""
        return [f"{count:,} x {what}: {', '.join(self.examples[what])}" for what, count in self.counts.most_common()]


class CorpusError(ValueError):
    """The corpus does not exist, or nothing in it can be used. The message says what to do."""


class Corpus:
    """Documents, queries and judgements of one catalogue.

    Unusable parts are left out, and counted and named in `faults`: documents without an id or with a duplicate
    id, documents without text, judgements of unknown documents, queries without text, and queries for which
    no relevant document is left.

    Args:
        name: the corpus's name, for people.
        documents: the documents in the catalogue's order, which breaks ties.
        queries: the judged queries. Queries with the same text are merged; the higher grade counts.
        relevant_from: the lowest relevant grade.
        origin: the origin of the queries: `real` people, `simulated` on a real catalogue, or all `generated`.
        faults: faults found while reading; further ones are added.

    Attributes:
        documents, queries: the usable documents and queries.
        number: document id -> index in `documents`.
        top_grade: the highest grade.

    Raises:
        CorpusError: no document is usable.
    """

    def __init__(
        self,
        name: str,
        documents: Iterable[Document],
        queries: Iterable[SearchQuery] = (),
        *,
        relevant_from: float = 1.0,
        origin: Origin = "real",
        faults: Faults | None = None,
    ) -> None:
        self.name: Final = name
        self.relevant_from: Final = relevant_from
        self.origin: Final[Origin] = origin
        self.faults: Final = faults or Faults()
        self.documents: Final = self._usable(documents)
        if not self.documents:
            raise CorpusError(f"{name}: no document can be used. {'; '.join(self.faults.lines()) or 'There are none'}")
        self.number: Final = {document.doc_id: place for place, document in enumerate(self.documents)}
        self.queries: Final = self._judged(queries)
        self.top_grade: Final = max((max(query.grades.values()) for query in self.queries), default=relevant_from)

    @property
    def complete(self) -> bool:
        """Whether every document counts as judged: if relevance follows from the catalogue, the rest is irrelevant."""
        return self.origin != "real"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of documents, queries and judgements, to cache results by."""
        digest = blake2b(digest_size=12)
        for item in (*self.documents, *self.queries):
            digest.update(msgspec.json.encode(item, order="sorted"))
        return digest.hexdigest()

    def relevant(self, query: SearchQuery) -> frozenset[str]:
        """Return the ids of the documents that are relevant for `query`."""
        return frozenset(doc_id for doc_id, grade in query.grades.items() if grade >= self.relevant_from)

    def with_queries(self, queries: Iterable[SearchQuery], relevant_from: float, origin: Origin) -> "Corpus":
        """Return the same catalogue with other queries."""
        return Corpus(self.name, self.documents, queries, relevant_from=relevant_from, origin=origin)

    def _usable(self, documents: Iterable[Document]) -> tuple[Document, ...]:
        kept: dict[str, Document] = {}
        for place, document in enumerate(documents, start=1):
            if not document.doc_id:
                self.faults.add("document without an id", f"number {place}")
            elif document.doc_id in kept:
                self.faults.add("duplicate document id", document.doc_id)
            elif not (document.title.strip() or document.body.strip()):
                self.faults.add("document without text", document.doc_id)
            else:
                kept[document.doc_id] = document
        return tuple(kept.values())

    def _judged(self, queries: Iterable[SearchQuery]) -> tuple[SearchQuery, ...]:
        merged: dict[str, SearchQuery] = {}
        for place, query in enumerate(queries, start=1):
            text = " ".join(query.text.split())
            if not text:
                self.faults.add("query without text", f"number {place}")
                continue
            known = dict(merged[text].grades) if text in merged else {}
            for doc_id, grade in query.grades.items():
                if doc_id in self.number:
                    known[doc_id] = max(grade, known.get(doc_id, grade))
                else:
                    self.faults.add("judgement of an unknown document", f"{doc_id} for {text!r}")
            merged[text] = SearchQuery(text, known, query.kind)
        kept = []
        for query in merged.values():
            if any(grade >= self.relevant_from for grade in query.grades.values()):
                kept.append(query)
            else:
                self.faults.add("query without a relevant document", repr(query.text))
        return tuple(kept)
