"""When to ask: whether an answer was what somebody wanted, or what they mean.

Asking too much hurts. So nobody is asked unless the configuration says so; how often a user is asked in a day is
bounded (see `budget`); and the probability of each question is known, and logged, so that its answer can count by its
inverse. Turns that must not be asked about have the probability 0: no answer stands for them.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.satisfaction.budget import Budget
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.schemas.events import Query, Rule
from backchannel.schemas.turn import Turn

OFFERED: Final = 3
"""Candidates of a question what is meant, at most; with fewer than two, it is not asked."""
_LEAST: Final = 0.1
"""The share of `ask.probability` with which even a turn is asked about of which the prediction is sure."""
_UNKNOWN: Final = 0.5


class AskConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When people are asked."""

    probability: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="largest probability of a question whether an answer was what somebody wanted: that of a turn "
            "which may go either way or, more likely, was a defect. 0: it is never asked",
        ),
    ] = 0.0
    teach: Annotated[
        float, Meta(ge=0, le=1, description="probability of a question what is meant, where it would help; 0: never")
    ] = 0.0
    per_day: Annotated[
        int,
        Meta(ge=1, le=96, description="most questions to one user in a day (UTC), one in each of as many windows"),
    ] = 1
    replicas: Annotated[
        int, Meta(ge=1, le=10_000, description="number of hosts that serve; each user is asked by one at a time")
    ] = 1
    replica: Annotated[
        int, Meta(ge=0, le=9_999, description="which of the `replicas` this is, from 0; no two may be the same")
    ] = 0

    def __post_init__(self) -> None:
        if self.replica >= self.replicas:
            raise ValueError(f"replica: {self.replica} must be less than replicas, {self.replicas}")


class Question(Struct, frozen=True):
    """A question to ask with the answer of a query.

    Attributes:
        kind: "satisfaction": whether the answer was what they wanted; "teach": what they mean.
        propensity: the probability that it is asked.
        offers: for "teach", the rules to choose from, the best first; what is chosen is sent as a `teach` event.
    """

    kind: Literal["satisfaction", "teach"]
    propensity: float
    offers: tuple[Rule, ...] = ()


def is_teachable(query: Query, probability: float | None, *, rewritten: bool) -> bool:
    """Return whether it would help to be told what is meant.

    It would if the session repeats a request, if the last answer was told to be wrong, or if the query probably fails
    and there is no rewrite of it.

    Args:
        query: the query, with what happened before.
        probability: the probability that somebody will be satisfied; None: unknown.
        rewritten: whether a rewrite is served.
    """
    earlier = query.earlier
    if earlier is not None and (earlier.repeats or (earlier.answer is not None and earlier.answer < _UNKNOWN)):
        return True
    return not rewritten and probability is not None and probability < _UNKNOWN


def chance(config: AskConfig, probability: float | None) -> float:
    """Return the probability of a question about satisfaction, given the probability that somebody is satisfied."""
    likely = _UNKNOWN if probability is None else probability
    worth = max(4.0 * likely * (1.0 - likely), 1.0 - likely)
    return config.probability * max(worth, _LEAST)


class Asker:
    """Decides when to ask.

    Args:
        config: when people are asked.
        budget: how often a user may be asked.
    """

    def __init__(self, config: AskConfig, budget: Budget) -> None:
        self.config: Final = config
        self.budget: Final = budget

    def ask(
        self,
        satisfaction: Satisfaction,
        query: Query,
        now: int,
        rng: np.random.Generator,
        *,
        offers: Sequence[Rule] = (),
        rewritten: bool = False,
    ) -> Question | None:
        """Return the question to ask with the answer of a query; None: none.

        Args:
            satisfaction: what predicts satisfaction, of the policy.
            query: the query, with what happened before; without a `user_id`, nothing is asked.
            now: the time, ms since the Unix epoch.
            rng: the source of randomness.
            offers: the rules that somebody who is asked what they mean can choose from, the best first.
            rewritten: whether a rewrite is served.
        """
        config, user = self.config, query.user_id
        if user is None or not (config.probability or config.teach) or not self.budget.allows(user, now):
            return None
        probability = satisfaction.predict(Turn(query))
        teach = config.teach if len(offers) > 1 and is_teachable(query, probability, rewritten=rewritten) else 0.0
        other = (1.0 - teach) * chance(config, probability)
        drawn = rng.random()
        if drawn >= teach + other or not self.budget.spend(user, now):
            return None
        if drawn < teach:
            return Question("teach", teach, tuple(offers[:OFFERED]))
        return Question("satisfaction", other)
