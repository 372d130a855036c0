"""When whole sessions decide a trial, and how often they decide it wrongly, in simulated sessions."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from backchannel.agents.horizon.rest import Walks
from backchannel.agents.ope.followed import sessions_gain
from backchannel.agents.ope.gate import GateConfig, keeps_sessions
from backchannel.agents.sums import Floats, Keys
from backchannel.ops.lab.bench.measure import Load, Measure

TRIALS: Final = 60
"""Number of trials per round."""
LOOKS: Final = (50, 75, 100, 150, 200, 300, 400, 500, 700, 900, 1200, 1600, 2000, 2500, 3000, 4000, 5000, 6000)
"""Numbers of people, one session each, after which one looks."""
TURNS: Final = 12
"""The most turns of a session."""
CLICKED: Final = 0.4
LEAVE: Final = 1.0 / 3.0
"""The probabilities of a click, and that a session ends after a turn."""
POLICIES: Final = {
    "to no effect": (1.0, 0.0),
    "clicked 30% more": (1.3, 0.0),
    "clicked 30% more, and 30 points more leave": (1.3, 0.3),
    "clicked as much, and 15 points more leave": (1.0, 0.15),
}
"""What the policy on trial multiplies the probability of a click by, and adds to that of leaving."""


def trials(load: Load) -> Iterator[Measure]:
    """Yield how many trials whole sessions decide, and after how many people."""
    config, many = GateConfig(), TRIALS * load.rounds
    for name, effect in POLICIES.items():
        load.say(name)
        held, safe, gains = [], [], []
        for seed in range(many):
            walks, scores = _played(LOOKS[-1], *effect, np.random.default_rng(seed))
            looks = [(most, *_first(walks, scores, most)) for most in LOOKS]
            found = [(most, sessions_gain(own, score, 1.0, config.confidence)) for most, own, score in looks]
            held.append(next((most for most, one in found if one.high < -config.harm), np.inf))
            safe.append(next((most for most, one in found if keeps_sessions(one, config)), np.inf))
            gains.append(found[-1][1].value)
        first = np.less(safe, held)
        yield Measure(f"{name}: what sessions bring", 100 * float(np.mean(gains)), "% more")
        yield Measure(f"{name}: held", 100 * float(np.isfinite(held).mean()), "%")
        yield Measure(f"{name}: judged safe before", 100 * float(first.mean()), "%")
        for what, some in (("held", held), ("judged safe", safe)):
            yield Measure(f"{name}: median until {what}, if at all", float(np.median(some)), "people")


def _played(sessions: int, clicks: float, leave: float, rng: np.random.Generator) -> tuple[Walks, Floats]:
    """Return sessions whose turns are decided by the toss of a coin, and the scores of the decisions, (turns,)."""
    own = rng.random((sessions, TURNS)) < 0.5
    success = rng.random(own.shape) < CLICKED * np.where(own, clicks, 1.0)
    stays = rng.random(own.shape) >= LEAVE + leave * own
    there = np.column_stack((np.ones(sessions, dtype=bool), stays[:, :-1].cumprod(axis=1) > 0))
    people, place = np.nonzero(there)
    nothing = np.zeros(0, dtype=np.int64)
    walks = Walks(
        keys=Keys([], [], []),
        people=people,
        times=np.arange(len(people)),
        place=place,
        left=there.sum(axis=1)[people] - place - 1,
        ended=np.ones(len(people), dtype=bool),
        success=success[there].astype(float),
        strategies=[],
        turn=nothing,
        strategy=nothing,
        shares=np.zeros(0),
        own=np.zeros(0),
    )
    return walks, np.where(own[there], 2.0, -2.0)


def _first(walks: Walks, scores: Floats, people: int) -> tuple[Walks, Floats]:
    """Return the turns of the first so many people, and their scores."""
    end = int(np.searchsorted(walks.people, people))
    arrays = {name: getattr(walks, name)[:end] for name in ("people", "times", "place", "left", "ended", "success")}
    return walks._replace(**arrays), scores[:end]
