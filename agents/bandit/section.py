"""The bandit's section of a policy: its rows, as `StrategyBandit.solve` writes them and `Allocator` reads them."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from backchannel.agents.bandit.features import Feature
from backchannel.agents.bandit.planner import MAX_BUDGET

Exploration: TypeAlias = Literal["thompson", "greedy", "squarecb", "ucb", "uniform"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of what a strategy is asked for."""

    minimum: Annotated[int, Meta(ge=0, le=MAX_BUDGET)] = 0
    maximum: Annotated[int, Meta(ge=1, le=MAX_BUDGET)] = MAX_BUDGET
    cost: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    on: bool = True

    def __post_init__(self) -> None:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum: {self.minimum} candidates are more than the maximum, {self.maximum}")


class Segment(Struct, frozen=True, array_like=True):
    """The performance of a strategy on the queries with a listed value, or on all.

    Attributes:
        name: name of the column of features; empty for all queries.
        turns: number of turns in which it was asked, discounted.
        share: share of these turns among those of all strategies, 0 to 1.
        reward: its expected reward, averaged over these turns.
        deviation: standard deviation of that expectation.
    """

    name: str
    turns: float
    share: float
    reward: float
    deviation: float


class Settings(Struct, frozen=True):
    features: tuple[Feature, ...]
    encoding: str
    strategies: tuple[str, ...]
    policy: Exploration
    exploration: float
    floor: float
    limits: tuple[Limits, ...]
    elasticities: list[float]
    elasticities_whitener: list[list[float]]
    changed: int | None = None
    worth: dict[str, float] = {}


class Row(Struct, frozen=True):
    """The posterior of one strategy; see `belief.Belief`, and `plans.references` for the rest."""

    count: float
    reward: float
    clicks: list[float]
    rates: list[float]
    prior: list[float]
    theta: list[float]
    whitener: list[list[float]]
    hazards: list[list[list[float]]]
    shown: list[list[list[float]]]
    available: list[float]
    gram: list[list[float]]
    cover: list[float]
    segments: list[Segment]
    evident: list[float] = []  # empty in policies that were made before there was one


def with_worth(section: Mapping[str, bytes | None], worth: Mapping[str, float]) -> dict[str, bytes | None]:
    """Return the rows that `StrategyBandit.solve` wrote, with what a success of each strategy is worth.

    Args:
        section: the rows.
        worth: strategy -> the worth of its successes, above 0; only ratios matter. Other strategies' are worth 1.
    """
    settings = section.get("")
    if settings is None or not worth:
        return dict(section)
    return {**section, "": msgspec.json.encode({**msgspec.json.decode(settings), "worth": worth})}
