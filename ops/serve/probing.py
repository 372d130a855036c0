"""Probing: a share of the queries whose results' ranks are looked up in every strategy.

From these, a log tells of policies far from the logged one; see `agents.ope.union`.

A decision's id holds what the decision might have brought, and the service, which keeps no state, computes each shown
result's `places` from that when the impression arrives.
"""

from typing import Any, Self

import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.decision import Retrieval, Source
from backchannel.agents.bandit.mixture import Mixture, RandomSets
from backchannel.schemas.codec import EventError
from backchannel.schemas.events import MAX_DEPTH


class _Packed(Struct, frozen=True, array_like=True):
    """A source of a retrieval; see `Source` and `Mixture`."""

    strategies: tuple[str, ...]
    share: float
    parts: list[list[int]]
    shares: list[float]
    floor: float
    sets: tuple[tuple[int, ...], tuple[int, ...], int]


class Probe(Struct, frozen=True, array_like=True):
    """A decision whose results are looked up.

    Attributes:
        probability: the probability with which they are.
        sources: what the decision might have brought.
    """

    probability: float
    sources: tuple[_Packed, ...]

    @classmethod
    def of(cls, probability: float, retrieval: Retrieval) -> Self:
        """Return the probe of a decision, of which equal allocations are added up."""
        packed = []
        for source in retrieval.sources:
            mixture = source.mixture
            parts, places = np.unique(mixture.parts, axis=0, return_inverse=True)
            shares = np.bincount(places.ravel(), mixture.shares, len(parts))
            packed.append(
                _Packed(
                    source.strategies,
                    source.share,
                    parts.tolist(),
                    shares.tolist(),
                    mixture.floor,
                    mixture.sets.arguments,
                )
            )
        return cls(probability, tuple(packed))

    def retrieval(self) -> Retrieval:
        """Return what the decision might have brought."""
        return Retrieval(
            tuple(
                Source(
                    one.strategies,
                    Mixture.of(np.array(one.parts), np.array(one.shares), one.floor, RandomSets(*one.sets)),
                    one.share,
                )
                for one in self.sources
            )
        )

    def logged(self, results: list[Any]) -> list[dict[str, Any]]:
        """Return results as they were sent, each with its `places`.

        Raises:
            EventError: a result has no ranks.
        """
        retrieval, found = self.retrieval(), []
        for place, one in enumerate(results):
            ranks = one.get("ranks") if isinstance(one, dict) else None
            if not isinstance(ranks, dict) or not ranks or not all(map(_is_rank, ranks.values())):
                raise EventError(
                    f"results[{place}].ranks: expected the result's rank in every strategy's list, as the decision "
                    "says `look_up`; send `looked_up`: null if they were not looked up"
                )
            found.append({"places": retrieval.places(ranks), **one})
        return found


def _is_rank(rank: object) -> bool:
    return type(rank) is int and 1 <= rank <= MAX_DEPTH
