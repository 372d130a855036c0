"""A corpus: documents, queries and graded judgements, checked once and immutable from then on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Final, Literal

import msgspec
from msgspec import Struct

Origin = Literal["real", "simulated", "generated"]


class Document(Struct, frozen=True):
    """Something that can be found.

    Attributes:
        doc_id: unique in the corpus.
        title: the text that names it.
        body: what else describes it.
        brand, category: of it, if the corpus says so; else empty.
        attributes: name -> a short text.
        numbers: name -> a number.
        released: event time from which on it can be found, ms since the Unix epoch; 0 if unknown.
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
        text: as somebody types it.
        grades: document id -> judged grade, 0 and up. A document that is not named was not judged.
        kind: of simulated query, see `simulator`; empty for a real one.
    """

    text: str
    grades: Mapping[str, float]
    kind: str = ""


class Faults:
    """What of a corpus could not be used: counted by its name, with the first examples."""

    SHOWN: Final = 3

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, what: str, where: str) -> None:
        """Count a fault; remember `where` it was if it is among the first of its name."""
        self.counts[what] += 1
        if self.counts[what] <= self.SHOWN:
            self.examples.setdefault(what, []).append(where)

    def lines(self) -> list[str]:
        """Return the faults for people, the most frequent first."""
        return [f"{count:,} x {what}: {', '.join(self.examples[what])}" for what, count in self.counts.most_common()]


class CorpusError(ValueError):
    """There is no such corpus, or nothing in it can be used. The message says what to do."""


class Corpus:
    """Documents, queries and judgements of one catalogue.

    What cannot be used is left out, counted and named in `faults`: documents without an id or of an id that was there
    before, documents without any text, judgements of unknown documents, queries without text, and queries for which
    nothing relevant is left.

    Args:
        name: of the corpus, for people.
        documents: in the catalogue's order, which breaks ties.
        queries: with their judgements. The same text twice is one query; the higher grade counts.
        relevant_from: the lowest grade that is relevant.
        origin: where the queries come from: `real` people; `simulated` on a real catalogue; all `generated`.
        faults: found while reading; more are added here.

    Attributes:
        documents, queries: that can be used.
        number: document id -> its place in `documents`.
        top_grade: the highest grade there is.

    Raises:
        CorpusError: no document can be used.
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
        """Whether every document is judged: where relevance follows from the catalogue, the others are irrelevant."""
        return self.origin != "real"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of documents, queries and judgements, for what is cached of them."""
        digest = blake2b(digest_size=12)
        for item in (*self.documents, *self.queries):
            digest.update(msgspec.json.encode(item, order="sorted"))
        return digest.hexdigest()

    def relevant(self, query: SearchQuery) -> frozenset[str]:
        """Return the documents that are relevant for `query`."""
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
