"""The ranking layer: what lists of results teach, and the order that comes of it."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack, structs

from backchannel.agents.bandit.features import Binned, Categorical, Numeric, Value
from backchannel.agents.bandit.serving import EncodingError
from backchannel.agents.checks import changes, unlike
from backchannel.agents.ranking.features import CandidateEncoder
from backchannel.agents.ranking.learner import RankingConfig, ResultRanking
from backchannel.agents.ranking.packed import read_alike
from backchannel.agents.ranking.serving import DRAWS, Candidate, Ranker
from backchannel.agents.ranking.sums import HEAD, Lists, sums_of, unpacked, width
from backchannel.agents.ranking.weights import solve
from backchannel.agents.sums import Delta, MemorySums, merge
from backchannel.schemas.events import Normalizer, Result
from backchannel.schemas.turn import Turn
from tests.support.turns import click, impression, judged, query

PAIR = RankingConfig(features=(Numeric("score"), Numeric("fresh")), normalized=())
SCORED = RankingConfig(features=(Numeric("score"),), normalized=("score",))
RNG = np.random.default_rng


def lists(gains: list[list[float]], vectors: list[list[list[float]]], examined: list[list[float]]) -> Lists:
    return Lists(
        np.array([len(one) for one in gains]),
        np.array([row for one in vectors for row in one]),
        np.array([value for one in examined for value in one]),
        np.array([value for one in gains for value in one]),
        np.zeros(len(gains), dtype=np.int64),
        np.ones(len(gains), dtype=bool),
    )


def turn(number: int, fresh: list[float], clicked: int | None, **fields: object) -> Turn:
    """Three results in the caller's order of score."""
    results = [
        Result(f"e{place}", place + 1, features={"score": 3.0 - place, "fresh": value})
        for place, value in enumerate(fresh)
    ]
    clicks = () if clicked is None else (click(f"e{clicked}"),)
    return Turn.of(query(number * 1000, f"query {number % 40}"), (impression(*results, **fields), *clicks))


def some_turns(count: int, seed: int = 0) -> list[Turn]:
    """People click what is fresh, whatever its score."""
    rng, made = RNG(seed), []
    for number in range(count):
        fresh = rng.permutation([0.0, 0.5, 1.0]).tolist()
        wanted = rng.random(3) < 0.05 + 0.5 * np.array(fresh)
        seen = rng.random(3) < np.array([1, 2, 3.0]) ** -0.7
        hits = np.flatnonzero(wanted & seen).tolist()
        made.append(turn(number, fresh, hits[0] if hits else None))
    return made


def learned(config: RankingConfig, turns: list[Turn]) -> Ranker:
    learner = ResultRanking(config)
    delta = learner.learn(judged(turns))
    section = learner.solve(MemorySums(delta), {learner.table.name: changes(delta).get("ranking", set())}, 10**9)
    return Ranker({key: row for key, row in section.items() if row is not None})


def drawn(count: int, rng: np.random.Generator) -> list[Candidate]:
    return [
        Candidate(str(at), {"score": score, "fresh": fresh})
        for at, (score, fresh) in enumerate(rng.random((count, 2)).tolist())
    ]


def test_the_sums_are_those_of_the_closed_form() -> None:
    vectors = [[[1.0, 0.0], [0.0, 2.0], [4.0, -1.0]], [[0.5, 0.5], [1.5, 0.25]]]
    examined = [[1.0, 0.5, 0.25], [1.0, 0.5]]
    gains = [[0.0, 1.0, 0.0], [0.5, 0.0]]
    (row,) = sums_of(lists(gains, vectors, examined), 1)
    gram, moment = np.zeros((2, 2)), np.zeros(2)
    for x, p, c in zip(map(np.array, vectors), map(np.array, examined), map(np.array, gains), strict=True):
        centred = x - p @ x / p.sum()
        gram += (centred * p[:, np.newaxis]).T @ centred
        moment += (c - p * c.sum() / p.sum()) @ centred
    found_gram, found_moment = unpacked(row, 2)
    np.testing.assert_allclose(found_gram, gram, atol=0.1)
    np.testing.assert_allclose(found_moment, moment, atol=0.02)
    assert row[:HEAD].tolist() == [2.0, 3.25, pytest.approx(row[2]), 1.5, 2.0]
    assert len(row) == width(2)


def test_it_is_pairwise_least_squares() -> None:
    """The sums are those of all pairs of a list (Ermis et al. 2020), which is computed here pair by pair."""
    rng = RNG(7)
    vectors = np.rint(rng.normal(size=(30, 5, 3)) * 64) / 64
    examined = np.array([1.0, 0.75, 0.5, 0.25, 0.25])
    gains = (rng.random((30, 5)) < 0.3).astype(float)
    gram, moment = np.zeros((3, 3)), np.zeros(3)
    for x, c in zip(vectors, gains, strict=True):
        for one in range(5):
            for other in range(one):
                apart = x[one] - x[other]
                gram += examined[one] * examined[other] * np.outer(apart, apart) / examined.sum()
                gained = examined[other] * c[one] - examined[one] * c[other]
                moment += gained * apart / examined.sum()
    found = sums_of(lists(gains.tolist(), vectors.tolist(), [examined.tolist()] * 30), 1)[0]
    found_gram, found_moment = unpacked(found, 3)
    np.testing.assert_allclose(found_gram, gram, rtol=0.01, atol=0.1)
    np.testing.assert_allclose(found_moment, moment, rtol=0.01, atol=0.1)


def test_the_solution_is_the_ridge_towards_the_prior() -> None:
    rng = RNG(8)
    vectors = np.rint(rng.normal(size=(400, 4, 2)) * 64) / 64
    gains = np.clip(0.4 + vectors @ [0.05, 0.2], 0, 1)
    shown = lists(gains.tolist(), vectors.tolist(), np.ones((400, 4)).tolist())
    rows = sums_of(structs.replace(shown, groups=np.arange(400) % 2), 2)
    weights = solve(np.zeros(1), rows[np.newaxis], np.array([1.0, 0.0]), (None,), 0.0)
    assert weights.learned
    gram, moment = unpacked(rows.sum(axis=0), 2)
    pull = np.diag(weights.ridge * (np.diag(gram) / 400 + 1e-6))
    expected = np.linalg.solve(gram + pull, moment + pull @ weights.prior)
    np.testing.assert_allclose(weights.mean, expected)
    np.testing.assert_allclose(weights.mean, [0.05, 0.2], atol=0.03)


def test_the_weight_of_a_column_in_which_no_list_differs_is_drawn_no_wider_than_gains_are() -> None:
    vectors = np.rint(RNG(8).normal(size=(400, 4, 3)) * 64) / 64
    gains = np.clip(0.4 + vectors @ [0.05, 0.2, 0.0], 0, 1)
    vectors[..., 2] = 0.0  # as the memory index's scores until it knows anything
    shown = lists(gains.tolist(), vectors.tolist(), np.ones((400, 4)).tolist())
    rows = sums_of(structs.replace(shown, groups=np.arange(400) % 2), 2)
    weights = solve(np.zeros(1), rows[np.newaxis], np.array([1.0, 0.0, 0.0]), (None,), 0.0)
    assert weights.learned
    assert weights.mean[2] == 0.0
    assert np.linalg.norm(weights.factor, axis=1)[2] <= 1.0


def test_examined_alike_it_is_ordinary_least_squares_within_lists() -> None:
    rng = RNG(1)
    vectors = np.rint(rng.normal(size=(50, 4, 3)) * 64) / 64
    gains = np.rint((vectors @ [0.25, -0.5, 0.125] + 0.5) * 1024) / 1024
    found = sums_of(lists(gains.tolist(), vectors.tolist(), np.ones((50, 4)).tolist()), 1)[0]
    gram, moment = unpacked(found, 3)
    np.testing.assert_allclose(np.linalg.solve(gram, moment), [0.25, -0.5, 0.125], atol=5e-3)


@given(st.lists(st.integers(0, 3), min_size=30, max_size=30), st.permutations(range(30)))
@settings(max_examples=25)
def test_split_and_order_do_not_matter_to_the_last_bit(workers: list[int], order: list[int]) -> None:
    learner, turns = ResultRanking(PAIR), some_turns(30)
    parts: list[Delta] = [
        learner.learn(judged([turns[at] for at in order if workers[at] == worker])) for worker in range(4)
    ]
    assert not unlike(merge(parts), learner.learn(judged(turns)), exact=True)


def test_what_is_constant_in_a_list_has_no_influence() -> None:
    turns = some_turns(300)
    moved = [
        Turn.of(
            one.query,
            (
                *(
                    impression(
                        *(Result(r.entity_id, r.position, features={**r.features, "score": 2.0}) for r in shown.results)
                    )
                    for shown in one.impressions
                ),
                *one.clicks,
            ),
        )
        for one in turns
    ]
    learner = ResultRanking(PAIR)
    (row,) = [sum(learner.learn(judged(moved))["ranking"].values)]
    gram, moment = unpacked(np.asarray(row), 2)
    assert not gram[0].any()
    assert moment[0] == 0


def test_few_clicks_leave_the_order_of_the_caller_and_many_do_not() -> None:
    candidates = [
        Candidate("stale", {"score": 1.0, "fresh": 0.0}),
        Candidate("fresh", {"score": 0.0, "fresh": 1.0}),
    ]
    before, after = learned(PAIR, some_turns(2)), learned(PAIR, some_turns(600))
    assert [one.entity_id for one in before.rank({}, candidates, 2, RNG(0)).results] == ["stale", "fresh"]
    assert not before.settings.learned
    assert after.settings.learned
    assert after.settings.gain > after.settings.deviation
    assert after.rank({}, candidates, 2, RNG(0)).results[0].entity_id == "fresh"


def test_without_any_score_the_order_given_is_the_order_of_the_caller() -> None:
    ranker = learned(SCORED, [])
    given_order = [Candidate(name) for name in "cab"]
    assert [one.entity_id for one in ranker.rank({}, given_order, 3, RNG(0)).results] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("config", "scores"),
    [
        (None, [1.0, 2.0, 3.0, 1e6]),  # the others are alike on the grid, in deviations of the list
        (None, [1.79e18, 1.8e18, 1.81e18]),  # too large for sums
        (PAIR, [7.0, 12.5, 9.0, 30.0]),  # beyond the bound
        (structs.replace(SCORED, normalized=(), prior={"score": -1.0}), [30.0, 9.0, 12.5]),
    ],
    ids=["outlier", "large", "unscaled", "distances"],
)
def test_scores_that_are_encoded_alike_order_as_the_caller_says(
    config: RankingConfig | None, scores: list[float]
) -> None:
    ranker = learned(config, []) if config else Ranker({})
    candidates = [Candidate(f"{score}", {"score": score}) for score in scores]
    shown = [one.features["score"] for one in ranker.rank({}, candidates, len(scores), RNG(0)).results]
    assert shown == sorted(scores, reverse=config is None or config.prior["score"] > 0)


def test_equal_candidates_may_change_places_and_nothing_else_changes() -> None:
    ranker = learned(PAIR, some_turns(600))
    twins = [Candidate(name, {"score": 1.0, "fresh": 0.5}) for name in "ab"]
    other = Candidate("o", {"score": 0.0, "fresh": 1.0})
    one = ranker.rank({}, [*twins, other], 3, RNG(3))
    two = ranker.rank({}, [*twins[::-1], other], 3, RNG(3))
    assert [r.score for r in one.results] == pytest.approx([r.score for r in two.results])


def test_the_propensity_is_the_share_of_models_that_give_the_order() -> None:
    config = RankingConfig(features=PAIR.features, normalized=(), exploration=3.0, max_shift=2)
    ranker = learned(config, some_turns(300))
    rng = RNG(5)
    candidates = [
        Candidate(str(at), {"score": float(a), "fresh": float(b)}) for at, (a, b) in enumerate(rng.random((6, 2)))
    ]
    seen: dict[tuple[str, ...], list[float]] = {}
    for _ in range(4000):
        ranking = ranker.rank({}, candidates, 4, rng)
        seen.setdefault(tuple(one.entity_id for one in ranking.results), []).append(ranking.propensity)
    assert sum(own[0] for own in seen.values()) == pytest.approx(1.0)
    assert len(seen) > 1
    for own in seen.values():
        assert set(own) == {own[0]}
        assert abs(len(own) / 4000 - own[0]) < 4 * (own[0] * (1 - own[0]) / 4000) ** 0.5 + 1e-9


def test_exploration_moves_nothing_by_more_than_the_bound() -> None:
    config = RankingConfig(features=PAIR.features, normalized=(), exploration=10.0, max_shift=1)
    ranker = learned(config, some_turns(300))
    calm = learned(RankingConfig(features=PAIR.features, normalized=(), exploration=0.0), some_turns(300))
    rng = RNG(5)
    candidates = [
        Candidate(str(at), {"score": float(a), "fresh": float(b)}) for at, (a, b) in enumerate(rng.random((30, 2)))
    ]
    mean = {one.entity_id: one.position for one in calm.rank({}, candidates, 30, rng).results}
    for _ in range(DRAWS):
        for one in ranker.rank({}, candidates, 30, rng).results:
            assert abs(one.position - mean[one.entity_id]) <= 2  # a bound on wishes; two that wish alike share the loss


def test_lists_of_one_and_of_many() -> None:
    ranker = learned(PAIR, some_turns(600))
    assert ranker.rank({}, [], 3, RNG(0)).results == ()
    (only,) = ranker.rank({}, [Candidate("a", {"score": 1.0})], 3, RNG(0)).results
    assert (only.position, only.score) == (1, 0.0)
    many = [Candidate(str(at), {"score": float(at)}) for at in range(500)]
    assert len(ranker.rank({}, many, 500, RNG(0)).results) == 500
    with pytest.raises(ValueError, match="k"):
        ranker.rank({}, many, 0, RNG(0))


@pytest.mark.parametrize(
    ("candidate", "named"),
    [
        (Candidate("e0"), "'e0' is among them 2 times; give it once"),
        (Candidate("e", ranks={"lexical": 1, "semantic": 0}), "ranks.semantic of 'e': 0; ranks count from 1"),
        (Candidate("e", {"score": math.nan}), "features.score of 'e': nan; give a finite number"),
        (Candidate("e", {"score": -math.inf}), "features.score of 'e': -inf; give a finite number"),
    ],
)
@pytest.mark.parametrize("turns", [0, 600])
def test_candidates_that_mean_nothing_are_refused(candidate: Candidate, named: str, turns: int) -> None:
    ranker = learned(PAIR, some_turns(turns)) if turns else Ranker({})
    others = [Candidate(f"e{at}", {"score": 1.0 - at}, {"lexical": at + 1}) for at in range(3)]
    with pytest.raises(ValueError, match=re.escape(named)):
        ranker.rank({}, [*others, candidate], 2, RNG(0))
    missing = [
        Candidate("none", {"score": None}),
        Candidate("text", {"score": "high"}),
        Candidate("huge", {"score": 1e300}),
    ]
    assert len(ranker.rank({}, [*others, *missing], 9, RNG(0)).results) == 6


def test_reasons_add_up_to_the_score() -> None:
    ranker = learned(PAIR, some_turns(600))
    candidates = [Candidate("a", {"score": 1.0, "fresh": 0.0}), Candidate("b", {"score": 0.0, "fresh": 1.0})]
    for one in ranker.rank({}, candidates, 2, RNG(0), explain=True).results:
        assert sum(reason.contribution for reason in one.reasons) == pytest.approx(one.score)
        assert one.reasons[0].column in str(one.reasons[0])


def test_a_limit_bounds_how_many_share_a_value() -> None:
    config = RankingConfig(features=SCORED.features, normalized=("score",), limits={"brand": 1})
    candidates = [Candidate(str(at), {"score": 9.0 - at, "brand": "x" if at < 3 else "y"}) for at in range(5)]
    ranking = learned(config, []).rank({}, candidates, 3, RNG(0))
    # Only two brands: the third place goes to the best of the rest.
    assert [one.entity_id for one in ranking.results] == ["0", "3", "1"]


def test_a_missing_feature_counts_as_average() -> None:
    candidates = [Candidate("low", {"score": 1.0}), Candidate("none"), Candidate("high", {"score": 3.0})]
    assert [one.entity_id for one in learned(SCORED, []).rank({}, candidates, 3, RNG(0)).results] == [
        "high",
        "none",
        "low",
    ]


def test_standardization_is_that_of_the_list_as_logged() -> None:
    encoder = SCORED.encoder()
    numbers = encoder.numbers([{"score": 1.0}, {"score": 2.0}, {"score": 3.0}, {"score": "text"}, {}], [{}] * 5)
    means, deviations = encoder.normalizers(numbers, np.array([5]))
    assert (means.tolist(), deviations.tolist()) == ([[2.0]], [[pytest.approx(0.816497)]])
    learner = ResultRanking(SCORED)
    shown = [Result(f"e{at}", at + 1, features={"score": 3.0 - at}) for at in range(3)]
    logged = {"normalizers": {"score": Normalizer(0.0, 8.0)}}
    own, other = (
        learner.learn(judged([Turn.of(query(), (impression(*shown, **fields), click("e0")))]))["ranking"].values
        for fields in ({}, logged)
    )
    assert (own != other).any()


def test_crosses_let_a_weight_depend_on_the_query() -> None:
    encoder = CandidateEncoder(
        (Numeric("score"), Binned("price", (10.0, 20.0))), (), (Categorical("device", ("car",)),), [("device", "score")]
    )
    assert encoder.columns == ("score", "price[..10)", "price[10..20)", "price[20..)", "device=car*score")
    features = [{"score": 2.0, "price": 10.0}] * 2
    numbers, sizes = encoder.numbers(features, [{}] * 2), np.array([1, 1])
    contexts: list[dict[str, Value]] = [{"device": "car"}, {}]
    rows = encoder.encode(numbers, encoder.normalizers(numbers, sizes), features, contexts, sizes)
    assert rows.tolist() == [[2.0, 0.0, 1.0, 0.0, 2.0], [2.0, 0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"prior": {"freshness": 1.0}}, "freshness"),
        ({"prior": {"score": 0.0}}, "prior"),
        ({"normalized": ("price",)}, "price"),
        ({"crosses": (("device", "score"),)}, "device"),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RankingConfig(**{"features": (Numeric("score"),), **fields})  # type: ignore[arg-type]


def test_a_section_of_another_encoding_is_refused() -> None:
    learner = ResultRanking(PAIR)
    section = learner.solve(MemorySums({}), {"ranking": set()}, 0)
    row = section[""]
    assert row is not None
    with pytest.raises(EncodingError, match="same version"):
        Ranker({"": row.replace(learner.encoder.fingerprint.encode(), b"0" * 16)})


def test_a_version_says_in_words_what_it_ranks_by() -> None:
    assert "no lists" in str(learned(PAIR, []).summary())
    few, many = (learned(PAIR, some_turns(count)).summary() for count in (3, 600))
    assert (few.learned, many.learned) == (False, True)
    assert "the prior:" in str(few)
    assert "is learned" in str(many)
    assert [one.column for one in many.weights] == ["score", "fresh"]
    score, fresh = many.weights
    assert fresh.weight > fresh.prior == 0.0 < fresh.deviation
    assert score.prior > 0.0
    assert all(one.weight == one.prior for one in few.weights)


def test_the_share_of_lists_with_a_logged_curve_is_counted() -> None:
    turns = [turn(number, [0.0, 0.5, 1.0], 2, examined=(1.0, 0.5, 0.3) if number % 4 else ()) for number in range(40)]
    assert learned(PAIR, turns).summary().logged == pytest.approx(0.75)


VALUES = st.floats() | st.booleans() | st.text(max_size=2) | st.integers(-(2**63), 2**64 - 1)


@given(
    st.lists(st.dictionaries(st.sampled_from("abx"), VALUES), min_size=1)
    | st.lists(st.fixed_dictionaries({"a": st.floats() | st.integers(0, 3), "x": VALUES, "b": st.floats()}), min_size=1)
)
def test_packed_numbers_are_those_of_the_dicts(features: list[dict[str, Value]]) -> None:
    encoder = CandidateEncoder((Numeric("a"), Numeric("b")))
    unpacked = encoder.completed(encoder.unpacked([msgpack.encode(one) for one in features]))
    np.testing.assert_array_equal(unpacked, encoder.numbers(features, [{}] * len(features)))


def test_packed_maps_that_are_alike_are_read_together() -> None:
    alike = [{"x": 1.5, "text": text, "a": number} for text, number in (("red", -2.5), ("tea", np.nan), ("lie", 1e300))]
    others = [{"x": 1.5, "text": "blue", "a": 2.5}, {"x": 1.5, "text": "red", "a": 2}, {"a": 1.0}, {}]
    found, like = read_alike([msgpack.encode(one) for one in (*others, *alike)], ("a", "b", "x"))
    assert like.tolist() == [False] * 4 + [True] * 3
    np.testing.assert_array_equal(found[4:], [[one["a"], np.nan, one["x"]] for one in alike])
    assert np.isnan(found[:4]).all()


@pytest.mark.parametrize("model", ["trust", "fold"])
@pytest.mark.parametrize("helps", [False, True], ids=["the caller knows best", "clicks tell more"])
def test_in_worlds_that_are_not_assumed_the_order_is_no_worse_than_the_callers(model: str, helps: bool) -> None:
    """People click what is on top out of trust, or seldom look below a fold. They are shown the caller's order only."""
    places, discount = np.arange(1, 7), 1.0 / np.log2(np.arange(2, 8))
    for seed in range(2):
        rng = RNG([seed, 7])
        made, drawn = [], []
        for number in range(400):
            score, fresh = -np.sort(-rng.normal(size=6)), rng.random(6)
            attracts = np.clip(0.15 + 0.1 * score + (0.4 * (fresh - 0.5) if helps else 0.0), 0.02, 1.0)
            seen, wanted = rng.random(6) < 1.0 / places, rng.random(6) < attracts
            if model == "fold":
                seen &= (places <= 3) | (rng.random() < 0.3)
            else:
                wanted |= rng.random(6) < 0.3 / places
            results = [
                Result(f"e{at}", at + 1, features={"score": one, "fresh": other})
                for at, (one, other) in enumerate(zip(score.tolist(), fresh.tolist(), strict=True))
            ]
            clicks = [click(f"e{at}") for at in np.flatnonzero(seen & wanted).tolist()]
            made.append(Turn.of(query(number, f"query {number % 100}"), (impression(*results), *clicks)))
            drawn.append((np.column_stack((score, fresh)), attracts))
        gains = {}
        for count in (100, 400):
            weights = np.array(learned(PAIR, made[:count]).settings.weights)
            orders = [np.argsort(-(vectors @ weights), kind="stable") for vectors, _ in drawn]
            gains[count] = np.mean(
                [
                    (attracts[order] - attracts) @ discount / (attracts @ discount)
                    for order, (_, attracts) in zip(orders, drawn, strict=True)
                ]
            )
        assert min(gains.values()) > -0.002  # of the DCG of what attracts people
        assert gains[400] > (0.03 if helps else -0.002)
