"""The gate: what it lets through, what it holds, and that it says why."""

from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.bandit.features import Categorical
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.serving import Allocator
from backchannel.agents.ope.decisions import LoggedDecision
from backchannel.agents.ope.gate import GateConfig, Judgement, judge
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import MemorySums
from backchannel.schemas.snapshot import Estimate, Evidence, Section

CONFIG = BanditConfig(strategies=("lexical", "semantic", "memory"), features=(Categorical("device", ("car", "phone")),))
WORKS = {"lexical": 0.2, "semantic": 0.3, "memory": 0.6}


def section(**preferred: float) -> Section:
    """A bandit's section that expects so much more of some strategies than of others."""
    bandit = StrategyBandit(CONFIG)
    solved = bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)
    rows = {key: orjson.loads(row) for key, row in solved.items() if row is not None}
    for name in CONFIG.strategies:
        rows[name]["theta"][0] = 0.3 + preferred.get(name, 0.0)
        rows[name]["whitener"] = (np.array(rows[name]["whitener"]) / 10).tolist()
    return {key: orjson.dumps(row) for key, row in rows.items()}


def policy(**preferred: float) -> Allocator:
    return Allocator(section(**preferred))


def log(serving: Allocator, turns: int, seed: int = 0) -> list[LoggedDecision]:
    rng = np.random.default_rng(seed)
    worth = dict(zip(serving.strategies, serving.worth(10).tolist(), strict=True))
    decisions = []
    for number in range(turns):
        context: dict[str, Any] = {"device": ("car", "phone", "tv")[number % 3]}
        made = serving.allocate(context, 10, rng)
        rewards = {
            name: 1.0 for name, count in made.allocation.items() if rng.random() < WORKS[name] * worth[name][count]
        }
        decisions.append(LoggedDecision(f"s{number}", 0, context, made.allocation, made.propensities, rewards))
    return decisions


LIVE = policy()
LOG = log(LIVE, 2000)


def test_the_first_version_goes_live() -> None:
    found = judge(LIVE, None, [], GateConfig())
    assert (found.verdict, found.reason) == ("publish", "the first version")


def test_without_evidence_early_learning_is_published_and_says_so() -> None:
    for decisions in ([], LOG[:50]):
        found = judge(policy(memory=0.02), LIVE, decisions, GateConfig())
        assert found.verdict == "publish"
        assert found.reason.startswith("early learning")
    assert "effective sample size" in found.reason
    assert "of the candidates" in found.reason


def test_a_log_that_says_little_of_the_policy_is_a_warning() -> None:
    heavy = [structs.replace(one, propensities=dict.fromkeys(one.propensities, 0.001)) for one in LOG[:1]]
    found = judge(policy(memory=0.02), LIVE, heavy + LOG[1:], GateConfig())
    assert found.verdict == "warn"
    assert found.reason.startswith("unjudged: ")
    assert "of all weight" in found.reason


def test_without_evidence_a_leap_is_held() -> None:
    found = judge(policy(lexical=1.0), policy(memory=1.0), LOG[:50], GateConfig())
    assert found.verdict == "hold"
    assert "more than the 50% allowed" in found.reason
    assert found.change is not None
    assert found.change.size > 0.5


def test_the_same_policy_goes_live() -> None:
    found = judge(policy(), LIVE, LOG, GateConfig())
    assert found.verdict == "publish"
    assert found.evidence.gains["live"] == Estimate(0.0, 0.0, 0.0)
    assert found.change is not None
    assert found.change.size == 0.0


def test_a_better_one_goes_live_and_a_worse_one_does_not() -> None:
    better = judge(policy(memory=0.1), LIVE, LOG, GateConfig())
    assert better.verdict == "publish"
    assert better.evidence.gains["live"].value > 0
    worse = judge(policy(lexical=0.2), LIVE, LOG, GateConfig())
    assert worse.verdict == "hold"
    assert worse.evidence.gains["live"].value < 0
    assert better.evidence.value is not None
    assert worse.evidence.value is not None
    assert 0 < worse.evidence.value.value < better.evidence.value.low
    assert "to the live policy" in worse.reason
    assert "to the uniform policy" in worse.reason


def test_what_is_no_worse_than_live_may_still_be_worse_than_uniform() -> None:
    live = policy(lexical=3.0)
    found = judge(policy(lexical=3.0), live, log(live, 2000, 1), GateConfig(max_loss=0.01))
    assert found.evidence.gains["uniform"].value < 0
    assert found.verdict == "hold"


def test_a_change_is_found_in_the_segment_where_it_is() -> None:
    rows = {key: orjson.loads(row) for key, row in section().items()}
    rows["memory"]["theta"][1] = 0.5  # in cars
    candidate = Allocator({key: orjson.dumps(row) for key, row in rows.items()})
    found = judge(candidate, LIVE, LOG, GateConfig())
    assert found.change is not None
    assert (found.change.strategy, found.change.segment) == ("memory", "device=car")
    assert "where device=car" in found.reason


def test_strategies_may_come_and_go() -> None:
    bandit = StrategyBandit(BanditConfig(strategies=("memory", "new"), features=CONFIG.features))
    solved = bandit.solve(MemorySums({}), {bandit.table.name: ()}, 0)
    candidate = Allocator(live_rows(solved))
    found = judge(candidate, LIVE, LOG, GateConfig())
    assert found.change is not None
    assert found.verdict in ("publish", "warn", "hold")
    assert judge(LIVE, candidate, LOG, GateConfig()).verdict in ("publish", "warn", "hold")


@given(
    st.dictionaries(st.sampled_from(CONFIG.strategies), st.floats(-0.3, 1.0)),
    st.integers(0, 400),
    st.builds(
        GateConfig,
        minimum_effective=st.sampled_from([2.0, 100.0, 1000.0]),
        max_loss=st.sampled_from([0.0, 0.05, 1.0]),
        confidence=st.sampled_from([0.5, 0.95]),
        max_change=st.sampled_from([0.0, 0.3, 1.0]),
    ),
)
@settings(max_examples=40)
def test_a_judgement_is_a_function_of_its_arguments(
    preferred: dict[str, float], turns: int, config: GateConfig
) -> None:
    def once() -> Judgement:
        return judge(policy(**preferred), LIVE, LOG[:turns], config)

    found = once()
    assert found == once()
    # As a version's header has it: JSON knows no NaN.
    assert msgspec.json.decode(msgspec.json.encode(found.evidence), type=Evidence) == found.evidence
    if found.change is None:
        assert not turns
    elif found.verdict == "publish":
        assert found.change.size <= config.max_change


def test_large_budgets_are_judged_in_time() -> None:
    large = [
        structs.replace(one, allocation={name: 1000 * n for name, n in one.allocation.items()}) for one in LOG[:900]
    ]
    found = judge(policy(memory=0.1), LIVE, large, GateConfig())
    assert found.evidence.effective > 200
    assert found.evidence.gains


@pytest.mark.parametrize("turns", [1, 2, 31])
def test_a_few_turns_do_no_harm(turns: int) -> None:
    assert judge(policy(memory=0.1), LIVE, LOG[:turns], GateConfig(minimum_effective=2)).reason
