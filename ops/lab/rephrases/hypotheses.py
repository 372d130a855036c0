"""Evidence on a recogniser's hypotheses (n-best lists): the calls of DSTC2, with ten hypotheses and their scores.

Callers are split into halves: one is the index, the other asks, and then the other way round. Wins, losses and defects
are as in `online`; the NLU had all hypotheses, too. Of the ranker only the weights of hypotheses are fitted here, to
four fifths of the sentences, and applied to the last fifth. All others, and the odds, are those that are served, fitted
to SLURP.
"""

from typing import Final

import numpy as np
from msgspec import Struct

from backchannel.agents.rewrites.likeness import HABIT_NAMES, HYPOTHESIS
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.sums import Floats
from backchannel.ops.lab.rephrases.online import FIXED, FOLDS, Gathered, fixed_of, least_of
from backchannel.ops.lab.rephrases.ranker import Pairs, best_of, fit_hypotheses, joined, score

_PLACE: Final = HABIT_NAMES.index(HYPOTHESIS)


class Outcome(Struct, frozen=True):
    """What one way of rewriting calls does.

    Attributes:
        name: the way.
        fixed: the shares of defects fixed at the best thresholds with at least `online.ODDS` wins per loss, 0 to 1.
        wins, losses: the counts at the threshold that was fixed beforehand.
    """

    name: str
    fixed: tuple[float, ...]
    wins: int
    losses: int


def judge_calls(found: Gathered, unheard: Gathered, odds: float) -> list[Outcome]:
    """Compare ways of rewriting.

    Args:
        found: the pairs of the calls' queries.
        unheard: those without hypotheses.
        odds: wins per loss, at least.
    """
    pairs = found.pairs
    likelihood = pairs.numbers[:, _PLACE]
    scores = np.empty(len(pairs.query))
    for fold in range(FOLDS):
        test = pairs.fold == fold
        ranker = joined(EVERYBODY, fit_hypotheses(EVERYBODY, pairs, pairs.allowed & ~test))
        scores[test] = score(ranker, pairs.numbers[test])
    least, bound = least_of(EVERYBODY.curve, odds), f"at a lower bound of {odds:g}:1"
    similar = np.where(pairs.first > 0, pairs.first, -np.inf)
    return [
        _outcome(f"RapidFuzz ratio, fixed at {FIXED:.0f}, with vetoes", similar, FIXED, found),
        _outcome("likeliest hypothesis that succeeds", np.where(likelihood > 0, likelihood, -np.inf), 0.0, found),
        _outcome(f"ranked without hypotheses, {bound}", score(EVERYBODY, unheard.pairs.numbers), least, unheard),
        _outcome(f"ranked with hypotheses, {bound}", scores, least, found),
    ]


def _outcome(name: str, values: Floats, least: float, found: Gathered) -> Outcome:
    pairs: Pairs = found.pairs
    best = best_of(np.where(pairs.allowed, values, -np.inf), pairs.query)
    fixed = fixed_of(values[best], pairs.win[best], pairs.loss[best], int(found.defects.sum()))
    served = best[values[best] >= least]
    return Outcome(name, fixed, int(pairs.win[served].sum()), int(pairs.loss[served].sum()))
