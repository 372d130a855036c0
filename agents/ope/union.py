"""Values of policies from clicked items whose rank in every strategy is known: a page earns by the union of its lists.

An item is clicked only if it is among the candidates, whichever strategy brings it, and the more often the fewer
candidates stand before it. Given its rank in every strategy's list, any policy's probability of bringing it at each
place k is known; and how examination e falls from place to place, the clicks tell (see `places`). So the worth of a
logged click stands, under another policy, for

    w = sum over k of P_target(item is a candidate at place k | x) e(k)  /  the same of the logged policy

times that worth: inverse propensity scores of items in place of allocations. Every decision that brings the item
counts, not only those that equal the target's, so this tells of policies far from the logged one, where whole
allocations do not (see `whole`). It assumes that who clicks an item does so whatever else is on the page, that
examination is a power of the place, and that lists are merged in turns. The last two are tested, and where they fail,
the log cannot tell. `backchannel bench coverage` measures how often intervals hold the truth.

Ranks deeper than what was asked have to be looked up. A caller that does so on a coin of known probability gets a turn
that counts by the inverse of it.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.bandit.mixture import places_of
from backchannel.agents.ope.decisions import LoggedDecision, telling
from backchannel.agents.ope.estimators import Diagnosis, SupportError
from backchannel.agents.ope.places import Earnings, Examination, Items
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.outcomes.outcomes import Outcomes
from backchannel.agents.sums import Floats
from backchannel.schemas.events import MAX_PLACES, Impression
from backchannel.schemas.turn import Turn

UNEXPLAINED: Final = 0.01
"""Share of the success, 0 to 1, that may come from elsewhere than clicks on results whose ranks were looked up."""
SENSITIVE: Final = 0.01
"""Share of the value by which it may change with the exponent of examination, if that is as good as unknown."""
DISORDER: Final = 0.05
"""Share of the pairs of results of different ranks, 0 to 1, that may stand in another order than in turns. In simulated
logs, intervals of a gain held the truth in 95% at a share of 6%, and in 85% to 88% at 11%."""
MISFIT: Final = -2.0 * log(0.01)
"""Chi-squared with 2 degrees of freedom, exceeded in 1% of the logs in which clicks fall by a power of the place."""


class Clicked(Struct, frozen=True):
    """A clicked item.

    Attributes:
        ranks: strategy -> rank in its list, from 1; strategies whose lists lack the item are left out.
        places: the probabilities with which the decision brought the item, by place; see `Retrieval.places`.
        stood: its place.
        worth: the share of the turn's success, 0 to 1.
    """

    ranks: dict[str, int]
    places: tuple[float, ...]
    stood: int
    worth: float


class Lookup(Struct, frozen=True):
    """What a turn tells of clicked items.

    Attributes:
        probability: the probability with which ranks are looked up, if they were; 0 if not.
        clicked: the clicked items; none if ranks were not looked up.
        success: of the turn, 0 to 1.
        pairs: number of pairs of results that would stand in a certain order if lists were merged in turns.
        disordered: number of those that stand in the other order.
    """

    probability: float
    clicked: tuple[Clicked, ...]
    success: float
    pairs: int = 0
    disordered: int = 0


def lookups_of(outcomes: Outcomes, turns: Sequence[Turn], rows: Sequence[int]) -> list[Lookup]:
    """Return what logged turns tell of clicked items. The success of a turn is shared by gain.

    Args:
        outcomes: the outcomes of `turns`.
        turns: closed turns.
        rows: indexes of the turns whose decisions are logged; see `decisions.is_logged`.

    Raises:
        SupportError: an item was clicked that by its `places` cannot have been shown.
    """
    impressions = [one for turn in turns for one in turn.impressions]
    telling_ones, names = telling(outcomes.columns), outcomes.columns.pools.entities
    gains = outcomes.gains
    begins, ends = (np.searchsorted(gains.turns, rows, side).tolist() for side in ("left", "right"))
    lookups = []
    for row, begin, end in zip(rows, begins, ends, strict=True):
        shown, success = impressions[telling_ones[row]], float(outcomes.success[row])
        if shown.looked_up is None:
            lookups.append(Lookup(0.0, (), success))
            continue
        own = {names[code]: gain for code, gain in zip(gains.entities[begin:end], gains.gains[begin:end], strict=True)}
        total = sum(own.values())
        stood = {one.entity_id: _place(one.ranks, shown.allocation) for one in shown.results}
        clicked = tuple(
            Clicked(one.ranks, one.places, stood[one.entity_id], success * float(own.pop(one.entity_id)) / total)
            for one in shown.results
            if one.places is not None and stood[one.entity_id] >= 0 and own.get(one.entity_id, 0.0) > 0.0
        )
        if not all(any(one.places) for one in clicked):
            raise SupportError(
                f"query {turns[row].query.query_id}: a result was clicked that by its `places` cannot have been shown; "
                "log what `Policy.retrieval` gives"
            )
        lookups.append(Lookup(shown.looked_up, clicked, success, *_order(shown)))
    return lookups


def items_of(lookups: Sequence[Lookup]) -> Items:
    """Return clicked items as columns."""
    clicked = [(turn, one, lookup.probability) for turn, lookup in enumerate(lookups) for one in lookup.clicked]
    return Items(
        turns=np.array([turn for turn, _, _ in clicked], dtype=np.int64),
        worths=np.array([one.worth / probability for _, one, probability in clicked]),
        logged=_padded([one.places for _, one, _ in clicked]),
        stood=np.array([one.stood for _, one, _ in clicked], dtype=np.int64),
    )


def brought(policy: Replayed, decisions: Sequence[LoggedDecision], lookups: Sequence[Lookup]) -> Floats:
    """Return the probability that a policy brings each of the `items_of` lookups at each place, (items, MAX_PLACES).

    Args:
        policy: the policy to evaluate.
        decisions: logged.
        lookups: what the same turns tell of clicked items.
    """
    return _padded(
        [
            policy.places(decision, one.ranks)
            for decision, lookup in zip(decisions, lookups, strict=True)
            for one in lookup.clicked
        ]
    )


def diagnose(values: Floats, lookups: Sequence[Lookup]) -> Diagnosis:
    """Return what the lookups are good for; `mean` is that of their inverse probabilities, 1 but for chance.

    Args:
        values: see `Earnings`.
        lookups: what the same turns tell of clicked items.
    """
    coins: Floats = np.array([1.0 / one.probability if one.probability else 0.0 for one in lookups])
    total, squares = float(values.sum()), float(values @ values)
    return Diagnosis(
        turns=int((coins > 0).sum()),
        effective=total**2 / squares if squares else 0.0,
        largest=float(values.max(initial=0.0)),
        heaviest=float(values.max(initial=0.0)) / total if total else 0.0,
        mean=float(coins.mean()) if len(coins) else 0.0,
        error=float(coins.std(ddof=1) / np.sqrt(len(coins))) if len(coins) > 1 else float("inf"),
    )


def faults(
    found: Diagnosis, lookups: Sequence[Lookup], earnings: Earnings, examination: Examination, minimum: float
) -> list[str]:
    """Return the reasons why the lookups cannot tell what a policy is worth; none if they can.

    Args:
        found: see `diagnose`.
        lookups: see `lookups_of`.
        earnings: of the policy.
        examination: how clicks depend on places.
        minimum: effective number of turns with a click.
    """
    reasons = []
    # Written so that weights beyond all numbers, of a propensity next to 0, are reasons too.
    if not found.effective >= minimum:
        reasons.append(f"effective number of looked-up clicks {found.effective:.0f} is below {minimum:.0f}")
    if not found.heaviest <= 0.1:
        reasons.append(f"one click has {found.heaviest:.0%} of all weight")
    if abs(found.mean - 1.0) > max(4.0 * found.error, 1e-9):
        reasons.append(
            f"the lookups stand for {found.mean:.2f} of the turns, not for all: `looked_up` must be the probability of "
            "a coin that every query is put to"
        )
    told = [one for one in lookups if one.probability]
    success, explained = sum(one.success for one in told), sum(item.worth for one in told for item in one.clicked)
    if explained < (1.0 - UNEXPLAINED) * success:
        reasons.append(f"{1.0 - explained / success:.0%} of the success is not from clicks on results with `places`")
    pairs, disordered = sum(one.pairs for one in told), sum(one.disordered for one in told)
    if disordered > DISORDER * pairs:
        reasons.append(
            f"{disordered / pairs:.0%} of the pairs of results do not stand by rank, as if lists were merged in turns: "
            "so it is unknown where another allocation would show a clicked item"
        )
    if examination.misfit > MISFIT:
        reasons.append("clicks do not fall by a power of the place: so it is unknown what another place would earn")
    if examination.error > 1.0 and abs(earnings.slopes.sum()) > SENSITIVE * earnings.values.sum():
        reasons.append("clicked items might hardly have stood elsewhere: so it is unknown how much places matter")
    return reasons


def _place(ranks: Mapping[str, int], allocation: Mapping[str, int]) -> int:
    names = allocation.keys() | ranks.keys()
    counts = np.array([allocation.get(name, 0) for name in names])
    return int(places_of(counts, np.array([ranks.get(name, np.inf) for name in names], dtype=float)))


def _order(shown: Impression) -> tuple[int, int]:
    """Return the number of pairs of results of different ranks, and of those that do not stand by rank."""
    drawn = shown.allocation
    placed = sorted((one for one in shown.results if one.places is not None), key=lambda one: one.position)
    ranks = [[rank for name, rank in one.ranks.items() if rank <= drawn.get(name, 0)] for one in placed]
    best = np.array([min(some) for some in ranks if some])
    above = np.triu(np.sign(best[np.newaxis] - best[:, np.newaxis]))
    return int(np.abs(above).sum()), int((above < 0).sum())


def _padded(places: Sequence[Sequence[float]]) -> Floats:
    found = np.zeros((len(places), MAX_PLACES))
    for row, some in enumerate(places):
        found[row, : len(some)] = some
    return found
