"""The bandit's posterior against independent computations, and its time buckets."""

from collections import defaultdict
from math import log2

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.bandit import learner
from backchannel.agents.bandit.features import Categorical, Cross, Numeric
from backchannel.agents.bandit.learner import BanditConfig, StrategyBandit
from backchannel.agents.bandit.posterior import PAST, coarsen
from backchannel.agents.bandit.ranks import BUCKETS
from backchannel.agents.bandit.serving import Allocator, EncodingError
from backchannel.agents.checks import changes, unlike
from backchannel.agents.outcomes.outcomes import MAX_STRATEGIES
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.serving import live_rows
from backchannel.agents.sums import Delta, Floats, Key, MemorySums, Sums, merge
from backchannel.schemas.events import Result
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, LAST, click, closed_turn, impression, judged, outcomes_of, query, turns

CONFIG = BanditConfig(
    strategies=("lexical", "semantic", "memory"),
    features=(Numeric("hour", center=12, scale=4), Categorical("device", ("car", "phone"))),
    half_lives_days=(),
    ridges=(0.5,),
    position_decay=0.0,
)
BANDIT = StrategyBandit(CONFIG)
HOUR = 3_600_000
HOURS = st.integers(0, 300) | st.integers(0, 100_000)


def logged(seed: int, count: int, ts: int = 0) -> list[Turn]:
    """Turns whose clicks depend on strategy and context."""
    rng = np.random.default_rng(seed)
    some = []
    for _ in range(count):
        hour, device = float(rng.uniform(0, 24)), str(rng.choice(["car", "phone", "tv"]))
        names = rng.choice(CONFIG.strategies, size=rng.integers(1, 4), replace=False).tolist()
        results = [Result(name, place, (name,)) for place, name in enumerate(names, start=1)]
        liked = "lexical" if device == "car" else "semantic"
        clicks = (click(liked, str(rng.choice(["click", "like"]))),) if rng.random() < hour / 24 else ()
        at = int(rng.integers(0, ts, endpoint=True))
        some.append(closed_turn(query(at, context={"hour": hour, "device": device}), (impression(*results),), clicks))
    return some


LIKED = RewardConfig(click_gain={"like": 0.3})


def posterior(delta: Delta, strategy: str, at: int, bandit: StrategyBandit = BANDIT) -> dict[str, Floats]:
    row = bandit.solve(MemorySums(delta), changes(delta), at)[strategy]
    assert row is not None
    return {name: np.array(value) for name, value in orjson.loads(row).items()}


def test_a_strategy_that_was_never_asked_is_believed_to_do_what_others_do() -> None:
    """And is less sure to."""
    bandit = StrategyBandit(structs.replace(CONFIG, strategies=(*CONFIG.strategies, "new")))
    delta = bandit.learn(judged(logged(seed=1, count=400), LIKED))
    found = {name: posterior(delta, name, 0, bandit) for name in bandit.config.strategies}
    first = [float(found[name]["rates"][0]) for name in CONFIG.strategies]
    assert min(first) < found["new"]["rates"][0] < max(first)
    assert (found["new"]["prior"] == 1.0).all()
    assert (found["new"]["clicks"] == 0.0).all()
    assert np.trace(found["new"]["whitener"]) > np.trace(found["lexical"]["whitener"])


def test_without_configured_strategies_those_that_turns_name_are_learned_as_if_they_were() -> None:
    some = logged(seed=2, count=60, ts=5 * HOUR)
    named = StrategyBandit(structs.replace(CONFIG, strategies=()))
    configured = BANDIT.learn(judged(some, LIKED))
    parts = [named.learn(judged(part, LIKED)) for part in (some[:1], some[1:7], some[7:])]  # not all name the same
    taken = merge(parts)
    one, other = (
        live_rows(bandit.solve(MemorySums(delta), changes(delta), 5 * HOUR))
        for bandit, delta in ((BANDIT, configured), (named, taken))
    )
    assert {name: row for name, row in one.items() if name} == {name: row for name, row in other.items() if name}
    assert Allocator(other).strategies == ("lexical", "semantic", "memory")


def test_of_too_many_strategies_the_most_asked_are_learned() -> None:
    named = StrategyBandit(structs.replace(CONFIG, strategies=()))
    some = [
        closed_turn(query(place), (impression(Result("a", 1, (f"s{place % 40:02}",))),), ()) for place in range(40 + 20)
    ]
    delta = named.learn(judged(some, LIKED))
    learned = {key[1] for key in delta[named.table.name].keys}
    assert len(learned) == MAX_STRATEGIES
    assert learned >= {f"s{place:02}" for place in range(20)}
    assert set(live_rows(named.solve(MemorySums(delta), changes(delta), 60))) == {"", *learned}


def test_sums_of_an_earlier_version_are_refused_with_the_remedy() -> None:
    table = BANDIT.table
    old = Sums(table, [(BANDIT.encoder.fingerprint, "lexical", 0)], np.ones((1, 9)))
    with pytest.raises(EncodingError, match="Learn anew from the log"):
        BANDIT.solve(MemorySums({table.name: old}), {table.name: set()}, 0)


def test_before_anything_is_learned_there_is_the_prior() -> None:
    found = BANDIT.solve(MemorySums({}), {"bandit": set()}, 0)
    assert set(found) == {"", *CONFIG.strategies}
    for strategy in CONFIG.strategies:
        row = orjson.loads(found[strategy] or b"")
        assert row["count"] == row["reward"] == 0
        assert row["theta"] == [0.0] * BANDIT.encoder.dimension
        assert row["prior"] == [1.0] * BUCKETS
    assert BANDIT.solve(MemorySums({}), {}, 0) == {}


@given(st.lists(turns(st.integers(0, DAY)), max_size=4))
@settings(max_examples=50)
def test_rewards_lie_within_0_and_1_and_belong_to_what_was_clicked(some: list[Turn]) -> None:
    for outcome in outcomes_of(some):
        rewards = outcome.credited
        clicked = {event.entity_id for event in outcome.turn.clicks}
        results = [result for shown in outcome.turn.impressions for result in shown.results]
        assert rewards.keys() == {
            name
            for result in results
            if result.entity_id in clicked
            for name in result.strategies
            if name in outcome.asked
        }
        assert all(0 <= reward <= outcome.success and rank >= 1 for reward, rank, _ in rewards.values())


def test_every_strategy_that_produced_the_clicked_item_gets_the_credit() -> None:
    shown = impression(
        Result("clicked", 1, ("lexical", "semantic")),
        Result("liked", 2, ("semantic",)),
        Result("other", 3, ("memory",)),
        allocation={"lexical": 2, "semantic": 1, "memory": 1, "new": 0},
    )
    turn = closed_turn(query(), (shown,), (click("clicked"), click("liked", "like"), click("elsewhere")))
    config = RewardConfig(click_gain={"click": 0.5})
    (outcome,) = outcomes_of([turn], config)
    assert outcome.credited == {"lexical": (0.5, 1, 1), "semantic": (1.0, 2, 2)}
    assert outcome.asked == {"lexical": 2, "semantic": 1, "memory": 1}
    delta = BANDIT.learn(judged([turn], config))
    assert {strategy: float(posterior(delta, strategy, 0)["reward"]) for strategy in CONFIG.strategies} == {
        "lexical": 0.5,
        "semantic": 1.0,
        "memory": 0.0,
    }


def test_without_an_allocation_those_with_results_were_asked() -> None:
    shown = impression(Result("one", 1, ("lexical",)), Result("two", 2, ("semantic", "unheard-of")))
    assert outcomes_of([closed_turn(query(), (shown,))])[0].asked == {"lexical": 1, "semantic": 1, "unheard-of": 1}
    assert outcomes_of([closed_turn(query())])[0].asked == {}


def test_a_rank_counts_the_results_of_the_strategy_alone() -> None:
    shown = impression(
        Result("third", 9, ("lexical",)),
        Result("first", 1, ("semantic", "lexical")),
        Result("second", 4, ("lexical",)),
    )
    (outcome,) = outcomes_of([closed_turn(query(), (shown,), (click("third"), click("second")))])
    assert outcome.credited == {"lexical": (1.0, 2, 4)}


def test_rates_learn_where_the_clicked_stand() -> None:
    def turn(clicked: int | None, drawn: int) -> Turn:
        results = [Result(f"e{rank}", rank, ("lexical",)) for rank in range(1, drawn + 1)]
        clicks = () if clicked is None else (click(f"e{clicked}"),)
        return closed_turn(query(), (impression(*results, allocation={"lexical": drawn}),), clicks)

    steep = [turn(1, 8)] * 500 + [turn(None, 8)] * 500
    flat = [turn(rank, 8) for rank in range(1, 9)] * 50 + [turn(None, 8)] * 400
    # Ranks that are drawn in a tenth of the turns only, and there are as good as the others.
    rare = [turn(1, 1)] * 450 + [turn(None, 1)] * 450 + [turn(1, 2)] * 50 + [turn(2, 2)] * 50
    for turns_, expected in ((steep, [0.5, 0.0]), (flat, [1 / 16, 1 / 16]), (rare, [0.5, 0.5])):
        found = posterior(BANDIT.learn(judged(turns_)), "lexical", 0)["rates"]
        assert found[:2] == pytest.approx(expected, abs=0.05)


def test_what_is_drawn_deeper_is_not_learned_to_be_better() -> None:
    """Two strategies whose candidates are equally good, of which one is asked for four times as many."""
    rng = np.random.default_rng(3)

    def turn() -> Turn:
        drawn = [("lexical", rank) for rank in range(1, 9)] + [("semantic", rank) for rank in range(1, 3)]
        results = [Result(f"{name}{rank}", place, (name,), {name: rank}) for place, (name, rank) in enumerate(drawn, 1)]
        clicks = tuple(click(result.entity_id) for result in results if rng.random() < 0.1)
        return closed_turn(query(), (impression(*results, allocation={"lexical": 8, "semantic": 2}),), clicks)

    delta = BANDIT.learn(judged([turn() for _ in range(3000)]))
    lexical, semantic = (posterior(delta, name, 0)["rates"] for name in ("lexical", "semantic"))
    assert lexical[:2] == pytest.approx(semantic[:2], rel=0.15)


# --- time buckets


def compacted(delta: Delta, at: int) -> Delta:
    """The delta with its buckets coarsened, as the publisher leaves the ledger."""
    after: Delta = {}
    for table, sums in delta.items():
        moved = BANDIT.compact(sums.table, list(sums.keys), MemorySums(delta), at)
        rows: dict[Key, Floats] = {}
        for key, row in zip(sums.keys, sums.values, strict=True):
            target = moved.get(key, key)
            rows[target] = rows[target] + row if target in rows else row
        after[table] = Sums(sums.table, list(rows), np.stack(list(rows.values())))
    return after


def totals(delta: Delta) -> dict[Key, bytes]:
    summed: dict[Key, Floats] = defaultdict(lambda: np.zeros(1))
    for table, sums in delta.items():
        for (*names, _), row in zip(sums.keys, sums.values, strict=True):
            summed[table, *names] = summed[table, *names] + row
    return {key: row.tobytes() for key, row in summed.items()}


@given(st.lists(turns(st.integers(0, 300 * DAY)), min_size=1, max_size=8), st.lists(st.integers(0, LAST), max_size=4))
@settings(max_examples=50)
def test_compaction_changes_no_sum(some: list[Turn], times: list[int]) -> None:
    before = BANDIT.learn(judged(some))
    if before:
        after = before
        for at in times:
            after = compacted(after, at)
        assert totals(after) == totals(before)


@given(st.lists(HOURS, min_size=1, max_size=60, unique=True), HOURS)
def test_compaction_is_idempotent(starts: list[int], at: int) -> None:
    moved = coarsen([start * HOUR for start in starts], (), HOUR, at * HOUR)
    assert not coarsen(set(moved.values()), (), HOUR, at * HOUR)


@given(HOURS, HOURS)
def test_a_bucket_is_at_most_an_eighth_of_its_age_long(start: int, at: int) -> None:
    target = coarsen([start * HOUR], (), HOUR, at * HOUR).get(start * HOUR, start * HOUR)
    assert target % HOUR == 0
    assert 0 <= start * HOUR - target <= max(at * HOUR - target, 0) / 8


@given(st.lists(HOURS, min_size=1, max_size=60), HOURS, HOURS, st.booleans())
def test_no_bucket_reaches_across_a_change_doubted_or_settled(
    starts: list[int], at: int, changed: int, settled: bool
) -> None:
    """Otherwise what came right after it would be merged into the PAST."""
    live, change = {start * HOUR for start in starts}, changed * HOUR
    moved = coarsen(live, (change,) if settled else (), HOUR, at * HOUR, change)
    assert all(moved.get(start, start) >= change for start in live if start >= change)


@pytest.mark.parametrize("step", [1, 5, 100, 10_000])
def test_the_number_of_buckets_is_logarithmic(step: int) -> None:
    hours, live = 10_000, set[int]()
    for now in range(step, hours + step, step):
        live |= {hour * HOUR for hour in range(now - step, now)}
        moved = coarsen(live, (), HOUR, now * HOUR)
        live = {moved.get(start, start) for start in live}
        assert len(live) <= 16 * (1 + log2(now))


def test_what_is_from_before_a_change_stays_so() -> None:
    def turn(hour: int, clicked: bool) -> Turn:
        shown = impression(Result("e", 1, ("lexical",)), allocation={"lexical": 1})
        return closed_turn(query(hour * HOUR), (shown,), (click("e"),) if clicked else ())

    change, at = 30, 60
    some = [turn(hour, number % 10 < (8 if hour < change else 2)) for hour in range(at) for number in range(50)]
    delta = BANDIT.learn(judged(some))
    before = posterior(delta, "lexical", at * HOUR)
    # The change is seen to the nearest few buckets; once seen, nothing hides it.
    after = compacted(delta, at * HOUR)
    assert {start for _, _, start in after["bandit"].keys if start < (change - 3) * HOUR} == {PAST}
    for later in (at, 2 * at, 10_000):
        after = compacted(after, later * HOUR)
        assert posterior(after, "lexical", later * HOUR)["reward"] == pytest.approx(before["reward"])
    assert totals(after) == totals(delta)


OF_STRATEGIES = StrategyBandit(
    BanditConfig(
        strategies=("lexical", "semantic"),
        features=(
            Categorical("device", ("car", "phone")),
            Numeric("strategy.results"),
            Cross("device", "strategy.results"),
        ),
        half_lives_days=(),
        exploration=0.0,
        position_decay=0.0,
    )
)


def test_of_many_allocations_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped was not read any more, so dropping it changes no policy."""
    monkeypatch.setattr(learner, "MOST_PLANS", 5)
    bandit = StrategyBandit(CONFIG)
    delta = bandit.learn(judged(logged(seed=3, count=300, ts=4 * HOUR), LIKED))
    name, keys = bandit.plans.name, delta[bandit.plans.name].keys
    dropped = {*bandit.excess(MemorySums(delta), {bandit.encoder.fingerprint}, 5 * HOUR)}
    left = [row for row, key in enumerate(keys) if key not in dropped]
    assert len(left) == 5 < len(keys)
    assert min(keys[row][2] for row in left) >= max(key[2] for key in dropped)
    kept = delta | {name: Sums(bandit.plans, [keys[row] for row in left], delta[name].values[left])}
    before, after = (bandit.solve(MemorySums(some), changes(delta), 5 * HOUR) for some in (delta, kept))
    assert before == after


def allocator(bandit: StrategyBandit, delta: Delta) -> Allocator:
    section = bandit.solve(MemorySums(delta), changes(delta), 0)
    return Allocator(live_rows(section))


def found_by_results(count: int) -> list[Turn]:
    """In the car, what a strategy finds is good if it finds much; else, whatever it finds."""
    rng = np.random.default_rng(5)
    some = []
    for _ in range(count):
        device = str(rng.choice(["car", "phone"]))
        results = {name: float(rng.integers(0, 2)) for name in ("lexical", "semantic")}
        liked = [name for name, number in results.items() if device == "phone" or number]
        shown = impression(
            *(Result(name, place, (name,)) for place, name in enumerate(results, start=1)),
            strategy_context={name: {"strategy.results": number} for name, number in results.items()},
        )
        some.append(closed_turn(query(0, context={"device": device}), (shown,), tuple(map(click, liked))))
    return some


def test_it_learns_from_what_was_known_of_each_strategy() -> None:
    learned = allocator(OF_STRATEGIES, OF_STRATEGIES.learn(judged(found_by_results(400))))
    known = {"lexical": {"strategy.results": 0.0}, "semantic": {"strategy.results": 1.0}}
    for device, expected in (("car", (0, 1)), ("phone", (1, 1))):
        means, _ = learned.utilities({"device": device}, known)
        assert means == pytest.approx(expected, abs=0.1)
    decision = learned.allocate({"device": "car"}, 1, np.random.default_rng(0), known)
    assert decision.strategy_context == known
    assert decision.propensities["semantic"] > decision.propensities["lexical"]
    # What is not known is at the feature's center, which is 0 here.
    assert learned.utilities({"device": "car"})[0] == pytest.approx((0, 0), abs=0.1)


def test_it_learns_from_what_was_known_of_who_asked() -> None:
    """As it was logged: all the same as if it had been in the query's own context."""
    bandit = StrategyBandit(BanditConfig(features=(Numeric("user.reward", scale=0.1),)))
    first, second = (impression(Result("a", 1, ("lexical",)), user_context=own) for own in ({}, {"user.reward": 0.2}))
    logged = closed_turn(query(context={"user.reward": 0.1}), (first, second), (click("a"),))
    known = closed_turn(query(context={"user.reward": 0.2}), (first,), (click("a"),))
    assert not unlike(bandit.learn(judged([logged])), bandit.learn(judged([known])), exact=True)
    unknown = closed_turn(query(context={}), (first,), (click("a"),))
    assert unlike(bandit.learn(judged([logged])), bandit.learn(judged([unknown])), exact=True)


def test_features_that_no_turn_has_a_value_of_are_known() -> None:
    features = (
        Categorical("device", ("car",)),
        Categorical("devise", ("car",)),
        Numeric("query.interpreted"),
        Numeric("strategy.history"),
        Numeric("strategy.histry"),
        Cross("device", "devise"),
    )
    bandit = StrategyBandit(BanditConfig(strategies=("lexical", "semantic"), features=features))
    learned = allocator(bandit, bandit.learn(judged(found_by_results(40))))
    assert learned.unseen_features == ["devise", "strategy.histry"]


def test_summaries_say_what_was_learned_in_words_of_features() -> None:
    some = found_by_results(400)
    learned = allocator(OF_STRATEGIES, OF_STRATEGIES.learn(judged(some)))
    in_car = [turn for turn in some if turn.query.context["device"] == "car"]
    for name, summary in learned.summaries().items():
        everywhere, car, phone = summary.segments
        assert (everywhere.name, car.name, phone.name) == ("", "device=car", "device=phone")
        assert (everywhere.turns, car.turns, car.share) == pytest.approx((400, len(in_car), 0.5))
        clicked = sum(name in outcome.gains for outcome in outcomes_of(in_car)) / len(in_car)
        assert car.reward == pytest.approx(clicked, abs=0.05)
        assert phone.reward == pytest.approx(1, abs=0.05)
        assert 0 < car.deviation < 0.1
        weight, deviation = summary.weights["device=car*strategy.results"]
        assert weight == pytest.approx(0.5, abs=0.2)  # which it shares with strategy.results
        assert deviation > 0
