"""The ranker of online rewrites: weights per bin. It needs the standard library only, as settings hold one."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from math import inf
from operator import itemgetter

from msgspec import Struct


class Ranker(Struct, frozen=True, dict=True):
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

    @cached_property
    def _parts(self) -> list[tuple[Sequence[float], Sequence[float], float]]:
        """The edges and weights of each number, and the most that those after it can add."""
        most = [max(weights) for weights in self.weights.values()]
        rest = list(accumulate(reversed(most), initial=0.0))[-2::-1]
        return list(zip(self.edges.values(), self.weights.values(), rest, strict=True))

    def score(self, numbers: Iterable[float], least: float = -inf) -> float:
        """Return the score of a pair described by `numbers`: the higher, the better the odds of a win.

        Minus infinity if it is below `least`, which often shows before all numbers are known.
        """
        total = self.constant
        for (edges, weights, rest), number in zip(self._parts, numbers, strict=True):
            total += weights[bisect_right(edges, number)]
            if total + rest < least:
                return -inf
        return total

    def least(self, odds: float) -> float:
        """Return the lowest score whose odds are at least `odds`; infinity if there is none."""
        return next((score for score, bound in self.curve if bound >= odds), inf)

    def odds(self, score: float) -> float:
        """Return the lower bound of wins to losses among pairs that score at least `score`; 0 if it is too low."""
        place = bisect_right(self.curve, score, key=itemgetter(0))
        return self.curve[place - 1][1] if place else 0.0
