"""The ranker of online rewrites, trained when a version is published: its sample, its evidence and its prior."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from backchannel.agents.checks import changes
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.keeping import Fitted
from backchannel.agents.rewrites.learner import ONE_PERSON, RephraseGraph
from backchannel.agents.rewrites.likeness import NAMES
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.rewrites.online import OnlineRewrites
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import RewriteRow, Settings
from backchannel.agents.rewrites.sample import Sample, blocks_of, resemblance
from backchannel.agents.rewrites.training import Evidence, evidence_of, trained
from backchannel.agents.sums import ALL, Delta, MemorySums, Sums, merge
from backchannel.schemas.turn import Turn
from tests.support.turns import DAY, closed_turn, judged, query

VOICE = RewardConfig(unclicked_gain=1.0)
ONLINE = RephraseConfig(online_odds=12.0, held_out=0.0)


def said(person: str, text: str, following: str, gap_s: float = 50, **fields: str) -> Turn:
    first = query(0, text, person, user_id=person, **fields)
    return closed_turn(first, next=query(round(gap_s * 1000), following, person, user_id=person))


def learned(turns: list[Turn]) -> Delta:
    return RephraseGraph(ONLINE).learn(judged(turns, VOICE))


def evidence(turns: list[Turn]) -> Evidence:
    graph, sums = RephraseGraph(ONLINE), MemorySums(learned(turns))
    blocks, _ = graph.sample.sampled(sums, 0)
    every = {state for block in blocks for state in block}
    steps, ends = sums.read(graph.transitions, "state", every), sums.read(graph.absorptions, "state", every)
    return evidence_of(blocks, steps, ends, 0, ONE_PERSON)


def published(delta: Delta, before: Settings | None = None, at: int = 0, config: RephraseConfig = ONLINE) -> Settings:
    """Return the settings of a version; if it builds on one, with the settings of that."""
    section = {ALL: msgspec.json.encode(before)} if before else {}
    sums = MemorySums(delta, {RephraseGraph.name: section})
    return msgspec.json.decode(RephraseGraph(config).solve(sums, changes(delta), at)[ALL] or b"", type=Settings)


def ranker(turns: list[Turn]) -> Ranker | None:
    return published(learned(turns)).ranker


TEXTS = st.lists(st.text("abc ", min_size=1, max_size=6).map(str.strip).filter(bool), min_size=1, max_size=12)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=50)
def test_the_sample_is_the_same_whatever_was_dropped_on_the_way(batches: list[list[str]], size: int) -> None:
    sample = Sample(1_000, size)
    name, every, kept = sample.table.name, Sums(sample.table), Sums(sample.table)
    for texts in batches:
        outcomes = judged([said("ann", text, "z") for text in texts])
        delta = sample.learn(outcomes, np.arange(len(texts)), np.ones(len(texts)), 0)[name]
        every, kept = every.merge(delta), kept.merge(delta)
        dropped = set(sample.excess(MemorySums({name: kept}), {key[0] for key in kept.keys}))
        left = [row for row, key in enumerate(kept.keys) if key not in dropped]
        kept = Sums(sample.table, [kept.keys[row] for row in left], kept.values[left], kept.landmark)
        assert len(left) <= size
    assert sample.sampled(MemorySums({name: kept}), 0) == sample.sampled(MemorySums({name: every}), 0)


def test_near_queries_are_in_one_block_as_often_as_they_resemble_each_other() -> None:
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice([*"bdfgklmnprstaeiou"], 7)) for _ in range(3_000)]
    pairs = [(f"{one} {two}", f"{one} {three}") for one, two, three in zip(*[iter(words)] * 3, strict=True)]
    same = blocks_of([one for one, _ in pairs]) == blocks_of([other for _, other in pairs])
    assert same.mean() == pytest.approx(np.mean([resemblance(*pair) for pair in pairs]), abs=0.05)
    assert resemblance("play jazz", "weather") == 0.0


def test_queries_with_an_interpretation_are_not_compared() -> None:
    assert "sampled_queries" not in learned([said("ann", "play jazz", "weather", interpretation="play")])


NEAR = [f"play the songs of {name}" for name in ("abba", "alba", "adda", "anna", "asia", "aria")]
WRONG = [(f"play the sungs of {name}", f"play the songs of {name}") for name in ("muse", "moby", "mika", "meja")]


def succeeding(people: int = 8) -> list[Turn]:
    return [said(f"p{person}", text, "weather") for text in NEAR for person in range(people)]


def failing(people: int = 8) -> list[Turn]:
    turns = [said(f"p{person}", text, right, 9) for text, right in WRONG for person in range(people)]
    return [*turns, *(said(f"p{person}", right, "weather") for _, right in WRONG for person in range(people))]


def test_what_succeeds_near_others_is_a_loss_and_what_people_go_on_to_is_a_win() -> None:
    found = evidence([*succeeding(), *failing()])
    assert found.numbers.shape == (len(found.wins), len(NAMES))
    assert set(found.wins.tolist()) == {0.0, 1.0}
    assert (found.weights > 0).all()
    opposites = [said("ann", f"set the timer to {number} minutes", "weather") for number in (5, 6, 7, 8)]
    assert not len(evidence(opposites).wins)


def test_evidence_takes_over_from_the_prior() -> None:
    nothing = Evidence(np.empty((0, len(NAMES))), np.empty(0), np.empty(0))
    assert msgspec.json.encode(trained(EVERYBODY, nothing)) == msgspec.json.encode(EVERYBODY)
    assert ranker([said("ann", "play jazz", "weather")]) is None
    losses, both = evidence(succeeding()), evidence([*succeeding(), *failing()])
    before = [EVERYBODY.score(row) for row in losses.numbers.tolist()]
    scores = []
    for times in (1.0, 100.0, 10_000.0):
        more = Evidence(losses.numbers, losses.wins, losses.weights * times)
        scores.append(np.mean([trained(EVERYBODY, more).score(row) for row in losses.numbers.tolist()]))
    assert np.mean(before) > scores[0] > scores[1] > scores[2]
    wins = both.numbers[both.wins > 0].tolist()
    heavy = Evidence(both.numbers, both.wins, np.where(both.wins > 0, 1_000.0, both.weights))
    assert np.mean([trained(EVERYBODY, heavy).score(row) for row in wins]) > np.mean(
        [trained(EVERYBODY, both).score(row) for row in wins]
    )


@given(st.integers(0, 50), st.integers(1, 3))
@settings(max_examples=8)
def test_one_person_adds_no_more_than_a_bound(name: int, times: int) -> None:
    honest = [*succeeding(16), *failing(16)]
    flood = [said(f"bot-{name}", f"{text} {word}", "weather") for text in NEAR for word in "xyzuvw"] * times
    before, after = evidence(honest).weights.sum(), evidence([*honest, *flood]).weights.sum()
    assert after <= 2 * before


def test_the_policy_has_the_trained_ranker_and_serves_by_it() -> None:
    found = ranker([*succeeding(), *failing()])
    assert found is not None
    assert [tuple(one) for one in found.curve] == list(EVERYBODY.curve)
    assert list(found.weights["hypothesis"]) == list(EVERYBODY.weights["hypothesis"])
    section = {
        state: msgspec.json.encode(RewriteRow(success=9.0) if state != WRONG[0][0] else RewriteRow(failure=3.0))
        for state in (*NEAR, *WRONG[0])
    }
    for odds, served in ((found, True), (structs.replace(found, constant=-20.0), False)):
        section[ALL] = msgspec.json.encode(Settings(odds=1.0, first=3, ranker=odds))
        online = OnlineRewrites().updated(section, section)
        assert bool(online.rewrite(WRONG[0][0], RewriteRow(failure=3.0))) == served


def test_a_ranker_is_kept_until_a_twentieth_of_the_sample_is_new() -> None:
    total = learned([*succeeding(), *failing()])
    kept, fits = published(total), []
    for count, one in enumerate([*failing(1), *succeeding(1)], start=1):
        total = merge([total, learned([one])])
        found = published(total, kept)
        if found != kept:
            assert found == published(total)  # from all that is known by now
            assert found.ranker != kept.ranker
            fits.append(count)
            kept = found
    assert fits == [6, 13]  # 112 of 118 turns are 94.9%, and 118 of 125 are 94.4%


def test_a_ranker_is_kept_until_a_twentieth_has_decayed() -> None:
    delta = learned([*succeeding(), *failing()])
    kept = published(delta)
    assert published(delta, kept, 2 * DAY) == kept  # 2^(-2 / 30) is 95.5%
    assert published(delta, kept, 3 * DAY) == published(delta, at=3 * DAY) != kept


def test_a_ranker_that_is_kept_is_published_with_current_settings() -> None:
    delta = learned([*succeeding(), *failing()])
    kept = published(delta)
    config = structs.replace(ONLINE, online_odds=3.0, online_first=7, held_out=0.5)
    found = published(delta, kept, DAY, config)
    assert found == structs.replace(kept, odds=3.0, first=7, held_out=0.5)


def test_without_knowing_what_it_was_fitted_to_no_ranker_is_kept() -> None:
    delta, another = learned([*succeeding(), *failing()]), structs.replace(EVERYBODY, constant=-1.0)
    for fitted in (None, Fitted(0, 112.0, 1.0)):
        assert published(delta, Settings(odds=12.0, ranker=another, fitted=fitted)) == published(delta)


def test_that_there_is_no_evidence_is_kept_too() -> None:
    delta = learned([said("ann", "play jazz", "weather")])
    kept = published(delta)
    assert kept.ranker is None
    assert kept.fitted is not None
    assert published(delta, kept, DAY) == kept


def test_queries_of_one_block_that_others_displace_are_noticed() -> None:
    sample, letters = Sample(1_000, 100), "abcdefghijklmnopqrstuvwxyz"
    rng = np.random.default_rng(8)
    late = [f"play {one}{two}" for one in letters for two in letters]
    (block,) = {block for block in blocks_of(late).tolist() if np.count_nonzero(blocks_of(late) == block) > 600}
    others = ["".join(rng.choice([*letters], 8)) for _ in range(200)]
    early = [text for text, own in zip(others, blocks_of(others).tolist(), strict=True) if own < block]

    def fitted(texts: list[str]) -> Fitted:
        outcomes = judged([said("ann", text, "z") for text in texts])
        delta = sample.learn(outcomes, np.arange(len(texts)), np.ones(len(texts)), 0)
        return sample.sampled(MemorySums(delta), 0)[1]

    then = fitted(late)
    assert [then.is_kept(fitted([*late, *early[:count]]), 1_000) for count in range(12)] == [True] * 6 + [False] * 6
