"""The model of a session's value against its equation, written as loops, and against a truth that is known."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backchannel.agents.ope.decisions import FOLDS
from backchannel.agents.ope.session_models import RIDGE, Course
from backchannel.ops.lab.bench import sessions as bench
from backchannel.ops.lab.worlds.sessions import SessionWorld

Numbers = NDArray[Any]


def phi(context: Numbers, shares: Numbers) -> Numbers:
    """Return the features of one turn, from contexts (K or 1, d) and shares (K,)."""
    whole = np.broadcast_to(context, (len(shares), context.shape[1]))
    return np.concatenate((context.mean(axis=0), *(share * own for share, own in zip(shares, whole, strict=True))))


@pytest.mark.parametrize("shared", [True, False])
def test_it_solves_its_equation(shared: bool) -> None:
    rng = np.random.default_rng(3)
    turns, strategies, dimension, discount = 60, 3, 2, 0.9
    session = rng.integers(12, size=turns)
    following = np.array([next((later for later in range(turn + 1, turns) if session[later] == session[turn]), -1)
                          for turn in range(turns)])  # fmt: skip
    contexts = rng.standard_normal((turns, 1 if shared else strategies, dimension))
    drawn, expected = rng.random((2, turns, strategies))
    rewards, folds = rng.random(turns), session % FOLDS
    found = Course(contexts, drawn, following, rewards, folds).predict(expected, discount)
    size = dimension * (1 + strategies)
    for fold in range(FOLDS):
        matrix, vector = RIDGE * np.eye(size), np.zeros(size)
        for turn in np.flatnonzero(folds != fold).tolist():
            own, later = phi(contexts[turn], drawn[turn]), np.zeros(size)
            if following[turn] >= 0:
                later = phi(contexts[following[turn]], expected[following[turn]])
            matrix += np.outer(own, own - discount * later)
            vector += own * rewards[turn]
        weights = np.linalg.solve(matrix, vector)
        for turn in np.flatnonzero(folds == fold).tolist():
            assert found[0][turn] == pytest.approx(weights @ phi(contexts[turn], expected[turn]), rel=1e-9)
            assert found[1][turn] == pytest.approx(weights @ phi(contexts[turn], drawn[turn]), rel=1e-9)


def test_it_expects_what_later_turns_bring() -> None:
    """It tells a policy's value without any weights, but for what a linear model misses."""
    world = SessionWorld(bench.LOGGED, 0.95)
    for target in bench.TARGETS.values():
        log = world.log(20_000, np.random.default_rng(5)).weighed(target)
        assert log.expected is not None
        assert log.expected[:, 0].mean() == pytest.approx(world.value(target), rel=0.1)


def test_intervals_hold_the_truth_and_single_turns_do_not_see_it() -> None:
    """A small part of `backchannel bench sessions`."""
    world, target = SessionWorld(bench.LOGGED, 0.95), bench.TARGETS["mostly bait"]
    found = {name: value for name, value, _ in bench.covered(world, target, 500, 60)}
    for name in ("WPDIS", "DR", "WDR"):
        for of in ("value", "gain"):
            assert found[f"{name}, {of}: intervals hold the truth"] >= 88
    assert found["WDR: root mean squared error"] < found["PDIS: root mean squared error"]
    log = world.log(5_000, np.random.default_rng(1))
    assert log.by_turn(target) > 1.05 * log.by_turn(world.logged)
    assert world.value(target) < 0.95 * world.value(world.logged)
