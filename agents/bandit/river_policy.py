"""The bandit as a policy of River, and its sums as River's Bayesian linear regression, and back.

For those who have River at hand: learning one reward at a time, to compare with River's own policies on the same
footing. Serving does not need it.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from river.bandit.base import ArmID, ContextualPolicy, RewardObj
from river.compose import TargetTransformRegressor

from backchannel.agents.bandit.features import Encoder, Feature, Value
from backchannel.agents.bandit.posterior import ModelAverage
from backchannel.agents.bandit.rounds import Rounds, draw_models


class LinearThompsonSampling(ContextualPolicy):
    """Linear Thompson sampling averaged over half-lives and priors; see `posterior`.

    Time is counted in updates.

    Args:
        features: the features of a context. Without any, contexts are ignored.
        half_lives: half-lives to try besides no forgetting, in updates.
        ridges: prior precisions.
        exploration: width of Thompson sampling, in standard deviations of the posterior.
        bucket: number of updates that are summed together.
        refresh: number of updates after which the posterior is computed anew; fewer at first.
        reward_obj: River's, for `ranking`.
        reward_scaler: River's.
        burn_in: how often each arm is pulled first.
        seed: seed of all randomness.

    >>> policy = LinearThompsonSampling(seed=1)
    >>> for _ in range(100):
    ...     arm = policy.pull(["a", "b"], {})
    ...     policy.update(arm, {}, 0.9 if arm == "b" else 0.1)
    >>> policy.ranking
    ['b', 'a']
    """

    def __init__(
        self,
        features: Sequence[Feature] | None = None,  # River cannot clone an empty tuple
        *,
        half_lives: Sequence[float] = (48_000.0, 12_000.0, 3_000.0),
        ridges: Sequence[float] = (1.0, 10.0, 100.0),
        exploration: float = 0.2,
        bucket: int = 250,
        refresh: int = 100,
        reward_obj: RewardObj | None = None,
        reward_scaler: TargetTransformRegressor | None = None,
        burn_in: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(reward_obj, reward_scaler, burn_in)
        self.features = features
        self.half_lives = half_lives
        self.ridges = ridges
        self.exploration = exploration
        self.bucket = bucket
        self.refresh = refresh
        self.seed = seed
        self._rng = np.random.default_rng(seed)
        self._encoder = Encoder(features or ())
        self._average = ModelAverage(half_lives, ridges)
        self._arms: dict[Hashable, int] = {}
        self._rounds = Rounds(self._average, 0, self._encoder.dimension, bucket)
        self._due = 0

    def _pull(self, arm_ids: list[ArmID], context: Mapping[str, Value] | None = None) -> ArmID:
        self._know(arm_ids)
        if self._n >= self._due:
            self._belief = self._rounds.infer(self._n)
            self._due = self._n + max(min(self.refresh, self._n // 4), 1)
        arms = [self._arms[arm] for arm in arm_ids]
        vector = self._encoder.encode(context or {})
        models = draw_models(self._belief, self.exploration, 1, self._rng)[0, arms]
        return arm_ids[int((models @ vector).argmax())]

    def update(self, arm_id: ArmID, context: Any, *reward_args: Any, **reward_kwargs: Any) -> None:
        """Learn from a reward. Without a context, as `river.bandit.evaluate` calls it: `update(arm_id, reward)`."""
        if not reward_args:
            context, reward_args = None, (context,)
        parent: Any = super()
        parent.update(arm_id, context, *reward_args, **reward_kwargs)
        self._know([arm_id])
        reward = self.reward_scaler.func(reward_args[0]) if self.reward_scaler else reward_args[0]
        vector = self._encoder.encode(context or {})[np.newaxis]
        self._rounds.add(vector, np.array([self._arms[arm_id]]), np.array([reward], dtype=float), self._n - 1)

    def _know(self, arm_ids: Iterable[ArmID]) -> None:
        """Make room for arms that were never seen before."""
        known = len(self._arms)
        for arm in arm_ids:
            self._arms.setdefault(arm, len(self._arms))
        if len(self._arms) > known:
            self._rounds.grow(len(self._arms))
            self._due = 0
