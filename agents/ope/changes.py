"""How far one policy is from another, in the shares of the candidates that strategies get."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.ope.decisions import LoggedDecision, vectors_of
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.sums import Floats

SEGMENT: Final = 20
"""Minimum number of turns in a segment."""
CONTEXTS: Final = 100
"""Number of contexts on which two policies are compared."""


class Change(Struct, frozen=True):
    """A change of a strategy's mean share of candidates, in a segment of the queries or, if that is "", in all."""

    strategy: str
    segment: str
    before: float
    after: float

    def __str__(self) -> str:
        where = f" where {self.segment}" if self.segment else ""
        return f"{self.strategy} goes from {self.before:.0%} to {self.after:.0%} of the candidates{where}"

    @property
    def size(self) -> float:
        """The absolute change of the share, 0 to 1."""
        return abs(self.after - self.before)


def largest_change(before: Replayed, after: Replayed, decisions: Sequence[LoggedDecision]) -> Change:
    """Return the largest change of a strategy's mean share, over all turns and in segments with enough turns."""
    some = decisions[:CONTEXTS]
    known, encoder = after.policy.strategies, after.policy.encoder
    strategies = [*known, *(name for name in before.policy.strategies if name not in known)]
    shares = [shares_of(policy, some, strategies) for policy in (before, after)]
    contexts = vectors_of(some, encoder, known)[:, 0]
    members = {"": np.ones(len(some), dtype=bool)}
    members |= {name: contexts[:, place] > 0 for name, place in encoder.segments.items()}
    found = []
    for segment, own in members.items():
        if own.sum() >= SEGMENT or not segment:
            means = [each[own].mean(axis=0).tolist() for each in shares]
            found += [Change(name, segment, *pair) for name, *pair in zip(strategies, *means, strict=True)]
    return max(found, key=lambda change: change.size)


def shares_of(replayed: Replayed, decisions: Sequence[LoggedDecision], strategies: Sequence[str]) -> Floats:
    """Return each strategy's expected share of the candidates, (decisions, strategies), 0 to 1."""
    shares = np.zeros((len(decisions), len(strategies)))
    columns = [strategies.index(name) for name in replayed.policy.strategies]
    for row, one in enumerate(decisions):
        mixture = replayed.mixture(one)
        planned = mixture.shares @ mixture.parts
        shares[row, columns] = (1.0 - mixture.floor) * planned / max(planned.sum(), 1.0)
        shares[row, columns] += mixture.floor * mixture.sets.shares
    return shares
