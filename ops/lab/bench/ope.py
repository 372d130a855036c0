"""The cost of off-policy evaluation, on a million turns with eight strategies."""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, get_args

import numpy as np

from backchannel.agents.ope.estimators import ESTIMATORS, Feedback, Model, replay, weigh
from backchannel.agents.ope.intervals import Method, interval
from backchannel.agents.ope.reward_models import cross_fitted
from backchannel.agents.ope.session_models import Course
from backchannel.agents.ope.sessions import SESSION_ESTIMATORS, Sessions
from backchannel.ops.lab.bench.measure import Load, Measure

TURNS: Final = 1_000_000
DIMENSION: Final = 20


def ope(load: Load) -> Iterator[Measure]:
    """Yield the shortest time over the rounds and the peak memory. Each strategy is asked in half of the turns."""
    rng = np.random.default_rng(0)
    shape = TURNS, 8
    propensities, extents = rng.uniform(0.2, 0.8, shape), rng.random(shape)
    asked, rewards = rng.random(shape) < propensities, rng.random(shape)
    contexts = rng.standard_normal((TURNS, 1, DIMENSION))
    contexts[..., 0] = 1.0
    folds = rng.integers(3, size=TURNS)
    modelled = rng.random(shape)
    model = Model(np.einsum("ik,ik->i", extents, modelled), modelled)
    log = Feedback(weigh(extents, propensities, asked), rewards, float(extents.sum(axis=1).mean()), model=model)
    one_action = Feedback(log.weights[:, :1], rewards[:, :1])
    weights, gains, values = (one[:, 0].reshape(-1, 4) for one in (log.weights, rewards, modelled))
    sessions = Sessions(weights, gains, 0.9, values, values)
    turns = np.arange(TURNS)
    course = Course(
        contexts, asked.astype(float), np.where(turns % 4 == 3, -1, turns + 1), rewards[:, 0], turns // 4 % 3
    )
    terms = ESTIMATORS["DR"](log)
    actions: dict[str, Callable[[], object]] = {
        "weights": lambda: weigh(extents, propensities, asked),
        **{name: partial(estimate, log) for name, estimate in ESTIMATORS.items()},
        "replay, one action a turn": lambda: replay(one_action, np.random.default_rng(0)),
        **{f"{name} of 250,000 sessions": partial(estimate, sessions) for name, estimate in SESSION_ESTIMATORS.items()},
        f"models of rewards, {DIMENSION} columns, 3 folds": lambda: cross_fitted(
            contexts, asked.astype(float), rewards, folds, 10.0
        ),
        f"model of 250,000 sessions, {DIMENSION} columns, 3 folds": lambda: course.predict(extents, 0.9),
        **{
            f"interval, {method}": partial(interval, terms, method, rng=np.random.default_rng(0))
            for method in get_args(Method)
        },
    }
    for name, action in actions.items():
        load.say(name)
        yield Measure(name, _seconds(action, load.rounds), "s")
        yield Measure(f"{name}, memory", _mebibytes(action), "MiB")


def _seconds(action: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return min(taken)


def _mebibytes(action: Callable[[], object]) -> float:
    """Return the peak memory that `action` allocates, in MiB."""
    tracemalloc.start()
    action()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 2**20
