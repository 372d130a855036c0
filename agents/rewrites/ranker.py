"""The ranker of online rewrites: weights per bin. It needs the standard library only, as settings hold one."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter

from msgspec import Struct


class Ranker(Struct, frozen=True):
    """Weights per bin, and what their sums mean.

    Attributes:
        constant: the score of a pair before any of them is added.
        edges: the inner edges of each number's bins, ascending; in the order in which a pair's numbers are described.
        weights: the weight of each bin, one more than edges.
        curve: scores, ascending, and the lower bounds (90%) of wins to losses among pairs that score at least as high.
    """

    constant: float
    edges: Mapping[str, Sequence[float]]
    weights: Mapping[str, Sequence[float]]
    curve: Sequence[tuple[float, float]] = ()

    def score(self, numbers: Sequence[float]) -> float:
        """Return the score of a pair described by `numbers`: the higher, the better the odds of a win."""
        total = self.constant
        for edges, weights, number in zip(self.edges.values(), self.weights.values(), numbers, strict=True):
            total += weights[bisect_right(edges, number)]
        return total

    def odds(self, score: float) -> float:
        """Return the lower bound of wins to losses among pairs that score at least `score`; 0 if it is too low."""
        place = bisect_right(self.curve, score, key=itemgetter(0))
        return self.curve[place - 1][1] if place else 0.0
