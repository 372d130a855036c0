"""The bandit among River's policies, and its sums among River's models."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from river import bandit, checks, stats
from river.linear_model import BayesianLinearRegression

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.river_policy import LinearThompsonSampling

FEATURES = (Numeric("x"), Numeric("y"))
COLUMNS = ("1", "x", "y")
River: Any = BayesianLinearRegression  # it has no types

GENERIC = (
    "check_pickling_supports_roundtrip",
    "check_str",
    "check_clone_same_class",
    "check_clone_is_idempotent",
    "check_init_has_default_params_for_tests",
    "check_init_default_params_are_not_mutable",
    "check_doc",
    "check_clone_changes_memory_addresses",
    "check_clone_with_new_params_applies",
    "check_get_params_matches_signature",
    "check_mutable_attributes_exist",
)
"""River's checks of whatever is no estimator, but for one that no policy of River's passes: to print a fresh one."""


@pytest.mark.parametrize("name", GENERIC)
def test_it_passes_rivers_checks(name: str) -> None:
    check: Callable[[object], None] = getattr(checks.common, name)
    check(LinearThompsonSampling(seed=1))


def test_it_prints_like_a_policy_of_river() -> None:
    policy = LinearThompsonSampling(seed=1)
    policy.update("arm", {}, 0.5)
    assert "100.00%" in repr(policy)


def history(rounds: int, seed: int = 0) -> Iterator[tuple[list[str], dict[str, float], str, float]]:
    """Arms that are good where x or y is large, logged by a uniform choice."""
    rng = np.random.default_rng(seed)
    arms = ["first", "second", "third"]
    for _ in range(rounds):
        x, y = rng.standard_normal(2).tolist()
        arm = str(rng.choice(arms))
        expected = {"first": x, "second": y, "third": 0.0}[arm]
        yield arms, {"x": x, "y": y}, arm, float(rng.random() < 1 / (1 + np.exp(-2 * expected)))


def rate(policy: bandit.base.Policy, rounds: int = 3000) -> float:
    logged: Any = history(rounds)
    reward, matched = bandit.evaluate_offline(policy, logged, stats.Mean())
    assert matched > rounds / 5
    return float(reward.get() or 0.0)


def test_it_learns_offline() -> None:
    random: Any = bandit.RandomPolicy
    ucb: Any = bandit.LinUCBDisjoint
    learned = rate(LinearThompsonSampling(FEATURES, seed=1))
    assert learned > rate(random(seed=1)) + 0.15
    assert learned > rate(ucb(seed=1)) - 0.02


class Machines:
    """What `river.bandit.evaluate` needs of a Gym environment: slot machines."""

    class action_space:
        n = 4

        @staticmethod
        def seed(seed: int) -> None:
            pass

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._left = 400

    def step(self, arm: int) -> tuple[None, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        return None, float(self._rng.random() < 0.2 + 0.2 * arm), not self._left, False, {}


def test_it_learns_online_without_contexts() -> None:
    policy: Any = LinearThompsonSampling
    environment: Any = Machines()
    # Without contexts nothing varies but chance, so it takes all of Thompson sampling's.
    policies = [policy(exploration=1.0, seed=1), policy(exploration=1.0, seed=2, burn_in=3)]
    trace = list(bandit.evaluate(policies, environment, n_episodes=2, seed=3))
    assert {step["policy_idx"] for step in trace} == {0, 1}
    for policy_idx in (0, 1):
        last = [step["arm"] for step in trace if step["policy_idx"] == policy_idx and step["step"] >= 300]
        assert last.count(3) > 0.8 * len(last)


def test_the_same_seed_gives_the_same_pulls() -> None:
    def pulls(policy: LinearThompsonSampling) -> list[Any]:
        pulled = []
        for arms, context, _, reward in history(300):
            pulled.append(policy.pull(list(arms), context))
            policy.update(pulled[-1], context, reward)
        return pulled

    policy = LinearThompsonSampling(FEATURES, seed=5)
    clone: Any = policy.clone()
    assert pulls(policy) == pulls(clone)
    assert pulls(LinearThompsonSampling(FEATURES, seed=6)) != pulls(clone.clone())


def test_arms_may_come_late() -> None:
    policy = LinearThompsonSampling(FEATURES, seed=1, burn_in=2)
    for reward in (0.0, 0.1, 0.0, 0.2):
        policy.update(policy.pull(["old"], {"x": 1.0}), {"x": 1.0}, reward)
    for _ in range(100):
        arm = policy.pull(["new", "old"], {"x": 1.0})
        policy.update(arm, {"x": 1.0}, float(arm == "new"))
    assert policy.ranking == ["new", "old"]
    assert policy.pull(["old", "new"], {"x": 1.0}) == "new"
