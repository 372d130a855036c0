"""Simulated people who click on real documents according to judgements.

Nothing here was measured on people. A document attracts with probability
NOISE + (ATTRACTIVE - NOISE) (2^grade - 1) / (2^top - 1), as is usual in studies of learning to rank from clicks
(Chapelle et al. 2009 for the gain; Joachims et al. 2017); an unjudged document has grade 0. The click models:

- *position-based*: position k is examined with probability k^-eta, whatever else is shown; people have different eta,
  so examination is not a single curve. An examined document is clicked if it attracts.
- *trust*: the same, but an examined result may be clicked even if it does not attract, with probability
  TRUST / k at position k (Agarwal et al. 2019; Vardasbi et al. 2020). Such clicks favour the order shown.
- *fold*: position-based, but only a share BELOW of the people examine positions after the first FOLD: the others do not
  scroll. So the curve has a step that no exponent gives.
- *cascade*: people go from the top; after a click they stop with probability STOPS, otherwise they go on with
  probability GOES_ON (the dependent click model, Guo et al. 2009, with abandonment). No learner of Backchannel assumes
  it.

Queries follow Zipf's law over the training queries, in a random order.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from backchannel.ops.lab.search.harness import Harness

ClickModel: TypeAlias = Literal["position", "trust", "fold", "cascade"]

NOISE: Final = 0.02
ATTRACTIVE: Final = 0.9
ETAS: Final = (0.5, 1.0, 1.5)
"""Exponents of examination, each for a third of the people."""
TRUST: Final = 0.2
FOLD: Final = 4
BELOW: Final = 0.3
STOPS: Final = 0.7
GOES_ON: Final = 0.85

_BLOCK: Final = 4096


def attraction(grade: float, top: float) -> float:
    """Return the probability that an examined document of `grade` attracts, if `top` is the highest grade."""
    return NOISE + (ATTRACTIVE - NOISE) * float((2.0**grade - 1.0) / (2.0**top - 1.0))


class Visit(Struct, frozen=True):
    """A person's visit with one query; their luck is drawn before anything is served.

    Attributes:
        query: the index of the query in the corpus.
        eta: the person's exponent of examination.
        luck: two numbers in [0, 1) per position: for examining it or stopping after it, and for clicking.
    """

    query: int
    eta: float
    luck: list[float]


class People:
    """People who ask training queries and click.

    Args:
        harness: the queries and judgements.
        seed: the seed of people and their luck.
        model: the click model.
        zipf: the Zipf exponent of queries; 0 for equal frequencies.
        shown: maximum number of positions that are examined.
    """

    def __init__(
        self, harness: Harness, seed: int, model: ClickModel = "position", zipf: float = 0.8, shown: int = 50
    ) -> None:
        self._harness = harness
        self._seed = seed
        self._model = model
        self._zipf = zipf
        self._shown = shown
        number, top = harness.corpus.number, harness.corpus.top_grade
        self._attracts: Final = [
            {number[doc_id]: attraction(grade, top) for doc_id, grade in query.grades.items()}
            for query in harness.corpus.queries
        ]

    def visits(self) -> Iterator[Visit]:
        """Yield visits without end. Every iterator yields the same visits."""
        rng = np.random.default_rng([self._seed, 29])
        queries = rng.permutation(self._harness.train)
        share = np.arange(1.0, len(queries) + 1.0) ** -self._zipf
        share /= share.sum()
        while True:
            asked = rng.choice(queries, _BLOCK, p=share).tolist()
            etas = rng.choice(ETAS, _BLOCK).tolist()
            luck = rng.random((_BLOCK, 2 * self._shown)).tolist()
            for query, eta, own in zip(asked, etas, luck, strict=True):
                yield Visit(query, eta, own)

    def attraction(self, query: int, place: int) -> float:
        """Return the probability that the document at index `place` attracts people who ask `query` and examine it."""
        found: float = self._attracts[query].get(place, NOISE)
        return found

    def clicks(self, visit: Visit, shown: Sequence[int]) -> list[int]:
        """Return the clicked documents, in order.

        Args:
            visit: the visit.
            shown: documents as indexes into the corpus, from the top.
        """
        attracts = self._attracts[visit.query]
        clicked = []
        for at, place in enumerate(shown[: self._shown]):
            looks, clicks = visit.luck[2 * at], visit.luck[2 * at + 1]
            attracted = clicks < attracts.get(place, NOISE)
            if self._model != "cascade":
                sees = (at + 1) ** -visit.eta
                if self._model == "fold" and at >= FOLD and visit.luck[0] >= BELOW:
                    continue
                if self._model == "trust":
                    attracted = attracted or clicks >= 1.0 - TRUST / (at + 1)
                if attracted and looks < sees:
                    clicked.append(place)
            elif attracted:
                clicked.append(place)
                if looks < STOPS:
                    break
            elif looks >= GOES_ON:
                break
        return clicked
