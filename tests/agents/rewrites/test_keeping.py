"""How long a fit is kept: about as long as nearly all of its sample is there, and little else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backchannel.agents.rewrites.keeping import Fitted

SIZE = 60
DAYS = 30.0


def fitted(rows: dict[float, float], at: int) -> Fitted:
    return Fitted.to([*rows], [*rows.values()], at, full=len(rows) == SIZE)


@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(0, 12), st.integers(0, 4))
def test_a_fit_is_kept_while_nearly_all_is_there_to_a_hundredth(seed: int, first: int, more: int, days: int) -> None:
    rng, decay = np.random.default_rng(seed), 2.0 ** (-days / DAYS)
    every = dict(zip(rng.random(first + more).tolist(), rng.uniform(0.1, 15.0, first + more).tolist(), strict=True))
    old = dict(list(every.items())[:first])
    then = {place: old[place] for place in sorted(old)[:SIZE]}
    now = {place: every[place] * (decay if place in old else 1.0) for place in sorted(every)[:SIZE]}
    counted = {place: min(turns, 10.0) for place, turns in then.items()}
    left = decay * sum(turns for place, turns in counted.items() if place in now)
    share = left / max(sum(counted.values()), sum(min(turns, 10.0) for turns in now.values()))
    kept = fitted(then, 0).is_kept(fitted(now, days), DAYS)
    assert share >= 0.95 - 1e-9 if kept else share < 0.96 + 1e-9


def test_a_fit_to_nothing_is_not_kept() -> None:
    nothing = Fitted.to([], [], 0, full=False)
    assert not nothing.is_kept(nothing, DAYS)
