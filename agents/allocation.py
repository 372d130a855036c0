"""The strategy bandit, serving: which strategies to ask for a query, and how many candidates from each.

Linear Thompson sampling over sets of strategies. DRAWS samples of every strategy's expected reward are taken from its
posterior. Each sample gives an allocation: the budget goes, candidate by candidate, to the strategy whose next one is
worth most, the n-th of a strategy being worth `rank_decay`^(n - 1) of its first. One of the samples' allocations is
served; or, with probability `floor`, a random set of strategies. So the probability of each strategy is that of a known
mixture: exact, and never 0.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backchannel.agents.features import Encoder, Feature, Value
from backchannel.schemas.snapshot import Section

DRAWS: Final = 32
MAX_BUDGET: Final = 10_000
"""As many candidates of one strategy as an `impression` event can log."""


class Decision(Struct, frozen=True):
    """What to ask for one query; its fields go into the `impression` event as they are.

    Attributes:
        allocation: strategy -> number of candidates to draw, for the strategies to ask; adds up to the budget.
        propensities: strategy -> probability with which it was to be asked, for all strategies.
        policy_version: of the policy that decided.
    """

    allocation: dict[str, int]
    propensities: dict[str, float]
    policy_version: int | None = None


class _Settings(Struct, frozen=True):
    features: tuple[Feature, ...]
    encoding: str
    strategies: tuple[str, ...]
    width: float
    floor: float
    rank_decay: float


class _Posterior(Struct, frozen=True):
    count: float
    reward: float
    theta: list[float]
    whitener: list[list[float]]


class EncodingError(ValueError):
    """The policy was learned with another encoding of contexts than this version of Backchannel makes."""


class Allocator:
    """The bandit's section of a policy, ready to decide.

    Args:
        section: as `StrategyBandit.solve` wrote it.

    Attributes:
        strategies: that it chooses from.
        evidence: strategy -> turns in which it was asked, as far as not faded, and their mean reward.

    Raises:
        EncodingError: contexts would not be encoded as they were when the section was learned.
    """

    def __init__(self, section: Section) -> None:
        settings = msgspec.json.decode(section[""], type=_Settings)
        self._encoder: Final = Encoder(settings.features)
        if self._encoder.fingerprint != settings.encoding:
            raise EncodingError(
                f"the policy's contexts have fingerprint {settings.encoding}, here the same features give "
                f"{self._encoder.fingerprint}: let publisher and reader run the same version of Backchannel"
            )
        self.strategies: Final = settings.strategies
        self._settings: Final = settings
        posteriors = [msgspec.json.decode(section[name], type=_Posterior) for name in self.strategies]
        self.evidence: Final = {
            name: (posterior.count, posterior.reward)
            for name, posterior in zip(self.strategies, posteriors, strict=True)
        }
        # One product with a context gives the mean and, squared and summed, the variance of every strategy.
        self._stacked: Final = np.array([[posterior.theta, *posterior.whitener] for posterior in posteriors])

    def utilities(self, context: Mapping[str, Value]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return each strategy's expected reward and the standard deviation that is explored, both (strategies,)."""
        projected = self._stacked @ self._encoder.encode(context)
        return projected[:, 0], self._settings.width * np.sqrt((projected[:, 1:] ** 2).sum(axis=1))

    def allocate(self, context: Mapping[str, Value], budget: int, rng: np.random.Generator) -> Decision:
        """Decide.

        Args:
            context: of the query, see `features.context_of`.
            budget: candidates to draw in all, 1 to MAX_BUDGET.
            rng: where chance comes from.

        Raises:
            ValueError: no budget, or too much of it.
        """
        if not 1 <= budget <= MAX_BUDGET:
            raise ValueError(f"budget: {budget} candidates; draw at least 1 and at most {MAX_BUDGET}")
        strategies, floor = self.strategies, self._settings.floor
        means, deviations = self.utilities(context)
        sampled = means + deviations * rng.standard_normal((DRAWS, len(strategies)))
        counts = self._fill(sampled, budget)
        most = min(len(strategies), budget)
        if rng.random() < floor:
            asked = rng.choice(len(strategies), size=rng.integers(1, most, endpoint=True), replace=False)
            served = np.zeros(len(strategies), dtype=int)
            served[asked] = budget // len(asked)
            served[asked[: budget % len(asked)]] += 1
        else:
            served = counts[rng.integers(DRAWS)]
        # A set of uniformly random size 1..most holds a strategy with probability (most + 1) / (2 * strategies).
        propensities = (1 - floor) * (counts > 0).mean(axis=0) + floor * (most + 1) / (2 * len(strategies))
        return Decision(
            {name: count for name, count in zip(strategies, served.tolist(), strict=True) if count},
            dict(zip(strategies, propensities.tolist(), strict=True)),
        )

    def _fill(self, utilities: NDArray[np.float64], budget: int) -> NDArray[Any]:
        """Fill the budget greedily by marginal gain, for each row of (draws, strategies) utilities."""
        draws, strategies = utilities.shape
        hopeless = utilities.max(axis=1) <= 0
        utilities = np.maximum(utilities, 0.0)
        utilities[hopeless] = 1.0
        gains = utilities[:, :, np.newaxis] * self._settings.rank_decay ** np.arange(budget)
        flat = gains.reshape(draws, strategies * budget)
        best = np.argpartition(flat, -budget, axis=1)[:, -budget:] // budget
        offsets = best + strategies * np.arange(draws)[:, np.newaxis]
        return np.bincount(offsets.ravel(), minlength=draws * strategies).reshape(draws, strategies)
