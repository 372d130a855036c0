"""The solution of a chain against a direct computation over all paths."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.agents.rewrites.chain import Chain, Solution
from backchannel.agents.statistics import wilson
from backchannel.agents.sums import Integers

COUNTS = st.integers(0, 6)
SIZE = 6
GRAPHS = st.tuples(
    st.dictionaries(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), st.integers(1, 9), max_size=14),
    st.lists(st.tuples(COUNTS, st.integers(1, 4)), min_size=SIZE, max_size=SIZE),  # somebody always gives up
)
Graph = tuple[dict[tuple[int, int], int], list[tuple[int, int]]]


def chain(graph: Graph, *, max_steps: int = 100, trusted: Sequence[bool] | None = None) -> Chain[str]:
    steps, absorbed = graph
    return Chain(
        [f"q{state}" for state in range(len(absorbed))],
        np.array(list(steps), np.int64).reshape(-1, 2),
        np.array(list(steps.values()), float),
        np.ones(len(steps), np.bool_) if trusted is None else np.array(trusted),
        np.array(absorbed, float),
        max_steps=max_steps,
    )


def solve(one: Chain[str], depth: int, max_states: int = 100) -> Solution:
    def every(places: Integers, states: Integers) -> np.ndarray:
        return np.ones(len(states), np.bool_)

    return one.solve(np.arange(len(one.states)), every, depth, max_states)


def by_paths(graph: Graph, source: int, depth: int) -> dict[int, float]:
    """Each target's probability of being passed through and succeeding, one more rephrase after the other."""
    steps, absorbed = graph
    support = [sum(absorbed[state]) + sum(n for (one, _), n in steps.items() if one == state) for state in range(SIZE)]
    followed: set[int] = set()
    border = {source}
    for _ in range(depth):
        followed |= border
        border = {to for one, to in steps if one in border} - followed
    found = {}
    for target in (followed | border) - {source}:
        reached, going = 0.0, {source: 1.0}
        while going:
            moved = [0.0] * SIZE
            for state, share in going.items():
                for (one, to), count in steps.items():
                    if one == state:
                        moved[to] += share * count / support[state]
            reached += moved[target]
            going = {s: p for s, p in enumerate(moved) if s != target and s in followed and p > 1e-13}
        found[target] = reached * absorbed[target][0] / (support[target] + 1)
    return found


@given(GRAPHS, st.integers(1, 4))
@settings(max_examples=200)
def test_the_best_target_is_that_of_all_paths(graph: Graph, depth: int) -> None:
    found = solve(chain(graph), depth)
    for source in range(SIZE):
        expected = by_paths(graph, source, depth)
        best = max(expected.values(), default=0.0)
        assert found.probabilities[source] == pytest.approx(best, abs=1e-7)
        if best:
            assert expected[int(found.targets[source])] == pytest.approx(best, abs=1e-7)
        else:
            assert found.targets[source] == -1


@given(GRAPHS, st.integers(1, 3), st.integers(2, 5), st.integers(1, 3))
@settings(max_examples=100)
def test_solving_one_equals_solving_all(graph: Graph, depth: int, max_states: int, max_steps: int) -> None:
    one = chain(graph, max_steps=max_steps)
    together = solve(one, depth, max_states)
    for source in range(SIZE):
        alone = one.solve(np.array([source]), lambda places, states: np.ones(len(states), np.bool_), depth, max_states)
        assert alone.targets[0] == together.targets[source]
        assert alone.probabilities[0] == pytest.approx(together.probabilities[source], rel=1e-9)


def test_more_sources_than_are_solved_at_once() -> None:
    pairs = 2500
    steps = {(2 * pair, 2 * pair + 1): 3 for pair in range(pairs)}
    found = solve(chain((steps, [(0, 1), (4, 0)] * pairs)), 3)
    assert found.targets[::2].tolist() == list(range(1, 2 * pairs, 2))
    assert (found.targets[1::2] == -1).all()
    assert found.probabilities[::2] == pytest.approx(np.full(pairs, 0.75 * 0.8))


def test_who_says_the_same_again_starts_again() -> None:
    found = solve(chain(({(0, 0): 6, (0, 1): 3}, [(0, 0), (4, 0)])), 3)
    assert (found.targets[0], found.probabilities[0]) == (1, pytest.approx(0.8))


def test_a_cycle_is_left_sooner_or_later() -> None:
    found = solve(chain(({(0, 1): 3, (1, 0): 2, (1, 2): 1}, [(0, 0), (0, 0), (4, 0)])), 3)
    assert found.targets[:2].tolist() == [2, 2]
    assert found.probabilities[:2] == pytest.approx([0.8, 0.8])


def test_a_cycle_that_is_never_left() -> None:
    found = solve(chain(({(0, 1): 3, (1, 0): 3, (2, 2): 3}, [(0, 0)] * 3)), 3)
    assert (found.targets == -1).all()


def test_rephrases_are_followed_to_the_depth_only() -> None:
    line = chain(({(0, 1): 1, (1, 2): 1, (2, 3): 1}, [(0, 0), (0, 0), (0, 0), (4, 0)]))
    for depth in (1, 2, 3):
        assert solve(line, depth).targets.tolist() == [3 if 3 - state <= depth else -1 for state in range(3)] + [-1]


def test_the_likeliest_are_kept() -> None:
    fan = {(0, target): 10 - target for target in range(1, 6)}
    absorbed = [(0, 0), *[(target, 0) for target in range(1, 6)]]
    assert solve(chain((fan, absorbed)), 1).targets[0] != 1
    assert solve(chain((fan, absorbed)), 1, max_states=2).targets[0] == 1
    assert solve(chain((fan, absorbed), max_steps=1), 1).targets[0] == 1


def test_a_step_that_is_not_trusted_leads_nowhere_but_counts() -> None:
    one = chain(({(0, 1): 2, (0, 2): 2}, [(0, 0), (4, 0), (4, 0)]), trusted=[False, True])
    found = solve(one, 2)
    assert (found.targets[0], found.probabilities[0]) == (2, pytest.approx(0.5 * 0.8))
    assert one.rephrased[0] == 4


def test_the_likeliest_path() -> None:
    one = chain(({(0, 1): 1, (0, 2): 4, (2, 1): 4, (1, 0): 9}, [(0, 0), (1, 0), (1, 0)]))
    assert one.path("q0", "q1") == ["q0", "q2", "q1"]
    assert one.path("q1", "q1") == ["q1"]
    assert one.path("q0", "q9") == []
    assert chain(({}, [(0, 0), (1, 0)])).path("q0", "q1") == []


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.1, 4))
def test_bounds_hold_the_rate_between_them(success: float, failure: float, z: float) -> None:
    lower, upper = wilson(np.array([success]), np.array([success + failure]), z)
    rate = success / (success + failure) if success + failure else 0.5
    assert 0 <= lower[0] <= rate + 1e-9
    assert rate - 1e-9 <= upper[0] <= 1


def test_bounds_are_wilsons() -> None:
    # Newcombe, Statistics in Medicine 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    lower, upper = wilson(np.array([81.0, 15, 0, 1]), np.array([263.0, 148, 20, 29]), 1.959964)
    assert lower == pytest.approx([0.2553, 0.0624, 0.0, 0.0061], abs=5e-5)
    assert upper == pytest.approx([0.3662, 0.1605, 0.1611, 0.1718], abs=5e-5)
