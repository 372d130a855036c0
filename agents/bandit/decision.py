"""Decisions of the strategy bandit: what to ask for one query, and how likely that was."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.features import Value
from backchannel.agents.bandit.mixture import Mixture
from backchannel.schemas.events import MAX_DEPTH, MAX_PLACES, Canary, Rule

StrategyContext: TypeAlias = Mapping[str, Mapping[str, Value]]
"""strategy -> its context."""

NOTHING_KNOWN: Final[StrategyContext] = {}


class Source(Struct, frozen=True):
    """A mixture that decisions are drawn from.

    Attributes:
        strategies: names, in the order of the mixture's counts.
        mixture: allocations.
        share: the probability with which this mixture is drawn from, 0 to 1.
    """

    strategies: tuple[str, ...]
    mixture: Mixture
    share: float = 1.0


class Retrieval(Struct, frozen=True):
    """What a decision brings.

    Attributes:
        sources: the mixtures that it is drawn from.
    """

    sources: tuple[Source, ...]

    def places(self, ranks: Mapping[str, int]) -> tuple[float, ...]:
        """Return the probabilities that an item is among the candidates, whichever strategy brings it, by place.

        Args:
            ranks: strategy -> rank of the item in its list, from 1; strategies whose lists lack it are left out.

        Returns:
            For each place from 0, see `mixture.places_of`, as far as it may stand.
        """
        found = np.zeros(MAX_PLACES)
        for source in self.sources:
            depths = np.array([ranks.get(name, np.inf) for name in source.strategies], dtype=float)
            found += source.share * source.mixture.places(depths)
        return tuple(np.minimum(np.trim_zeros(found, "b"), 1.0).tolist())


class Decision(Struct, frozen=True):
    """What to ask for one query; its fields go into the `impression` event as they are.

    Attributes:
        allocation: strategy -> number of candidates to draw, for the strategies to ask; adds up to the budget, or to
            what the limits leave of it. If the budget is one of distinct candidates, the proportions in which to walk
            lists.
        propensities: strategy -> probability with which it was to be asked, for all strategies: 1 or 0 if nothing was
            left to chance (ucb).
        allocation_propensity: the probability of the whole plan, which is the allocation.
        planned: the same as `allocation` if the budget is one of distinct candidates, and empty otherwise. Lists are
            then walked in these proportions until there are so many different candidates (see `walk`), and what is
            logged as allocation is how deep each was walked.
        distinct: that budget.
        strategy_context: strategy -> its context.
        user_context: the features of the user, if the policy was told who asks.
        policy_version: the version of the policy that decided.
        canary: how it was decided, while another policy is on trial.
        ask: "satisfaction": ask whether the answer is what they wanted; "teach": ask what they mean; None: nothing.
        ask_propensity: the probability of that question, for the `propensity` of its answer.
        offers: for "teach", the rules to choose from, the best first.
    """

    allocation: dict[str, int]
    propensities: dict[str, float]
    allocation_propensity: float | None = None
    strategy_context: StrategyContext = {}
    user_context: Mapping[str, float] = {}
    policy_version: int | None = None
    canary: Canary | None = None
    planned: dict[str, int] = {}
    distinct: int | None = None
    ask: Literal["satisfaction", "teach"] | None = None
    ask_propensity: float | None = None
    offers: tuple[Rule, ...] = ()


def walk(
    planned: Mapping[str, int], lists: Mapping[str, Sequence[str]], budget: int
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Walk the strategies' lists in the planned proportions until there are so many different candidates.

    Where all planned lists end before that, the other lists fill up, evenly.

    Args:
        planned: of the decision.
        lists: strategy -> its candidates, best first: those of `planned`, and any others that may fill up.
        budget: of distinct candidates.

    Returns:
        candidate -> its rank in the list of each strategy that was walked that far, in the order in which candidates
        were met: `ranks` of the results; and strategy -> how deep it was walked, MAX_DEPTH if to its end in search
        of more: the `allocation` to log.

    >>> walk({"a": 2, "b": 1}, {"a": ["x", "y", "z"], "b": ["x", "w"]}, 3)
    ({'x': {'a': 1, 'b': 1}, 'y': {'a': 2}, 'z': {'a': 3}}, {'a': 3, 'b': 1})
    """
    found: dict[str, dict[str, int]] = {}
    depths: dict[str, int] = {}
    others = dict.fromkeys((name for name in lists if name not in planned), 1)
    for shares in (planned, others):
        if len(found) >= budget:
            break
        walked = dict.fromkeys(shares, 0)
        while len(found) < budget:
            # The list that is furthest behind its share.
            left = [name for name in shares if walked[name] < len(lists[name])]
            if not left:
                walked = dict.fromkeys(shares, MAX_DEPTH)
                break
            name = min(left, key=lambda each: (walked[each] + 0.5) / shares[each])
            walked[name] += 1
            found.setdefault(lists[name][walked[name] - 1], {})[name] = walked[name]
        depths |= walked
    return found, depths
