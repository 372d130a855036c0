"""What `label export` would tell of simulated sessions, compared with what was meant.

Labels are of two thirds of the sentences, and decide what is sure enough. It is measured on the sessions of the other
third, from which the rephrase detector did not learn either.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np
from msgspec import Struct, structs
from numpy.random import Generator

from backchannel.agents.failures.learner import FailureConfig, FailurePoints
from backchannel.agents.outcomes.rewards import RewardConfig
from backchannel.agents.sums import MemorySums
from backchannel.ops.lab.labels.sessions import Recording, Sessions
from backchannel.ops.lab.rephrases.pairs import assembled
from backchannel.ops.labels.facts import Facts, Judgements, Observer
from backchannel.ops.labels.learned import Goals, Learned, is_same, learned
from backchannel.ops.labels.precision import Precision
from backchannel.schemas.snapshot import Estimate

_SAMPLES: Final = 500  # of sentences, for intervals
_BATCH: Final = 2_000


class Quality(Struct, frozen=True):
    """How good copied interpretations are; intervals of 95% over sentences.

    Attributes:
        copied: number of queries that an interpretation other than their own was copied to.
        precision: the share of these with the right one; None if there are none.
        repaired: the share of failing recordings that were given the right interpretation. Each recording counts once:
            in the session that begins with it.
        repaired_possible: their share among those that are followed by the same sentence, understood.
    """

    copied: int
    precision: Estimate | None
    repaired: Estimate
    repaired_possible: Estimate


class Report(Struct, frozen=True):
    """The evaluation.

    Attributes:
        sentences, utterances, recordings: numbers that are measured on.
        failing: number of recordings that the NLU got wrong.
        possible: number of these that are followed by the same sentence, understood: the most that can be repaired.
        queries: number of queries in all sessions.
        always: copying the next query's interpretation.
        detected: copying it if the next query is more probably a rephrase than not.
        labels: number of queries of the other sentences with a copied interpretation, of whatever confidence.
        exported: declared precision -> number of these that are labelled -> what `label export` does.
    """

    sentences: int
    utterances: int
    recordings: int
    failing: int
    possible: int
    queries: int
    always: Quality
    detected: Quality
    labels: int
    exported: dict[str, dict[int, Quality]]


def evaluate(
    own: Sessions, others: Sessions, declared: Sequence[float], sizes: Sequence[int], rng: Generator
) -> Report:
    """Evaluate the export.

    Args:
        own: the sessions that it is measured on.
        others: sessions of other sentences, of which labels are.
        declared: declared precisions.
        sizes: numbers of labelled queries, drawn at random from those with a copied interpretation.
        rng: the source of randomness.
    """
    asked, goals, for_labels = own.recordings, _goals(own), _goals(others)
    copied = [one.query_id for goal in for_labels for one in learned(goal) if _is_copied(one)]
    copied = [copied[place] for place in rng.permutation(len(copied)).tolist()]
    first = {query.partition("/")[0]: query for query in reversed(asked)}
    failing = [query for query in first.values() if not asked[query].is_understood]

    def quality(copied: dict[str, str]) -> Quality:
        right = {query: is_same(form, asked[query].meant) for query, form in copied.items()}
        possible = [query for query in failing if query in own.possible]
        return Quality(
            copied=len(right),
            precision=_share(asked, right, right) if right else None,
            repaired=_share(asked, failing, right),
            repaired_possible=_share(asked, possible, right),
        )

    return Report(
        sentences=len({one.sentence for one in asked.values()}),
        utterances=len({one.utterance for one in asked.values()}),
        recordings=len(first),
        failing=len(failing),
        possible=len(own.possible.intersection(failing)),
        queries=len(asked),
        always=quality(_next(goals, asked, lambda _: True)),
        detected=quality(_next(goals, asked, lambda one: one.rephrased > 0.5)),
        labels=len(copied),
        exported={
            f"{share:g}": {
                size: quality(_exported(goals, _precision(for_labels, others, copied[:size], share))) for size in sizes
            }
            for share in declared
        },
    )


def _goals(found: Sessions) -> list[list[Facts]]:
    observer = Observer(MemorySums({}), 0, FailurePoints(FailureConfig()), RewardConfig())
    turns, goals = assembled(found.events), Goals()
    ended: list[list[Facts]] = []
    for start in range(0, len(turns), _BATCH):
        for facts in observer.facts(turns[start : start + _BATCH], held_out=True):
            ended += goals.add(facts)
    return [*ended, *goals.finish()]


def _precision(goals: Sequence[list[Facts]], found: Sessions, labelled: Collection[str], declared: float) -> Precision:
    """Return what is sure enough by the labels of some queries."""
    precision, labelled = Precision(declared), set(labelled)
    for goal in goals:
        if any(one.query.query_id in labelled for one in goal):
            precision.check([_labelled(one, found) if one.query.query_id in labelled else one for one in goal])
    return precision


def _labelled(one: Facts, found: Sessions) -> Facts:
    return structs.replace(one, judged=Judgements({}, {found.recordings[one.query.query_id].meant: 1.0}))


def _exported(goals: Sequence[list[Facts]], precision: Precision) -> dict[str, str]:
    """Return query -> the interpretation that is exported, where that is not its own."""
    return {
        one.query_id: one.interpretation.value
        for goal in goals
        for one in map(precision.passing, learned(goal))
        if one.interpretation is not None and _is_copied(one)
    }


def _is_copied(one: Learned) -> bool:
    told = one.interpretation
    return told is not None and not is_same(told.value, one.logged or "")


def _next(goals: Sequence[list[Facts]], asked: dict[str, Recording], wanted: Callable[[Facts], bool]) -> dict[str, str]:
    """Return query -> the interpretation of the next one, where that is another."""
    return {
        one.query.query_id: asked[one.following].form
        for goal in goals
        for one in goal
        if one.following is not None
        and wanted(one)
        and not is_same(asked[one.following].form, asked[one.query.query_id].form)
    }


def _share(asked: dict[str, Recording], queries: Collection[str], right: dict[str, bool]) -> Estimate:
    """Return the share of queries that are right, with an interval of 95%, by drawing sentences."""
    _, place = np.unique([asked[query].sentence for query in queries], return_inverse=True)
    sums, counts = np.bincount(place, [right.get(query, False) for query in queries]), np.bincount(place)
    drawn = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_SAMPLES)
    low, high = np.quantile((drawn @ sums) / np.maximum(drawn @ counts, 1), (0.025, 0.975)).tolist()
    return Estimate(float(sums.sum() / counts.sum()), low, high)
