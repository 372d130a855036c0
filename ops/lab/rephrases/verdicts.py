"""Wins and losses of rewrites."""

from math import sqrt

from msgspec import Struct


class Verdicts(Struct, frozen=True):
    """Counts of rewritten queries by result.

    Attributes:
        queries: number of queries.
        wrong: number of queries that were not understood.
        wins: number of queries that were not understood and rewritten to what was meant.
        losses: number of queries that were rewritten to something that was not meant.
        rewrites: number of known rewrites.
        winnable: number of queries that were not understood while somebody else with that meaning was; None if unknown.
    """

    queries: int
    wrong: int
    wins: int
    losses: int
    rewrites: int
    winnable: int | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the wins per loss: that of the share of wins (Wilson, JASA 1927), as odds.

        It assumes independent queries. Queries that share a rewrite are not, so with few rewrites it is too narrow.
        """
        total, z = self.wins + self.losses, 1.959964
        if not total:
            return 0.0, float("inf")
        share = self.wins / total
        center, spread = share + z * z / (2 * total), z * sqrt(share * (1 - share) / total + z * z / (4 * total**2))
        low, high = ((center + sign * spread) / (1 + z * z / total) for sign in (-1, 1))
        return low / (1 - low), high / (1 - high) if high < 1 - 1e-12 else float("inf")
