"""A small generated catalogue of household goods of made-up brands, for tests and for trying things without a corpus.

Its queries are simulated on it, so everything about it is made up: say "generated" wherever it is used.
"""

from typing import Final

import numpy as np

from backchannel.ops.lab.search.corpus import Corpus, Document
from backchannel.ops.lab.search.simulator import Encode, simulate

_BRANDS: Final = [
    "Alder",
    "Bellweather",
    "Corvid",
    "Dunmore",
    "Eastlake",
    "Fenwick",
    "Grayling",
    "Harrow",
    "Ivory",
    "Juniper",
]
_COLOURS: Final = ["black", "white", "silver", "blue", "red", "green"]
_MATERIALS: Final = ["steel", "aluminium", "oak", "bamboo", "glass", "plastic"]
_TYPES: Final = {
    "desk lamp": ("power", "W", (5, 8, 12, 20), "light reading dimmable bedside warm"),
    "floor lamp": ("power", "W", (12, 20, 40), "light corner reading tall warm"),
    "table fan": ("power", "W", (20, 35, 50), "cooling quiet breeze summer air"),
    "electric kettle": ("capacity", "l", (1, 1.5, 1.7, 2), "boil water tea kitchen quick"),
    "coffee machine": ("capacity", "l", (0.8, 1.2, 1.8), "espresso brew milk kitchen morning"),
    "frying pan": ("diameter", "cm", (20, 24, 28, 32), "cook nonstick induction kitchen egg"),
    "water bottle": ("capacity", "l", (0.5, 0.75, 1), "drink sport insulated travel leakproof"),
    "office chair": ("load", "kg", (110, 130, 150), "seat ergonomic swivel working lumbar"),
    "bookshelf": ("height", "cm", (80, 120, 180), "storage books living wall tidy"),
    "wall clock": ("diameter", "cm", (25, 30, 40), "time silent kitchen hands numerals"),
    "extension cord": ("length", "m", (1.5, 3, 5, 10), "power sockets surge workshop garden"),
    "usb cable": ("length", "m", (0.5, 1, 2, 3), "charge phone data fast braided"),
    "wireless mouse": ("resolution", "dpi", (800, 1600, 3200), "computer silent ergonomic battery gaming"),
    "mechanical keyboard": ("keys", "keys", (61, 87, 104), "computer typing switches gaming backlit"),
    "desktop monitor": ("diagonal", "cm", (55, 61, 69, 81), "screen computer panel gaming office"),
    "bluetooth speaker": ("power", "W", (5, 10, 20, 40), "music portable wireless bass party"),
}
"""Type -> a number's name, unit and values, and words for descriptions."""
_DAY_MS: Final = 86_400_000
_FIRST_DAY: Final = 1_704_067_200_000


def generated_corpus(seed: int = 1, documents: int = 800, queries: int = 400, encode: Encode | None = None) -> Corpus:
    """Generate a catalogue with queries.

    Args:
        seed: the seed of all randomness.
        documents: the number of documents in the catalogue.
        queries: the number of simulated queries.
        encode: a sentence encoder, for paraphrases; None for no paraphrases.
    """
    rng = np.random.default_rng([seed, 41])
    made = [_document(rng, number) for number in range(documents)]
    catalogue = Corpus("generated", made, origin="generated")
    return simulate(catalogue, queries, seed, encode)


def _document(rng: np.random.Generator, number: int) -> Document:
    brand, colour, material = (str(rng.choice(values)) for values in (_BRANDS, _COLOURS, _MATERIALS))
    kind = list(_TYPES)[rng.integers(len(_TYPES))]
    name, unit, values, words = _TYPES[kind]
    value = float(rng.choice(values))
    model = f"{brand[0]}{rng.integers(100, 999)}"
    described = rng.permutation(words.split())[:3].tolist()
    return Document(
        doc_id=f"g{number}",
        title=f"{brand} {model} {kind} {value:g} {unit} {colour}",
        body=f"For {described[0]} and {described[1]}: {material} {kind}, {described[2]}",
        brand=brand,
        category=kind,
        attributes={"colour": colour, "material": material},
        numbers={name: value, "price": float(rng.integers(5, 300))},
        released=_FIRST_DAY + int(rng.integers(700)) * _DAY_MS,
    )
