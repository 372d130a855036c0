"""Evidence on a recogniser's hypotheses (n-best lists): the calls of DSTC2, with ten hypotheses and their scores.

Callers are split into halves: one is the index, the other asks, and then the other way round. Wins, losses and defects
are as in `online`; the NLU had all hypotheses, too. Of the ranker only the weights of hypotheses are fitted here, to
four fifths of the sentences, and applied to the last fifth. All others, and the odds, are those that are served, fitted
to SLURP; or, in the last way, fitted anew from the other half's calls as it is when a version is published (see
`agents.rewrites.training`), where who goes on to something else is content.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct, structs

from backchannel.agents.columnar.interning import columns_of
from backchannel.agents.outcomes.judge import Judge
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.rewrites.config import RephraseConfig
from backchannel.agents.rewrites.fitting import best_of
from backchannel.agents.rewrites.learner import RephraseGraph
from backchannel.agents.rewrites.likeness import HYPOTHESIS, NAMES
from backchannel.agents.rewrites.likeness_weights import EVERYBODY
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.rewrites.rows import Settings
from backchannel.agents.sums import ALL, Floats, MemorySums
from backchannel.ops.lab.rephrases.online import FIXED, FOLDS, Gathered, fixed_of, least_of
from backchannel.ops.lab.rephrases.pairs import assembled, dialogues
from backchannel.ops.lab.rephrases.ranker import Pairs, fit_hypotheses, joined, score, without_hypotheses
from backchannel.ops.lab.rephrases.recordings import half_of
from backchannel.schemas.events import Query
from backchannel.schemas.turn import Turn

_CONTENT: Final = 0.5  # the success of a query without a click, if the session goes on with another one


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


def judge_calls(found: Gathered, unheard: Gathered, rankers: tuple[Ranker, Ranker], odds: float) -> list[Outcome]:
    """Compare ways of rewriting.

    Args:
        found: the pairs of the calls' queries.
        unheard: those without hypotheses.
        rankers: what was trained on the index of each half; see `trained_on`.
        odds: wins per loss, at least.
    """
    pairs = found.pairs
    likelihood, blank = pairs.numbers[:, NAMES.index(HYPOTHESIS)], without_hypotheses(pairs.numbers)
    heard = np.empty(len(pairs.query))  # what hypotheses add to a score
    for fold in range(FOLDS):
        test = pairs.fold == fold
        ranker = joined(EVERYBODY, fit_hypotheses(EVERYBODY, pairs, pairs.allowed & ~test))
        heard[test] = score(ranker, pairs.numbers[test]) - score(ranker, blank[test])

    def anew(some: Gathered, numbers: Floats) -> Floats:
        return np.where(some.half[some.pairs.query] == 0, *(score(one, numbers) for one in rankers))

    least, bound = least_of(EVERYBODY.curve, odds), f"at a lower bound of {odds:g}:1"
    similar, numbers = np.where(pairs.first > 0, pairs.first, -np.inf), unheard.pairs.numbers
    return [
        _outcome(f"RapidFuzz ratio, fixed at {FIXED:.0f}, with vetoes", similar, FIXED, found),
        _outcome("likeliest hypothesis that succeeds", np.where(likelihood > 0, likelihood, -np.inf), 0.0, found),
        _outcome(f"ranked without hypotheses, {bound}", score(EVERYBODY, numbers), least, unheard),
        _outcome("the same, trained when published", anew(unheard, numbers), least, unheard),
        _outcome(f"ranked with hypotheses, {bound}", score(EVERYBODY, blank) + heard, least, found),
        _outcome("the same, trained when published", anew(found, blank) + heard, least, found),
    ]


def trained_on(folder: Path) -> tuple[Ranker, Ranker]:
    """Return the rankers that were trained on the calls of each half's index, as they are when published."""
    turns = [
        structs.replace(one, query=_as_text(one.query), next=one.next and _as_text(one.next))
        for one in assembled(dialogues(folder))
    ]
    first, second = (_trained([one for one in turns if half_of(one.query.user_id or "") != half]) for half in (0, 1))
    return first, second


def _trained(turns: Sequence[Turn]) -> Ranker:
    graph = RephraseGraph(RephraseConfig(online_odds=12.0))
    delta = graph.learn(Judge(RewardConfig(unclicked_gain=_CONTENT)).judge(columns_of(turns)))
    section = graph.solve(MemorySums(delta), {}, max(one.query.ts for one in turns))
    return msgspec.json.decode(section[ALL] or b"", type=Settings).ranker or EVERYBODY


def _as_text(query: Query) -> Query:
    return structs.replace(query, interpretation=None, nlu=None, asr=None)


def _outcome(name: str, values: Floats, least: float, found: Gathered) -> Outcome:
    pairs: Pairs = found.pairs
    best = best_of(np.where(pairs.allowed, values, -np.inf), pairs.query)
    fixed = fixed_of(values[best], pairs.win[best], pairs.loss[best], int(found.defects.sum()))
    served = best[values[best] >= least]
    return Outcome(name, fixed, int(pairs.win[served].sum()), int(pairs.loss[served].sum()))
