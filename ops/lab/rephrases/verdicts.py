"""Wins against losses of rewrites."""

from math import sqrt

from msgspec import Struct


class Verdicts(Struct, frozen=True):
    """What rewrites made of queries.

    Attributes:
        queries: in all.
        wrong: of them were not understood.
        wins: a query that was not understood became one that says what was meant.
        losses: a query that was understood became another one, or one that was not did not become what was meant.
        rewrites: known.
        winnable: of those not understood, so many could have been won: somebody who meant the same was understood.
            None where that is not known.
    """

    queries: int
    wrong: int
    wins: int
    losses: int
    rewrites: int
    winnable: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the wins per loss: Wilson's of the share of wins (JASA 1927), as odds.

        It takes queries for independent. Those that share a rewrite are not, so with few rewrites it is too narrow.
        """
        total, z = self.wins + self.losses, 1.959964
        if not total:
            return 0.0, float("inf")
        share = self.wins / total
        center, spread = share + z * z / (2 * total), z * sqrt(share * (1 - share) / total + z * z / (4 * total**2))
        low, high = ((center + sign * spread) / (1 + z * z / total) for sign in (-1, 1))
        return low / (1 - low), high / (1 - high) if high < 1 - 1e-12 else float("inf")
