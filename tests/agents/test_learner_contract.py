"""What every learner must keep to: everything it learns is a sum."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from backchannel.agents.bandit.features import Categorical, Numeric
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.strategy_history import StrategyHistory
from backchannel.agents.bandit.user_history import UserHistory
from backchannel.agents.learner import Learner
from backchannel.agents.memory.learner import MemoryConfig, MemoryIndex
from backchannel.agents.memory.personal import PersonalMemory
from backchannel.agents.outcomes import RewardConfig
from backchannel.agents.quality.learner import AnswerQuality, QualityConfig
from backchannel.agents.rewrites.learner import RephraseConfig, RephraseGraph
from backchannel.agents.rewrites.personal import PersonalRewrites
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, MemorySums, Sums, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from backchannel.streams.config import Config
from backchannel.streams.pipeline.learners import Learning
from tests.support.cases import leaves
from tests.support.turns import DAY, LAST, changes, click, closed_turn, impression, judged, query, turns, unlike

LEARNERS: list[Learner] = [
    *Learning(Config()).learners,
    StrategyBandit(
        BanditConfig(
            strategies=("lexical", "semantic", "memory"),
            features=(
                Numeric("hour", center=12, scale=4),
                Categorical("device", ("car", "phone")),
                Categorical("driving", ("true",)),
                Numeric("query.characters", scale=100),
                Numeric("strategy.results", scale=10),
                Numeric("user.reward", scale=0.1),
            ),
        )
    ),
    StrategyHistory(("lexical", "semantic"), half_life_days=30),
    UserHistory(half_life_days=30),
    # Rewrites that a few turns suffice for.
    RephraseGraph(
        RephraseConfig(min_support=0.5, min_users=0, margin=1e-6, max_source_success=1.0, depth=2, max_states=4)
    ),
    PersonalRewrites(RephraseConfig(personal=2, personal_support=0.25)),
    MemoryIndex(MemoryConfig(min_users=2, top=2, challengers=1)),
    PersonalMemory(MemoryIndex(MemoryConfig(personal=2))),
]
every_learner = pytest.mark.parametrize(
    "learner", LEARNERS, ids=lambda learner: f"{learner.name}-{LEARNERS.index(learner)}"
)

# Close together, months apart, and thousands of half-lives apart.
TIMES = st.integers(0, 10 * DAY) | st.integers(0, 3_000 * DAY) | st.integers(0, LAST)
TURNS = st.lists(turns(TIMES), max_size=5)

# Turns whose sums are exact in every learner, so that whatever is solved from them is equal to the last bit.
WHOLE_HALF_LIVES = st.integers(0, 3).map(lambda number: number * 30 * DAY)
EXACT_TURNS = st.lists(turns(WHOLE_HALF_LIVES, positions=st.just(1)), max_size=12)
HALF_TAKEN_BACK = RewardConfig(rephrase_weight=0.5)


def is_exact(learner: Learner) -> bool:
    return isinstance(learner, StrategyBandit | AnswerQuality)


def learn(learner: Learner, some: list[Turn]) -> Delta:
    return learner.learn(judged(some))


def everything(learner: Learner, delta: Delta) -> dict[str, set[str]]:
    """All that may have changed: the tables are named even if nothing is in them, as before the first version."""
    return {table.name: set() for table in learner.tables} | changes(delta)


def solved(learner: Learner, delta: Delta, at: int = LAST) -> dict[str, bytes]:
    section = learner.solve(MemorySums(delta), everything(learner, delta), at)
    return live_rows(section)


@every_learner
@given(TURNS, TURNS, TURNS)
@settings(max_examples=40)
def test_merge_is_commutative_and_associative(
    learner: Learner, one: list[Turn], two: list[Turn], three: list[Turn]
) -> None:
    a, b, c = learn(learner, one), learn(learner, two), learn(learner, three)
    exact = is_exact(learner)
    assert not unlike(merge([a, b]), merge([b, a]), exact=True)
    assert not unlike(merge([merge([a, b]), c]), merge([a, merge([b, c])]), exact=exact)


@every_learner
@given(TURNS)
@settings(max_examples=20)
def test_nothing_is_the_identity(learner: Learner, some: list[Turn]) -> None:
    assert learner.learn([]) == {}
    delta = learn(learner, some)
    empty: Delta = {table.name: Sums(table) for table in learner.tables}
    for nothing in ({}, empty):
        assert not unlike(merge([delta, nothing]), delta, exact=True)
        assert not unlike(merge([nothing, delta]), delta, exact=True)
    assert merge([]) == {}


@every_learner
@given(st.data())
@settings(max_examples=50)
def test_split_and_order_do_not_matter(learner: Learner, data: st.DataObject) -> None:
    some = data.draw(st.lists(turns(TIMES), min_size=2, max_size=8))
    order = data.draw(st.permutations(range(len(some))))
    workers = data.draw(st.lists(st.integers(0, 3), min_size=len(some), max_size=len(some)))
    split = [learn(learner, [some[turn] for turn in order if workers[turn] == worker]) for worker in range(4)]
    assert not unlike(merge(split), learn(learner, some), exact=is_exact(learner))


@every_learner
@given(TURNS)
@settings(max_examples=30)
def test_learning_is_pure(learner: Learner, some: list[Turn]) -> None:
    outcomes = judged(some)
    before = copy.deepcopy(outcomes)
    delta = learner.learn(outcomes)
    kept = copy.deepcopy(delta)
    assert outcomes == before
    assert not unlike(learner.learn(outcomes), delta, exact=True)
    for outcome in outcomes:  # it keeps nothing of its input
        outcome.gains.clear()
    outcomes.clear()
    merge([delta, learn(learner, some)])
    solved(learner, delta)
    assert not unlike(delta, kept, exact=True)


@every_learner
@given(TURNS, TURNS, st.integers(0, DAY) | st.integers(0, LAST))
@settings(max_examples=50)
def test_forgetting_equals_its_definition(learner: Learner, first: list[Turn], second: list[Turn], later: int) -> None:
    """A turn of time t counts 2^(-(T - t) / half_life) at time T, however far the landmarks have moved."""
    everyone = first + second
    at = max((turn.query.ts for turn in everyone), default=0) + later
    total = merge([learn(learner, first), learn(learner, second)])
    for table in learner.tables:
        if not table.half_life_ms:  # the bandit's fade when they are read: see test_bandit
            continue
        expected: dict[Any, Any] = {}
        for turn in everyone:
            contribution = learn(learner, [turn]).get(table.name, Sums(table))
            fading = 2.0 ** (-(at - turn.query.ts) / table.half_life_ms)
            for key, row in zip(contribution.keys, contribution.at(turn.query.ts), strict=True):
                expected[key] = expected.get(key, 0.0) + fading * row
        found = total.get(table.name, Sums(table))
        assert dict(zip(found.keys, found.at(at), strict=True)) == {
            key: pytest.approx(row, rel=1e-9, abs=1e-300) for key, row in expected.items()
        }


@every_learner
@given(st.data())
@settings(max_examples=50)
def test_the_merged_policy_is_the_single_workers(learner: Learner, data: st.DataObject) -> None:
    some = data.draw(EXACT_TURNS)
    order = data.draw(st.permutations(range(len(some))))
    workers = data.draw(st.lists(st.integers(0, 2), min_size=len(some), max_size=len(some)))
    split = [
        learner.learn(judged([some[turn] for turn in order if workers[turn] == worker], HALF_TAKEN_BACK))
        for worker in range(3)
    ]
    single = learner.learn(judged(some, HALF_TAKEN_BACK))
    at = max((turn.query.ts for turn in some), default=0)
    assert solved(learner, merge(split), at) == solved(learner, single, at)


@every_learner
@given(st.lists(EXACT_TURNS, max_size=5))
@settings(max_examples=80)
def test_solving_what_changed_is_enough(learner: Learner, batches: list[list[Turn]]) -> None:
    at = 5 * 30 * DAY
    total: Delta = {}
    section: dict[str, bytes | None] = {}
    section.update(learner.solve(MemorySums(total), everything(learner, total), at))
    for batch in batches:
        delta = learner.learn(judged(batch, HALF_TAKEN_BACK))
        total = merge([total, delta])
        section.update(learner.solve(MemorySums(total), changes(delta), at))
    assert live_rows(section) == solved(learner, total, at)


@every_learner
@given(EXACT_TURNS, st.integers(1, 3))
@settings(max_examples=40)
def test_solving_portion_by_portion_is_solving_all(learner: Learner, some: list[Turn], together: int) -> None:
    delta = learn(learner, some)
    for changed in ({}, changes(delta), everything(learner, delta)):
        section: dict[str, bytes | None] = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backchannel.agents.learner._TOGETHER", together)
            for portion in learner.portions(changed):
                section |= learner.solve(MemorySums(delta), portion, LAST)
        assert section == learner.solve(MemorySums(delta), changed, LAST)


@every_learner
@given(TURNS, TIMES)
@settings(max_examples=40)
def test_a_section_is_finite_json(learner: Learner, some: list[Turn], at: int) -> None:
    for row in solved(learner, learn(learner, some), at).values():
        assert b"null" not in row  # what orjson makes of a number that is not finite
        assert orjson.loads(row)


@pytest.mark.parametrize("config", [BanditConfig, MemoryConfig, QualityConfig, RephraseConfig, RewardConfig])
def test_every_number_in_a_configuration_is_bounded(config: type) -> None:
    for info in leaves(inspect.type_info(config)):
        if isinstance(info, inspect.FloatType):
            assert info.gt is not None or info.ge is not None  # so NaN is refused, too
            assert info.lt is not None or info.le is not None


FULL = impression(*(Result(f"e{place}", place, ("lexical", "semantic")) for place in range(1, 501)))
EXTREMES = {
    "empty": closed_turn(query(text="")),
    "symbols": closed_turn(query(text="?!"), (FULL,), (click("e1"),)),
    "no impression": closed_turn(query(LAST), (), (click("e1"),)),
    "empty impression": closed_turn(query(), (impression(),)),
    "many results": closed_turn(query(), (FULL, FULL), (click("e500"), click("e1"))),
    "last place": closed_turn(query(), (impression(Result("e", 10_000, ("lexical",))),), (click("e"),)),
    "first moment": closed_turn(query(0), (FULL,), (click("e1"),), next=query(0)),
    "last moment": closed_turn(query(LAST), (FULL,), (click("e1"),), next=query(LAST)),
    "long": closed_turn(query(text="x" * 2000, interpretation="y" * 2000), (FULL,), next=query(1, text="z" * 2000)),
    "huge numbers": closed_turn(query(context={"hour": 1.7e308, "driving": -1.7e308, "device": 0.0}), (FULL,)),
    "strange strings": closed_turn(query(context={"hour": "noon", "driving": "", "device": "toaster"}), (FULL,)),
}


@every_learner
@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_do_no_harm(learner: Learner, name: str) -> None:
    usual = closed_turn(query(DAY), (impression(Result("e1", 1, ("lexical",))),), (click("e1"),), next=query(DAY))
    both = merge([learn(learner, [usual]), learn(learner, [EXTREMES[name]])])
    assert not unlike(both, learn(learner, [EXTREMES[name], usual]), exact=is_exact(learner))
    for at in (0, DAY, LAST):
        for row in solved(learner, both, at).values():
            assert b"null" not in row
            assert orjson.loads(row)
