"""The sums of pages, against their definitions, turn by turn."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.bandit.evidence import FOLDS, SAMPLED, Layout, clicked_pairs, rows_of, shown_pairs
from backchannel.agents.bandit.pages import Pages
from backchannel.agents.bandit.ranks import BUCKETS, LOWER, UPPER, WIDTH, WORTH, bucket_of, covered, drawn

EXAMINED = np.arange(1.0, 101.0) ** -0.7
S, D = 3, 2


def pages(seed: int, turns: int, shared: bool) -> Pages:
    """Turns in which every strategy draws some of eight items, in an order of its own."""
    rng = np.random.default_rng(seed)
    depths = rng.integers(0, 9, (turns, S))
    shown: list[Any] = []
    produced: list[Any] = []
    for turn in range(turns):
        lists = [rng.permutation(8)[: depths[turn, code]].tolist() for code in range(S)]
        for place, item in enumerate(sorted({item for own in lists for item in own}), 1):
            produced += [(len(shown), code, own.index(item) + 1) for code, own in enumerate(lists) if item in own]
            shown.append((turn, place, float(rng.integers(0, 2)) * 0.75))
    columns = np.array(shown, dtype=float).reshape(-1, 3)
    results, strategies, ranks = np.array(produced, dtype=np.int64).reshape(-1, 3).T
    return Pages(
        times=np.zeros(turns, dtype=np.int64),
        queries=rng.integers(0, 2**32, turns),
        contexts=np.rint(rng.normal(size=(turns, 1 if shared else S, D)) * 1024) / 1024,
        depths=depths,
        distinct=np.zeros(turns, dtype=bool),
        turns=columns[:, 0].astype(np.int64),
        positions=columns[:, 1].astype(np.int64),
        gains=columns[:, 2],
        results=results,
        strategies=strategies,
        ranks=ranks,
    )


def weight(some: Pages, result: int) -> float:
    return float(np.rint(some.gains[result] / EXAMINED[some.positions[result] - 1] * 1024) / 1024)


@given(st.integers(0, 1000), st.integers(0, 6), st.booleans())
@settings(max_examples=40)
def test_rows_are_the_sums_of_their_definition(seed: int, turns: int, shared: bool) -> None:
    some, layout = pages(seed, turns, shared), Layout(D)
    starts, rows = rows_of(some, EXAMINED, np.arange(turns) % 2, layout)
    found = layout.unpack(rows)
    for place, start in enumerate(starts.tolist()):
        for s in range(S):
            for k in range(BUCKETS):
                for fold in range(FOLDS):
                    gram, moment = np.zeros((D, D)), np.zeros(D)
                    for turn in range(start, turns, 2):
                        if some.queries[turn] % FOLDS == fold:
                            x = some.contexts[turn, 0 if shared else s]
                            gram += WORTH[LOWER[k] : min(UPPER[k], some.depths[turn, s])].sum() * np.outer(x, x)
                            for p in np.flatnonzero((some.strategies == s) & (some.turns[some.results] == turn)):
                                if LOWER[k] < some.ranks[p] <= UPPER[k]:
                                    moment += x * weight(some, some.results[p])
                    assert (found.gram[place, s, k, fold] == gram).all()
                    assert (found.moment[place, s, k, fold] == moment).all()


@given(st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=30)
def test_pairs_look_for_an_item_until_it_is_met_or_the_depth_ends(seed: int, turns: int) -> None:
    some = pages(seed, turns, shared=True)
    risk, event = np.zeros((2, S, S, BUCKETS, BUCKETS))
    for p, (result, s) in enumerate(zip(some.results.tolist(), some.strategies.tolist(), strict=True)):
        w = weight(some, result)
        for t in range(S):
            if w and t != s:
                own = some.ranks[(some.results == result) & (some.strategies == t)]
                for j in range(BUCKETS):
                    k = int(bucket_of(some.ranks[p : p + 1])[0])
                    risk[s, t, k, j] += w * covered(some.depths[some.turns[result], t])[j]
                    if len(own) and own[0] <= UPPER[j]:
                        event[s, t, k, j] += w
                        break
    found = clicked_pairs(some, EXAMINED)
    others = ~np.eye(S, dtype=bool)
    assert (found.risk[others] == risk[others]).all()
    assert (found.event[others] == event[others]).all()


def test_the_diagonal_of_shown_pairs_says_what_lists_have() -> None:
    some = pages(3, 200, shared=True)
    found = shown_pairs(some)
    sampled = some.queries // FOLDS % SAMPLED == 0
    assert 20 < sampled.sum() < 100
    for s in range(S):
        walked = (drawn(some.depths[sampled, s]) / WIDTH).sum(axis=0)
        assert (np.diagonal(found.risk[s, s]) == walked).all()
        own = (some.strategies == s) & sampled[some.turns[some.results]]
        assert np.diagonal(found.event[s, s]).sum() == own.sum()


def test_rank_buckets_double() -> None:
    assert UPPER.tolist() == [1, 2, 4, 8, 16, 32, 64, 128]
    assert bucket_of(np.array([1, 2, 3, 4, 5, 128, 129])).tolist() == [0, 1, 2, 2, 3, 7, 8]
    assert drawn(np.array([0, 3, 10_000])).sum(axis=-1).tolist() == [0, 3, 128]


def test_within_a_bucket_ranks_are_worth_their_inverse() -> None:
    share = (1 / 5 + 1 / 6) / (1 / 5 + 1 / 6 + 1 / 7 + 1 / 8)
    assert covered(np.array([0, 6, 10_000])).sum(axis=-1) == pytest.approx([0, 3 + share, 8], abs=1 / 256)
    assert (WORTH > 0).all()
    assert (WORTH * 256 % 1 == 0).all()
