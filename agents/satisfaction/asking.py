"""When to ask: whether an answer was what somebody wanted, or what they mean.

Asking too much hurts. So nobody is asked unless the configuration says so; how often a user is asked in a day is
bounded (see `budget`); and the probability of each question is known, and logged, so that its answer can count by its
inverse. Turns that must not be asked about have the probability 0: no answer stands for them.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.satisfaction.budget import Budget
from backchannel.agents.satisfaction.serving import Satisfaction
from backchannel.schemas.events import Event, Feedback, Query, Rule, Teach
from backchannel.schemas.turn import Turn

Kind: TypeAlias = Literal["satisfaction", "teach"]
"""What a question asks: whether the answer was what somebody wanted, or what they mean."""

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
        kind: what it asks.
        propensity: the probability that it is asked.
        offers: for "teach", the rules to choose from, the best first; what is chosen is sent as a `teach` event.
    """

    kind: Kind
    propensity: float
    offers: tuple[Rule, ...] = ()


def answered(event: Event) -> Kind | None:
    """Return what kind of question an event answers; None: none."""
    if isinstance(event, Feedback):
        return "satisfaction" if event.asked else None
    return "teach" if isinstance(event, Teach) and event.asked else None


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
        question = self.draw(satisfaction, query, rng, offers=lambda: offers, rewritten=rewritten)
        return question if question is not None and self.spend(query, now) else None

    def draw(
        self,
        satisfaction: Satisfaction,
        query: Query,
        rng: np.random.Generator,
        *,
        offers: Callable[[], Sequence[Rule]],
        rewritten: bool,
    ) -> Question | None:
        """Return the question that `ask` returns if the budget allows one; `spend` says whether it does.

        Args: as those of `ask`, but `offers` returns the rules; it is called only if they are needed.
        """
        config = self.config
        drawn = rng.random()
        if query.user_id is None or drawn >= config.teach + (1.0 - config.teach) * config.probability:
            return None  # whatever is predicted
        probability = satisfaction.predict(Turn(query))
        teachable = config.teach and is_teachable(query, probability, rewritten=rewritten)
        found = tuple(offers()[:OFFERED]) if teachable else ()
        teach = config.teach if len(found) > 1 else 0.0
        other = (1.0 - teach) * chance(config, probability)
        if drawn < teach:
            return Question("teach", teach, found)
        return Question("satisfaction", other) if drawn < teach + other else None

    def spend(self, query: Query, now: int) -> bool:
        """Count a question at `now`, ms since the Unix epoch; False: the budget allows none."""
        return query.user_id is not None and self.budget.spend(query.user_id, now)
