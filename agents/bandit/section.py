"""The bandit's section of a policy: its rows, as `StrategyBandit.solve` writes them and `Allocator` reads them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct

from backchannel.agents.bandit.features import DERIVED, HISTORY, Cross, Encoder, Feature
from backchannel.agents.bandit.planner import MAX_BUDGET
from backchannel.agents.bandit.users import USER_FEATURES

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


class Unseen(Struct, frozen=True):
    """Configured names that no learned turn has, which may be misspelled.

    Attributes:
        strategies: the strategies that may be asked and were not; empty if none ever was.
        features: the features of contexts that were not, or only at their center, in any turn; empty if nothing was
            learned.
    """

    strategies: list[str] = []
    features: list[str] = []


def unseen(section: Mapping[str, bytes]) -> Unseen:
    """Return the names that the section of a policy has, and no turn that it was learned from.

    Raises:
        msgspec.MsgspecError: the section's rows cannot be read.
    """
    settings = msgspec.json.decode(section[""], type=Settings)
    rows = [msgspec.json.decode(section[name], type=Row) for name in settings.strategies]
    if not any(row.count for row in rows):
        return Unseen()
    asked = zip(settings.strategies, settings.limits, rows, strict=True)
    return Unseen(
        [name for name, limits, row in asked if limits.on and not row.count],
        unseen_features(Encoder(settings.features), rows),
    )


def unseen_features(encoder: Encoder, rows: Sequence[Row]) -> list[str]:
    """Return the features of contexts that were not, or only at their center, in any turn that was learned."""
    varied = np.any([np.diagonal(row.gram) > 0 for row in rows], axis=0)  # columns not always zero
    given = {*DERIVED, HISTORY, *USER_FEATURES}  # by Backchannel itself
    own = [one.name for one in encoder.features if not isinstance(one, Cross) and one.name not in given]
    return [name for name in own if not varied[encoder.places[name]].any()]


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
