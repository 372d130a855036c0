"""`backchannel allocate`: what the policy asks the strategies for, and why."""

from collections.abc import Mapping
from contextlib import closing
from typing import Final

import click
import msgspec
import numpy as np
from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.table import Table

from backchannel.agents.bandit.decision import StrategyContext
from backchannel.agents.bandit.features import Value, context_of
from backchannel.ops.options import json_option, seed_option, store_option
from backchannel.ops.terminal import console, print_json
from backchannel.schemas.events import Context, Query
from backchannel.streams.serving.policy import Policy
from backchannel.streams.serving.reader import PolicyReader

DRAWS: Final = 100
_WIDTH: Final = 160


class Choice(Struct, frozen=True):
    """A strategy's expected reward for a query with its standard deviation, and its part of the allocation.

    Attributes:
        strategy: the strategy.
        reward, deviation: the expected reward and its standard deviation.
        propensity: probability that it is asked; None if nothing is left to chance.
        expected: mean number of its candidates over `DRAWS` draws.
        candidates: number of its candidates in one draw.
        terms: column of features -> what it adds to `reward`; "1" is the reward where all others are zero.
    """

    strategy: str
    reward: float
    deviation: float
    propensity: float | None
    expected: float
    candidates: int
    terms: dict[str, float]


def choices(
    policy: Policy, context: Mapping[str, Value], history: StrategyContext, budget: int, rng: np.random.Generator
) -> list[Choice]:
    """Return what a policy expects of each strategy in a context, and how it allocates a budget.

    Args:
        policy: the policy.
        context: the query's context, and the user's features.
        history: see `Policy.history`.
        budget: the number of candidates to draw.
        rng: the source of randomness.

    Raises:
        ValueError: the budget is too large, or less than the strategies' minima.
    """
    draws = [policy.allocate(context, budget, rng, history) for _ in range(DRAWS)]
    decision, terms = draws[0], policy.allocator.terms(context, history)
    return [
        Choice(
            name,
            mean,
            deviation,
            decision.propensities.get(name),
            sum(one.allocation.get(name, 0) for one in draws) / DRAWS,
            decision.allocation.get(name, 0),
            terms[name],
        )
        for name, (mean, deviation) in policy.utilities(context, history).items()
    ]


@click.command("allocate")
@click.argument("text", metavar="QUERY")
@click.option("--budget", type=click.IntRange(1), default=20, show_default=True, help="Number of candidates to draw.")
@click.option("--context", default="{}", metavar="JSON", help="The query's context, as in its event.")
@click.option("--user", help="A user_id, whose features count if the bandit has some.")
@seed_option
@store_option
@json_option
def allocate(*, text: str, budget: int, context: str, user: str | None, seed: int, store: str, as_json: bool) -> None:
    """Show which strategies the newest policy asks for QUERY, and what each feature adds to their expected rewards.

    Expected rewards are of a strategy asked as deep as usual, alone. An allocation also goes by what strategies bring
    beside each other, and of several candidates only by features in which strategies evidently differ. Features of
    the time are those of 1970-01-01, midnight, unless the context has them.
    """
    try:
        known = msgspec.json.decode(context, type=Context)
    except msgspec.MsgspecError as error:
        raise click.UsageError(f'--context {context!r}: {error}; write it as {{"device": "car"}}') from None
    with closing(PolicyReader(store)) as reader:
        policy = reader.policy
    rewriting = policy.rewrite(text, user=user)
    asked = Query(event_id="-", ts=0, session_id="-", query_id="-", text=text, context=known)
    whole = {**context_of(asked), **known, **policy.of_user(user)}
    history = policy.history(rewriting.target if rewriting else text)
    try:
        found = choices(policy, whole, history, budget, np.random.default_rng(seed))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        print_json(found)
        return
    table = Table(
        "strategy",
        "expected reward",
        "asked with",
        "candidates, expected",
        "in one draw",
        "made up of",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in table.columns[1:5]:
        column.justify = "right"
    for one in found:
        table.add_row(
            one.strategy,
            f"{one.reward:.3f} ± {one.deviation:.3f}",
            "" if one.propensity is None else f"{one.propensity:.0%}",
            f"{one.expected:.1f}",
            f"{one.candidates}",
            _words(one.terms),
        )
    console(_WIDTH).print(table)


def _words(terms: Mapping[str, float]) -> str:
    """Return the terms: first that of no feature, then those that add or take most."""
    ordered = sorted(terms, key=lambda name: -abs(terms[name]))
    others = [f"{terms[name]:+.3f} {name}" for name in ordered if name != "1"]
    return " ".join([f"{terms.get('1', 0.0):.3f}", *others])
