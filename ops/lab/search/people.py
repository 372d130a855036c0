"""Simulated people who click on real documents: what attracts them follows from judgements.

Nothing here was measured on people. A document attracts with probability
NOISE + (ATTRACTIVE - NOISE) (2^grade - 1) / (2^top - 1), as is usual in studies of learning to rank from clicks
(Chapelle et al. 2009 for the gain; Joachims et al. 2017); one that was not judged has grade 0. What is looked at:

- *position-based*: position k with probability k^-eta, whatever else is shown; each person has one of several eta, so
  that examination is no one curve. A click follows where the document attracts.
- *trust*: the same, but who looks at a result of high position clicks it whether or not it attracts: with probability
  TRUST / k at position k (Agarwal et al. 2019; Vardasbi et al. 2020). Clicks then speak for the order as shown.
- *fold*: the same, but only BELOW of the people look at any position after the first FOLD: the others do not scroll. So
  the curve has a step that no exponent has.
- *cascade*: from the top; who clicks stops with probability STOPS, who does not goes on with probability GOES_ON (the
  dependent click model, Guo et al. 2009, with abandonment). No learner of Backchannel assumes it.

Which queries are asked follows Zipf's law over the training queries, in an order of its own.
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
"""Exponents of examination, each of a third of the people."""
TRUST: Final = 0.2
FOLD: Final = 4
BELOW: Final = 0.3
STOPS: Final = 0.7
GOES_ON: Final = 0.85

_BLOCK: Final = 4096


def attraction(grade: float, top: float) -> float:
    """Return the probability that a document of `grade` attracts who looks at it, if `top` is the highest grade."""
    return NOISE + (ATTRACTIVE - NOISE) * float((2.0**grade - 1.0) / (2.0**top - 1.0))


class Visit(Struct, frozen=True):
    """One person asks one query; their luck is drawn before anything is served.

    Attributes:
        query: its place in the corpus.
        eta: their exponent of examination.
        luck: numbers in [0, 1): of each position, to look at it or go on, and to click or stop there.
    """

    query: int
    eta: float
    luck: list[float]


class People:
    """People who ask training queries and click.

    Args:
        harness: the queries and judgements.
        seed: of who comes, and of all their luck.
        model: of clicks.
        zipf: exponent of how often queries are asked; 0: all alike.
        shown: positions that are looked at, at most.
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
        """Yield visits without end. Every iterator yields the same ones."""
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
        """Return the probability that a document attracts who asks `query`, if it is looked at."""
        found: float = self._attracts[query].get(place, NOISE)
        return found

    def clicks(self, visit: Visit, shown: Sequence[int]) -> list[int]:
        """Return the documents that are clicked, in order.

        Args:
            visit: who looks.
            shown: documents by their place in the corpus, from the top.
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
