"""The built-in predictor: queries that a new entity may be asked for, before anybody has clicked it.

People name a thing by some of its words. So the queries proposed for an entity are its title, its aliases, and subsets
of the words in its title, aliases and attributes: the subsets most used in people's queries, in people's own wording
where there is one. A query that fits several entities says little about each: the score of a proposal is HIT divided by
the number of entities that have all its words.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from math import prod
from typing import Annotated, Final

from msgspec import Meta, Struct

from backchannel.schemas.events import Id, Text
from backchannel.schemas.text import normalize

HIT: Final = 0.5
"""The score of a query that fits only one entity."""
PROPOSALS: Final = 20
"""The most subsets proposed per entity, besides its title and aliases."""

_WORDS: Final = 3  # the most words in a subset
_CONSIDERED: Final = 12  # the most words considered per entity, which have 298 such subsets


class Entity(Struct, frozen=True):
    """Something that can be found: a line of type `entity`.

    Attributes:
        entity_id: its id in events.
        title: its name.
        aliases: its other names.
        attributes: further texts about it, by the name of the attribute; the names themselves are not used.
    """

    entity_id: Id
    title: Annotated[Text, Meta(min_length=1)]
    aliases: tuple[Text, ...] = ()
    attributes: dict[str, str | tuple[str, ...]] = {}


class Predictor:
    """Proposes queries.

    Args:
        entities: all entities that compete with each other.
        queries: people's normalised queries, with the number of times that each was asked.
    """

    def __init__(self, entities: Sequence[Entity], queries: Mapping[str, float]) -> None:
        self._entities: Final = entities
        self._having: Final[defaultdict[str, set[int]]] = defaultdict(set)
        for number, entity in enumerate(entities):
            for word in _words(entity):
                self._having[word].add(number)
        self._wordings: Final[defaultdict[frozenset[str], list[str]]] = defaultdict(list)
        use: defaultdict[str, float] = defaultdict(float)
        total = sum(queries.values()) or 1.0
        for query, asked in queries.items():
            words = frozenset(query.split())
            for word in words:
                use[word] += asked / total
            if len(words) <= _WORDS:
                self._wordings[words].append(query)
        self._use: Final = use

    def proposals(self) -> Iterator[tuple[str, str, float]]:
        """Yield each proposal: normalised query, entity id, and score, 0 to 1."""
        for entity in self._entities:
            names = {normalize(name) for name in (entity.title, *entity.aliases)} - {""}
            subsets = self._subsets(list(_words(entity)))
            for query in sorted(names.union(*map(self._worded, subsets))):
                yield query, entity.entity_id, HIT / self._rivals(query.split())

    def _subsets(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the subsets most used in queries, without words that no query has."""
        known = sorted((word for word in words if self._use.get(word)), key=lambda word: -self._use[word])
        kept = set(known[:_CONSIDERED])
        ordered = [word for word in words if word in kept]
        subsets = chain.from_iterable(combinations(ordered, size) for size in range(1, _WORDS + 1))
        return sorted(subsets, key=self._worth, reverse=True)[:PROPOSALS]

    def _worth(self, subset: tuple[str, ...]) -> tuple[bool, float]:
        """Return a sort key: whether a query has just these words, and their probability if words were independent."""
        return frozenset(subset) in self._wordings, prod(self._use[word] for word in subset)

    def _worded(self, subset: tuple[str, ...]) -> Sequence[str]:
        return self._wordings.get(frozenset(subset)) or [normalize(" ".join(subset))]

    def _rivals(self, words: Sequence[str]) -> int:
        return max(len(set.intersection(*(self._having.get(word, set()) for word in words))), 1)


def _words(entity: Entity) -> dict[str, None]:
    """Return the distinct words of an entity, those of the title first."""
    said = chain.from_iterable([one] if isinstance(one, str) else one for one in entity.attributes.values())
    return dict.fromkeys(word for text in (entity.title, *entity.aliases, *said) for word in normalize(text).split())
