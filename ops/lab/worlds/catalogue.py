"""The simulated catalogue: its entities, their titles, and how titles are misheard and misspelt."""

from dataclasses import dataclass
from itertools import product
from typing import Final

from numpy.random import Generator

KINDS: Final = ("song", "album", "artist", "venue")
MOODS: Final = ("mellow", "dark", "sunny", "loud")
STYLES: Final = ("jazz", "folk", "rock", "techno", "latin", "opera")

_WORDS: Final = """
    amber broken copper crystal distant electric emerald frozen gentle golden hidden hungry ivory lonely midnight paper
    quiet restless silver velvet violet winter
"""
"""First words of titles."""

_HOMOPHONES: Final = """
    beach/beech bear/bare bell/belle berry/bury blue/blew bough/bow cell/sell creek/creak cymbal/symbol deer/dear
    fair/fare flare/flair flower/flour gate/gait hare/hair heart/hart horse/hoarse hour/our idol/idle isle/aisle
    key/quay knot/not mail/male mane/main maze/maize medal/meddle mist/missed moor/more morning/mourning
    night/knight oar/ore peace/piece peak/peek pearl/purl rain/reign ring/wring road/rode root/route rose/rows
    rye/wry sail/sale sea/see stair/stare steel/steal sun/son sword/soared tail/tale throne/thrown thyme/time
    tide/tied vein/vain wave/waive whale/wail wheel/weal wine/whine wood/would
"""
"""Second words of titles, each with the word that a recogniser hears instead, which occurs in no title."""

_SOUNDS_LIKE: Final = dict(pair.split("/") for pair in _HOMOPHONES.split())


@dataclass(frozen=True, slots=True)
class CatalogueEntity:
    """An entity that people can look for.

    Attributes:
        entity_id: the kind and the title, to keep logs readable.
        popularity: probability that it is wanted; sums to 1 over the whole catalogue.
        chart: last season's popularity, with noise, which the `popular` strategy uses.
        released: when it becomes available, ms since the Unix epoch.
    """

    entity_id: str
    title: str
    kind: str
    mood: str
    style: str
    popularity: float
    chart: float
    released: int


def make_catalogue(rng: Generator, size: int, start: int, end: int) -> tuple[CatalogueEntity, ...]:
    """Draw a catalogue in order of release.

    Popularity follows Zipf's law (exponent 1) and depends on nothing else. Three quarters of the entities are available
    at `start`; the others are released evenly until `end`.

    Args:
        rng: the random generator.
        size: the number of entities; at most the number of possible titles.
        start, end: event times, ms since the Unix epoch.
    """
    titles = [f"{first} {second}" for first, second in product(_WORDS.split(), _SOUNDS_LIKE)]
    weights = 1.0 / rng.permutation(range(1, size + 1))
    weights /= weights.sum()
    charts = weights * rng.lognormal(0.0, 1.0, size)
    released = [end - round(4 * (end - start) * age / size) for age in range(size, 0, -1)]
    entities = []
    for number, title in enumerate(rng.choice(titles, size, replace=False)):
        kind, mood, style = (str(rng.choice(names)) for names in (KINDS, MOODS, STYLES))
        entities.append(
            CatalogueEntity(
                entity_id=f"{kind}:{title.replace(' ', '-')}",
                title=str(title),
                kind=kind,
                mood=mood,
                style=style,
                popularity=float(weights[number]),
                chart=float(charts[number]),
                released=released[number],
            )
        )
    return tuple(entities)


def misheard(title: str) -> str:
    """Return `title` as a recogniser mishears it: always the same way, so that it can be learned.

    >>> misheard("velvet night")
    'velvet knight'
    """
    first, second = title.split()
    return f"{first} {_SOUNDS_LIKE[second]}"


def misspelt(title: str) -> str:
    """Return `title` with a typing error: the first word loses its last vowel.

    >>> misspelt("velvet night")
    'velvt night'
    """
    first, second = title.split()
    last = max(first.rfind(vowel) for vowel in "aeiou")
    return f"{first[:last]}{first[last + 1 :]} {second}"
