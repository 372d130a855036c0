"""A canary: a served policy and one on trial share the decisions by the toss of a coin.

A decision comes from a mixture of both, with exact probabilities of each strategy and of the whole allocation.
So the log is as useful as any other, and also says with what probability the policy on trial would
have decided the same; see `trials`.
"""

from collections.abc import Collection, Mapping
from typing import Final, Self

from msgspec import Struct
from numpy.random import Generator

from backchannel.agents.bandit.decision import NOTHING_KNOWN, Decision, Retrieval, Source, StrategyContext
from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.mixture import Mixture
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.serving import Sections
from backchannel.schemas.events import Canary
from backchannel.schemas.snapshot import Snapshot, Trial

SECTION: Final = "canary"
"""The rows of the policy on trial."""


class Shared(Struct, frozen=True):
    """Two policies that share the decisions.

    Attributes:
        served: the served policy, which decides unless the coin picks the other one.
        tried: the policy on trial.
        trial: its number, and its share of the decisions.
    """

    served: Allocator
    tried: Allocator
    trial: Trial

    @classmethod
    def of(cls, sections: Sections, header: Snapshot) -> Self | None:
        """Return the two policies of a version; None if only the served one makes decisions."""
        trial = header.trial
        if trial is None or not trial.share:
            return None
        return cls(Allocator(sections[Allocator.name]), Allocator(sections[SECTION]), trial)

    def allocate(
        self,
        context: Mapping[str, Value],
        budget: int,
        rng: Generator,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        *,
        distinct: bool = False,
        available: Collection[str] | None = None,
    ) -> Decision:
        """Return a decision; see `Allocator.allocate`."""
        share = self.trial.share
        policies = self.served, self.tried
        mixtures = [
            one.mixture(context, budget, strategy_context, distinct=distinct, available=available) for one in policies
        ]
        drawn = rng.random() < share
        counts = mixtures[drawn].draw(rng)
        allocation = {name: count for name, count in zip(policies[drawn].strategies, counts, strict=True) if count}
        usual, own = (
            _probability(policy, mixture, allocation) for policy, mixture in zip(policies, mixtures, strict=True)
        )
        propensities: dict[str, float] = {}
        for policy, mixture, weight in zip(policies, mixtures, (1.0 - share, share), strict=True):
            for name, probability in zip(policy.strategies, mixture.propensities(), strict=True):
                propensities[name] = min(propensities.get(name, 0.0) + weight * probability, 1.0)
        return Decision(
            allocation,
            propensities,
            min((1.0 - share) * usual + share * own, 1.0),
            strategy_context,
            canary=Canary(trial=self.trial.number, share=share, propensity=own),
            planned=allocation if distinct else {},
            distinct=budget if distinct else None,
        )

    def retrieval(
        self,
        context: Mapping[str, Value],
        budget: int,
        strategy_context: StrategyContext = NOTHING_KNOWN,
        *,
        available: Collection[str] | None = None,
    ) -> Retrieval:
        """Return what `allocate`, asked the same, brings; see `Allocator.retrieval`."""
        return Retrieval(
            tuple(
                Source(one.strategies, one.mixture(context, budget, strategy_context, available=available), share)
                for one, share in ((self.served, 1.0 - self.trial.share), (self.tried, self.trial.share))
            )
        )

    def prepare(self, before: Allocator) -> None:
        """Prepare for the budgets that the previous version was asked for; see `Allocator.prepare`."""
        for own in (self.served, self.tried):
            own.prepare(before)

    def gains(
        self, context: Mapping[str, Value], strategy_context: StrategyContext = NOTHING_KNOWN
    ) -> dict[str, list[float]]:
        """Return the mean of both policies' gains: the page must depend on what was drawn, not on who drew it."""
        share, mixed = self.trial.share, {}
        usual, own = (one.gains(context, strategy_context) for one in (self.served, self.tried))
        for name in {**usual, **own}:
            one, other = usual.get(name, []), own.get(name, [])
            length = max(len(one), len(other))
            padded = [[*some, *[0.0] * (length - len(some))] for some in (one, other)]
            mixed[name] = [(1.0 - share) * left + share * right for left, right in zip(*padded, strict=True)]
        return mixed


def _probability(policy: Allocator, mixture: Mixture, allocation: Mapping[str, int]) -> float:
    """Return the probability that a policy draws an allocation."""
    if any(name not in policy.strategies for name in allocation):
        return 0.0
    return mixture.probability([allocation.get(name, 0) for name in policy.strategies])
