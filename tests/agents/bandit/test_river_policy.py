"""The bandit among River's policies, and its sums among River's models."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import bandit, checks, stats
from river.linear_model import BayesianLinearRegression

from backchannel.agents.bandit.features import Numeric
from backchannel.agents.bandit.river_policy import LinearThompsonSampling, from_river, to_river
from backchannel.agents.sums import Floats

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


def sums_of(rows: Floats) -> Floats:
    product: Floats = rows.T @ rows
    return product


@given(st.integers(0, 2**32), st.integers(1, 60), st.permutations(COLUMNS))
@settings(max_examples=40)
def test_sums_and_rivers_model_say_the_same(seed: int, count: int, order: list[str]) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 4))
    rows[:, 0] = 1
    model = River()
    for row in rows.tolist():
        context = dict(zip(COLUMNS, row[:3], strict=True))
        model.learn_one({name: context[name] for name in order}, row[3])
    sums = sums_of(rows)
    converted: Any = to_river(sums, COLUMNS)
    precision = sums[:3, :3] + np.eye(3)
    for row in rng.standard_normal((5, 3)):
        context = dict(zip(COLUMNS, row.tolist(), strict=True))
        mean, variance = row @ np.linalg.solve(precision, sums[:3, 3]), 1 + row @ np.linalg.solve(precision, row)
        for one in (model, converted):
            predicted = one.predict_one(context, with_dist=True)
            assert predicted.mu == pytest.approx(mean, rel=1e-9, abs=1e-9)
            assert predicted.sigma**2 == pytest.approx(variance, rel=1e-9)
    for one in (model, converted):
        found = from_river(one, COLUMNS)
        assert found[:3] == pytest.approx(sums[:3], rel=1e-9, abs=1e-9)
        assert found[3, 3] <= sums[3, 3] + 1e-6


def test_a_converted_model_goes_on_learning() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 4))
    model: Any = to_river(sums_of(rows[:20]), COLUMNS)
    for row in rows[20:].tolist():
        model.learn_one(dict(zip(COLUMNS, row[:3], strict=True)), row[3])
    assert from_river(model, COLUMNS)[:3] == pytest.approx(sums_of(rows)[:3], rel=1e-9, abs=1e-9)


def test_another_noise_and_prior_are_taken_off() -> None:
    rows = np.random.default_rng(2).standard_normal((30, 4))
    model = River(alpha=0.5, beta=4.0)
    for row in rows.tolist():
        model.learn_one(dict(zip(COLUMNS, row[:3], strict=True)), row[3])
    assert from_river(model, COLUMNS)[:3] == pytest.approx(sums_of(rows)[:3], rel=1e-9)


def test_what_cannot_be_converted_is_refused() -> None:
    with pytest.raises(ValueError, match="smoothing"):
        from_river(River(smoothing=0.9), COLUMNS)
    model = River()
    model.learn_one({"z": 1.0}, 1.0)
    with pytest.raises(ValueError, match="columns: the model has learned z"):
        from_river(model, COLUMNS)
