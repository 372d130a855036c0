"""The ranker of online rewrites, fitted to pairs of which it is known whether they are wins or losses."""

from collections.abc import Iterable
from typing import Final

from msgspec import structs

from backchannel.agents.rewrites.fitting import Known, calibrated, fit, scores_of
from backchannel.agents.rewrites.likeness import HYPOTHESIS, NAMES
from backchannel.agents.rewrites.ranker import Ranker
from backchannel.agents.sums import Booleans, Floats

HEARD: Final = [name for name in NAMES if name != HYPOTHESIS]
"""The numbers by which everybody's queries are ranked where there are no hypotheses."""


class Pairs(Known, frozen=True):
    """Queries and their candidates.

    Each is described by the numbers of `likeness.NAMES` or, if the candidates are habits, of `habitual.NAMES`. The fold
    is that of the query's sentence.

    Attributes:
        allowed: whether no veto holds, (pairs,).
        first: RapidFuzz's ratio, 0 to 100, if the candidate is the most similar text of all, else 0, (pairs,).
    """

    allowed: Booleans
    first: Floats


def train_ranker(pairs: Pairs, rows: Booleans) -> Ranker:
    """Return a ranker of everybody's queries fitted to some pairs, (pairs,), with the odds' lower bounds."""
    return calibrated(pairs.of(rows, _columns(HEARD)), HEARD)


def fit_hypotheses(ranker: Ranker, pairs: Pairs, rows: Booleans) -> Ranker:
    """Return the weights of the recogniser's hypotheses that some pairs, (pairs,), add to a ranker's score."""
    scores = score(ranker, without_hypotheses(pairs.numbers[rows]))
    return fit(pairs.of(rows, _columns([HYPOTHESIS])), [HYPOTHESIS], scores)


def without_hypotheses(numbers: Floats) -> Floats:
    """Return the numbers of pairs, (pairs, numbers), as if there were no hypotheses."""
    unknown = numbers.copy()
    unknown[:, NAMES.index(HYPOTHESIS)] = -1.0
    return unknown


def joined(ranker: Ranker, other: Ranker) -> Ranker:
    """Return a ranker with the weights of another one in place of its own, in the order of a pair's numbers."""
    edges, weights = {**ranker.edges, **other.edges}, {**ranker.weights, **other.weights}
    names = [name for name in NAMES if name in edges]
    return structs.replace(
        ranker, edges={name: edges[name] for name in names}, weights={name: weights[name] for name in names}
    )


def score(ranker: Ranker, numbers: Floats) -> Floats:
    """Return the scores of pairs of everybody's queries described by `numbers`, (pairs, numbers)."""
    return scores_of(ranker, numbers[:, _columns(ranker.edges)])


def module(everybody: Ranker) -> str:
    """Return the source of `likeness_weights`."""
    return f'''"""The numbers of the ranker of online rewrites.

`backchannel rephrases online --write` wrote them: do not edit.

They are fitted to spoken English commands (slurp_pipeline; those of hypotheses: dstc2), and say nothing about other
queries.
"""

from typing import Final

from backchannel.agents.rewrites.ranker import Ranker

# ruff: noqa: E501
# fmt: off
EVERYBODY: Final = {_source(everybody)}
"""Ranks queries of everybody."""
'''


def _columns(names: Iterable[str]) -> list[int]:
    return [NAMES.index(name) for name in names]


def _source(ranker: Ranker) -> str:
    edges = "".join(f'        "{name}": {list(some)},\n' for name, some in ranker.edges.items())
    weights = "".join(f'        "{name}": {list(some)},\n' for name, some in ranker.weights.items())
    curve = "".join(f"        {one},\n" for one in ranker.curve)
    return f"Ranker(\n    {ranker.constant},\n    {{\n{edges}    }},\n    {{\n{weights}    }},\n    (\n{curve}    ),\n)"
