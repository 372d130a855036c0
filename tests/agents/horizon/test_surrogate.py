"""The surrogate index: its intervals hold the truth, and it tells more than what has matured."""

import numpy as np
import pytest

from backchannel.agents.horizon.learner import SIGNALS
from backchannel.agents.horizon.serving import LongTerm
from backchannel.agents.horizon.surrogate import summarize
from backchannel.agents.horizon.visits import People, Times, paired
from backchannel.agents.sums import Floats, Integers
from tests.support.turns import DAY

TIMES = Times(DAY, 7 * DAY, 30 * DAY)
CLICKED = np.array([0.3, 0.45, 0.65, 0.8])


def simulated(seed: int, direct: float, people: int = 200, days: int = 40) -> list[LongTerm]:
    """Return what is known of strategies if clicks predict returns, and the last one has fewer by `direct`."""
    rng = np.random.default_rng(seed)
    person, clicked, day = rng.normal(0, 0.1, people), CLICKED, rng.integers(10, size=people)
    log: list[Integers] = []
    while len(on := np.flatnonzero(day < days)):
        strategy = rng.integers(len(clicked), size=len(on))
        clicks = rng.random(len(on)) < clicked[strategy]
        log.append(np.column_stack((on, day[on], strategy, clicks)))
        chance = 0.3 + 0.4 * clicks - direct * (strategy == len(clicked) - 1) + person[on]
        back = rng.random(len(on)) < chance
        day[on] += np.where(back, rng.integers(1, 7, len(on)), rng.integers(9, 15, len(on)))
    rows: Integers = np.concatenate(log)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    total: Floats = np.column_stack((np.ones(len(rows)), rows[:, 3], rows[:, 3], np.zeros((len(rows), 2))))
    visits = paired(
        People(rows[:, 0], rows[:, 1] * DAY, total),
        [str(code) for code in range(len(clicked))],
        visit=np.arange(len(rows)),
        strategy=rows[:, 2],
        own=total,
        times=TIMES,
        at=days * DAY,
    )
    return list(summarize(visits, SIGNALS, TIMES).strategies.values())


@pytest.mark.parametrize("direct", [0.0, 0.25])
def test_intervals_hold_the_truth_and_are_narrower_than_those_of_mature_visits(direct: float) -> None:
    truth = 0.3 + 0.4 * CLICKED - direct * (np.arange(len(CLICKED)) == len(CLICKED) - 1)
    held, widths = [], []
    for seed in range(60):
        for one, share in zip(simulated(seed, direct), truth.tolist(), strict=True):
            assert one.value is not None
            assert one.returned is not None
            held.append(one.value.low <= share <= one.value.high)
            widths.append([each.high - each.low for each in (one.value, one.returned)])
    value, returned = np.mean(widths, axis=0)
    assert 0.9 < np.mean(held) < 0.99
    assert value < (0.9 if not direct else 1.01) * returned


def test_what_may_be_noise_in_a_residual_does_not_count() -> None:
    [*_, last] = simulated(1, 0.0)
    assert last.value is not None
    assert last.residual is not None
    assert last.predicted is not None
    assert abs(last.value.value - last.predicted) < abs(last.residual.value)
