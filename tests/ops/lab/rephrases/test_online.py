"""The evidence on online rewrites."""

from types import ModuleType

import numpy as np
import pytest

from backchannel.agents.rewrites.fitting import fit
from backchannel.agents.rewrites.likeness import NAMES
from backchannel.agents.sketches import unit_hash
from backchannel.ops.lab.rephrases.online import Gathered, judge, judge_by
from backchannel.ops.lab.rephrases.ranker import HEARD, Pairs, module, score, train_ranker
from backchannel.ops.lab.rephrases.recordings import Heard, People, halves


def pairs(count: int = 600) -> Pairs:
    """Return made-up pairs, two for each query, whose first number decides who wins."""
    rng = np.random.default_rng(3)
    numbers = rng.random((count, len(NAMES)))
    win = (numbers[:, 0] > 0.6).astype(float)
    query, every = np.arange(count) // 2, np.ones(count)
    first = np.where(np.arange(count) % 2, 100 * numbers[:, 1], 0.0)
    return Pairs(numbers, query, query % 5, win, 1.0 - win, every, every.astype(bool), first)


def test_what_is_written_scores_as_what_was_fitted() -> None:
    some = pairs()
    ranker, written = train_ranker(some, some.allowed), ModuleType("written")
    exec(module(ranker), written.__dict__)
    assert tuple(ranker.curve) == written.EVERYBODY.curve
    heard = some.numbers[:, [NAMES.index(name) for name in HEARD]]
    assert [written.EVERYBODY.score(row.tolist()) for row in heard] == pytest.approx(score(ranker, some.numbers))


def test_the_rankers_find_what_decides() -> None:
    some = pairs(1_200)
    scores = score(fit(some, NAMES), some.numbers)
    assert np.median(scores[some.win > 0]) > 1 > -1 > np.median(scores[some.loss > 0])
    every = np.ones(600, np.bool_)
    sentences, both = [f"sentence {number}" for number in range(600)], np.zeros(600, np.int64)
    rewrites = np.arange(len(some.win)) % 7  # many queries have the same rewrite
    gathered = Gathered(some, sentences, every, every, both, rewrites, some.win > 0)
    plain, *_, ranked = judge(gathered, 12.0).outcomes
    assert ranked.wins > 10 * ranked.losses
    assert plain.withdrawn[1] < plain.losses / 2
    assert ranked.withdrawn[0] <= ranked.wins
    assert max(plain.fixed) < min(ranked.fixed) <= 1.0
    assert ranked.more.low <= ranked.more.value <= ranked.more.high
    # Fitted to pairs that only lose, it serves nothing.
    nothing = judge_by(gathered, some.loss > 0, train_ranker, score, 12.0).outcomes[-1]
    assert (nothing.wins, nothing.losses) == (0, 0)


def test_bounds_rise_with_the_score() -> None:
    some = pairs()
    curve = list(train_ranker(some, some.allowed).curve)
    assert len(curve) > 1
    assert curve == sorted(curve)
    assert [bound for _, bound in curve] == sorted(bound for _, bound in curve)


def heard(number: int) -> Heard:
    meaning = (f"intent {number % 4}", ())
    return Heard(f"text {number}", f"sentence {number}", f"utterance {number}", meaning, meaning)


def test_half_of_the_queries_are_habits_of_made_up_people_and_their_utterances_are_others() -> None:
    some = [heard(number) for number in range(200)]
    people = People(some, np.random.default_rng(5))
    found = [people.habits(one) for one in some]
    assert 0.35 < np.mean([one.query in habits for one, habits in zip(some, found, strict=True)]) < 0.65
    assert all(15 <= len(habits) <= 20 for habits in found)
    same = [sum(int(text.split()[1]) % 4 == number % 4 for text in found[number]) for number in range(200)]
    assert 10 <= np.mean(same) <= 14
    others = People(some, np.random.default_rng(5), alike=False)
    habits = [others.habits(one) for one in some]
    same = [sum(int(text.split()[1]) % 4 == number % 4 for text in habits[number]) for number in range(200)]
    assert 4 <= np.mean(same) <= 7
    index, asked = halves(some, 0)
    assert {int(unit_hash(one.group) * 2) for one in index} == {1}
    assert len(index) + len(asked) == 200
