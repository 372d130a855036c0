"""Simulated queries on a real catalogue, with relevant documents that follow from the catalogue; thousands, by a seed.

Nobody typed or judged these queries: say "simulated queries on a real catalogue" wherever they are used.
They exist because catalogues with judgements have few queries. The kinds, and the relevant documents for each:

=================  ==============================================================  =================================
kind               the query                                                       relevant
=================  ==============================================================  =================================
title words        2 to 4 telling words of one title                               that document, and its variants
description words  3 to 5 words of one body that are not in its title              that document, and its variants
brand + type       a brand and a type, in singular or plural                       documents of that brand and type
attribute values   a type and one or two values of attributes, or a number         documents of that type with them
misspelt           one of the above with a typing error in one or two words        as without the error
compound           one of the above with two words joined, or a long one split     as without
paraphrase         one of the above in which one or two words are replaced by      as without
                   their nearest neighbours in a sentence encoder
=================  ==============================================================  =================================

The *type* of a document is its category, or else the phrase of its title that the most titles of other brands share
("toner cartridge"). Generators do not know types found in this way. *Variants* have the same brand and type and
share at least 60% of the title's words (Jaccard). The document itself has grade 3, variants have 2. Queries with more
than 40 relevant documents are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.random import Generator as Rng
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Corpus, Document, SearchQuery
from backchannel.ops.lab.search.generators.structured import QUANTITY
from backchannel.schemas.text import normalize

MOST_RELEVANT: Final = 40
RELEVANT_FROM: Final = 2.0
ALIKE: Final = 0.6
NEIGHBOURS: Final = (0.5, 0.95)
"""Range of cosines for a word to replace another."""

KINDS: Final = {
    "title words": 0.2,
    "description words": 0.15,
    "brand + type": 0.15,
    "attribute values": 0.15,
    "misspelt": 0.15,
    "compound": 0.1,
    "paraphrase": 0.1,
}
"""Kind of query -> its share."""

_EXACT: Final = ("title words", "description words", "brand + type", "attribute values")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_LEAST_TYPE: Final = 8  # minimum number of documents of a type
_LEAST_VALUE: Final = 5  # minimum number of documents with an attribute's value
_VOCABULARY: Final = 3000
_FUNCTION_WORDS: Final = frozenset(
    ["and", "for", "from", "into", "not", "other", "series", "the", "type", "unit", "use", "with", "without"]
)
_SPECIFICITY: Final = {1: 1.0, 2: 6.0, 3: 9.0}  # weights of phrases by their number of words

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> unit vectors, (texts, dimension)."""


def simulate(corpus: Corpus, count: int, seed: int, encode: Encode | None = None) -> Corpus:
    """Return `corpus` with simulated queries instead of its own.

    Args:
        corpus: a catalogue.
        count: the number of distinct queries; a small catalogue may yield fewer.
        seed: the seed of all randomness.
        encode: a sentence encoder, for paraphrases; None for no paraphrases.
    """
    kinds = {kind: share for kind, share in KINDS.items() if encode or kind != "paraphrase"}
    catalogue = _Catalogue(corpus.documents)
    rng = np.random.default_rng(seed)
    writers: dict[str, Callable[[SearchQuery], str]] = {
        "misspelt": lambda query: _misspelt(rng, query.text),
        "compound": lambda query: _compound(rng, query.text),
    }
    if encode:
        neighbours = _Neighbours(catalogue.vocabulary(_VOCABULARY), encode)
        writers["paraphrase"] = lambda query: neighbours.replace(rng, query.text)
    exact = catalogue.queries(rng)
    queries: dict[str, SearchQuery] = {}
    for kind, share in kinds.items():
        wanted = round(count * share / sum(kinds.values()))
        for _ in range(20 * wanted):
            if wanted == 0:
                break
            query = next(exact[kind if kind in _EXACT else _EXACT[rng.integers(len(_EXACT))]], None)
            if query is None:  # the catalogue yields no query of this kind, for example without attributes
                continue
            text = writers[kind](query) if kind in writers else query.text
            if text and text not in queries and (kind in _EXACT or text != query.text):
                queries[text] = SearchQuery(text, query.grades, kind)
                wanted -= 1
    return corpus.with_queries(
        queries.values(), RELEVANT_FROM, "generated" if corpus.origin == "generated" else "simulated"
    )


class _Catalogue:
    """The parts of a catalogue that queries are made of."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.titles = [normalize(document.title).split() for document in documents]
        self.bodies = [normalize(document.body).split() for document in documents]
        self.brands = [normalize(document.brand) for document in documents]
        self.frequency = Counter(word for title in self.titles for word in set(title))
        self.body_frequency = Counter(word for body in self.bodies for word in set(body))
        self.types = self._types()
        self.facts = self._facts()
        self.of_type: defaultdict[str, list[int]] = defaultdict(list)
        self.of_both: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for place, (brand, kind) in enumerate(zip(self.brands, self.types, strict=True)):
            if kind:
                self.of_type[kind].append(place)
                self.of_both[brand, kind].append(place)

    def vocabulary(self, most: int) -> list[str]:
        """Return the most frequent words of titles, without names."""
        names = {word for brand in self.brands for word in brand.split()}
        return [
            word for word, _ in self.frequency.most_common() if word.isalpha() and len(word) > 3 and word not in names
        ][:most]

    def queries(self, rng: Rng) -> dict[str, Iterator[SearchQuery]]:
        return {
            "title words": self._known_items(rng, self._title_words),
            "description words": self._known_items(rng, self._body_words),
            "brand + type": self._brands_and_types(rng),
            "attribute values": self._values(rng),
        }

    def _types(self) -> list[str]:
        """Return each document's type; empty if none was found."""
        brands_of: defaultdict[str, set[str]] = defaultdict(set)
        count: Counter[str] = Counter()
        values = Counter(normalize(value) for document in self.documents for value in document.attributes.values())
        phrases_of = []
        for title, brand in zip(self.titles, self.brands, strict=True):
            own = set(brand.split())
            usable = [
                word
                if word.isalpha()
                and len(word) > 3
                and not (word in own or word in _FUNCTION_WORDS)
                and values[word] < 20
                else ""
                for word in title
            ]
            phrases = {
                " ".join(usable[at : at + length])
                for length in (1, 2, 3)
                for at in range(len(usable) - length + 1)
                if all(usable[at : at + length])
            }
            phrases_of.append(phrases)
            count.update(phrases)
            for phrase in phrases:
                brands_of[phrase].add(brand)
        types = []
        for document, phrases in zip(self.documents, phrases_of, strict=True):
            shared = [
                phrase
                for phrase in phrases
                if count[phrase] >= _LEAST_TYPE and (len(brands_of[phrase]) > 1 or not document.brand)
            ]
            found = max(
                shared, key=lambda phrase: (count[phrase] * _SPECIFICITY[len(phrase.split())], phrase), default=""
            )
            types.append(normalize(document.category) or found)
        return types

    def _variants(self, place: int) -> dict[str, float]:
        own = set(self.titles[place])
        grades = {}
        for other in self.of_both.get((self.brands[place], self.types[place]), ()):
            words = set(self.titles[other])
            if len(own & words) >= ALIKE * len(own | words):
                grades[self.documents[other].doc_id] = 2.0
        grades[self.documents[place].doc_id] = 3.0
        return grades

    def _known_items(self, rng: Rng, choose: Callable[[Rng, int], str]) -> Iterator[SearchQuery]:
        for _ in range(1_000_000):
            place = int(rng.integers(len(self.documents)))
            text = choose(rng, place)
            grades = self._variants(place) if text else {}
            if text and len(grades) <= MOST_RELEVANT:
                yield SearchQuery(text, grades)

    def _title_words(self, rng: Rng, place: int) -> str:
        words = list(dict.fromkeys(self.titles[place]))
        return self._telling(rng, words, self.frequency, (2, 4))

    def _body_words(self, rng: Rng, place: int) -> str:
        title = set(self.titles[place])
        words = [word for word in dict.fromkeys(self.bodies[place]) if word not in title]
        return self._telling(rng, words, self.body_frequency, (3, 5))

    def _telling(self, rng: Rng, words: list[str], frequency: Counter[str], bounds: tuple[int, int]) -> str:
        """Draw some of the words, in order; rare ones more often, but seldom those that occur only once."""
        low, high = bounds
        size = int(rng.integers(low, high, endpoint=True))
        if len(words) < size:
            return ""
        idf = np.log(len(self.documents) / np.array([frequency[word] for word in words]) + 1)
        weights = idf * np.where([frequency[word] == 1 for word in words], 0.2, 1.0)
        chosen = rng.choice(len(words), size, replace=False, p=weights / weights.sum())
        return " ".join(words[at] for at in sorted(chosen.tolist()))

    def _brands_and_types(self, rng: Rng) -> Iterator[SearchQuery]:
        pairs = [
            (pair, places) for pair, places in self.of_both.items() if pair[0] and 2 <= len(places) <= MOST_RELEVANT
        ]
        for _ in range(1_000_000 if pairs else 0):
            (brand, kind), places = pairs[rng.integers(len(pairs))]
            plural = "s" if rng.random() < 0.5 and not kind.endswith("s") else ""
            yield SearchQuery(f"{brand} {kind}{plural}", self._all_of(places))

    def _values(self, rng: Rng) -> Iterator[SearchQuery]:
        usable = [place for place, kind in enumerate(self.types) if kind and self.facts[place]]
        for _ in range(1_000_000 if usable else 0):
            place = usable[rng.integers(len(usable))]
            facts = self.facts[place]
            size = min(int(rng.integers(1, 2, endpoint=True)), len(facts))
            chosen = [facts[at] for at in rng.choice(len(facts), size, replace=False).tolist()]
            found = [other for other in self.of_type[self.types[place]] if set(chosen) <= set(self.facts[other])]
            if len(found) <= MOST_RELEVANT:
                said = " ".join(value for _, value in chosen)
                yield SearchQuery(f"{said} {self.types[place]}", self._all_of(found))

    def _facts(self) -> list[list[tuple[str, str]]]:
        """Return each document's facts: short texts shared with others, and numbers as written in the title."""
        shared = Counter(
            (name, normalize(value)) for document in self.documents for name, value in document.attributes.items()
        )
        facts = []
        for document, kind in zip(self.documents, self.types, strict=True):
            texts = [(name, normalize(value)) for name, value in document.attributes.items()]
            said = [
                (name, value)
                for name, value in texts
                if 1 <= len(value.split()) <= 3
                and not value.isdigit()
                and value != kind
                and shared[name, value] >= _LEAST_VALUE
            ]
            quantities = [(float(found[1]), found[0]) for found in QUANTITY.finditer(normalize(document.title))]
            said += [
                (name, words)
                for name, value in document.numbers.items()
                for number, words in quantities
                if number == value and name != "price"
            ]
            facts.append(said)
        return facts

    def _all_of(self, places: Sequence[int]) -> dict[str, float]:
        return {self.documents[place].doc_id: 3.0 for place in places}


def _misspelt(rng: Rng, text: str) -> str:
    """Make a typing error in one or two words of at least five letters; return an empty text if there is no such
    word.
    """
    words = text.split()
    long = [at for at, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return ""
    for at in rng.choice(long, min(len(long), int(rng.integers(1, 2, endpoint=True))), replace=False).tolist():
        word = words[at]
        where = int(rng.integers(1, len(word) - 1))
        letter = _LETTERS[rng.integers(len(_LETTERS))]
        words[at] = (
            word[:where] + word[where + 1 :],
            word[:where] + letter + word[where + 1 :],
            word[:where] + letter + word[where:],
            word[:where] + word[where + 1] + word[where] + word[where + 2 :],
        )[rng.integers(4)]
    return " ".join(words)


def _compound(rng: Rng, text: str) -> str:
    """Join two adjacent words, or split a word of at least eight letters; return an empty text if neither is
    possible.
    """
    words = text.split()
    pairs = [at for at in range(len(words) - 1) if words[at].isalpha() and words[at + 1].isalpha()]
    long = [at for at, word in enumerate(words) if len(word) >= 8 and word.isalpha()]
    if pairs and (not long or rng.random() < 0.7):
        at = pairs[rng.integers(len(pairs))]
        return " ".join([*words[:at], words[at] + words[at + 1], *words[at + 2 :]])
    if long:
        at = long[rng.integers(len(long))]
        where = int(rng.integers(3, len(words[at]) - 3, endpoint=True))
        return " ".join([*words[:at], words[at][:where], words[at][where:], *words[at + 1 :]])
    return ""


class _Neighbours:
    """Words of similar meaning, by an encoder. They include opposites: likeness is no evidence of meaning."""

    def __init__(self, words: Sequence[str], encode: Encode) -> None:
        self._words = words
        self._place = {word: at for at, word in enumerate(words)}
        self._vectors = encode(words) if words else np.empty((0, 1), np.float32)

    def replace(self, rng: Rng, text: str) -> str:
        """Replace one or two words; return an empty text if no word has a replacement."""
        words = text.split()
        known = [at for at, word in enumerate(words) if word in self._place]
        changed = False
        for at in rng.permutation(known).tolist()[:2]:
            others = self._of(words[at])
            if others:
                words[at] = others[rng.integers(len(others))]
                changed = True
        return " ".join(words) if changed else ""

    def _of(self, word: str) -> list[str]:
        likeness = self._vectors @ self._vectors[self._place[word]]
        low, high = NEIGHBOURS
        nearest = np.argsort(-likeness, kind="stable")[:8].tolist()
        return [self._words[at] for at in nearest if low <= likeness[at] <= high and self._words[at][:4] != word[:4]][
            :3
        ]
