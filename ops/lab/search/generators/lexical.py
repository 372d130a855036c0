"""Lexical search on Tantivy: BM25 with fields and boosts, all words and phrases, character trigrams.

One index in memory serves all three. It has a single segment, so the same corpus gives the same scores and order.

References:
    Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import tantivy

from backchannel.ops.lab.search.corpus import Document
from backchannel.ops.lab.search.generators.base import Found
from backchannel.schemas.text import normalize

BOOSTS: Final = {"title": 3.0, "brand": 2.0, "category": 2.0, "body": 1.0, "attributes": 0.5}
"""Field of the index -> its boost."""

_EVERYTHING: Final = "everything"
_TRIGRAMS: Final = "trigrams"
_WORDS: Final = "words"
_HEAP: Final = 512 << 20


class TextIndex:
    """An index of the documents' texts.

    Args:
        documents: the documents of the corpus.

    Attributes:
        size: the number of documents.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self.size: Final = len(documents)
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("place", stored=True)
        for field in (*BOOSTS, _EVERYTHING):
            builder.add_text_field(field, tokenizer_name=_WORDS, index_option="position")
        builder.add_text_field(_TRIGRAMS, tokenizer_name=_TRIGRAMS, index_option="freq")
        self._schema: Final = builder.build()
        self._index: Final = tantivy.Index(self._schema)
        words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).filter(tantivy.Filter.stemmer("english"))
        self._words: Final = words.build()
        self._grams: Final = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.ngram(3, 3, False)).build()
        self._index.register_tokenizer(_WORDS, self._words)
        self._index.register_tokenizer(_TRIGRAMS, self._grams)
        writer = self._index.writer(_HEAP, 1)
        for place, document in enumerate(documents):
            texts = {name: normalize(text) for name, text in _texts(document).items()}
            everything = " ".join(filter(None, texts.values()))
            grams = f" {texts['brand']} {texts['title']} "
            writer.add_document(tantivy.Document(place=place, everything=everything, trigrams=grams, **texts))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher: Final = self._index.searcher()

    def words(self, query: str) -> list[str]:
        """Return the stems of `query`."""
        found: list[str] = self._words.analyze(normalize(query))
        return found

    def trigrams(self, query: str) -> list[str]:
        """Return the distinct trigrams of `query`, including the spaces around words."""
        found: list[str] = list(dict.fromkeys(self._grams.analyze(f" {normalize(query)} ")))
        return found

    def term(self, field: str, term: str) -> Any:
        """Return a query for one term."""
        return tantivy.Query.term_query(self._schema, field, term, index_option="freq")

    def phrase(self, field: str, terms: Sequence[str]) -> Any:
        """Return a query for a sequence of at least two terms."""
        return tantivy.Query.phrase_query(self._schema, field, list(terms))

    def document_frequency(self, stem: str) -> int:
        """Return the number of documents with `stem` in any field."""
        frequency: int = self._searcher.doc_freq(_EVERYTHING, stem)
        return frequency

    def count(self, stems: Sequence[str]) -> int:
        """Return the number of documents with all of `stems`, in any fields."""
        return self.search(self.all_of(stems), 1).total if stems else 0

    def all_of(self, stems: Sequence[str]) -> Any:
        """Return a query for all of `stems`, in any fields."""
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, self.term(_EVERYTHING, stem)) for stem in stems])

    def search(self, query: Any, depth: int) -> Found:
        """Return the best `depth` documents for a Tantivy query."""
        result: Any = self._searcher.search(query, depth, count=True)
        scores = np.array([score for score, _ in result.hits], dtype=np.float32)
        places = np.array([self._searcher.doc(address)["place"][0] for _, address in result.hits], dtype=np.int32)
        order = np.lexsort((places, -scores))
        return Found(places[order], scores[order], int(result.count))


class Lexical:
    """BM25 over boosted fields; words may be missing.

    Args:
        index: the index of the corpus.
        boosts: field -> its boost.
    """

    def __init__(self, index: TextIndex, boosts: Mapping[str, float] = BOOSTS) -> None:
        self._index = index
        self._boosts = boosts

    def find(self, query: str, depth: int) -> Found:
        """Return the documents with the highest sum of boosted BM25 scores."""
        stems = dict.fromkeys(self._index.words(query))
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.boost_query(self._index.term(field, stem), boost))
            for stem in stems
            for field, boost in self._boosts.items()
        ]
        return self._index.search(tantivy.Query.boolean_query(clauses), depth)


class AllWords:
    """Documents with every word of the query in some field; those with the whole phrase in the title come first."""

    PHRASE_BOOST: Final = 4.0

    def __init__(self, index: TextIndex) -> None:
        self._index = index

    def find(self, query: str, depth: int) -> Found:
        """Return the documents with all words, by BM25."""
        stems = self._index.words(query)
        clauses = [(tantivy.Occur.Must, self._index.all_of(list(dict.fromkeys(stems))))]
        if len(stems) > 1:
            phrase = tantivy.Query.boost_query(self._index.phrase("title", stems), self.PHRASE_BOOST)
            clauses.append((tantivy.Occur.Should, phrase))
        clauses += [(tantivy.Occur.Should, self._index.term("title", stem)) for stem in dict.fromkeys(stems)]
        return self._index.search(tantivy.Query.boolean_query(clauses), depth)


class Trigrams:
    """Character trigrams of brand and title: finds misspelt, joined and split words."""

    def __init__(self, index: TextIndex) -> None:
        self._index = index

    def find(self, query: str, depth: int) -> Found:
        """Return the documents that share trigrams with the query, by BM25."""
        clauses = [(tantivy.Occur.Should, self._index.term(_TRIGRAMS, gram)) for gram in self._index.trigrams(query)]
        return self._index.search(tantivy.Query.boolean_query(clauses), depth)


def _texts(document: Document) -> dict[str, str]:
    return {
        "title": document.title,
        "brand": document.brand,
        "category": document.category,
        "body": document.body,
        "attributes": " ".join(document.attributes.values()),
    }
