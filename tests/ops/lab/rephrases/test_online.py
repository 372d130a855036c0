"""The evidence on online rewrites."""

from types import ModuleType

import numpy as np
import pytest

from backchannel.agents.rewrites.likeness import NAMES
from backchannel.ops.lab.rephrases.online import Pairs, fit, judge, module, score, train_ranker


def pairs(count: int = 600) -> Pairs:
    """Return made-up pairs, three for each query, whose first number decides who wins."""
    rng = np.random.default_rng(3)
    numbers = rng.random((count, len(NAMES)))
    win = (numbers[:, 0] > 0.6).astype(float)
    query = np.arange(count) // 3
    first = np.where(np.arange(count) % 3 == 0, 100 * numbers[:, 1], 0.0)
    return Pairs(numbers, query, query % 5, win, 1.0 - win, np.ones(count, np.bool_), first)


def test_what_is_written_scores_as_what_was_fitted() -> None:
    some = pairs()
    scorer, curve = train_ranker(some, some.allowed)
    written = ModuleType("written")
    exec(module(scorer, curve), written.__dict__)
    assert curve == written.CURVE
    assert [written.SCORER.score(row.tolist()) for row in some.numbers] == pytest.approx(score(scorer, some.numbers))


def test_the_ranker_finds_what_decides() -> None:
    some = pairs()
    scores = score(fit(some, some.allowed), some.numbers)
    assert np.median(scores[some.win > 0]) > 1 > -1 > np.median(scores[some.loss > 0])
    plain, _, ranked = judge(some, 200, 200, 1.0, 12.0).outcomes
    assert ranked.wins > 10 * ranked.losses
    assert max(plain.fixed) < min(ranked.fixed) <= 1.0


def test_bounds_rise_with_the_score() -> None:
    some = pairs()
    _, curve = train_ranker(some, some.allowed)
    assert len(curve) > 1
    assert list(curve) == sorted(curve)
    assert [bound for _, bound in curve] == sorted(bound for _, bound in curve)
