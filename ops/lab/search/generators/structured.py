"""Structured search: the brand, category, attributes and numbers with units in a query, used as constraints.

The understanding is learned from the catalogue's own fields. A field's value is recognised by its words; a unit,
by a numeric field whose values precede it in titles ("6 m" in titles of cables whose `cable_length` is 6).
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.ops.lab.search.corpus import Document
from backchannel.ops.lab.search.generators.base import Found, Places, best
from backchannel.schemas.text import normalize

Role = Literal["brand", "category", "attribute", "number"]

LONGEST_VALUE: Final = 4
"""Maximum number of words in a field's value."""
LEAST_DOCUMENTS: Final = 3
"""Minimum number of documents with an attribute's value; a brand or a category needs only one."""
LEAST_UNITS: Final = 10
"""Minimum number of titles in which a field's value precedes a unit, for the unit to belong to the field."""
UNIT_SHARE: Final = 0.3
"""Minimum share of these titles among those with the unit, in documents with the field."""
TOLERANCE: Final = 0.02
"""Relative difference up to which two numbers are equal."""

QUANTITY: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?([a-z]{1,5})(?![\w.])")
"""A number with its unit."""


class Constraint(Struct, frozen=True):
    """A part of a query that names a field's value.

    Attributes:
        role: the role of the field.
        words: the words of the query.
        places: indexes of the documents with the value.
    """

    role: Role
    words: str
    places: Places


class Understood(Struct, frozen=True):
    """A parsed query.

    Attributes:
        constraints: its constraints, from left to right.
        rest: the other words.
    """

    constraints: tuple[Constraint, ...]
    rest: tuple[str, ...]

    @property
    def roles(self) -> frozenset[Role]:
        """The roles of its constraints."""
        return frozenset(constraint.role for constraint in self.constraints)


class Understanding:
    """Parses queries.

    Args:
        documents: the documents to learn fields from.
    """

    def __init__(self, documents: Sequence[Document]) -> None:
        self.size: Final = len(documents)
        values: defaultdict[tuple[Role, str], list[int]] = defaultdict(list)
        for place, document in enumerate(documents):
            named: set[tuple[Role, str]] = {
                ("brand", normalize(document.brand)),
                ("category", normalize(document.category)),
            }
            named |= {("attribute", normalize(value)) for value in document.attributes.values() if len(value) < 64}
            for key in named:
                if 1 <= len(key[1].split()) <= LONGEST_VALUE and not key[1].isdigit():
                    values[key].append(place)
        # A text that is a value of several fields has the last of these roles.
        self._values: dict[str, Constraint] = {}
        for role in ("attribute", "category", "brand"):
            least = LEAST_DOCUMENTS if role == "attribute" else 1
            for (own, text), places in values.items():
                if own == role and len(places) >= least:
                    self._values[text] = Constraint(role, text, np.array(places, np.int32))
        for word, brand in _first_words({text for role, text in values if role == "brand"}).items():
            self._values.setdefault(word, self._values[brand])
        self._numbers = _numbers(documents)
        self._units = _units(documents)

    def take_apart(self, query: str) -> Understood:
        """Parse `query`: numbers with units first, then the longest values."""
        text = normalize(query)
        constraints = []
        for found in QUANTITY.finditer(text):
            fields = self._units.get(found[2], ())
            places = self._with_number(fields, float(found[1]))
            if len(places):
                constraints.append(Constraint("number", found[0], places))
                text = text.replace(found[0], " ", 1)
        words, rest, at = text.split(), [], 0
        while at < len(words):
            for length in range(min(LONGEST_VALUE, len(words) - at), 0, -1):
                named = self._value(" ".join(words[at : at + length]))
                if named is not None:
                    constraints.append(named)
                    at += length
                    break
            else:
                rest.append(words[at])
                at += 1
        return Understood(tuple(constraints), tuple(rest))

    def _value(self, words: str) -> Constraint | None:
        """Return the value with these words, singular or plural."""
        singular = words.removesuffix("s") if len(words) > 3 else words
        return self._values.get(words) or self._values.get(singular) or self._values.get(f"{words}s")

    def _with_number(self, fields: Iterable[str], number: float) -> Places:
        found = []
        for field in fields:
            values, places = self._numbers[field]
            low = bisect_left(values, number * (1 - TOLERANCE))
            high = bisect_left(values, number * (1 + TOLERANCE) + 1e-9)
            found.append(places[low:high])
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int32)


class Structured:
    """Searches by the constraints in a query.

    Brand and category must hold, if any document satisfies both. A matching attribute or number adds its rarity;
    a word of the query in a title adds half of its rarity.

    Args:
        documents: the documents of the corpus.
        understanding: the understanding learned from them.
    """

    def __init__(self, documents: Sequence[Document], understanding: Understanding) -> None:
        self._understanding = understanding
        titles: defaultdict[str, list[int]] = defaultdict(list)
        for place, document in enumerate(documents):
            for word in set(normalize(document.title).split()):
                titles[word].append(place)
        self._titles: Final = {word: np.array(places, np.int32) for word, places in titles.items()}
        self._size: Final = len(documents)

    def find(self, query: str, depth: int) -> Found:
        """Return the best matches; none if no constraint was found."""
        understood = self._understanding.take_apart(query)
        if not understood.constraints:
            return Found(np.empty(0, np.int32), np.empty(0, np.float32), 0)
        scores = np.zeros(self._size)
        required = np.ones(self._size, bool)
        for constraint in understood.constraints:
            scores[constraint.places] += self._rarity(constraint.places)
            if constraint.role in ("brand", "category"):
                holds = np.zeros(self._size, bool)
                holds[constraint.places] = True
                if (required & holds).any():
                    required &= holds
        for word in dict.fromkeys(normalize(query).split()):
            places = self._titles.get(word)
            if places is not None:
                scores[places] += 0.5 * self._rarity(places)
        return best(np.where(required, scores, 0.0), depth)

    def _rarity(self, places: Places) -> float:
        return float(np.log1p(self._size / len(places)))


def _first_words(brands: Iterable[str]) -> dict[str, str]:
    """Return first word -> brand, for words that begin exactly one brand's name ("kingston")."""
    by_word: defaultdict[str, list[str]] = defaultdict(list)
    for brand in brands:
        by_word[brand.split(maxsplit=1)[0]].append(brand)
    return {word: found[0] for word, found in by_word.items() if len(found) == 1 and len(word) >= 4}


def _numbers(documents: Sequence[Document]) -> dict[str, tuple[list[float], Places]]:
    """Return numeric field -> its values, ascending, and the documents with them."""
    pairs: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for place, document in enumerate(documents):
        for field, value in document.numbers.items():
            pairs[field].append((value, place))
    found = {}
    for field, known in pairs.items():
        known.sort()
        found[field] = [value for value, _ in known], np.array([place for _, place in known], np.int32)
    return found


def _units(documents: Sequence[Document]) -> dict[str, list[str]]:
    """Return unit -> the numeric fields measured in it."""
    said: Counter[tuple[str, str]] = Counter()
    possible: Counter[tuple[str, str]] = Counter()
    for document in documents:
        quantities = {(float(found[1]), found[2]) for found in QUANTITY.finditer(normalize(document.title))}
        for unit in {unit for _, unit in quantities}:
            possible.update((unit, field) for field in document.numbers)
        said.update(
            {
                (unit, field)
                for number, unit in quantities
                for field, value in document.numbers.items()
                if abs(number - value) <= TOLERANCE * abs(value)
            }
        )
    units: defaultdict[str, list[str]] = defaultdict(list)
    for (unit, field), count in sorted(said.items()):
        if count >= LEAST_UNITS and count >= UNIT_SHARE * possible[unit, field]:
            units[unit].append(field)
    return dict(units)


def membership(places: Places, size: int) -> NDArray[np.bool_]:
    """Return whether each of `size` documents is among `places`, (size,)."""
    found = np.zeros(size, bool)
    found[places] = True
    return found
