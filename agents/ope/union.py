"""Values of policies from clicked items whose rank in every strategy is known: a page earns by the union of its lists.

An item is clicked only if it is among the candidates, whichever strategy brings it. Given its rank in every strategy's
list, any policy's probability of that is known. So the worth of a logged click stands, under another policy, for

    w = P_target(item is a candidate | x) / P_logged(item is a candidate | x)

times that worth: inverse propensity scores of items in place of allocations. Every decision that brings the item
counts, not only those that equal the target's, so this tells of policies far from the logged one, where whole
allocations do not (see `whole`). It assumes that who clicks an item does so whatever else is on the page, and wherever
it stands there. Where pages push items down, intervals of a gain are therefore too narrow: `backchannel bench coverage`
measures by how much.

Ranks deeper than what was asked have to be looked up. A caller that does so on a coin of known probability gets a turn
that counts by the inverse of it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.ope.decisions import LoggedDecision, telling
from backchannel.agents.ope.estimators import Diagnosis, SupportError, Terms
from backchannel.agents.ope.whole import Replayed
from backchannel.agents.outcomes import Outcomes
from backchannel.agents.sums import Floats
from backchannel.schemas.turn import Turn

UNEXPLAINED: Final = 0.01
"""Share of the success, 0 to 1, that may come from elsewhere than clicks on results whose ranks were looked up."""


class Clicked(Struct, frozen=True):
    """A clicked item.

    Attributes:
        ranks: strategy -> rank in its list, from 1; strategies whose lists lack the item are left out.
        propensity: the probability with which the decision brought the item, 0 to 1.
        worth: the share of the turn's success, 0 to 1.
    """

    ranks: dict[str, int]
    propensity: float
    worth: float


class Lookup(Struct, frozen=True):
    """What a turn tells of clicked items.

    Attributes:
        probability: the probability with which ranks are looked up, if they were; 0 if not.
        clicked: the clicked items; none if ranks were not looked up.
        success: of the turn, 0 to 1.
    """

    probability: float
    clicked: tuple[Clicked, ...]
    success: float


def lookups_of(outcomes: Outcomes, turns: Sequence[Turn], rows: Sequence[int]) -> list[Lookup]:
    """Return what logged turns tell of clicked items. The success of a turn is shared by gain.

    Args:
        outcomes: the outcomes of `turns`.
        turns: closed turns.
        rows: indexes of the turns whose decisions are logged; see `decisions.is_logged`.

    Raises:
        SupportError: an item was clicked that by its propensity cannot have been shown.
    """
    impressions = [one for turn in turns for one in turn.impressions]
    places, names = telling(outcomes.columns), outcomes.columns.pools.entities
    gains = outcomes.gains
    begins, ends = (np.searchsorted(gains.turns, rows, side).tolist() for side in ("left", "right"))
    lookups = []
    for row, begin, end in zip(rows, begins, ends, strict=True):
        shown, success = impressions[places[row]], float(outcomes.success[row])
        if shown.looked_up is None:
            lookups.append(Lookup(0.0, (), success))
            continue
        own = {names[code]: gain for code, gain in zip(gains.entities[begin:end], gains.gains[begin:end], strict=True)}
        total = sum(own.values())
        clicked = tuple(
            Clicked(one.ranks, one.propensity, success * float(own.pop(one.entity_id)) / total)
            for one in shown.results
            if one.propensity is not None and own.get(one.entity_id, 0.0) > 0.0
        )
        if any(not one.propensity for one in clicked):
            raise SupportError(
                f"query {turns[row].query.query_id}: a result was clicked whose propensity is 0; log what "
                "`Policy.retrieval` gives"
            )
        lookups.append(Lookup(shown.looked_up, clicked, success))
    return lookups


def earned(policy: Replayed, decisions: Sequence[LoggedDecision], lookups: Sequence[Lookup]) -> Terms:
    """Return terms, one for each turn, whose mean estimates the success of a policy's turns.

    Args:
        policy: the policy to evaluate.
        decisions: logged.
        lookups: what the same turns tell of clicked items.
    """
    values = np.zeros(len(decisions))
    for place, (decision, lookup) in enumerate(zip(decisions, lookups, strict=True)):
        values[place] = sum(
            one.worth * policy.retrieval(decision, one.ranks) / one.propensity / lookup.probability
            for one in lookup.clicked
        )
    return Terms(values, 0.0, float(values.max(initial=0.0)))


def diagnose(terms: Terms, lookups: Sequence[Lookup]) -> Diagnosis:
    """Return what the lookups are good for; `mean` is that of their inverse probabilities, 1 but for chance."""
    coins: Floats = np.array([1.0 / one.probability if one.probability else 0.0 for one in lookups])
    total, squares = float(terms.values.sum()), float(terms.values @ terms.values)
    return Diagnosis(
        turns=int((coins > 0).sum()),
        effective=total**2 / squares if squares else 0.0,
        largest=float(terms.values.max(initial=0.0)),
        heaviest=float(terms.values.max(initial=0.0)) / total if total else 0.0,
        mean=float(coins.mean()) if len(coins) else 0.0,
        error=float(coins.std(ddof=1) / np.sqrt(len(coins))) if len(coins) > 1 else float("inf"),
    )


def faults(found: Diagnosis, lookups: Sequence[Lookup], minimum: float) -> list[str]:
    """Return the reasons why the lookups cannot tell what a policy is worth; none if they can.

    Args:
        found: see `diagnose`.
        lookups: see `lookups_of`.
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
        reasons.append(
            f"{1.0 - explained / success:.0%} of the success is not from clicks on results with a propensity"
        )
    return reasons
